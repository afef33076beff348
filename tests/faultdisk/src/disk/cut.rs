//! The power cut: everything unsynced is decided by a seed, and what is left is all there is.

use std::io;

use super::{Disk, Result, errno};
use crate::chance::Odds;
use crate::names::{Id, Names};

impl Disk {
    /// Everything opened before is dead afterwards: the disk counts its cuts, and its owner compares.
    pub fn cut(&mut self, seed: u64) -> Result<String> {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut asked, mut lost) = (0u64, 0u64);
        for content in self.files.values_mut() {
            let odds = Odds::pick(&mut random);
            let cut = content.cut(|| {
                asked += 1;
                let survives = odds.flip(&mut random);
                lost += u64::from(!survives);
                survives
            });
            cut.map_err(errno)?;
            content.handles = 0;
        }
        let odds = Odds::pick(&mut random);
        let names = self.names.pending();
        let mut kept = 0;
        let left = self.names.after_cut(|_| {
            let survives = odds.flip(&mut random);
            kept += usize::from(survives);
            survives
        });
        self.names = Names::restart(left);
        self.tidy();
        self.count_space();
        self.cuts += 1;
        self.mark(format!("cut {seed}"))?;
        Ok(format!(
            "seed {seed}: {lost} of {asked} unsynced sectors and {} of {names} names are gone",
            names - kept
        ))
    }

    /// A cut that leaves nothing unsynced.
    pub fn worst_cut(&mut self) -> io::Result<()> {
        for content in self.files.values_mut() {
            content.cut(|| false)?;
            content.handles = 0;
        }
        self.names = Names::restart(self.names.after_cut(|_| false));
        self.tidy();
        self.count_space();
        self.cuts += 1;
        Ok(())
    }

    /// After a cut nobody remembers what was allocated: everything up to a file's end counts.
    fn count_space(&mut self) {
        self.used_bytes = 0;
        let files: Vec<Id> = self.files.keys().copied().collect();
        for id in files {
            let content = self.files.get_mut(&id).expect("just listed");
            let len = content.attributes(id).len;
            content.blocks.give_back(0, u64::MAX);
            content.blocks.take(0, len);
            self.used_bytes += content.blocks.bytes();
        }
    }
}
