//! Discrete laws with one peak: their tails as sums of exact masses.

/// Masses below this part of the greatest are not summed; tails stop there, at more than they are.
const NEGLIGIBLE: f64 = 1e-40;

/// A one-peaked distribution of whole numbers, by the ratio of each mass to the one before.
///
/// Summed outwards from the mode, so that no term is lost to rounding and none needs a logarithm: the work is some 27
/// standard deviations, 43,000 terms for ten million coins.
#[derive(Debug, Clone, PartialEq)]
pub struct Discrete {
    /// The least number.
    pub low: i64,
    /// The greatest number.
    pub high: i64,
    /// Number of the first mass that is summed.
    first: i64,
    below: Vec<f64>,
    above: Vec<f64>,
}

impl Discrete {
    /// Successes among `n` trials, each with probability `q`, 0 < q < 1.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // counts below 2^53
    pub fn binomial(n: i64, q: f64) -> Self {
        let (odds, trials) = (q / (1.0 - q), n as f64);
        let mode = n.min(((trials + 1.0) * q) as i64);
        Self::new(0, mode, n, |k| (trials - k) / (k + 1.0) * odds)
    }

    /// How many of `marked` among `n + m` fall into the `m`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // counts below 2^53
    pub fn hypergeometric(marked: i64, n: i64, m: i64) -> Self {
        let low = marked.saturating_sub(n).max(0);
        let high = marked.min(m);
        let middle = i128::from(marked).saturating_add(1).saturating_mul(i128::from(m).saturating_add(1));
        let middle = middle.checked_div(i128::from(n).saturating_add(i128::from(m)).saturating_add(2)).unwrap_or(0);
        let mode = low.max(high.min(middle as i64));
        let unmarked = n.saturating_sub(marked) as f64;
        let (marked, m) = (marked as f64, m as f64);
        Self::new(low, mode, high, |k| (marked - k) * (m - k) / ((k + 1.0) * (unmarked + k + 1.0)))
    }

    /// `ratio(k)` is the mass of `k + 1` divided by that of `k`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)] // counts below 2^53
    fn new(low: i64, mode: i64, high: i64, ratio: impl Fn(f64) -> f64) -> Self {
        let mut masses = vec![1.0];
        let mut mass = 1.0;
        for k in (low..mode).rev() {
            mass /= ratio(k as f64);
            masses.push(mass);
            if mass < NEGLIGIBLE {
                break;
            }
        }
        let first = mode.saturating_sub(masses.len() as i64).saturating_add(1);
        masses.reverse();
        mass = 1.0;
        for k in mode..high {
            mass *= ratio(k as f64);
            masses.push(mass);
            if mass < NEGLIGIBLE {
                break;
            }
        }
        let total = exact_sum(&masses);
        let tails = |masses: &mut dyn Iterator<Item = &f64>| {
            let sums = masses.scan(0.0, |sum, mass| {
                *sum += mass;
                Some((*sum / total).min(1.0))
            });
            sums.collect()
        };
        Self { low, high, first, below: tails(&mut masses.iter()), above: tails(&mut masses.iter().rev()) }
    }

    /// Probability of at most `k`.
    pub fn at_most(&self, k: i64) -> f64 {
        if k < self.low {
            return 0.0;
        }
        let place = k.saturating_sub(self.first).max(0);
        usize::try_from(place).ok().and_then(|place| self.below.get(place)).copied().unwrap_or(1.0)
    }

    /// Probability of at least `k`.
    #[allow(clippy::cast_possible_wrap)] // the number of masses
    pub fn at_least(&self, k: i64) -> f64 {
        if k > self.high {
            return 0.0;
        }
        let last = self.first.saturating_add(self.above.len() as i64).saturating_sub(1);
        let place = last.saturating_sub(k).max(0);
        usize::try_from(place).ok().and_then(|place| self.above.get(place)).copied().unwrap_or(1.0)
    }

    /// The largest k of which P(X <= k) is at most `p`; `low - 1` without one.
    #[allow(clippy::cast_possible_wrap)] // the number of masses
    pub fn largest(&self, p: f64) -> i64 {
        if p >= 1.0 {
            return self.high;
        }
        match self.below.partition_point(|tail| *tail <= p) {
            0 => self.low.saturating_sub(1),
            place => self.first.saturating_add(place as i64).saturating_sub(1),
        }
    }
}

/// The sum of positive numbers, rounded once (Shewchuk 1997), but for ties.
fn exact_sum(values: &[f64]) -> f64 {
    let (mut partials, mut next): (Vec<f64>, Vec<f64>) = Default::default();
    for value in values {
        let mut high = *value;
        next.clear();
        for partial in &partials {
            let (large, small) = if high.abs() < partial.abs() { (*partial, high) } else { (high, *partial) };
            high = large + small;
            let low = small - (high - large);
            if low != 0.0 {
                next.push(low);
            }
        }
        next.push(high);
        std::mem::swap(&mut partials, &mut next);
    }
    // They do not overlap: from the greatest down, the first sum that is rounded is that of all.
    let mut sum = 0.0;
    for partial in partials.iter().rev() {
        let before = sum;
        sum += partial;
        if partial - (sum - before) != 0.0 {
            break;
        }
    }
    sum
}
