//! Plain data out of the recorder: merge, subtract, encode.

use crate::error::Error;
use crate::histogram::Histogram;
use crate::recorder::COUNTERS;
use crate::series::{Kind, LabelSet};
use crate::window::{Counts, METRICS, WINDOWS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MAGIC: &[u8; 4] = b"LMTR";
const VERSION: u16 = 1;

/// Which recorder a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Origin {
    /// None: the empty snapshot.
    #[default]
    Nobody,
    /// One, in one process of a chain of forks.
    One {
        /// The recorder.
        recorder: u64,
        /// How many forks lie between it and its first process (high half), and which of the children so
        /// deep it is (low half, random).
        generation: u64,
    },
    /// Several.
    Many,
}

impl Origin {
    const fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, x) | (x, Self::Nobody) => x,
            (Self::One { recorder: a, generation: g }, Self::One { recorder: b, generation: h })
                if a == b && g == h =>
            {
                self
            }
            _ => Self::Many,
        }
    }
}

/// Counts of one sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WindowCounts {
    /// Its length in seconds.
    pub seconds: u64,
    /// How much of it the recorder has lived, nanoseconds.
    pub covered: u64,
    /// Requests, input tokens, output tokens, errors.
    pub counts: Counts,
}

/// What one label set counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeriesData {
    /// Outcomes, then `Counter`.
    #[serde(with = "counters")]
    pub counters: [u64; COUNTERS],
    /// Start to end.
    pub latency: Histogram,
    /// Start to first token, of streamed runs.
    pub time_to_first_token: Histogram,
    /// Between tokens.
    pub inter_token_latency: Histogram,
    /// Of models only: the last 1, 5 and 15 minutes.
    pub windows: Vec<WindowCounts>,
}

impl Default for SeriesData {
    fn default() -> Self {
        Self {
            counters: [0; COUNTERS],
            latency: Histogram::default(),
            time_to_first_token: Histogram::default(),
            inter_token_latency: Histogram::default(),
            windows: Vec::new(),
        }
    }
}

/// Counters as a list, so that a later version with more of them reads what this one wrote.
mod counters {
    use super::COUNTERS;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(values: &[u64; COUNTERS], to: S) -> Result<S::Ok, S::Error> {
        values.as_slice().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u64; COUNTERS], D::Error> {
        let list = Vec::<u64>::deserialize(from)?;
        if list.len() > COUNTERS {
            return Err(D::Error::custom("more counters than are known"));
        }
        let mut values = [0; COUNTERS];
        values.iter_mut().zip(list).for_each(|(to, n)| *to = n);
        Ok(values)
    }
}

impl SeriesData {
    /// Nothing was ever counted.
    pub fn is_zero(&self) -> bool {
        self.counters.iter().all(|n| *n == 0)
            && self.latency.count() == 0
            && self.time_to_first_token.count() == 0
            && self.inter_token_latency.count() == 0
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (to, n) in self.counters.iter_mut().zip(other.counters) {
            *to = to.saturating_add(n);
        }
        self.latency = self.latency.merged(&other.latency);
        self.time_to_first_token = self.time_to_first_token.merged(&other.time_to_first_token);
        self.inter_token_latency = self.inter_token_latency.merged(&other.inter_token_latency);
        self.windows = merged_windows(&self.windows, &other.windows);
    }

    /// Counters that a window counts: requests (all outcomes), input, output, errors.
    fn window_counts(&self) -> Counts {
        let sum = |cells: &[u64]| cells.iter().fold(0_u64, |s, n| s.saturating_add(*n));
        let [ok, error, cancelled, abandoned, interrupted, cache_hit, input, output, ..] = self.counters;
        [sum(&[ok, error, cancelled, abandoned, interrupted, cache_hit]), input, output, error]
    }

    fn without(&self, other: &Self, labels: &LabelSet, interval: u64) -> Result<Self, Error> {
        let name = format!("{} {} {}", labels.kind.name(), labels.a, labels.b);
        let mut counters = self.counters;
        for (n, m) in counters.iter_mut().zip(other.counters) {
            *n = n.checked_sub(m).ok_or_else(|| Error::NotEarlier {
                what: format!("a counter of {}", name.trim_end()),
                left: *n,
                right: m,
            })?;
        }
        let minus = |a: &Histogram, b: &Histogram, what: &str| a.without(b, &format!("{what} of {}", name.trim_end()));
        let mut data = Self {
            counters,
            latency: minus(&self.latency, &other.latency, "latency")?,
            time_to_first_token: minus(&self.time_to_first_token, &other.time_to_first_token, "time to first token")?,
            inter_token_latency: minus(&self.inter_token_latency, &other.inter_token_latency, "inter-token latency")?,
            windows: Vec::new(),
        };
        if labels.kind == Kind::Model {
            let counts = data.window_counts();
            data.windows = WINDOWS.iter().map(|s| WindowCounts { seconds: *s, covered: interval, counts }).collect();
        }
        Ok(data)
    }
}

/// Counts add; what is covered is the longest of the two.
fn merged_windows(a: &[WindowCounts], b: &[WindowCounts]) -> Vec<WindowCounts> {
    let mut by: BTreeMap<u64, WindowCounts> = BTreeMap::new();
    for w in a.iter().chain(b) {
        let to = by.entry(w.seconds).or_insert(WindowCounts { seconds: w.seconds, covered: 0, counts: [0; METRICS] });
        to.covered = to.covered.max(w.covered);
        for (sum, n) in to.counts.iter_mut().zip(w.counts) {
            *sum = sum.saturating_add(n);
        }
    }
    by.into_values().collect()
}

