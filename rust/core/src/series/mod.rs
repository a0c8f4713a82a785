//! What is counted for whom: kinds and label sets, and the table that gives each of them a series.

mod table;

pub use table::{SeriesId, SeriesTable, cut};

use serde::{Deserialize, Serialize};

/// What a series is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A language model run, by the name of its component.
    Llm,
    /// A chain or any other runnable.
    Chain,
    /// A tool.
    Tool,
    /// A retriever.
    Retriever,
    /// An LLM-made fix.
    Fix,
    /// A model by provider and name.
    Model,
    /// A node of a graph.
    Node,
    /// An agent.
    Agent,
    /// The calls that carry a label, by its key and value, and by provider and model.
    Label,
    /// Failures: who failed, and how.
    Error,
    /// The time spent inside one of our own hooks.
    Hook,
    /// Attempts to fix defects, by type and severity, and by provider and model.
    Defect,
    /// The same by the strategy of the fix and the language of the code.
    Strategy,
}

impl Kind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 13] = [
        Self::Llm,
        Self::Chain,
        Self::Tool,
        Self::Retriever,
        Self::Fix,
        Self::Model,
        Self::Node,
        Self::Agent,
        Self::Label,
        Self::Error,
        Self::Hook,
        Self::Defect,
        Self::Strategy,
    ];

    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Chain => "chain",
            Self::Tool => "tool",
            Self::Retriever => "retriever",
            Self::Fix => "fix",
            Self::Model => "model",
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Label => "label",
            Self::Error => "error",
            Self::Hook => "hook",
            Self::Defect => "defect",
            Self::Strategy => "strategy",
        }
    }

    /// The kind of a code.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| *k as u64 == code)
    }

    /// Whether its series count calls of models: tokens, money, windows.
    pub const fn counts_calls(self) -> bool {
        matches!(self, Self::Model | Self::Label)
    }

    /// Whether its series have figures of attempts at defects.
    pub const fn counts_attempts(self) -> bool {
        matches!(self, Self::Defect | Self::Strategy)
    }

    /// Whether its series have a second name beside the first.
    const fn has_two_names(self) -> bool {
        matches!(self, Self::Model | Self::Label | Self::Error | Self::Defect | Self::Strategy)
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.name() == name)
    }
}

/// Who a series counts for. Models: `a` is the provider and `b` the model; labels: the key, and the
/// value with provider and model, or where a label crosses keys all of them and all values, joined by [`SEPARATOR`];
/// errors: who failed, and how; defects: type and severity, provider and model, each pair joined by [`SEPARATOR`]; strategies: that
/// of the fix and the language; all others: `a` is the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelSet {
    /// What it is about.
    pub kind: Kind,
    /// Provider, or name.
    pub a: String,
    /// Model, or empty.
    pub b: String,
}

/// Joins the parts of a name: the unit separator of ASCII.
pub const SEPARATOR: char = '\u{1F}';

/// Name of the series that takes what does not fit.
pub const OTHER: &str = "other";

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_of_kinds_agree() {
        for (code, kind) in (0..).zip(Kind::ALL) {
            assert_eq!((Kind::from_code(code), Kind::from_name(kind.name())), (Some(kind), Some(kind)));
        }
        assert_eq!((Kind::from_code(13), Kind::from_name("x")), (None, None));
    }
}
