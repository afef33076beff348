//! Bytes as they came from a socket. On a ring they lie in a buffer the kernel filled; dropping the chunk gives it back.

use std::fmt;
use std::ops::Deref;

use crate::driver::ring::PooledBytes;

/// Received bytes; empty means that the peer closed. Stays on its core.
pub struct Chunk(Body);

enum Body {
    Pooled(PooledBytes),
    Heap(Vec<u8>),
}

impl Chunk {
    pub(crate) fn from_pool(bytes: PooledBytes) -> Chunk {
        Chunk(Body::Pooled(bytes))
    }

    pub(crate) fn from_vec(bytes: Vec<u8>) -> Chunk {
        Chunk(Body::Heap(bytes))
    }

    pub(crate) fn closed() -> Chunk {
        Chunk(Body::Heap(Vec::new()))
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Body::Pooled(bytes) => bytes.as_slice(),
            Body::Heap(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}
