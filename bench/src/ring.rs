//! A small io_uring for the harness's own reads and writes of files: so many in flight from one thread, answers taken
//! one by one. It knows nothing of the broker's reactor on purpose: it says what the disk allows without it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::slice;

use io_uring::{IoUring, opcode, types};

pub const BLOCK_BYTES: usize = 4096;

/// Memory that O_DIRECT accepts.
pub struct Aligned {
    blocks: Vec<Block>,
}

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

impl Aligned {
    pub fn zeroed(bytes: usize) -> Aligned {
        Aligned {
            blocks: vec![Block([0; BLOCK_BYTES]); bytes.div_ceil(BLOCK_BYTES)],
        }
    }

    /// Filled with bytes that no layer can shorten.
    pub fn random(bytes: usize) -> Aligned {
        let mut aligned = Aligned::zeroed(bytes);
        let mut random = fastrand::Rng::with_seed(0x0D15C);
        for block in &mut aligned.blocks {
            random.fill(&mut block.0);
        }
        aligned
    }

    pub fn bytes(&self) -> &[u8] {
        let len = self.blocks.len() * BLOCK_BYTES;
        // SAFETY: blocks are arrays of bytes without padding, one after the other.
        unsafe { slice::from_raw_parts(self.blocks.as_ptr().cast(), len) }
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.blocks.as_mut_ptr().cast()
    }
}

/// An operation that has ended: its token and how many bytes it moved.
pub struct Done {
    pub token: u64,
    pub bytes: usize,
}

/// Owns the memory that operations in flight use, so that it lives as long as they may.
pub struct Ring {
    ring: IoUring,
    buffers: Vec<Aligned>,
    in_flight: usize,
}

impl Ring {
    /// `buffers` are what `write` and `read` name by number; at most `depth` operations may be in flight.
    pub fn new(depth: u32, buffers: Vec<Aligned>) -> io::Result<Ring> {
        Ok(Ring {
            ring: IoUring::new(depth.next_power_of_two())?,
            buffers,
            in_flight: 0,
        })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Starts to write the first `bytes` of a buffer at `at`. Several writes may share a buffer: none changes it.
    pub fn write(
        &mut self,
        file: &File,
        buffer: usize,
        bytes: usize,
        at: u64,
        token: u64,
    ) -> io::Result<()> {
        let from = &self.buffers[buffer].bytes()[..bytes];
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Write::new(fd, from.as_ptr(), bytes as u32)
            .offset(at)
            .build();
        self.push(entry.user_data(token))
    }

    /// Starts to read `bytes` at `at` into a buffer that no other operation uses.
    pub fn read(
        &mut self,
        file: &File,
        buffer: usize,
        bytes: usize,
        at: u64,
        token: u64,
    ) -> io::Result<()> {
        assert!(bytes <= self.buffers[buffer].bytes().len());
        let fd = types::Fd(file.as_raw_fd());
        let into = self.buffers[buffer].as_mut_ptr();
        let entry = opcode::Read::new(fd, into, bytes as u32).offset(at).build();
        self.push(entry.user_data(token))
    }

    fn push(&mut self, entry: io_uring::squeue::Entry) -> io::Result<()> {
        // SAFETY: the memory belongs to `buffers`, which are neither moved nor dropped before everything in flight
        // has ended (see `drop`); bounds were checked by the caller.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| {
            io::Error::other("more operations in flight than the ring was made for")
        })?;
        self.in_flight += 1;
        Ok(())
    }

    /// Submits what was started and waits for the next that ends.
    pub fn next(&mut self) -> io::Result<Done> {
        loop {
            if let Some(entry) = self.ring.completion().next() {
                self.in_flight -= 1;
                let bytes = entry.result();
                if bytes < 0 {
                    return Err(io::Error::from_raw_os_error(-bytes));
                }
                return Ok(Done {
                    token: entry.user_data(),
                    bytes: bytes as usize,
                });
            }
            assert!(self.in_flight > 0, "nothing is under way that could end");
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// Hands the kernel what was started, without waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still write into the buffers; if it cannot be waited for they are left to it.
        while self.in_flight > 0 {
            let before = self.in_flight;
            // An operation that failed has ended as well.
            if self.next().is_err() && self.in_flight == before {
                std::mem::forget(std::mem::take(&mut self.buffers));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_through_the_ring() {
        let mut pattern = Aligned::random(2 * BLOCK_BYTES);
        pattern.blocks[1].0[0] = 7;
        let expected = pattern.bytes().to_vec();
        let file = tempfile::tempfile().expect("a temporary file");
        let Ok(mut ring) = Ring::new(2, vec![pattern, Aligned::zeroed(2 * BLOCK_BYTES)]) else {
            return; // io_uring may be forbidden where this runs
        };
        let bytes = expected.len();
        ring.write(&file, 0, bytes, 0, 1).expect("room in the ring");
        assert_eq!(ring.next().expect("written").bytes, bytes);
        ring.read(&file, 1, bytes, 0, 2).expect("room in the ring");
        let done = ring.next().expect("read");
        assert_eq!((done.token, done.bytes, ring.in_flight()), (2, bytes, 0));
        assert_eq!(ring.buffers[1].bytes(), expected);
    }
}
