//! The snapshot as plain data: merge, subtract, encode, decode.

mod windows;

pub use windows::WindowCounts;
pub(crate) use windows::{add_windows, window_counts};

use crate::defects::{TALLIES, tally_name};
use crate::error::Error;
use crate::histogram::Histogram;
use crate::metrics::{COUNTERS, MEASURES, Measure};
use crate::series::{Kind, LabelSet};
use crate::window::WINDOWS;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &[u8; 4] = b"LMTR";
/// Newest version of the encoding: that of a snapshot with declared labels, which follow it.
pub const VERSION: u16 = 4;
/// Version of any other snapshot, so that an older langmeter reads it. Histories hold snapshots of both.
const UNLABELED: u16 = 3;

/// The recorder that a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Origin {
    /// None: the empty snapshot.
    #[default]
    None,
    /// One recorder, in one process of a chain of forks.
    One {
        /// Identity of the recorder.
        recorder: u64,
        /// Number of forks between this process and the recorder's first one (high half), and a random number for the child at
        /// that depth (low half).
        generation: u64,
    },
    /// Several recorders.
    Many,
}

impl Origin {
    const fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, x) | (x, Self::None) => x,
            (Self::One { recorder: a, generation: g }, Self::One { recorder: b, generation: h })
                if a == b && g == h =>
            {
                self
            }
            _ => Self::Many,
        }
    }
}

/// A change point of a model's metric. Values are in 1e-12 of their unit: seconds, fractions of 1, tokens, dollars.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Anomaly {
    /// Time of the change, Unix nanoseconds.
    pub at: u64,
    /// Time at which it was detected.
    pub detected_at: u64,
    /// Provider of the model.
    pub provider: String,
    /// Name of the model.
    pub model: String,
    /// Name of the metric.
    pub metric: String,
    /// Value before.
    pub before: u64,
    /// Value after.
    pub after: u64,
    /// Number of calls behind `before`.
    pub calls_before: u64,
    /// Number of calls behind `after`.
    pub calls_after: u64,
}

/// Figures of attempts at defects by position: what entered each, and what left it.
pub type Tallies = BTreeMap<u16, (u64, u64)>;

/// Counts of one label set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeriesData {
    /// Outcomes, then `Counter`.
    #[serde(with = "growing")]
    pub counters: [u64; COUNTERS],
    /// By `Measure`.
    #[serde(with = "growing")]
    pub measures: [Histogram; MEASURES],
    /// For series that count model calls: the last 1, 5 and 15 minutes.
    pub windows: Vec<WindowCounts>,
    /// For models: calls in flight; in a difference, the change.
    pub in_flight: i64,
    /// For models: the most calls in flight at once, in one recorder, since its beginning.
    pub peak: u64,
    /// For attempts at defects: what entered each figure, and what left it; no zeros.
    pub tallies: Tallies,
}

impl Default for SeriesData {
    fn default() -> Self {
        Self {
            counters: [0; COUNTERS],
            measures: std::array::from_fn(|_| Histogram::default()),
            windows: Vec::new(),
            in_flight: 0,
            peak: 0,
            tallies: BTreeMap::new(),
        }
    }
}

/// Arrays as lists, so that a later version with longer ones reads what this one wrote.
mod growing {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<T: Serialize, S: Serializer, const N: usize>(values: &[T; N], to: S) -> Result<S::Ok, S::Error> {
        values.as_slice().serialize(to)
    }

    pub fn deserialize<'de, T, D, const N: usize>(from: D) -> Result<[T; N], D::Error>
    where
        T: Deserialize<'de> + Default,
        D: Deserializer<'de>,
    {
        let list = Vec::<T>::deserialize(from)?;
        if list.len() > N {
            return Err(D::Error::custom("more figures than are known"));
        }
        let mut list = list.into_iter();
        Ok(std::array::from_fn(|_| list.next().unwrap_or_default()))
    }
}

impl SeriesData {
    /// Whether nothing was counted and nothing is in flight.
    pub fn is_zero(&self) -> bool {
        self.counters.iter().all(|n| *n == 0)
            && self.measures.iter().all(Histogram::is_empty)
            && self.in_flight == 0
            && self.tallies.is_empty()
    }

    /// Adds recorded values to a distribution, and to that of which they are a part.
    pub(crate) fn add_to(&mut self, measure: Measure, values: Histogram) {
        if measure == Measure::FailedLatency {
            self.add_to(Measure::Latency, values.clone());
        }
        if let Some(to) = self.measures.get_mut(measure as usize) {
            // Not added to nothing: that would copy every bucket once more.
            if to.is_empty() { *to = values } else { to.add(&values) }
        }
    }

