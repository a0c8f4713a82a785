//! A histogram as plain data: sparse buckets, quantiles, merge and subtract, HDR V2 in and out.

use super::layout::OLD_MAX_MICROS;
use super::{Layout, MAX_MICROS};
use crate::error::Error;
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::ZlibDecoder;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};
use std::io::Read;

/// First bytes of a compressed V2 encoding.
const DEFLATE_COOKIE: [u8; 4] = 0x1c84_9314_u32.to_be_bytes();

/// One occupied bucket; values in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Lowest value.
    pub lowest: u64,
    /// Highest value.
    pub highest: u64,
    /// Values recorded.
    pub count: u64,
}

/// The occupied buckets, ascending. Equal histograms have equal data.
///
/// Sparse, unlike the dense array of the `hdrhistogram` crate: 300 dense histograms of a snapshot would take 56 MB, most
/// of it zeros that each operation walks over. The crate encodes and decodes V2, and tests compare this type with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Significant digits; 0 in the empty histogram, which fits any other.
    digits: u8,
    buckets: Vec<(u32, u64)>,
}

impl Histogram {
    /// From (index, count) pairs in ascending order, no count 0.
    pub(crate) fn from_buckets(layout: Layout, buckets: Vec<(u32, u64)>) -> Self {
        Self { digits: if buckets.is_empty() { 0 } else { layout.digits() }, buckets }
    }

    fn layout(&self) -> Layout {
        // `digits` is checked wherever data comes in; an empty histogram has no bucket to place.
        if self.digits == 2 { Layout::TWO } else { Layout::THREE }
    }

