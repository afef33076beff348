//! The files in `orbit/` can be deleted or damaged at any time; they are made again.
use super::support::*;