    /// Adds what another series has counted.
    pub fn add(&mut self, other: &Self) {
        for (to, n) in self.counters.iter_mut().zip(other.counters) {
            *to = to.saturating_add(n);
        }
        for (to, measure) in self.measures.iter_mut().zip(&other.measures) {
            to.add(measure);
        }
        add_windows(&mut self.windows, &other.windows);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.peak = self.peak.max(other.peak);
        for (tally, (entered, left)) in &other.tallies {
            let to = self.tallies.entry(*tally).or_default();
            *to = (to.0.saturating_add(*entered), to.1.saturating_add(*left));
        }
    }

    fn without(&self, other: &Self, labels: &LabelSet, interval: u64) -> Result<Self, Error> {
        let name = || format!("{} {} {}", labels.kind.name(), labels.a, labels.b).trim_end().to_owned();
        let mut counters = self.counters;
        for (n, m) in counters.iter_mut().zip(other.counters) {
            *n = n.checked_sub(m).ok_or_else(|| Error::NotEarlier {
                what: format!("a counter of {}", name()),
                left: *n,
                right: m,
            })?;
        }
        let mut data = Self {
            counters,
            in_flight: self.in_flight.saturating_sub(other.in_flight),
            peak: self.peak,
            ..Self::default()
        };
        for (i, to) in data.measures.iter_mut().enumerate() {
            let (Some(a), Some(b)) = (self.measures.get(i), other.measures.get(i)) else { continue };
            let what = Measure::ALL.get(i).map_or("a distribution", |m| m.name());
            *to = a.without(b, || format!("{what} of {}", name()))?;
        }
        for tally in self.tallies.keys().chain(other.tallies.keys()) {
            let ((a, b), (c, d)) = (of(&self.tallies, *tally), of(&other.tallies, *tally));
            let less = |left: u64, right: u64| {
                let what = || format!("{} of {}", tally_name(usize::from(*tally)), name());
                left.checked_sub(right).ok_or_else(|| Error::NotEarlier { what: what(), left, right })
            };
            let pair = (less(a, c)?, less(b, d)?);
            if pair != (0, 0) {
                data.tallies.insert(*tally, pair);
            }
        }
        if labels.kind.counts_calls() {
            let counts = window_counts(&data.counters);
            data.windows = WINDOWS.iter().map(|s| WindowCounts { seconds: *s, covered: interval, counts }).collect();
        }
        Ok(data)
    }
}

fn of(tallies: &Tallies, tally: u16) -> (u64, u64) {
    tallies.get(&tally).copied().unwrap_or_default()
}

/// Everything that a recorder had counted at one moment, or a sum or difference of such.
///
/// A commutative monoid under `+`: the empty snapshot is zero; counters, histograms, in-flight calls, dropped events and
/// window counts add; the time covered is the span of both, the peak is the higher one, anomalies and declared labels are
/// united.
/// `b - a` undoes it for everything that adds. Windows describe a moment: those of a difference hold what happened
/// between the two snapshots, over the time between; its peak is the later one's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The recorder that it comes from.
    pub origin: Origin,
    /// Begin of the time covered, Unix nanoseconds; 0 when empty.
    pub started_at: u64,
    /// End of the time covered.
    pub taken_at: u64,
    /// Model runs in flight; in a difference, the change.
    pub in_flight: i64,
    /// The most model runs that were in flight at once, in one recorder, since its beginning.
    pub peak: u64,
    /// Change points detected while it ran.
    pub anomalies: BTreeSet<Anomaly>,
    /// Dropped events by name; no zeros.
    pub dropped: BTreeMap<String, u64>,
    /// Counts by label set; no zeros.
    pub series: BTreeMap<LabelSet, SeriesData>,
    /// Labels that were declared, whether calls have been counted by them or not; as the keys of their rows.
    #[serde(skip)]
    pub labels: BTreeSet<String>,
}

impl Snapshot {
    /// Returns the sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// Adds another snapshot to this one.
    pub fn add(&mut self, other: &Self) {
        self.origin = self.origin.joined(other.origin);
        self.started_at = match (self.started_at, other.started_at) {
            (0, t) | (t, 0) => t,
            (a, b) => a.min(b),
        };
        self.taken_at = self.taken_at.max(other.taken_at);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.peak = self.peak.max(other.peak);
        self.anomalies.extend(other.anomalies.iter().cloned());
        self.labels.extend(other.labels.iter().cloned());
        for (name, n) in &other.dropped {
            let to = self.dropped.entry(name.clone()).or_default();
            *to = to.saturating_add(*n);
        }
        for (labels, data) in &other.series {
            if let Some(to) = self.series.get_mut(labels) {
                to.add(data);
            } else {
                self.series.insert(labels.clone(), data.clone());
            }
        }
    }