    /// Refuses foreign data that `from_bytes` may contain: another precision, buckets out of order or out of range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.buckets.is_empty() {
            return if self.digits == 0 {
                Ok(())
            } else {
                Err(Error::Malformed("an empty histogram with a precision".into()))
            };
        }
        let layout = Layout::new(self.digits)?;
        let ascending = self.buckets.windows(2).all(|w| matches!(w, [a, b] if a.0 < b.0));
        let inside = self.buckets.iter().all(|&(i, n)| (i as usize) <= layout.index(MAX_MICROS) && n > 0);
        if ascending && inside { Ok(()) } else { Err(Error::Malformed("histogram buckets out of order".into())) }
    }

    /// The occupied buckets, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let layout = self.layout();
        self.buckets.iter().map(move |&(i, count)| Bucket {
            lowest: layout.lowest(i as usize),
            highest: layout.highest(i as usize),
            count,
        })
    }

    /// Whether no value was recorded.
    pub const fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Number of values recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, &(_, n)| sum.saturating_add(n))
    }

    /// Sum in microseconds, each value as the middle of its bucket.
    pub fn sum_micros(&self) -> u128 {
        let layout = self.layout();
        self.buckets.iter().fold(0, |sum, &(i, n)| {
            sum.saturating_add(u128::from(layout.middle(i as usize)).saturating_mul(u128::from(n)))
        })
    }

    /// Mean in microseconds.
    #[allow(clippy::cast_precision_loss)] // a mean of 3 digits
    pub fn mean_micros(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_micros() as f64 / count as f64)
    }

    /// The value at quantile `q` in [0, 1] as HdrHistogram defines it: the highest value of the bucket
    /// that holds the ceil(q * count)-th value (at least the first), microseconds. None when empty.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn quantile_micros(&self, q: f64) -> Option<u64> {
        let count = self.count();
        // The next lower float, as the ports do: 0.95 * 20 must not round up to the 20th of 19.
        let q = q.clamp(0.0, 1.0);
        let rank = ((q * count as f64).next_down().ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0_u64;
        for bucket in self.buckets() {
            seen = seen.saturating_add(bucket.count);
            if seen >= rank {
                return Some(if q == 0.0 { bucket.lowest } else { bucket.highest });
            }
        }
        None
    }

    /// Lowest value of the lowest bucket, microseconds.
    pub fn min_micros(&self) -> Option<u64> {
        self.buckets().next().map(|b| b.lowest)
    }

    /// Highest value of the highest bucket, microseconds.
    pub fn max_micros(&self) -> Option<u64> {
        self.buckets().last().map(|b| b.highest)
    }

    /// Reduces to 2 digits: each 2-digit bucket is a union of 3-digit ones, so no value crosses a border.
    #[allow(clippy::cast_possible_truncation)] // at most 3,967
    fn coarse(&self) -> Self {
        if self.digits != 3 {
            return self.clone();
        }
        let two = Layout::TWO;
        let fine = self.layout();
        let mut buckets: Vec<(u32, u64)> = Vec::new();
        for &(i, n) in &self.buckets {
            let to = two.index(fine.lowest(i as usize)) as u32;
            match buckets.last_mut() {
                Some(last) if last.0 == to => last.1 = last.1.saturating_add(n),
                _ => buckets.push((to, n)),
            }
        }
        Self { digits: 2, buckets }
    }

    /// Returns both at one precision: the coarser one, if they differ.
    fn aligned(&self, other: &Self) -> (Self, Self) {
        if self.digits == other.digits || self.buckets.is_empty() || other.buckets.is_empty() {
            return (self.clone(), other.clone());
        }
        (self.coarse(), other.coarse())
    }

    /// Returns the sum. Commutative and associative; different precisions meet at the coarser.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// Adds the values of another histogram. Memory is allocated only for buckets that were empty.
    pub fn add(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        if self.buckets.is_empty() {
            self.clone_from(other);
        } else if self.digits == other.digits {
            self.add_buckets(&other.buckets);
        } else {
            *self = self.coarse();
            self.add_buckets(&other.coarse().buckets);
        }
    }

    fn add_buckets(&mut self, others: &[(u32, u64)]) {
        let mut missing = 0_usize;
        let mut own = self.buckets.as_mut_slice();
        for &(index, n) in others {
            let before = own.partition_point(|bucket| bucket.0 < index);
            own = std::mem::take(&mut own).get_mut(before..).unwrap_or_default();
            match own.first_mut() {
                Some(bucket) if bucket.0 == index => bucket.1 = bucket.1.saturating_add(n),
                _ => missing = missing.saturating_add(1),
            }
        }
        if missing > 0 {
            self.insert_missing(others, missing);
        }
    }

    /// Inserts the buckets of others that are not here, from the end on: each bucket is moved once.
    fn insert_missing(&mut self, others: &[(u32, u64)], missing: usize) {
        let mut from = self.buckets.len();
        let mut to = from.saturating_add(missing);
        self.buckets.resize(to, (0, 0));
        for &other in others.iter().rev() {
            while from > 0
                && let Some(&bucket) = self.buckets.get(from.wrapping_sub(1))
                && bucket.0 > other.0
            {
                (from, to) = (from.wrapping_sub(1), to.wrapping_sub(1));
                self.put(to, bucket);
            }
            let is_here = from > 0 && self.buckets.get(from.wrapping_sub(1)).is_some_and(|bucket| bucket.0 == other.0);
            if !is_here {
                to = to.wrapping_sub(1);
                self.put(to, other);
            }
        }
    }

    fn put(&mut self, at: usize, bucket: (u32, u64)) {
        if let Some(place) = self.buckets.get_mut(at) {
            *place = bucket;
        }
    }

    /// Returns the sum of many, as repeated `merged` does, in time of their buckets: each is added to a dense array once.
    #[must_use]
    pub fn total(parts: &[&Self]) -> Self {
        let digits = parts.iter().filter(|part| !part.is_empty()).map(|part| part.digits).min().unwrap_or(0);
        let mut dense: Vec<u64> = Vec::new();
        for part in parts {
            let coarse = (part.digits > digits).then(|| part.coarse());
            let buckets = &coarse.as_ref().unwrap_or(part).buckets;
            if let Some(&(last, _)) = buckets.last() {
                dense.resize(dense.len().max((last as usize).saturating_add(1)), 0);
            }
            for &(i, n) in buckets {
                if let Some(to) = dense.get_mut(i as usize) {
                    *to = to.saturating_add(n);
                }
            }
        }
        Self { digits, buckets: (0..).zip(dense).filter(|(_, n)| *n > 0).collect() }
    }

    /// Returns the values that are here and not in `other`; an error when a bucket of `other` holds more.
    pub fn without(&self, other: &Self, what: impl Fn() -> String) -> Result<Self, Error> {
        if other.buckets.is_empty() {
            return Ok(self.clone());
        }
        let (a, b) = self.aligned(other);
        let layout = b.layout();
        let mut right = b.buckets.iter().copied().peekable();
        let mut buckets = Vec::with_capacity(a.buckets.len());
        let refuse = |i: u32, left: u64, right: u64| Error::NotEarlier {
            what: format!("the count of {} at {} µs", what(), layout.highest(i as usize)),
            left,
            right,
        };
        for &(i, n) in &a.buckets {
            let m = match right.peek() {
                Some(&(j, m)) if j < i => return Err(refuse(j, 0, m)),
                Some(&(j, m)) if j == i => {
                    right.next();
                    m
                }
                _ => 0,
            };
            match n.checked_sub(m) {
                Some(0) => {}
                Some(rest) => buckets.push((i, rest)),
                None => return Err(refuse(i, n, m)),
            }
        }
        if let Some(&(j, m)) = right.peek() {
            return Err(refuse(j, 0, m));
        }
        Ok(Self { digits: if buckets.is_empty() { 0 } else { a.digits }, buckets })
    }

    /// Base64 of the compressed V2 encoding, values in microseconds, which every HdrHistogram port reads.
    pub fn to_hdr(&self) -> Result<String, Error> {
        let layout = self.layout();
        let bad = |e: &dyn std::fmt::Display| Error::Malformed(e.to_string());
        let mut dense =
            hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_MICROS, layout.digits()).map_err(|e| bad(&e))?;
        for &(i, n) in &self.buckets {
            dense.record_n(layout.lowest(i as usize), n).map_err(|e| bad(&e))?;
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&dense, &mut bytes).map_err(|e| bad(&e))?;
        Ok(STANDARD.encode(bytes))
    }

    /// Reads the output of `to_hdr`.
    #[allow(clippy::cast_possible_truncation)] // an index is at most 28,671
    pub fn from_hdr(text: &str) -> Result<Self, Error> {
        let bad = |e: &dyn std::fmt::Display| Error::Malformed(format!("histogram: {e}"));
        let bytes = STANDARD.decode(text).map_err(|e| bad(&e))?;
        // Inflated here, up to its maximum size: the crate trusts the length that the text claims, so that 52 bytes could
        // request 4 GB.
        let body = bytes.strip_prefix(&DEFLATE_COOKIE).and_then(|rest| rest.get(4..));
        let body = body.ok_or_else(|| bad(&"not a compressed V2 encoding"))?;
        let longest = 40_u64.saturating_add(9_u64.saturating_mul(Layout::THREE.buckets() as u64));
        let mut plain = Vec::new();
        ZlibDecoder::new(body).take(longest.saturating_add(1)).read_to_end(&mut plain).map_err(|e| bad(&e))?;
        let claimed = plain.get(4..8).and_then(|n| n.first_chunk()).map(|n| u64::from(u32::from_be_bytes(*n)));
        let payload = (plain.len() as u64).checked_sub(40);
        if claimed.is_none() || claimed != payload || plain.len() as u64 > longest {
            return Err(bad(&"its length is not what it says"));
        }
        let dense: hdrhistogram::Histogram<u64> =
            Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|e| bad(&e))?;
        let layout = Layout::new(dense.sigfig())?;
        // Older versions had a shorter range; its buckets are the first of these.
        if dense.low() != 1 || ![MAX_MICROS, OLD_MAX_MICROS].contains(&dense.high()) {
            return Err(Error::Malformed(format!(
                "histogram of {} to {} where 1 to {MAX_MICROS} µs is expected",
                dense.low(),
                dense.high()
            )));
        }
        let buckets = dense
            .iter_recorded()
            .map(|b| (layout.index(b.value_iterated_to().min(MAX_MICROS)) as u32, b.count_at_value()))
            .collect();
        Ok(Self::from_buckets(layout, buckets))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64], digits: u8) -> Histogram {
        let layout = Layout::new(digits).expect("digits");
        let mut counts = std::collections::BTreeMap::new();
        for &v in values {
            *counts.entry(layout.index(v) as u32).or_insert(0) += 1;
        }
        Histogram::from_buckets(layout, counts.into_iter().collect())
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![1..5000_u64, 1..=MAX_MICROS], 0..40)
    }

    proptest! {
        #[test]
        fn merging_is_a_commutative_monoid(a in values(), b in values(), c in values(), d in prop::array::uniform3(2..=3_u8)) {
            let (a, b, c) = (of(&a, d[0]), of(&b, d[1]), of(&c, d[2]));
            let zero = Histogram::default();
            prop_assert_eq!(a.merged(&b), b.merged(&a));
            prop_assert_eq!(a.merged(&b).merged(&c), a.merged(&b.merged(&c)));
            prop_assert_eq!(a.merged(&zero), a.clone());
            prop_assert_eq!(Histogram::total(&[&a, &zero, &b, &c]), a.merged(&b).merged(&c));
            prop_assert_eq!(Histogram::total(&[]), zero.clone());
            prop_assert_eq!(zero.merged(&a), a);
        }

        #[test]
        fn subtracting_undoes_merging(a in values(), b in values(), digits in 2..=3_u8) {
            let (a, b) = (of(&a, digits), of(&b, digits));
            prop_assert_eq!(a.merged(&b).without(&b, || "x".into()), Ok(a));
        }

        #[test]
        fn merging_is_recording_both(a in values(), b in values(), digits in 2..=3_u8) {
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(of(&a, digits).merged(&of(&b, digits)), of(&both, digits));
        }

        #[test]
        fn a_sum_of_many_is_recording_all(parts in prop::collection::vec(values(), 0..6), digits in 2..=3_u8) {
            let mut sum = Histogram::default();
            for part in &parts {
                sum.add(&of(part, digits));
            }
            prop_assert_eq!(sum, of(&parts.concat(), digits));
        }

        #[test]
        fn quantiles_are_those_of_hdrhistogram(a in values(), q in 0.0..=1.0_f64, digits in 2..=3_u8) {
            let mut peer = hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_MICROS, digits).expect("bounds");
            for &v in &a { peer.record(v).expect("in range"); }
            let ours = of(&a, digits);
            for q in [q, 0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                let theirs = (!a.is_empty()).then(|| peer.value_at_quantile(q));
                prop_assert_eq!(ours.quantile_micros(q), theirs, "q = {}", q);
            }
            if !a.is_empty() {
                prop_assert_eq!(ours.max_micros(), Some(peer.max()));
                let mean = ours.mean_micros().expect("not empty");
                prop_assert!((mean - peer.mean()).abs() <= 1e-9 * mean);
            }
        }

        #[test]
        fn hdr_text_round_trips(a in values(), digits in 2..=3_u8) {
            let ours = of(&a, digits);
            prop_assert_eq!(Histogram::from_hdr(&ours.to_hdr().expect("encodes")), Ok(ours));
        }
    }

    #[test]
    fn text_of_an_older_langmeter_is_read() {
        let mut peer = hdrhistogram::Histogram::<u64>::new_with_bounds(1, OLD_MAX_MICROS, 3).expect("bounds");
        let values = [1, 2_047, 4_000_000, OLD_MAX_MICROS];
        for v in values {
            peer.record(v).expect("in range");
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&peer, &mut bytes).expect("encodes");
        assert_eq!(Histogram::from_hdr(&STANDARD.encode(bytes)), Ok(of(&values, 3)));
    }

    #[test]
    fn a_histogram_that_is_no_part_is_refused_by_name() {
        let (few, many) = (of(&[10, 2000], 3), of(&[10, 10, 3000], 3));
        for (a, b) in [(&few, &many), (&many, &few), (&Histogram::default(), &few)] {
            let error = a.without(b, || "latency".into()).expect_err("refused").to_string();
            assert!(error.contains("latency") && error.contains("µs"), "{error}");
        }
    }

    #[test]
    fn an_empty_histogram_has_no_figures() {
        let zero = Histogram::default();
        assert_eq!(
            (zero.count(), zero.quantile_micros(0.5), zero.min_micros(), zero.max_micros()),
            (0, None, None, None)
        );
        assert_eq!(zero.mean_micros(), None);
    }

    /// 52 bytes that claim a payload of 4 GB.
    const BOMB: &str = "HISTFAAAAB94nJNpmSz8////DwwQwAylGUHEtclLGOyhMgDYYQh0";

    #[test]
    fn foreign_text_is_refused() {
        for text in ["", "%%%", "AAAA", "HISTFAAAAB542pNpmSzMwMDAxQABzFCaEUoz2X+AsIQAQ2UCNQ==", BOMB] {
            assert!(Histogram::from_hdr(text).is_err(), "{text}");
        }
        let wide = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1000, 3).expect("bounds");
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&wide, &mut bytes).expect("encodes");
        let error = Histogram::from_hdr(&STANDARD.encode(bytes)).expect_err("other bounds").to_string();
        assert!(error.contains("1 to 1000"), "{error}");
    }

    #[test]
    fn damaged_buckets_do_not_validate() {
        let bad = [
            Histogram { digits: 3, buckets: vec![] },
            Histogram { digits: 7, buckets: vec![(1, 1)] },
            Histogram { digits: 3, buckets: vec![(5, 1), (5, 1)] },
            Histogram { digits: 3, buckets: vec![(5, 0)] },
            Histogram { digits: 3, buckets: vec![(999_999, 1)] },
        ];
        assert!(bad.iter().all(|h| h.validate().is_err()));
        assert!(of(&[3, 4], 2).validate().is_ok() && Histogram::default().validate().is_ok());
    }
}
