//! The numbers of the protocol: what is asked, and how it was answered.

pub mod request;
pub mod response;