    /// Returns what happened after `earlier`. After a fork, everything that the child counted is new: its difference to a
    /// snapshot of its parent is the child's snapshot itself. The difference of a parent to its child, of two children, or of
    /// two recorders is refused: for two recorders, the process was restarted in between and their counts have nothing in
    /// common.
    pub fn minus(&self, earlier: &Self) -> Result<Self, Error> {
        if let (Origin::One { recorder: a, generation: g }, Origin::One { recorder: b, generation: h }) =
            (self.origin, earlier.origin)
        {
            if a != b {
                return Err(Error::Restarted);
            }
            if g != h {
                let (deep, depth) = (g >> 32, h >> 32);
                return if deep > depth { Ok(self.clone()) } else { Err(Error::Stranger) };
            }
        }
        // The empty snapshot has no time: the difference to it is everything ever counted.
        let started_at = if earlier.taken_at == 0 { self.started_at } else { earlier.taken_at };
        let interval = self.taken_at.saturating_sub(started_at);
        let mut rest = Self {
            origin: self.origin,
            started_at,
            taken_at: self.taken_at,
            in_flight: self.in_flight.saturating_sub(earlier.in_flight),
            peak: self.peak,
            anomalies: self.anomalies.difference(&earlier.anomalies).cloned().collect(),
            labels: self.labels.clone(),
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

    /// What was counted over its time, without what describes a moment or the whole life of a recorder: windows, calls in
    /// flight, their peak. Differences of consecutive spans are summed in this form: windows would add their counts and not
    /// their times, and the calls that a killed process had in flight would stay for ever.
    #[must_use]
    pub fn counted(&self) -> Self {
        let mut counted = Self { in_flight: 0, peak: 0, ..self.clone() };
        for data in counted.series.values_mut() {
            data.windows.clear();
            (data.in_flight, data.peak) = (0, 0);
        }
        counted.series.retain(|_, data| !data.is_zero());
        counted
    }

    /// The windows over all models.
    pub fn windows(&self) -> Vec<WindowCounts> {
        let models = self.series.iter().filter(|(labels, _)| labels.kind == Kind::Model);
        models.fold(Vec::new(), |mut sum, (_, data)| {
            add_windows(&mut sum, &data.windows);
            sum
        })
    }

    /// "LMTR", version, CRC-32 of the rest, the rest.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut body = postcard::to_stdvec(self).map_err(|e| Error::Malformed(e.to_string()))?;
        let version = if self.labels.is_empty() { UNLABELED } else { VERSION };
        if version == VERSION {
            body = postcard::to_extend(&self.labels, body).map_err(|e| Error::Malformed(e.to_string()))?;
        }
        let mut bytes = Vec::with_capacity(body.len().saturating_add(10));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads the output of `to_bytes`; refuses foreign and damaged bytes, and those of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |why: &str| Error::Malformed(why.to_owned());
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("the first four bytes are not LMTR"))?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| malformed("cut off in the header"))?;
        let version = u16::from_le_bytes(*version);
        if version > VERSION {
            return Err(Error::Version { found: version, known: VERSION });
        }
        if version < UNLABELED {
            return Err(malformed(&format!(
                "snapshot format {version} is of an older langmeter; this one reads {UNLABELED} and {VERSION}"
            )));
        }
        let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("cut off in the header"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(malformed("the checksum does not fit: cut off or damaged"));
        }
        let (mut snapshot, mut rest): (Self, _) =
            postcard::take_from_bytes(body).map_err(|e| malformed(&e.to_string()))?;
        if version == VERSION {
            (snapshot.labels, rest) = postcard::take_from_bytes(rest).map_err(|e| malformed(&e.to_string()))?;
        }
        if !rest.is_empty() {
            return Err(malformed("more bytes than a snapshot"));
        }
        snapshot.validated()
    }

    /// Checks that data from outside has the form a recorder gives: no zeros, windows in order.
    pub fn validated(mut self) -> Result<Self, Error> {
        for (labels, data) in &self.series {
            data.measures.iter().try_for_each(Histogram::validate)?;
            let [latency, failed] = [Measure::Latency, Measure::FailedLatency].map(|m| data.measures.get(m as usize));
            if let (Some(latency), Some(failed)) = (latency, failed) {
                let part = || format!("failed_latency of {} {}", labels.a, labels.b);
                latency.without(failed, part).map_err(|_| Error::Malformed(format!("{} beyond latency", part())))?;
            }
            let ascending = data.windows.windows(2).all(|w| matches!(w, [a, b] if a.seconds < b.seconds));
            if !ascending || !(labels.kind.counts_calls() || data.windows.is_empty()) {
                return Err(Error::Malformed(format!("windows of {} {} out of order", labels.a, labels.b)));
            }
            let known = data.tallies.keys().all(|tally| usize::from(*tally) < TALLIES);
            if !known || !(labels.kind.counts_attempts() || data.tallies.is_empty()) {
                return Err(Error::Malformed(format!("figures of attempts of {} {}", labels.a, labels.b)));
            }
        }
        self.series.retain(|_, data| !data.is_zero());
        self.dropped.retain(|_, n| *n > 0);
        Ok(self)
    }
}
