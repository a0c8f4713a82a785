//! What a budget is, what a call asks of it, and what it answers.

use super::Period;

/// As the cost of a reservation or of what was used: the model has no price.
pub const UNPRICED: u64 = u64::MAX;
/// As the cost of a reservation: prices are not loaded, nobody knows what the call costs.
pub const PRICES_MISSING: u64 = u64::MAX - 1;
/// The greatest cost of a reservation.
pub const MAX_COST: u64 = u64::MAX - 2;

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Unit {
    /// Pico-dollars; a u64 holds 18.4 million USD of them.
    Cost,
    /// Tokens, input and output.
    Tokens,
    /// Calls.
    Calls,
}

impl Unit {
    /// Every unit, in the order of its code.
    pub const ALL: [Self; 3] = [Self::Cost, Self::Tokens, Self::Calls];

    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cost => "usd",
            Self::Tokens => "tokens",
            Self::Calls => "calls",
        }
    }
}

/// What a budget in pico-dollars does about calls of a model that has no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpriced {
    /// They hold and spend nothing; an exhausted budget refuses them too.
    Allow,
    /// It refuses them.
    Block,
    /// Each holds and spends so many pico-dollars.
    Charge(u64),
}

impl Unpriced {
    pub(super) const fn cell(self) -> u64 {
        match self {
            Self::Allow => 0,
            Self::Block => u64::MAX,
            Self::Charge(cost) => cost,
        }
    }
}

/// What a budget is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What it counts.
    pub unit: Unit,
    /// Most of it in a period, at least 1.
    pub limit: u64,
    /// When it begins anew.
    pub period: Period,
    /// Whether it refuses calls that do not fit.
    pub blocking: bool,
    /// Amounts to be told of, ascending.
    pub thresholds: Vec<u64>,
    /// What it does about calls of a model that has no price.
    pub unpriced: Unpriced,
}

/// What a budget stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Spent in this period.
    pub spent: u64,
    /// Held for calls in flight.
    pub reserved: u64,
    /// Most of it in a period.
    pub limit: u64,
    /// Begin of the period, Unix nanoseconds.
    pub begins: u64,
    /// Its end; `u64::MAX` when it has none.
    pub ends: u64,
}

/// What a call holds of the budgets it belongs to, at its worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reservation {
    /// The budgets, a bit each.
    pub budgets: u64,
    /// Pico-dollars; [`UNPRICED`] or [`PRICES_MISSING`] where that is not known.
    pub cost: u64,
    /// Tokens.
    pub tokens: u64,
    /// What the call counts as when it is abandoned: the pico-dollars and the tokens of its input, estimated.
    pub input: [u64; 2],
}

/// What a call has used: pico-dollars ([`UNPRICED`] where it has no price), tokens, calls; in the order of [`Unit`].
pub type Used = [u64; 3];

/// Thresholds that an event crossed: budget, position of the threshold.
pub type Crossed = Vec<(usize, usize)>;

/// Why a budget refuses a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// Its worst case does not fit what is left.
    Full,
    /// Its model has no price.
    Unpriced,
    /// Prices are not loaded.
    PricesMissing,
}

/// A call that a budget refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The budget that refuses it.
    pub budget: usize,
    /// Why it does.
    pub why: Why,
    /// What its refusal crossed.
    pub crossed: Crossed,
}
