//! Values in the buckets of a histogram, and what two samples of them have in common.

use super::Discrete;

/// Lowest and highest value of a bucket, and how many values are in it.
pub type Bucket = (f64, f64, i64);

/// Values in the buckets of a histogram, summed up once for all the tests of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// Of each bucket its lowest value, ascending.
    pub lows: Vec<f64>,
    /// Of each bucket its highest value.
    pub highs: Vec<f64>,
    /// Number of values below each bucket, and that of all values at the end.
    pub before: Vec<i64>,
    counts: Vec<i64>,
}

/// How far two distributions are apart, as whole numbers of `n m`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Apart {
    /// At most so far the second lies above the first, and below it.
    pub most: [i128; 2],
    /// Upper end of the bucket where they are furthest apart.
    pub end: f64,
    /// Values of both that are at most this.
    pub at_most: [i64; 2],
    /// Part of all orders of the values in which they come as far apart, up and down; None for large samples.
    pub parts: Option<[f64; 2]>,
}

fn at<T: Copy + Default>(values: &[T], place: usize) -> T {
    values.get(place).copied().unwrap_or_default()
}

impl Sample {
    /// Of buckets in ascending order.
    pub fn new(buckets: &[Bucket]) -> Self {
        let mut sample = Self { before: vec![0], ..Self::default() };
        let mut sum = 0_i64;
        for (low, high, count) in buckets {
            sum = sum.saturating_add(*count);
            sample.lows.push(*low);
            sample.highs.push(*high);
            sample.counts.push(*count);
            sample.before.push(sum);
        }
        sample
    }

    /// Number of all values.
    pub fn n(&self) -> i64 {
        self.before.last().copied().unwrap_or(0)
    }

    fn buckets(&self) -> impl Iterator<Item = Bucket> {
        self.lows.iter().zip(&self.highs).zip(&self.counts).map(|((low, high), count)| (*low, *high, *count))
    }

    /// How many values are at most `value`, were each the lowest of its bucket.
    pub fn up_to(&self, value: f64) -> i64 {
        at(&self.before, self.lows.partition_point(|low| *low <= value))
    }

    /// The lowest value of the bucket that holds the value of this rank, from 0.
    fn ranked(&self, rank: i64) -> f64 {
        at(&self.lows, self.before.partition_point(|before| *before <= rank).saturating_sub(1))
    }

    /// The same shape with only `n` values, at most as many as there are.
    #[allow(clippy::cast_possible_truncation)] // at most `n`
    #[must_use]
    pub fn downsampled(&self, n: i64) -> Self {
        let all = i128::from(self.n()).max(1);
        let (mut buckets, mut before) = (Vec::new(), 0);
        for ((low, high, _), upto) in self.buckets().zip(self.before.iter().skip(1)) {
            let twice = i128::from(*upto).saturating_mul(2).saturating_mul(i128::from(n)).saturating_add(all);
            let rank = twice.div_euclid(all.saturating_mul(2)) as i64;
            if rank > before {
                buckets.push((low, high, rank.saturating_sub(before)));
            }
            before = rank;
        }
        Self::new(&buckets)
    }

    /// The largest product of the two tails over all values that could be the q-quantile of this and of `now`: that so
    /// many of this lie below it, and so few of `now` at or below.
    #[allow(clippy::cast_precision_loss)] // counts below 2^53
    pub fn risen(&self, now: &Self, q: f64, [below, above]: [&Discrete; 2]) -> f64 {
        let target = self.n() as f64 * q;
        let middle = self.before.partition_point(|before| (*before as f64) < target);
        let tail = |place: usize| below.at_least(at(&self.before, place));
        let reached = |place: usize| above.at_most(now.up_to(at(&self.highs, place)));
        let mut likeliest = 0.0_f64;
        // As the value goes up, the first factor falls and the second rises. So outwards from the quantile of this the
        // search ends where one of them alone is not above the best product: 10 of 170 buckets of 200 calls where
        // nothing changed.
        for place in (0..self.highs.len().min(middle.saturating_add(1))).rev() {
            let reached = reached(place);
            if reached <= likeliest {
                break;
            }
            likeliest = likeliest.max(tail(place) * reached);
        }
        for place in middle..self.highs.len() {
            let tail = tail(place);
            if tail <= likeliest {
                break;
            }
            likeliest = likeliest.max(tail * reached(place));
        }
        likeliest.max(below.at_least(self.n()))
    }

