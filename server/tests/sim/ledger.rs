//! What was acknowledged and what was read, and whether the two agree. The oracle of the simulated runs.

use std::collections::BTreeMap;

pub const QUEUES: usize = 4;

#[derive(Debug, Default)]
pub struct Ledger {
    /// (queue, offset) to the message's number.
    acknowledged: BTreeMap<(usize, u64), u64>,
    /// By queue: the numbers in order of offset.
    read: [Vec<u64>; QUEUES],
    pub producers_done: usize,
}

impl Ledger {
    pub fn acknowledge(&mut self, queue: usize, offset: u64, number: u64) {
        let before = self.acknowledged.insert((queue, offset), number);
        assert_eq!(
            before, None,
            "offset {offset} of queue {queue} was given twice"
        );
    }

    /// Queue and offset of every message whose sender was told of it.
    pub fn acknowledged(&self) -> impl Iterator<Item = &(usize, u64)> {
        self.acknowledged.keys()
    }

    /// The offset the consumer of a queue goes on with.
    pub fn next_offset(&self, queue: usize) -> u64 {
        self.read[queue].len() as u64
    }

    pub fn read(&mut self, queue: usize, offset: u64, number: u64) {
        assert_eq!(
            offset,
            self.next_offset(queue),
            "queue {queue} has a gap or a repetition"
        );
        self.read[queue].push(number);
    }

    /// Every acknowledged message has been read.
    pub fn is_caught_up(&self) -> bool {
        let read = |(queue, offset): (usize, u64)| offset < self.next_offset(queue);
        self.acknowledged.keys().copied().all(read)
    }

    /// Every acknowledged message was read at its offset.
    pub fn check(&self) {
        for (&(queue, offset), &number) in &self.acknowledged {
            let found = self.read[queue].get(offset as usize);
            assert_eq!(
                found,
                Some(&number),
                "the message acknowledged at offset {offset} of queue {queue} is another one"
            );
        }
    }
}
