//! When old log may go: by age at certain hours, sooner when the disk fills up. Pure decisions, no I/O.
//!
//! The limits are RocketMQ's: above the first one expired files go at any hour, above the second the oldest go
//! whatever their age, above the third nothing is accepted until it is lower again.

/// RocketMQ's bounds of each limit, whatever the settings say.
const EXPIRE_ABOVE_PERCENT: (u8, u8) = (10, 95);
const FORCE_ABOVE_PERCENT: (u8, u8) = (30, 85);
const REFUSE_ABOVE_PERCENT: (u8, u8) = (35, 90);

/// A message that says it is from further in the future was stored while the clock was wrong.
const CLOCK_AHEAD_MAX_MS: i64 = 24 * 3_600_000;

/// What is kept, and for how long. Replaced whole while the store runs (`Store::set_retention`).
#[derive(Clone, Debug)]
pub struct Retention {
    /// `fileReservedTime`: how long after the last message in it a segment is kept.
    pub keep_ms: i64,
    /// `deleteWhen`: hours of the day, bit 0 is the hour after midnight.
    pub delete_hours: u32,
    /// The hour of the day at a time in milliseconds since the epoch, in the machine's time zone.
    pub hour_at: fn(i64) -> u8,
    /// `cleanResourceInterval`.
    pub check_interval_ms: u64,
    /// `diskMaxUsedSpaceRatio`: above it expired segments go at any hour.
    pub expire_above_percent: u8,
    /// `diskSpaceCleanForciblyRatio`: above it the oldest segments go whatever their age.
    pub force_above_percent: u8,
    /// `diskSpaceWarningLevelRatio`: above it nothing is accepted.
    pub refuse_above_percent: u8,
    /// `cleanFileForciblyEnable`.
    pub may_force: bool,
    /// `deleteFileBatchMax`.
    pub segments_per_round_max: u32,
    /// `deleteCommitLogFilesInterval`.
    pub between_segments_ms: u64,
    /// `destroyMapedFileIntervalForcibly`: a segment still in use after so long is no longer waited for.
    pub unlink_after_ms: u64,
    /// How fast space is given back while there is no hurry.
    pub delete_bytes_per_second: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            keep_ms: 72 * 3_600_000,
            delete_hours: 1 << 4,
            hour_at: utc_hour,
            check_interval_ms: 10_000,
            expire_above_percent: 75,
            force_above_percent: 85,
            refuse_above_percent: 90,
            may_force: true,
            segments_per_round_max: 10,
            between_segments_ms: 100,
            unlink_after_ms: 120_000,
            delete_bytes_per_second: 256 << 20,
        }
    }
}

/// How tight space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    None,
    Expire,
    Force,
    Refuse,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is older than it has to be, and this is the hour.
    Expired,
    /// It is older than it has to be, and the disk fills up.
    ExpiredAndTight,
    /// It is older than it has to be, and an operator asked.
    ExpiredAndAsked,
    /// The disk is nearly full.
    Space,
}

impl Why {
    pub fn text(self) -> &'static str {
        match self {
            Why::Expired => "it has expired",
            Why::ExpiredAndTight => "it has expired and the disk fills up",
            Why::ExpiredAndAsked => "it has expired and an operator asked",
            Why::Space => "the disk is nearly full",
        }
    }
}

impl Retention {
    /// How tight it is with so much of the disk used.
    pub fn pressure(&self, used_percent: u8) -> Pressure {
        let clamp = |percent: u8, (low, high): (u8, u8)| percent.clamp(low, high);
        if used_percent > clamp(self.refuse_above_percent, REFUSE_ABOVE_PERCENT) {
            Pressure::Refuse
        } else if used_percent > clamp(self.force_above_percent, FORCE_ABOVE_PERCENT) {
            Pressure::Force
        } else if used_percent > clamp(self.expire_above_percent, EXPIRE_ABOVE_PERCENT) {
            Pressure::Expire
        } else {
            Pressure::None
        }
    }

    /// Above this much used, a disk gets no new segment as long as another one has room.
    pub fn force_percent(&self) -> u8 {
        let (low, high) = FORCE_ABOVE_PERCENT;
        self.force_above_percent.clamp(low, high)
    }

    /// What segments may go for now; `None` if none may.
    pub fn why(&self, pressure: Pressure, asked: bool, now_ms: i64) -> Option<Why> {
        if pressure >= Pressure::Force && self.may_force {
            return Some(Why::Space);
        }
        if pressure >= Pressure::Expire {
            return Some(Why::ExpiredAndTight);
        }
        if asked {
            return Some(Why::ExpiredAndAsked);
        }
        let hour = u32::from((self.hour_at)(now_ms) % 24);
        (self.delete_hours >> hour & 1 == 1).then_some(Why::Expired)
    }

    /// Whether a segment whose last message was stored at `last_ms` may go for this reason.
    pub fn permits(&self, why: Why, last_ms: i64, now_ms: i64) -> bool {
        why == Why::Space || now_ms >= last_ms.saturating_add(self.keep_ms)
    }

