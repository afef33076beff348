//! Direct writes that a disk was given and has not answered. They reach the disk when they end, not when they begin: a
//! process that is killed meanwhile leaves them behind, and each of them happens, or does not, or some of its sectors
//! do, now or later; but before anybody else gets the lock on the dead process's files.

use std::{io, sync::Arc};

use super::{
    State,
    content::{Inode, SECTOR_BYTES},
};

pub(super) struct InFlight {
    inode: Arc<Inode>,
    offset: u64,
    bytes: Vec<u8>,
    /// It is durable when it ends.
    durable: bool,
}

impl InFlight {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl State {
    /// The number of the write, to end it by.
    pub(super) fn begin_direct(
        &mut self,
        inode: &Arc<Inode>,
        bytes: Vec<u8>,
        offset: u64,
        durable: bool,
    ) -> io::Result<u64> {
        let end = offset + bytes.len() as u64;
        self.reserve(inode, end)?;
        for other in self.in_flight.values() {
            let apart = other.end() <= offset || end <= other.offset;
            assert!(
                apart || !Arc::ptr_eq(&other.inode, inode),
                "two writes of the bytes at {offset} are in flight: nobody knows which of them wins"
            );
        }
        self.next_number += 1;
        let write = InFlight {
            inode: inode.clone(),
            offset,
            bytes,
            durable,
        };
        self.in_flight.insert(self.next_number, write);
        Ok(self.next_number)
    }

    pub(super) fn end_direct(&mut self, number: u64) -> io::Result<()> {
        let write = self.in_flight.remove(&number);
        let write = write.expect("a write ends once");
        self.write(&write.inode, &write.bytes, write.offset)?;
        if write.durable {
            let len = write.bytes.len() as u64;
            let snapshot = self.begin_sync(&write.inode).within(write.offset, len);
            self.end_sync(&write.inode, snapshot)?;
        }
        Ok(())
    }

    /// The process that began them was killed.
    pub(super) fn orphan_writes(&mut self) {
        let numbers: Vec<u64> = self.in_flight.keys().copied().collect();
        for number in numbers {
            let fate = self.chance.below(4);
            self.trace.fold_all([16, number, fate as u64]);
            match fate {
                0 => drop(self.in_flight.remove(&number)),
                1 => self.land(number),
                2 => self.land_torn(number),
                _ => {} // later
            }
        }
    }

    /// Everything that dead processes began has come to its end. False: not yet.
    pub(super) fn orphans_have_landed(&mut self) -> bool {
        if self.in_flight.is_empty() {
            return true;
        }
        if self.chance.flip() {
            return false;
        }
        self.land_all();
        true
    }

    /// Whether any of it stays is for the power cut to decide.
    pub(super) fn land_all(&mut self) {
        let numbers: Vec<u64> = self.in_flight.keys().copied().collect();
        for number in numbers {
            self.land(number);
        }
    }

    fn land(&mut self, number: u64) {
        if let Some(write) = self.in_flight.remove(&number) {
            write.inode.write(&write.bytes, write.offset);
        }
    }

    fn land_torn(&mut self, number: u64) {
        let Some(write) = self.in_flight.remove(&number) else {
            return;
        };
        for (sector, bytes) in (0u64..).zip(write.bytes.chunks(SECTOR_BYTES)) {
            if self.chance.flip() {
                let offset = write.offset + sector * SECTOR_BYTES as u64;
                write.inode.write(bytes, offset);
            }
        }
    }
}
