//! What operators ask for: topics, groups, settings, figures.

mod attributes;
pub mod groups;
pub mod retention;
pub mod runtime;
pub mod settings;
pub mod stats;
pub mod topics;
