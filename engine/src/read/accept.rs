//! Which messages a reader wants: asked with the tag hash in the queue index and, if that is not enough, with the record.

/// What a reader takes. Any closure over the tag hash is one.
pub trait Accept {
    /// By the tag hash in the queue index. May be asked more than once about one message.
    fn by_hash(&mut self, tag_hash: i32) -> bool;

    /// Whether `by_record` is to be asked as well.
    fn looks_at_records(&self) -> bool {
        false
    }

    /// By the record itself, whole and as stored. Asked only if `by_hash` said yes.
    fn by_record(&mut self, _record: &[u8]) -> bool {
        true
    }
}

impl<F: FnMut(i32) -> bool> Accept for F {
    #[inline]
    fn by_hash(&mut self, tag_hash: i32) -> bool {
        self(tag_hash)
    }
}
