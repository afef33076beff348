//! The two spellings of JSON in RocketMQ.
//!
//! Fastjson 1 leaves number keys of maps unquoted (`{0:"addr"}`) and writes objects where a key
//! should be; newer peers ask for strict JSON. [`to_vec`] writes either, [`lenient`] turns the
//! loose form into the strict one so that one parser reads both.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

mod dialect;
mod lenient;

pub use dialect::{Dialect, to_vec};
pub use lenient::lenient;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
#[error("broken JSON body: {0}")]
pub struct Error(#[from] serde_json::Error);

/// Reads a body in either spelling; unknown fields are ignored, missing ones have defaults.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // Most bodies are strict already, and the strict reader is the faster one.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let strict: Cow<'_, [u8]> = lenient(bytes);
    Ok(serde_json::from_slice(&strict)?)
}

/// Indented JSON for the files under `config/`, as RocketMQ lays them out.
pub fn to_vec_pretty<T: Serialize>(value: &T) -> Vec<u8> {
    dialect::to_vec_pretty(value)
}

#[cfg(test)]
mod tests;
