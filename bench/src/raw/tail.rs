//! Which blocks a commit writes and when, by the rule of a log whose last block is partial: a commit writes all its
//! blocks, the last one perhaps partial; the next commit writes that block again, and never while it is in flight.
//! Several commits may be under way; one counts when it and all before it are written. Arithmetic only.

use std::collections::VecDeque;

use crate::ring::BLOCK_BYTES;

/// A write of whole blocks; `token` names it when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub at: u64,
    pub bytes: usize,
    pub token: u64,
}

pub struct Tail {
    file_bytes: u64,
    /// Where the next commit's first byte goes.
    at: u64,
    /// Commits that were started and do not count yet, oldest first; the first has number `oldest`.
    under_way: VecDeque<Commit>,
    oldest: u64,
}

#[derive(Clone, Copy)]
struct Commit {
    /// The block it shares with its predecessor, while it waits for that one.
    waiting: Option<Piece>,
    /// Pieces that have not ended, the waiting one included.
    left: u8,
    /// The piece that holds its last block, and whether that has ended.
    tail_token: u64,
    tail_ended: bool,
}

const BLOCK: u64 = BLOCK_BYTES as u64;

impl Tail {
    pub fn new(file_bytes: u64) -> Tail {
        assert!(file_bytes.is_multiple_of(BLOCK));
        Tail {
            file_bytes,
            at: 0,
            under_way: VecDeque::new(),
            oldest: 0,
        }
    }

    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// True if a commit of so many bytes would begin at the file's start again.
    pub fn would_wrap(&self, bytes: usize) -> bool {
        self.at + bytes as u64 > self.file_bytes
    }

    /// The next commit; what of it can be written at once.
    pub fn start(&mut self, bytes: usize) -> Option<Piece> {
        assert!(bytes > 0 && bytes as u64 <= self.file_bytes);
        if self.would_wrap(bytes) {
            self.at = 0;
        }
        let (begin, end) = (self.at, self.at + bytes as u64);
        self.at = end;
        let number = self.oldest + self.under_way.len() as u64;
        let [head_token, body_token] = [number * 2, number * 2 + 1];
        let first = begin / BLOCK * BLOCK;
        let last = end.next_multiple_of(BLOCK);
        let is_shared = begin > first;
        let before = self.under_way.back();
        if !is_shared || before.is_none_or(|before| before.tail_ended) {
            self.under_way.push_back(Commit {
                waiting: None,
                left: 1,
                tail_token: body_token,
                tail_ended: false,
            });
            return Some(piece(first, last, body_token));
        }
        let has_body = last > first + BLOCK;
        self.under_way.push_back(Commit {
            waiting: Some(piece(first, first + BLOCK, head_token)),
            left: 1 + u8::from(has_body),
            tail_token: if has_body { body_token } else { head_token },
            tail_ended: false,
        });
        has_body.then(|| piece(first + BLOCK, last, body_token))
    }

    /// A piece has ended: what may be written now, and how many commits count from now on.
    pub fn ended(&mut self, token: u64) -> (Option<Piece>, usize) {
        let index = (token / 2 - self.oldest) as usize;
        let commit = &mut self.under_way[index];
        commit.left -= 1;
        let freed = commit.tail_token == token;
        commit.tail_ended |= freed;
        let next = match self.under_way.get_mut(index + 1) {
            Some(next) if freed => next.waiting.take(),
            _ => None,
        };
        let mut complete = 0;
        while self
            .under_way
            .front()
            .is_some_and(|commit| commit.left == 0)
        {
            self.under_way.pop_front();
            complete += 1;
        }
        self.oldest += complete as u64;
        (next, complete)
    }
}

fn piece(from: u64, to: u64, token: u64) -> Piece {
    Piece {
        at: from,
        bytes: (to - from) as usize,
        token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_lone_commit_writes_its_partial_block_and_the_next_one_writes_it_again() {
        let mut tail = Tail::new(1 << 20);
        let first = tail.start(5000).expect("nothing is in its way");
        assert_eq!((first.at, first.bytes), (0, 8192));
        assert_eq!(tail.ended(first.token), (None, 1));
        let second = tail.start(100).expect("nothing is in its way");
        assert_eq!((second.at, second.bytes), (4096, 4096));
    }

    #[test]
    fn the_shared_block_waits_and_the_rest_of_the_commit_does_not() {
        let mut tail = Tail::new(1 << 20);
        let first = tail.start(5000).expect("the first");
        let body = tail.start(9000).expect("what it does not share");
        assert_eq!((body.at, body.bytes), (8192, 8192));
        assert_eq!(
            tail.ended(body.token),
            (None, 0),
            "the prefix is not complete"
        );
        let (head, complete) = tail.ended(first.token);
        let head = head.expect("the shared block is free");
        assert_eq!((head.at, head.bytes, complete), (4096, 4096, 1));
        assert_eq!(tail.ended(head.token), (None, 1));
        assert_eq!(tail.under_way(), 0);
    }

    #[test]
    fn commits_within_one_block_follow_one_another() {
        let mut tail = Tail::new(1 << 20);
        let first = tail.start(10).expect("the first");
        assert_eq!((tail.start(10), tail.start(10)), (None, None));
        let (second, complete) = tail.ended(first.token);
        assert_eq!(complete, 1);
        let (third, complete) = tail.ended(second.expect("free").token);
        assert_eq!(complete, 1);
        assert_eq!(tail.ended(third.expect("free").token), (None, 1));
    }

    #[test]
    fn a_commit_that_does_not_fit_begins_at_the_start_again() {
        let mut tail = Tail::new(8192);
        let first = tail.start(5000).expect("it fits");
        tail.ended(first.token);
        assert!(tail.would_wrap(5000));
        assert_eq!(tail.start(5000).map(|piece| piece.at), Some(0));
    }

    proptest::proptest! {
        /// Whatever the sizes and the order in which writes end: no block is ever in flight twice, and all commits
        /// count in the end.
        #[test]
        fn no_block_is_in_flight_twice(
            sizes in proptest::collection::vec(1usize..20_000, 1..60),
            depth in 1usize..5,
            seed in 0u64..u64::MAX,
        ) {
            let mut tail = Tail::new(4 << 20);
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut flying, mut blocks): (Vec<Piece>, BTreeSet<u64>) = Default::default();
            let launch = |piece: Piece, flying: &mut Vec<Piece>, blocks: &mut BTreeSet<u64>| {
                for block in 0..piece.bytes as u64 / BLOCK {
                    assert!(blocks.insert(piece.at / BLOCK + block));
                }
                flying.push(piece);
            };
            let (mut left, mut complete) = (sizes.iter(), 0);
            loop {
                while tail.under_way() < depth && let Some(&size) = left.next() {
                    if let Some(piece) = tail.start(size) {
                        launch(piece, &mut flying, &mut blocks);
                    }
                }
                if flying.is_empty() {
                    break;
                }
                let ended = flying.swap_remove(random.usize(..flying.len()));
                for block in 0..ended.bytes as u64 / BLOCK {
                    blocks.remove(&(ended.at / BLOCK + block));
                }
                let (next, count) = tail.ended(ended.token);
                complete += count;
                if let Some(piece) = next {
                    launch(piece, &mut flying, &mut blocks);
                }
            }
            assert_eq!((complete, tail.under_way()), (sizes.len(), 0));
        }
    }
}
