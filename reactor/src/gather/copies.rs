//! Memory for copies. A core keeps some of it, for whichever answer or task copies next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Vectors that a core keeps, whatever the number of its connections.
const KEPT_MAX: usize = 32;
/// One that a large answer made larger than this is not kept.
const KEPT_BYTES_MAX: usize = 256 << 10;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A vector of bytes, which is left to the core when it is dropped.
#[derive(Default)]
pub struct Copies(Vec<u8>);

impl Copies {
    /// Where to append: in a vector that was used before, if this one has no memory yet and the core has one.
    #[inline]
    pub(super) fn space(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0
            && let Some(kept) = KEPT.with_borrow_mut(Vec::pop)
        {
            self.0 = kept;
        }
        &mut self.0
    }
}

impl Deref for Copies {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Copies {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if bytes.capacity() == 0 || bytes.capacity() > KEPT_BYTES_MAX {
            return;
        }
        bytes.clear();
        // At the end of its thread there is nobody left to keep it for.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        KEPT.with_borrow(Vec::len)
    }

    #[test]
    fn what_is_dropped_is_used_again_unless_it_is_large() {
        let mut first = Copies::default();
        first.space().extend_from_slice(&[7; 1000]);
        let at = first.as_ptr();
        drop(first);
        assert_eq!(kept(), 1);
        let mut second = Copies::default();
        second.space().push(8);
        assert_eq!((second.as_ptr(), second.as_slice()), (at, [8].as_slice()));
        assert_eq!(kept(), 0);

        drop(Copies(Vec::with_capacity(KEPT_BYTES_MAX + 1)));
        drop(Copies::default());
        assert_eq!(kept(), 0);
        drop((0..=KEPT_MAX).map(|_| Copies(vec![0])).collect::<Vec<_>>());
        assert_eq!(kept(), KEPT_MAX);
    }
}
