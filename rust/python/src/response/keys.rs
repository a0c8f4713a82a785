//! The words in which providers write down usage. Both readers know them from here: this one by `of`, the careful
//! one of `langmeter.usage` by the dicts that `_core` exports.

use crate::response::words::Words;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $meaning:literal : $($key:literal)|+;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($variant),* }

        impl $name {
            /// Every word, and what it means.
            pub const WORDS: &'static [(&'static str, &'static str)] = &[$($(($key, $meaning)),+),*];
            /// How many meanings there are.
            #[allow(dead_code)] // not of `TierPart`
            pub const COUNT: usize = [$(Self::$variant),*].len();

            /// Meaning of a key; None for an unknown one.
            pub fn of(key: &str) -> Option<Self> {
                match key { $($($key)|+ => Some(Self::$variant),)* _ => None }
            }

            /// Meaning of a key that is a `str`.
            #[allow(dead_code)] // not of `TierPart`
            pub fn of_key(key: &Bound<'_, PyString>) -> PyResult<Option<Self>> {
                static TABLE: PyOnceLock<Words<$name>> = PyOnceLock::new();
                let py = key.py();
                let table = TABLE.get_or_init(py, || Words::new(py, [$($(($key, Self::$variant)),+),*].into_iter()));
                match table.by_address(key) {
                    None => Ok(Self::of(key.to_str()?)),
                    meaning => Ok(meaning),
                }
            }
        }
    };
}

words! {
    /// What a key of a usage mapping means: LangChain's own words, OpenAI's (spoken by Groq, Mistral, `DeepSeek`,
    /// NVIDIA, Fireworks and most servers), Anthropic's, Google's in both spellings, Bedrock's, watsonx's and
    /// Ollama's. No word means two things.
    Field {
        Input = "input": "input_tokens" | "prompt_tokens" | "prompt_token_count" | "promptTokenCount" | "inputTokens"
            | "inputTokenCount" | "input_token_count" | "prompt_eval_count";
        Output = "output": "output_tokens" | "completion_tokens" | "candidates_token_count" | "candidatesTokenCount"
            | "outputTokens" | "outputTokenCount" | "generated_token_count" | "eval_count" | "response_token_count"
            | "responseTokenCount";
        Total = "total": "total_tokens" | "total_token_count" | "totalTokenCount" | "totalTokens";
        // Anthropic and Bedrock: beside the input.
        ReadBeside = "read_beside":
            "cache_read_input_tokens" | "cacheReadInputTokens" | "cacheReadInputTokenCount";
        WriteBeside = "write_beside":
            "cache_creation_input_tokens" | "cacheWriteInputTokens" | "cacheWriteInputTokenCount"
            | "cache_write_input_tokens";
        // Mistral, Moonshot, DeepSeek and Google: within the input.
        ReadWithin = "read_within": "num_cached_tokens" | "cached_tokens" | "prompt_cache_hit_tokens"
            | "cached_content_token_count" | "cachedContentTokenCount";
        // Google: beside the input and beside the output.
        ToolPrompt = "tool_prompt": "tool_use_prompt_token_count" | "toolUsePromptTokenCount";
        Thoughts = "thoughts": "thoughts_token_count" | "thoughtsTokenCount";
        // Perplexity: in no details; xAI bills the sources of a live search.
        Reasoning = "reasoning": "reasoning_tokens";
        Citation = "citation": "citation_tokens";
        Searches = "searches": "num_search_queries" | "num_sources_used";
        // From here on no numbers.
        Into = "into": "input_token_details" | "prompt_tokens_details" | "input_tokens_details" | "prompt_token_details"
            | "promptTokensDetails";
        OutOf = "out_of": "output_token_details" | "completion_tokens_details" | "output_tokens_details"
            | "candidates_tokens_details" | "candidatesTokensDetails" | "response_tokens_details" | "responseTokensDetails";
        Cached = "cached": "cache_tokens_details" | "cacheTokensDetails";
        Lifetimes = "lifetimes": "cache_creation" | "cacheDetails";
        Tools = "tools": "server_tool_use" | "server_side_tool_usage_details" | "server_side_tool_usage"
            | "tool_calls_details" | "tool_usage" | "connectors";
        Iterations = "iterations": "iterations";
        Tier = "tier": "service_tier" | "serviceTier" | "traffic_type" | "trafficType";
        Speed = "speed": "speed";
        Region = "region": "inference_geo";
        Context = "context": "search_context_size";
        Queue = "queue": "queue_time";
    }
}

words! {
    /// The same for the keys of details.
    Part {
        CacheRead = "cache_read": "cache_read" | "cached_tokens" | "cache_read_input_tokens";
        CacheWrite = "cache_write": "cache_creation" | "cache_write_tokens" | "cache_creation_tokens";
        Five = "five": "ephemeral_5m_input_tokens";
        Hour = "hour": "ephemeral_1h_input_tokens";
        Reasoning = "reasoning": "reasoning" | "reasoning_tokens" | "thinking_tokens";
        Audio = "audio": "audio" | "audio_tokens";
        Image = "image": "image" | "image_tokens";
        Video = "video": "video" | "video_tokens";
        Cached = "cached": "cached_tokens_details";
        // LiteLLM puts them here.
        Searches = "searches": "web_search_requests";
    }
}

words! {
    /// What follows a tier's name in the keys of LangChain's details: of OpenAI's tiers it renames them, and keeps
    /// the rest under the tier's name alone.
    TierPart {
        Rest = "": "";
        CacheRead = "cache_read": "_cache_read";
        CacheWrite = "cache_write": "_cache_creation";
        Reasoning = "reasoning": "_reasoning";
    }
}

/// Tiers that LangChain writes into the keys of details.
pub const TIERS: &[&str] = &["flex", "priority", "batch", "scale"];

/// Words for the default service tier.
pub const STANDARD: &[&str] =
    &["", "default", "standard", "auto", "on_demand", "standard_only", "unspecified", "traffic_type_unspecified"];

/// Reasons for which an answer ends at the limit of its length.
pub const TOO_LONG: &[&str] = &["length", "model_length", "max_tokens", "MAX_TOKENS", "max_output_tokens"];

/// Where the metadata of a message say why it ended.
pub const REASONS: &[&str] = &["finish_reason", "stop_reason", "done_reason", "stopReason"];

/// Searches in the web among what providers count of their tools, whatever the case: Anthropic, `OpenRouter`, xAI,
/// Mistral. xAI bills a search among posts as one in the web.
pub const SEARCH_TOOLS: &[&str] = &[
    "web_search_requests",
    "web_search_calls",
    "x_search_calls",
    "server_side_tool_web_search",
    "server_side_tool_x_search",
    "web_search",
    "web_search_premium",
    "search_web",
];

/// Where the mapping of one tool says how often it was called.
pub const TIMES: &[&str] = &["invocation", "num_requests"];

/// Figures from here on are refused: no call uses a million million tokens, and sums have 64 bits.
pub const LIMIT: u64 = 1 << 40;

/// The tier and the part that a key of details names.
pub fn tier_part(key: &str) -> Option<(&'static str, TierPart)> {
    TIERS.iter().find_map(|tier| Some((*tier, TierPart::of(key.strip_prefix(tier)?)?)))
}

/// Words for the default of any other modifier of the price: speed, region, latency, size of a search.
pub const USUAL: &[&str] = &["", "default", "standard", "global", "not_available", "low"];

/// Where the metadata of a message hold a mapping of usage, the most likely place first.
pub const PLACES: &[&str] =
    &["token_usage", "usage", "usage_metadata", "token_count", "amazon-bedrock-invocationMetrics"];
