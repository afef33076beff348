//! Memory that is lent to an answer.

/// Memory whose owner waits for it, and so must have it back soon whatever a peer does: an outbox hands it to the kernel
/// soon or copies it, and a socket copies what the kernel does not take at once. Dropping gives it back.
pub trait Lent: Send {
    /// Bytes of it, which do not change before it is given back. Panics outside of what was lent.
    fn bytes(&self, offset: u64, len: usize) -> &[u8];
}
