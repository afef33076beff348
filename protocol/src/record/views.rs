//! Records one behind the other.

use super::{RecordError, View};

/// The records that `bytes` consist of. After the first that is none nothing more comes.
pub fn views(bytes: &[u8]) -> Views<'_> {
    Views { rest: bytes }
}

/// See [`views`].
#[derive(Clone, Debug)]
pub struct Views<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Views<'a> {
    type Item = Result<View<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let view = View::parse(self.rest);
        self.rest = match &view {
            Ok(view) => &self.rest[view.bytes.len()..],
            Err(_) => &[],
        };
        Some(view)
    }
}
