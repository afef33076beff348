//! What a seed makes of a world: the store's settings, and for each life what it suffers from and how it ends.

use engine::{Config, FlusherKind};
use reactor::sim::Faults;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Numbers that hang on the seed alone (SplitMix64).
pub struct Numbers(u64);

impl From<u64> for Numbers {
    fn from(seed: u64) -> Numbers {
        Numbers(seed)
    }
}

impl Numbers {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub struct Plan {
    numbers: Numbers,
    pub sync_flush: bool,
    pub lives: u64,
    config: Config,
    suffers_from: Suffering,
}

/// One kind of trouble for each world, so that what is promised can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffering {
    Nothing,
    SyncErrors,
    WriteErrors,
    FullDisk,
    ReadErrors,
    FlippedBits,
    BadPages,
    SlowDisk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Kill,
    PowerCut,
    Close,
}

#[derive(Clone)]
pub struct Life {
    pub config: Config,
    pub faults_at_open: Faults,
    pub faults: Faults,
    pub disk_bytes: Option<u64>,
    /// Old segments go, however young.
    pub reclaims: bool,
    /// Something may answer with an error.
    pub is_sick: bool,
    pub seed: u64,
    pub end: End,
    pub lasts: Duration,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, suffers_from) = (&self.config, self.suffers_from);
        let flush = if self.sync_flush { "SYNC" } else { "ASYNC" };
        let (flusher, segment_bytes) = (config.flusher, config.segment_bytes);
        write!(
            f,
            "{flusher:?} {flush}_FLUSH, segments of {segment_bytes}, suffers from {suffers_from:?}"
        )
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (end, lasts, reclaims) = (self.end, self.lasts, self.reclaims);
        let is_sick_at_open = self.faults_at_open != Faults::default();
        let disk = self.disk_bytes;
        write!(
            f,
            "life of {lasts:?}, then {end:?}; reclaims: {reclaims}, sick at open: {is_sick_at_open}, disk: {disk:?}"
        )
    }
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut numbers = Numbers(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let flusher = [FlusherKind::Mmap, FlusherKind::Direct][numbers.below(2) as usize];
        let sync_flush = numbers.one_in(2);
        let suffers_from = match numbers.below(10) {
            0..=2 => Suffering::Nothing,
            3 => Suffering::SyncErrors,
            4 => Suffering::WriteErrors,
            5 => Suffering::FullDisk,
            6 => Suffering::ReadErrors,
            7 => Suffering::FlippedBits,
            8 => Suffering::BadPages,
            _ => Suffering::SlowDisk,
        };
        let mut config = Config::for_root(PathBuf::from("/store"));
        config.flusher = flusher;
        config.sync_flush = sync_flush;
        config.segment_bytes = [16 << 10, 32 << 10, 64 << 10][numbers.below(3) as usize];
        config.part_bytes = [4 << 10, 16 << 10][numbers.below(2) as usize];
        config.touch_ahead_bytes = 32 << 10;
        config.window.bytes = 128 << 10;
        config.hot_bytes = [0, 20 << 10, 96 << 10][numbers.below(3) as usize];
        config.cold_cache_bytes = 1 << 20;
        config.flush.interval_ms = 5;
        config.flush.thorough_ms = 20;
        config.flush.least_pages = 1;
        config.key_index = numbers.one_in(4);
        // Of the seed alone: what else it decides stays as it was.
        if seed % 4 == 3 {
            config.index_bytes = 8 << 10;
        }
        Plan {
            sync_flush,
            lives: 1 + numbers.below(4),
            config,
            suffers_from,
            numbers,
        }
    }

    pub fn life(&mut self) -> Life {
        let numbers = &mut self.numbers;
        let mut life = Life {
            config: self.config.clone(),
            faults_at_open: Faults::default(),
            faults: Faults::default(),
            disk_bytes: None,
            reclaims: numbers.one_in(3),
            is_sick: self.suffers_from != Suffering::Nothing,
            seed: numbers.below(u64::MAX),
            end: match numbers.below(7) {
                0..=2 => End::Kill,
                3..=5 => End::PowerCut,
                _ => End::Close,
            },
            lasts: Duration::from_micros(numbers.below(60_000)),
        };
        let faults = &mut life.faults;
        let at_open = numbers.one_in(3);
        match self.suffers_from {
            Suffering::Nothing => {}
            Suffering::SyncErrors => faults.fsync_error_ppm = 100_000,
            Suffering::WriteErrors => faults.write_error_ppm = 50_000,
            Suffering::FullDisk => {
                life.disk_bytes = Some((3 + numbers.below(5)) * self.config.segment_bytes);
            }
            Suffering::ReadErrors => faults.read_error_ppm = 50_000,
            Suffering::FlippedBits => faults.bit_flip_ppm = 100_000,
            Suffering::BadPages => faults.bad_page_ppm = 20_000,
            Suffering::SlowDisk => faults.slow_ppm = 50_000,
        }
        // A bit that is wrong while the log is recovered cannot be told from one that was never written.
        if at_open && self.suffers_from != Suffering::FlippedBits {
            life.faults_at_open = life.faults;
        }
        life
    }

    pub fn last_life(&mut self) -> Life {
        Life {
            faults_at_open: Faults::default(),
            faults: Faults::default(),
            disk_bytes: None,
            reclaims: false,
            is_sick: false,
            end: End::Close,
            ..self.life()
        }
    }
}
