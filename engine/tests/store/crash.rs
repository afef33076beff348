//! Killed processes and power cuts.
use super::support::*;