    /// The greatest ratio of the quantiles such that for all ratios below the product of the tails is at most `most`.
    pub fn lowest_ratio(&self, now: &Self, most: f64, [below, above]: [&Discrete; 2]) -> f64 {
        let rank = |place: usize| above.largest(most / below.at_least(at(&self.before, place)));
        let first = rank(0);
        if below.at_least(self.n()) > most || first < 0 {
            return 0.0;
        }
        // Ranks rise with the place. Of places of one rank the last has the least ratio, and most of them have the
        // first rank.
        let places: Vec<usize> = (0..self.highs.len()).collect();
        let start = places.partition_point(|place| rank(*place) <= first).saturating_sub(1);
        let mut ratio = f64::INFINITY;
        for place in start..self.highs.len() {
            let rank = rank(place);
            if rank >= now.n() {
                break;
            }
            ratio = ratio.min(now.ranked(rank) / at(&self.highs, place).max(1.0));
        }
        ratio
    }

    /// How far this and `now` are apart; the parts of orders where the sizes multiply to at most `exact`.
    pub fn apart(&self, now: &Self, exact: u64) -> Apart {
        let (n, m) = (self.n(), now.n());
        let all = usize::try_from(n.saturating_add(m)).unwrap_or_default();
        let counts_orders = i128::from(n).saturating_mul(i128::from(m)) <= i128::from(exact);
        let mut ends = vec![false; if counts_orders { all.saturating_add(1) } else { 0 }];
        let mut end_at = |i: i64, j: i64| {
            let place = usize::try_from(i.saturating_add(j)).ok();
            if let Some(end) = place.and_then(|place| ends.get_mut(place)) {
                *end = true;
            }
        };
        // Buckets that overlap are one group, whose values cannot be told apart.
        let both = self.buckets().map(|(low, high, count)| (low, high, count, 0));
        let mut both: Vec<_> = both.chain(now.buckets().map(|(low, high, count)| (low, high, 0, count))).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (mut i, mut j, mut up, mut down, mut end) = (0_i64, 0_i64, 0_i128, 0_i128, -1.0_f64);
        let mut place = None;
        for (low, high, x, y) in both {
            if low > end {
                end_at(i, j);
                let (of_n, of_m) = (i128::from(i).saturating_mul(m.into()), i128::from(j).saturating_mul(n.into()));
                let apart = of_n.saturating_sub(of_m);
                if apart.abs() > up.max(down) {
                    place = Some((end, [i, j]));
                }
                up = up.max(apart);
                down = down.max(apart.saturating_neg());
                end = high;
            } else {
                end = end.max(high);
            }
            (i, j) = (i.saturating_add(x), j.saturating_add(y));
        }
        end_at(n, m);
        let parts = counts_orders.then(|| [crossing([n, m], up, &ends), crossing([m, n], down, &ends)]);
        let (end, at_most) = place.unwrap_or((end, [n, m]));
        Apart { most: [up, down], end, at_most, parts }
    }
}

/// Part of all orders of n and m values in which i m - j n reaches `d` where ties end; `n m` is small.
fn crossing([n, m]: [i64; 2], d: i128, ends: &[bool]) -> f64 {
    let (Ok(n), Ok(m), Ok(d)) = (usize::try_from(n), usize::try_from(m), isize::try_from(d)) else { return 1.0 };
    if d <= 0 {
        return 1.0;
    }
    let signed = isize::try_from(n).unwrap_or(isize::MAX);
    // Orders of i and of j values, and those that have reached `d`, for each j. Floats hold at most
    // (282 choose 141), 1e84.
    let mut cells = vec![(1.0_f64, 0.0_f64); m.saturating_add(1)];
    for i in 1..=n {
        let far = isize::try_from(i.saturating_mul(m)).unwrap_or(isize::MAX).saturating_sub(d);
        // Up to this j all orders have reached it where ties end; elsewhere those that had before.
        let beyond = far.div_euclid(signed).saturating_add(1);
        let beyond = usize::try_from(beyond).unwrap_or(0);
        let (mut orders, mut left) = (0.0, 0.0);
        for (j, (order, reached)) in cells.iter_mut().enumerate() {
            orders += *order;
            *order = orders;
            let is_end = j < beyond && at(ends, i.saturating_add(j));
            left = if is_end { orders } else { left + *reached };
            *reached = left;
        }
    }
    cells.last().map_or(1.0, |(orders, reached)| reached / orders)
}
