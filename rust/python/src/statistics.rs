//! `Discrete` and `Sample`: sums behind the tests of `langmeter.analysis.regression`.

use crate::distribution::Distribution;
use langmeter_core::statistics as core;
use pyo3::prelude::*;

/// A one-peaked distribution of whole numbers.
#[pyclass(frozen, module = "langmeter._core")]
pub struct Discrete(core::Discrete);

#[pymethods]
impl Discrete {
    #[staticmethod]
    fn binomial(n: i64, q: f64) -> Self {
        Self(core::Discrete::binomial(n, q))
    }

    #[staticmethod]
    fn hypergeometric(marked: i64, n: i64, m: i64) -> Self {
        Self(core::Discrete::hypergeometric(marked, n, m))
    }

    #[getter]
    const fn low(&self) -> i64 {
        self.0.low
    }

    #[getter]
    const fn high(&self) -> i64 {
        self.0.high
    }

    fn at_most(&self, k: i64) -> f64 {
        self.0.at_most(k)
    }

    fn at_least(&self, k: i64) -> f64 {
        self.0.at_least(k)
    }

    fn largest(&self, p: f64) -> i64 {
        self.0.largest(p)
    }
}

/// Values in the buckets of a histogram, summed up once for all the tests of them.
#[pyclass(frozen, module = "langmeter._core")]
pub struct Sample(core::Sample);

#[pymethods]
impl Sample {
    #[new]
    #[allow(clippy::needless_pass_by_value)]
    fn new(buckets: Vec<core::Bucket>) -> Self {
        Self(core::Sample::new(&buckets))
    }

    #[staticmethod]
    fn of(distribution: &Distribution) -> Self {
        let buckets = distribution.0.buckets();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)] // microseconds and counts below 2^53
        let buckets: Vec<_> = buckets.map(|b| (b.lowest as f64, b.highest as f64, b.count as i64)).collect();
        Self(core::Sample::new(&buckets))
    }

    #[getter]
    fn lows(&self) -> Vec<f64> {
        self.0.lows.clone()
    }

    #[getter]
    fn highs(&self) -> Vec<f64> {
        self.0.highs.clone()
    }

    #[getter]
    fn before(&self) -> Vec<i64> {
        self.0.before.clone()
    }

    #[getter]
    fn n(&self) -> i64 {
        self.0.n()
    }

    fn up_to(&self, value: f64) -> i64 {
        self.0.up_to(value)
    }

    fn downsampled(&self, n: i64) -> Self {
        Self(self.0.downsampled(n))
    }

    fn risen(&self, now: &Self, q: f64, below: &Discrete, above: &Discrete) -> f64 {
        self.0.risen(&now.0, q, [&below.0, &above.0])
    }

    fn lowest_ratio(&self, now: &Self, most: f64, below: &Discrete, above: &Discrete) -> f64 {
        self.0.lowest_ratio(&now.0, most, [&below.0, &above.0])
    }

    /// (up, down, upper end, values of both up to there, parts of all orders).
    #[allow(clippy::type_complexity)]
    fn apart(&self, now: &Self, exact: u64) -> ([i128; 2], f64, [i64; 2], Option<[f64; 2]>) {
        let core::Apart { most, end, at_most, parts } = self.0.apart(&now.0, exact);
        (most, end, at_most, parts)
    }
}
