//! Splits a byte stream into frames: a big-endian u32 length, then that many bytes. A frame that lies whole in a chunk is
//! handed out in place; only what is cut by a chunk's end is copied. Knows nothing of what the frames mean.

use std::fmt;

const PREFIX_BYTES: usize = 4;

/// More than this is given back to the system once a large frame is done.
const KEPT_CAPACITY_BYTES_MAX: usize = 64 * 1024;

/// The state of one stream.
pub struct Frames {
    frame_bytes_max: usize,
    /// The beginning of a frame, prefix included, whose rest has not arrived. Grows only as bytes arrive.
    partial: Vec<u8>,
}

/// Why the stream cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub enum FeedError<E> {
    /// A frame announced more than the limit.
    TooLarge { len: usize },
    /// What the callback returned.
    Refused(E),
}

impl<E: fmt::Display> fmt::Display for FeedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedError::TooLarge { len } => write!(f, "a frame of {len} bytes is over the limit"),
            FeedError::Refused(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for FeedError<E> {}

impl Frames {
    pub fn new(frame_bytes_max: usize) -> Frames {
        Frames {
            frame_bytes_max,
            partial: Vec::new(),
        }
    }

    /// Whether the stream may end here without cutting a frame.
    pub fn is_at_boundary(&self) -> bool {
        self.partial.is_empty()
    }

    /// Takes the next bytes of the stream and calls `each` with every frame that is complete, without its prefix.
    /// After an error the stream is not to be fed again.
    pub fn feed<E>(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), FeedError<E>> {
        let mut rest = chunk;
        if !self.partial.is_empty() {
            rest = self.complete_partial(rest, &mut each)?;
        }
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let len = self.checked_len(*prefix)?;
            let Some((frame, next)) = after.split_at_checked(len) else {
                break;
            };
            each(frame).map_err(FeedError::Refused)?;
            rest = next;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Adds bytes to the partial frame; hands it out if that completes it. Returns what belongs to the next frames.
    fn complete_partial<'a, E>(
        &mut self,
        chunk: &'a [u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<&'a [u8], FeedError<E>> {
        let mut rest = self.fill_partial_to(PREFIX_BYTES, chunk);
        let Some(prefix) = self.partial.first_chunk::<PREFIX_BYTES>() else {
            return Ok(rest);
        };
        let end = PREFIX_BYTES + self.checked_len(*prefix)?;
        rest = self.fill_partial_to(end, rest);
        if self.partial.len() == end {
            each(&self.partial[PREFIX_BYTES..]).map_err(FeedError::Refused)?;
            self.partial.clear();
            self.partial.shrink_to(KEPT_CAPACITY_BYTES_MAX);
        }
        Ok(rest)
    }

    fn fill_partial_to<'a>(&mut self, end: usize, chunk: &'a [u8]) -> &'a [u8] {
        let missing = end.saturating_sub(self.partial.len()).min(chunk.len());
        let (taken, rest) = chunk.split_at(missing);
        self.partial.extend_from_slice(taken);
        rest
    }

    fn checked_len<E>(&self, prefix: [u8; PREFIX_BYTES]) -> Result<usize, FeedError<E>> {
        let len = u32::from_be_bytes(prefix) as usize;
        if len > self.frame_bytes_max {
            return Err(FeedError::TooLarge { len });
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT_BYTES: usize = 300;

    fn stream_of(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for frame in frames {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        stream
    }

    fn feed(
        frames: &mut Frames,
        chunk: &[u8],
        into: &mut Vec<Vec<u8>>,
    ) -> Result<(), FeedError<()>> {
        frames.feed(chunk, |frame| {
            into.push(frame.to_vec());
            Ok(())
        })
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_frames(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LIMIT_BYTES), 0..8),
            cuts in prop::collection::vec(1usize..400, 1..40),
        ) {
            let stream = stream_of(&sent);
            let mut frames = Frames::new(LIMIT_BYTES);
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, next) = rest.split_at((*cut).min(rest.len()));
                prop_assert!(feed(&mut frames, chunk, &mut seen).is_ok());
                rest = next;
            }
            prop_assert_eq!(seen, sent);
            prop_assert!(frames.is_at_boundary());
        }

        #[test]
        fn too_large_is_refused_from_the_length_alone(len in LIMIT_BYTES as u32 + 1.., split in 0usize..=4) {
            let mut frames = Frames::new(LIMIT_BYTES);
            let mut seen = Vec::new();
            let prefix = len.to_be_bytes();
            let mut answer = feed(&mut frames, &prefix[..split], &mut seen);
            if answer.is_ok() {
                answer = feed(&mut frames, &prefix[split..], &mut seen);
            }
            prop_assert_eq!(answer, Err(FeedError::TooLarge { len: len as usize }));
            prop_assert!(frames.partial.capacity() <= 64);
        }
    }

    #[test]
    fn a_frame_that_is_whole_in_the_chunk_is_not_copied() {
        let stream = stream_of(&[vec![7; 10]]);
        let range = stream.as_ptr_range();
        let mut frames = Frames::new(LIMIT_BYTES);
        let fed: Result<(), FeedError<()>> = frames.feed(&stream, |frame| {
            assert!(range.contains(&frame.as_ptr()));
            Ok(())
        });
        assert_eq!(fed, Ok(()));
    }

    #[test]
    fn a_refusal_of_the_callback_ends_the_feed() {
        let stream = stream_of(&[vec![1], vec![2]]);
        let mut seen = 0;
        let fed = Frames::new(LIMIT_BYTES).feed(&stream, |_| {
            seen += 1;
            Err("no")
        });
        assert_eq!(fed, Err(FeedError::Refused("no")));
        assert_eq!(seen, 1);
    }
}