/// Everything a recorder had counted at a moment, or a sum or difference of such.
///
/// With `+` a commutative monoid: the empty snapshot is zero; counters, histograms, in-flight, dropped and
/// window counts add; the time covered is the span of both. `b - a` undoes it for all that adds. Windows
/// describe a moment: those of a difference are what happened between, over the time between.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose it is.
    pub origin: Origin,
    /// Begin of what is covered, Unix nanoseconds; 0 when empty.
    pub started_at: u64,
    /// End of it.
    pub taken_at: u64,
    /// Model runs in flight; of a difference, the change.
    pub in_flight: i64,
    /// What was lost, by name; no zeros.
    pub dropped: BTreeMap<String, u64>,
    /// What was counted; no zeros.
    pub series: BTreeMap<LabelSet, SeriesData>,
}

impl Snapshot {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.origin = self.origin.joined(other.origin);
        sum.started_at = match (self.started_at, other.started_at) {
            (0, t) | (t, 0) => t,
            (a, b) => a.min(b),
        };
        sum.taken_at = self.taken_at.max(other.taken_at);
        sum.in_flight = self.in_flight.saturating_add(other.in_flight);
        for (name, n) in &other.dropped {
            let to = sum.dropped.entry(name.clone()).or_default();
            *to = to.saturating_add(*n);
        }
        for (labels, data) in &other.series {
            sum.series.entry(labels.clone()).or_default().add(data);
        }
        sum
    }

    /// What happened after `earlier`. After a fork everything the child counted is new to it: its
    /// difference to a snapshot of its parent is the child's snapshot itself. That of a parent and its
    /// child, or of two children, is refused.
    pub fn minus(&self, earlier: &Self) -> Result<Self, Error> {
        if let (Origin::One { recorder: a, generation: g }, Origin::One { recorder: b, generation: h }) =
            (self.origin, earlier.origin)
            && a == b
            && g != h
        {
            let (deep, depth) = (g >> 32, h >> 32);
            return if deep > depth { Ok(self.clone()) } else { Err(Error::Stranger) };
        }
        let interval = self.taken_at.saturating_sub(earlier.taken_at);
        let mut rest = Self {
            origin: self.origin,
            started_at: if earlier.taken_at == 0 { self.started_at } else { earlier.taken_at },
            taken_at: self.taken_at,
            in_flight: self.in_flight.saturating_sub(earlier.in_flight),
            ..Self::default()
        };
        for (name, right) in &earlier.dropped {
            if !self.dropped.contains_key(name) && *right > 0 {
                return Err(Error::NotEarlier { what: format!("dropped {name}"), left: 0, right: *right });
            }
        }
        for (name, left) in &self.dropped {
            let right = earlier.dropped.get(name).copied().unwrap_or(0);
            let n = left.checked_sub(right).ok_or_else(|| Error::NotEarlier {
                what: format!("dropped {name}"),
                left: *left,
                right,
            })?;
            if n > 0 {
                rest.dropped.insert(name.clone(), n);
            }
        }
        let zero = SeriesData::default();
        for (labels, data) in &earlier.series {
            if !self.series.contains_key(labels) {
                zero.without(data, labels, interval)?;
            }
        }
        for (labels, data) in &self.series {
            let data = data.without(earlier.series.get(labels).unwrap_or(&zero), labels, interval)?;
            if !data.is_zero() {
                rest.series.insert(labels.clone(), data);
            }
        }
        Ok(rest)
    }

    /// The windows over all models.
    pub fn windows(&self) -> Vec<WindowCounts> {
        self.series.values().fold(Vec::new(), |sum, data| merged_windows(&sum, &data.windows))
    }

    /// "LMTR", version, CRC-32 of the rest, the rest.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let body = postcard::to_stdvec(self).map_err(|e| Error::Malformed(e.to_string()))?;
        let mut bytes = Vec::with_capacity(body.len().saturating_add(10));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads what `to_bytes` wrote; refuses foreign, damaged and newer bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |why: &str| Error::Malformed(why.to_owned());
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("the first four bytes are not LMTR"))?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| malformed("cut off in the header"))?;
        let version = u16::from_le_bytes(*version);
        if version > VERSION {
            return Err(Error::Version { found: version, known: VERSION });
        }
        if version == 0 {
            return Err(malformed("format version 0 never was"));
        }
        let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("cut off in the header"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(malformed("the checksum does not fit: cut off or damaged"));
        }
        let (snapshot, rest): (Self, _) = postcard::take_from_bytes(body).map_err(|e| malformed(&e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("more bytes than a snapshot"));
        }
        snapshot.validated()
    }

    /// Holds what comes from outside to the form a recorder gives: no zeros, windows in order.
    pub fn validated(mut self) -> Result<Self, Error> {
        for (labels, data) in &self.series {
            for histogram in [&data.latency, &data.time_to_first_token, &data.inter_token_latency] {
                histogram.validate()?;
            }
            let ascending = data.windows.windows(2).all(|w| matches!(w, [a, b] if a.seconds < b.seconds));
            if !ascending || (labels.kind != Kind::Model && !data.windows.is_empty()) {
                return Err(Error::Malformed(format!("windows of {} {} out of order", labels.a, labels.b)));
            }
        }
        self.series.retain(|_, data| !data.is_zero());
        self.dropped.retain(|_, n| *n > 0);
        Ok(self)
    }
}
