//! What a gather write sends: some bytes of its own, then slices of mapped or buffered memory, or of bytes copied for it.

mod copies;
mod lent;

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::mapping::Mapping;
pub use copies::Copies;
pub use lent::Lent;

/// Sent in this order: `head`, then every slice. The sources are kept alive until the kernel is done with them.
#[derive(Default)]
pub struct Gather {
    pub head: Vec<u8>,
    /// What slices of [`Source::Copied`] point into: for memory that cannot wait until it is sent.
    pub copied: Copies,
    pub sources: Vec<Source>,
    pub slices: Vec<Slice>,
}

/// Memory that slices point into. Its bytes must not change while they are being sent.
pub enum Source {
    Mapping(Arc<Mapping>),
    Buffer(Arc<Buffer>),
    /// The gather's own `copied`.
    Copied,
    /// For a moment only.
    Lent(Box<dyn Lent>),
}

/// `len` bytes at `offset` of `sources[source]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    pub source: u16,
    pub offset: u64,
    pub len: u32,
}

impl Gather {
    /// All bytes that would be sent.
    pub fn len(&self) -> usize {
        let slices: usize = self.slices.iter().map(|slice| slice.len as usize).sum();
        self.head.len() + slices
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.slices.iter().all(|slice| slice.len == 0)
    }

    /// Forgets everything but keeps the memory of its vectors.
    pub fn clear(&mut self) {
        self.head.clear();
        self.copied.clear();
        self.sources.clear();
        self.slices.clear();
    }

    /// Where to append what is copied.
    #[inline]
    pub fn copy_space(&mut self) -> &mut Vec<u8> {
        self.copied.space()
    }

    /// Leaves the memory of the copies to the core's next gather.
    pub(crate) fn give_back_copies(&mut self) {
        self.copied = Copies::default();
    }

    /// Whether it holds memory that somebody waits for.
    pub fn is_lent(&self) -> bool {
        self.sources
            .iter()
            .any(|source| matches!(source, Source::Lent(_)))
    }

    /// Copies what is lent, and gives it back.
    pub fn keep(&mut self) {
        for number in 0..self.sources.len() {
            if !matches!(self.sources[number], Source::Lent(_)) {
                continue;
            }
            let Source::Lent(lent) = std::mem::replace(&mut self.sources[number], Source::Copied)
            else {
                unreachable!("just looked");
            };
            let copied = self.copied.space();
            for slice in &mut self.slices {
                if usize::from(slice.source) == number {
                    let at = copied.len() as u64;
                    copied.extend_from_slice(lent.bytes(slice.offset, slice.len as usize));
                    slice.offset = at;
                }
            }
        }
        self.slices.dedup_by(|next, last| last.join(next));
    }

    /// Adds bytes of the source numbered `slice.source`, which may be still to come. Joins them to the slice before if they
    /// follow it.
    pub fn push_slice(&mut self, slice: Slice) {
        if !self.slices.last_mut().is_some_and(|last| last.join(&slice)) {
            self.slices.push(slice);
        }
    }

    /// Calls `each` with the head and then with every slice's bytes, in sending order.
    pub fn for_each_slice(&self, mut each: impl FnMut(&[u8])) {
        each(&self.head);
        for slice in &self.slices {
            each(self.bytes(slice));
        }
    }

    /// Appends the bytes of all slices, in order and without the head.
    pub fn copy_slices_to(&self, out: &mut Vec<u8>) {
        for slice in &self.slices {
            out.extend_from_slice(self.bytes(slice));
        }
    }

    fn bytes(&self, slice: &Slice) -> &[u8] {
        let len = slice.len as usize;
        let offset = usize::try_from(slice.offset).expect("an offset in memory fits usize");
        match &self.sources[usize::from(slice.source)] {
            // SAFETY: whoever put the slice here promises that its bytes do not change while they are sent (see `Source`);
            // `bytes` checks the range.
            Source::Mapping(mapping) => unsafe { mapping.bytes(offset, len) },
            Source::Buffer(buffer) => &buffer[offset..offset + len],
            Source::Copied => &self.copied[offset..offset + len],
            Source::Lent(lent) => lent.bytes(slice.offset, len),
        }
    }
}

impl Slice {
    /// Takes `next` in if that is what follows.
    fn join(&mut self, next: &Slice) -> bool {
        let follows =
            next.source == self.source && next.offset == self.offset + u64::from(self.len);
        match self.len.checked_add(next.len) {
            Some(joined) if follows => {
                self.len = joined;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that say when they came back.
    struct Loan(Arc<Vec<u8>>);

    impl Lent for Loan {
        fn bytes(&self, offset: u64, len: usize) -> &[u8] {
            &self.0[offset as usize..][..len]
        }
    }

    #[test]
    fn what_is_lent_goes_back_when_it_is_copied_and_the_content_stays() {
        let lender = Arc::new(b"01234567".to_vec());
        let mut gather = Gather {
            head: b"head".to_vec(),
            sources: vec![Source::Copied, Source::Lent(Box::new(Loan(lender.clone())))],
            ..Gather::default()
        };
        gather.copy_space().extend_from_slice(b"copied");
        for (source, offset, len) in [(1, 6, 2), (0, 0, 3), (0, 3, 1), (1, 0, 2), (1, 4, 1)] {
            gather.push_slice(Slice {
                source,
                offset,
                len,
            });
        }
        assert_eq!(
            gather.slices.len(),
            4,
            "the two that follow each other are one"
        );
        let content = |gather: &Gather| {
            let mut seen = Vec::new();
            gather.for_each_slice(|bytes| seen.extend_from_slice(bytes));
            seen
        };
        assert_eq!(content(&gather), b"head67copi014");
        assert!(gather.is_lent());
        assert_eq!(Arc::strong_count(&lender), 2);
        gather.keep();
        assert!(!gather.is_lent());
        assert_eq!(Arc::strong_count(&lender), 1);
        assert_eq!(content(&gather), b"head67copi014");
        assert_eq!(gather.slices.len(), 3, "the last two lie together now");
    }

    #[test]
    fn slices_come_after_the_head_in_order() {
        let mut buffer = Buffer::with_capacity(8);
        buffer.set_len(8);
        buffer.copy_from_slice(b"01234567");
        let mut gather = Gather {
            head: b"head".to_vec(),
            sources: vec![Source::Buffer(Arc::new(buffer)), Source::Copied],
            ..Gather::default()
        };
        gather.copy_space().extend_from_slice(b"copied");
        for (source, offset, len) in [(0, 4, 3), (1, 0, 2), (0, 0, 2)] {
            gather.slices.push(Slice {
                source,
                offset,
                len,
            });
        }
        let mut seen = Vec::new();
        gather.for_each_slice(|bytes| seen.extend_from_slice(bytes));
        assert_eq!(seen, b"head456co01");
        assert_eq!(gather.len(), seen.len());
        let mut copied = Vec::new();
        gather.copy_slices_to(&mut copied);
        assert_eq!(copied, b"456co01");
        gather.clear();
        assert!(gather.is_empty());
    }
}