    /// When the last message of a segment was stored, as far as that can be believed: store times never decrease, so a
    /// clock that was once far ahead would otherwise keep all that follows until then.
    pub fn stored_ms(
        last_ms: i64,
        now_ms: i64,
        file_changed_ms: impl FnOnce() -> Option<i64>,
    ) -> i64 {
        if last_ms <= now_ms.saturating_add(CLOCK_AHEAD_MAX_MS) {
            return last_ms;
        }
        file_changed_ms().map_or(last_ms, |changed_ms| changed_ms.min(last_ms))
    }

    /// How fast space is given back; `None`: as fast as the disk can.
    pub fn bytes_per_second(&self, pressure: Pressure) -> Option<u64> {
        let calm = self.delete_bytes_per_second.max(1);
        match pressure {
            Pressure::None | Pressure::Expire => Some(calm),
            Pressure::Force => Some(calm.saturating_mul(4)),
            Pressure::Refuse => None,
        }
    }
}

/// How much of a disk is used, rounded up as RocketMQ does. What only the superuser may use counts for neither.
pub fn used_percent(used_bytes: u64, available_bytes: u64) -> u8 {
    let whole = u128::from(used_bytes) + u128::from(available_bytes);
    if whole == 0 {
        return 100;
    }
    (u128::from(used_bytes) * 100).div_ceil(whole) as u8
}

fn utc_hour(ms: i64) -> u8 {
    ms.div_euclid(3_600_000).rem_euclid(24) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn each_limit_is_passed_and_not_merely_reached() {
        let retention = Retention::default();
        let levels = [75, 76, 85, 86, 90, 91, 100].map(|percent| retention.pressure(percent));
        use Pressure::{Expire, Force, Refuse};
        assert_eq!(
            levels,
            [Pressure::None, Expire, Expire, Force, Force, Refuse, Refuse]
        );
    }

    #[test]
    fn limits_beyond_rocketmqs_bounds_are_taken_as_the_bounds() {
        let retention = Retention {
            expire_above_percent: 1,
            force_above_percent: 99,
            refuse_above_percent: 100,
            ..Retention::default()
        };
        assert_eq!(retention.pressure(10), Pressure::None);
        assert_eq!(retention.pressure(11), Pressure::Expire);
        assert_eq!(retention.pressure(86), Pressure::Force);
        assert_eq!(retention.pressure(91), Pressure::Refuse);
    }

    #[test]
    fn expired_segments_go_at_the_hours_named_and_at_any_hour_when_it_is_tight() {
        let retention = Retention {
            delete_hours: 1 << 4 | 1 << 16,
            ..Retention::default()
        };
        let why = |pressure, asked, hour: i64| retention.why(pressure, asked, hour * HOUR_MS + 5);
        assert_eq!(why(Pressure::None, false, 3), None);
        assert_eq!(why(Pressure::None, false, 4), Some(Why::Expired));
        assert_eq!(why(Pressure::None, false, 24 + 16), Some(Why::Expired));
        assert_eq!(why(Pressure::None, true, 3), Some(Why::ExpiredAndAsked));
        assert_eq!(why(Pressure::Expire, false, 3), Some(Why::ExpiredAndTight));
        assert_eq!(why(Pressure::Force, false, 3), Some(Why::Space));
    }

    #[test]
    fn only_space_makes_a_segment_go_before_its_time() {
        let mut retention = Retention::default();
        let (stored, kept) = (1_000, retention.keep_ms);
        assert!(!retention.permits(Why::Expired, stored, stored + kept - 1));
        assert!(retention.permits(Why::Expired, stored, stored + kept));
        assert!(retention.permits(Why::Space, stored, stored));
        retention.may_force = false;
        let why = retention.why(Pressure::Refuse, false, 0);
        assert_eq!(why, Some(Why::ExpiredAndTight));
    }

    #[test]
    fn a_time_far_in_the_future_is_not_believed() {
        let stored =
            |last_ms, changed_ms| Retention::stored_ms(last_ms, 1_000 * HOUR_MS, || changed_ms);
        let (soon, far) = (1_020 * HOUR_MS, 9_000 * HOUR_MS);
        assert_eq!(stored(7, Some(9)), 7);
        assert_eq!(stored(soon, Some(9)), soon);
        assert_eq!(stored(far, Some(9)), 9);
        assert_eq!(stored(far, None), far);
    }

    #[test]
    fn percentages_are_rounded_up() {
        assert_eq!(used_percent(0, 100), 0);
        assert_eq!(used_percent(1, 999), 1);
        assert_eq!(used_percent(850, 150), 85);
        assert_eq!(used_percent(851, 149), 86);
        assert_eq!(used_percent(10, 0), 100);
        assert_eq!(used_percent(0, 0), 100);
        assert_eq!(used_percent(u64::MAX, u64::MAX), 50);
    }

    #[test]
    fn deleting_is_gentle_until_it_is_urgent() {
        let retention = Retention {
            delete_bytes_per_second: 100,
            ..Retention::default()
        };
        assert_eq!(retention.bytes_per_second(Pressure::Expire), Some(100));
        assert_eq!(retention.bytes_per_second(Pressure::Force), Some(400));
        assert_eq!(retention.bytes_per_second(Pressure::Refuse), None);
    }
}
