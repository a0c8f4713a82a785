//! Bucket arithmetic of HdrHistogram; the unit is 1 µs.

use crate::error::Error;

/// Highest trackable value: 38 h, the end of the octave that contains one day.
pub const MAX_MICROS: u64 = (1 << 37) - 1;
/// Highest trackable value in snapshots of older versions: 1 h.
pub const OLD_MAX_MICROS: u64 = 3_600_000_000;

/// The buckets of 1 µs to 38 h at 2 or 3 significant digits, as every HdrHistogram port lays them out.
///
/// 2 digits are 3,968 buckets, 3 digits 28,672. Those of a lower range are the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    digits: u8,
    /// log2 of half the sub-buckets: 7 or 10.
    half: u32,
}

impl Layout {
    /// Two significant digits.
    pub const TWO: Self = Self { digits: 2, half: 7 };
    /// Three significant digits.
    pub const THREE: Self = Self { digits: 3, half: 10 };

    /// `digits` is 2 or 3.
    pub fn new(digits: u8) -> Result<Self, Error> {
        match digits {
            2 => Ok(Self::TWO),
            3 => Ok(Self::THREE),
            _ => Err(Error::OutOfRange { name: "significant_digits", value: digits.to_string(), allowed: "2 or 3" }),
        }
    }

    /// Significant decimal digits.
    pub const fn digits(self) -> u8 {
        self.digits
    }

    /// Number of buckets, up to that of [`MAX_MICROS`]. Written out, because the position of a histogram is computed at every
    /// value.
    pub const fn buckets(self) -> usize {
        if self.digits == 2 { 3_968 } else { 28_672 }
    }

    /// How many blocks of them.
    pub const fn blocks(self) -> usize {
        self.buckets() / Self::BLOCK
    }

    /// Buckets that a histogram allocates at once. The bucket count of both precisions is a multiple of it.
    pub const BLOCK: usize = 64;

    /// The bucket of a value in microseconds.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // at most 28,671 for at most MAX_MICROS
    pub fn index(self, micros: u64) -> usize {
        let mask = (2_u64 << self.half).wrapping_sub(1);
        let bucket = (63_u32.wrapping_sub((micros | mask).leading_zeros())).wrapping_sub(self.half);
        let sub = micros >> bucket;
        // The upper half of each bucket's sub-buckets is its own; bucket 0 owns both halves.
        ((u64::from(bucket) << self.half).wrapping_add(sub)) as usize
    }

    /// The lowest value of a bucket, microseconds.
    pub fn lowest(self, index: usize) -> u64 {
        let (bucket, sub) = self.split(index);
        sub << bucket
    }

    /// The highest value of a bucket, microseconds.
    pub fn highest(self, index: usize) -> u64 {
        let (bucket, sub) = self.split(index);
        (sub.wrapping_add(1) << bucket).wrapping_sub(1)
    }

    /// The middle of a bucket, microseconds: stands for its values in sums and means.
    pub fn middle(self, index: usize) -> u64 {
        let (bucket, sub) = self.split(index);
        (sub << bucket).wrapping_add((1_u64 << bucket) >> 1)
    }

    fn split(self, index: usize) -> (u32, u64) {
        let index = index as u64;
        #[allow(clippy::cast_possible_truncation)] // at most 29
        let bucket = ((index >> self.half) as u32).saturating_sub(1);
        (bucket, index.wrapping_sub(u64::from(bucket) << self.half))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_buckets_are_those_up_to_the_highest_value_in_whole_blocks() {
        for layout in [Layout::TWO, Layout::THREE] {
            assert_eq!(layout.buckets(), layout.index(MAX_MICROS) + 1);
            assert_eq!(layout.blocks() * Layout::BLOCK, layout.buckets());
        }
    }

    fn peer(digits: u8) -> hdrhistogram::Histogram<u64> {
        hdrhistogram::Histogram::new_with_bounds(1, MAX_MICROS, digits).expect("bounds")
    }

    #[test]
    fn only_two_and_three_digits_are_taken() {
        for digits in [0, 1, 4, 5, 255] {
            let error = Layout::new(digits).expect_err("refused").to_string();
            assert!(error.contains(&digits.to_string()) && error.contains("2 or 3"), "{error}");
        }
    }

    #[test]
    fn there_are_as_many_buckets_as_hdrhistogram_has() {
        for (digits, buckets) in [(2, 3_968), (3, 28_672)] {
            let layout = Layout::new(digits).expect("digits");
            assert_eq!(layout.buckets(), buckets);
            assert_eq!(peer(digits).distinct_values(), buckets);
            assert_eq!(layout.digits(), digits);
        }
    }

    proptest! {
        #[test]
        fn bounds_are_those_of_hdrhistogram(value in 1..=MAX_MICROS, digits in 2..=3_u8) {
            let (layout, peer) = (Layout::new(digits).expect("digits"), peer(digits));
            let i = layout.index(value);
            prop_assert_eq!(layout.lowest(i), peer.lowest_equivalent(value));
            prop_assert_eq!(layout.highest(i), peer.highest_equivalent(value));
            prop_assert_eq!(layout.middle(i), peer.median_equivalent(value));
            prop_assert!(i < layout.buckets());
        }

        #[test]
        fn small_values_are_exact(value in 1..256_u64, digits in 2..=3_u8) {
            let layout = Layout::new(digits).expect("digits");
            let i = layout.index(value);
            prop_assert_eq!((layout.lowest(i), layout.highest(i)), (value, value));
        }
    }
}
