//! Periods of the calendar, UTC.

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const DAY: u64 = 86_400 * SECOND;

/// When a budget begins anew: calendar periods, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Period {
    /// Never.
    Total,
    /// Every minute.
    Minute,
    /// Every hour.
    Hour,
    /// At midnight.
    Day,
    /// On the first of the month.
    Month,
}

impl Period {
    /// Every period, in the order of its code.
    pub const ALL: [Self; 5] = [Self::Total, Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Begin (inclusive) and end (exclusive) of the period around `now`, Unix nanoseconds.
    pub fn around(self, now: u64) -> (u64, u64) {
        let even = |length: u64| {
            let start = now.wrapping_sub(now.checked_rem(length).unwrap_or(0));
            (start, start.saturating_add(length))
        };
        match self {
            Self::Total => (0, u64::MAX),
            Self::Minute => even(60 * SECOND),
            Self::Hour => even(3600 * SECOND),
            Self::Day => even(DAY),
            Self::Month => month(now / DAY),
        }
    }
}

/// Returns the month around a day since 1970, in integer arithmetic; the year is counted from March, so that the leap day
/// is its last.
#[allow(clippy::arithmetic_side_effects)] // days of a u64 of nanoseconds: below 213,504
const fn month(day: u64) -> (u64, u64) {
    const TO_YEAR_0: u64 = 719_468;
    let z = day + TO_YEAR_0;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * of_year + 2) / 153; // 0 is March
    let begin = (153 * m + 2) / 5;
    let length = if m == 11 {
        // February: to the end of a year that counts from March.
        let (next, leap) = (year + 1, z / 146_097 * 400);
        let (n, y) = (next + leap, year + leap);
        365 + n / 4 - y / 4 + y / 100 - n / 100 + n / 400 - y / 400 - begin
    } else {
        (153 * (m + 1) + 2) / 5 - begin
    };
    let first = day - (of_year - begin);
    (first * DAY, (first + length).saturating_mul(DAY))
}
