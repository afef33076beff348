//! The RocketMQ remoting protocol and the stored record: bytes in, bytes out.
//!
//! ```text
//! socket bytes -> frame -> Command (borrowed) -> header::* / body::*
//! Draft -> record bytes -> View
//! ```
//!
//! Decoding borrows from the frame and never panics on what came from outside. There is no I/O,
//! no thread and no clock here: times and addresses are arguments.

#![forbid(unsafe_code)]

pub mod batch;
pub mod body;
pub mod code;
pub mod command;
pub mod fields;
pub mod frame;
pub mod header;
mod header_binary;
mod header_json;
pub mod json;
pub mod names;
pub mod permission;
pub mod pop;
pub mod properties;
pub mod recall;
pub mod record;
mod scan;
pub mod sysflag;
pub mod text;
pub mod version;
pub mod write;

pub use command::{Asked, Command, DecodeError, Encoding, Language};
pub use fields::{FieldError, Fields};
pub use text::Text;
pub use write::{Value, write_request, write_response, write_response_head};
