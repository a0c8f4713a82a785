//! Terms of a budget, the demand of a call, and the answer to it.

use super::Period;

/// Cost of a call whose model has no price.
pub const UNPRICED: u64 = u64::MAX;
/// Cost of a reservation while prices are not loaded.
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

/// What a budget in USD does about calls to models without a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpriced {
    /// Allow them: they reserve and spend nothing; an exhausted budget refuses them too.
    Allow,
    /// Refuse them.
    Block,
    /// Charge each of them this many pico-dollars.
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

/// Terms of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The unit that it counts.
    pub unit: Unit,
    /// Limit for a period, at least 1.
    pub limit: u64,
    /// The period.
    pub period: Period,
    /// Whether it refuses calls that do not fit.
    pub blocking: bool,
    /// Amounts to report when reached, ascending.
    pub thresholds: Vec<u64>,
    /// What it does about calls to models without a price.
    pub unpriced: Unpriced,
}

/// Status of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Spent in this period.
    pub spent: u64,
    /// Reserved for calls in flight.
    pub reserved: u64,
    /// Limit for a period.
    pub limit: u64,
    /// Begin of the period, Unix nanoseconds.
    pub begins: u64,
    /// End of the period; `u64::MAX` without a period.
    pub ends: u64,
}

/// Worst case of a call, reserved on the budgets it belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reservation {
    /// The budgets, one bit each.
    pub budgets: u64,
    /// Pico-dollars; [`UNPRICED`] or [`PRICES_MISSING`] where the cost is unknown.
    pub cost: u64,
    /// Tokens.
    pub tokens: u64,
    /// Pico-dollars and tokens of the estimated input: what the call is charged if it is abandoned.
    pub input: [u64; 2],
}

/// What a call used: pico-dollars ([`UNPRICED`] where it has no price), tokens, calls; in the order of [`Unit`].
pub type Used = [u64; 3];

/// The price of calls that ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// Their budgets, a bit each.
    pub budgets: u64,
    /// Pico-dollars.
    pub cost: u64,
    /// How many of them were charged what a call without a price counts as.
    pub charged: u64,
    /// When the first and the last of them ended, Unix nanoseconds.
    pub ended: [u64; 2],
}

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
    /// The budget that refused it.
    pub budget: usize,
    /// The reason.
    pub why: Why,
    /// Thresholds that the refusal crossed.
    pub crossed: Crossed,
}
