//! What is counted and measured, by name: outcomes, counters, distributions, and what was dropped.

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every one, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name users see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

named! {
    /// How a run ended; also the first counters of a series.
    Outcome {
        /// It gave its result.
        Ok = "ok",
        /// It failed.
        Error = "error",
        /// The caller gave up.
        Cancelled = "cancelled",
        /// Nobody said how it ended: reaped by age, by capacity or with its ancestor.
        Abandoned = "abandoned",
        /// Control flow of a graph, not a failure.
        Interrupted = "interrupted",
        /// Answered from LangChain's response cache.
        CacheHit = "cache_hit",
    }
}

named! {
    /// The counters of a series that follow its outcomes.
    Counter {
        /// Input tokens, cached ones included.
        Input = "input",
        /// Output tokens, reasoning included.
        Output = "output",
        /// The provider's total, else input and output.
        Total = "total",
        /// Input read from the provider's prompt cache.
        CacheRead = "cache_read",
        /// Input written to it, every lifetime.
        CacheWrite = "cache_write",
        /// Input written to it for an hour.
        CacheWrite1h = "cache_write_1h",
        /// Output spent on reasoning.
        Reasoning = "reasoning",
        /// Audio in the input.
        AudioInput = "audio_input",
        /// Audio in the output.
        AudioOutput = "audio_output",
        /// Images in the input.
        ImageInput = "image_input",
        /// Images in the output.
        ImageOutput = "image_output",
        /// Video in the input.
        VideoInput = "video_input",
        /// Video in the output.
        VideoOutput = "video_output",
        /// Audio among the input read from the cache.
        CachedAudio = "cached_audio",
        /// Images among the input read from the cache.
        CachedImage = "cached_image",
        /// Output that quotes what a search found.
        Citation = "citation",
        /// Web searches the provider ran.
        WebSearches = "web_searches",
        /// Searches in stored files that the provider ran.
        FileSearches = "file_searches",
        /// Tokens of `total` that are counted here, not told by the provider.
        Estimated = "estimated",
        /// Cost in pico-dollars.
        Cost = "cost",
        /// Calls that `cost` covers.
        PricedCalls = "priced_calls",
        /// Calls with tokens and no price.
        UnpricedCalls = "unpriced_calls",
        /// Calls that streamed.
        Streamed = "streamed",
        /// Token events of those.
        TokenEvents = "token_events",
        /// Tokens that a response-cache hit spared.
        SavedTotal = "saved_total",
        /// Tokens of calls without a price.
        UnpricedTotal = "unpriced_total",
        /// Calls among the unpriced that were priced later.
        RepricedCalls = "repriced_calls",
        /// Tokens of those.
        RepricedTotal = "repriced_total",
        /// What providers said that they bill, in pico-dollars.
        Billed = "billed",
        /// Calls that `billed` covers.
        BilledCalls = "billed_calls",
        /// The part of the cost that went to calls that failed.
        CostError = "cost_error",
        /// The part of the cost that went to calls that the caller gave up.
        CostCancelled = "cost_cancelled",
        /// Calls that were a second attempt or a later one.
        RetriedCalls = "retried_calls",
        /// The part of the cost that went to those.
        RetriedCost = "retried_cost",
        /// Failed calls that a later one under the same parent made good.
        Recovered = "recovered",
        /// Answers that ended at the limit of their length.
        Truncated = "truncated",
        /// Times that a stream stopped for long.
        Stalls = "stalls",
        /// Runs that ended with an outcome of their own, and their durations in nanoseconds.
        Duration = "duration",
        /// Nanoseconds during which none of a run's children ran.
        SelfTime = "self_time",
        /// Nanoseconds that the end of a whole pipeline waited for.
        CriticalTime = "critical_time",
        /// Nanoseconds by which pipelines would end sooner, were this twice as fast.
        SavedIfTwiceAsFast = "saved_if_twice_as_fast",
        /// Pipelines: runs at the top, in all that they called.
        Pipelines = "pipelines",
        /// Nanoseconds from the begin to the end of those.
        PipelineTime = "pipeline_time",
    }
}

named! {
    /// The distributions of a series. In seconds all of them.
    Measure {
        /// Start to end.
        Latency = "latency",
        /// Start to first output of a stream.
        FirstToken = "time_to_first_token",
        /// Between one output of a stream and the next.
        Gap = "inter_token_latency",
        /// Start to first output that is no reasoning.
        FirstVisibleToken = "time_to_first_visible_token",
        /// Start to first chunk of a stream, whatever is in it.
        FirstChunk = "time_to_first_chunk",
        /// The longest of the gaps of a stream.
        LongestGap = "longest_gap",
        /// First output of a stream to its last.
        StreamDuration = "stream_duration",
        /// The same by output token, by the final usage.
        TimePerToken = "time_per_output_token",
        /// What the provider says that the call waited before it was worked on.
        Queue = "queue_time",
        /// The time during which none of a run's children ran.
        SelfTime = "self_time",
    }
}

/// Distributions with the digits of the settings; the others have 2.
pub const PRECISE: usize = Measure::LongestGap as usize;
/// Distributions of a series.
pub const MEASURES: usize = Measure::ALL.len();

named! {
    /// What was capped, reaped or refused.
    Dropped {
        /// Events of label sets beyond `max_series`: counted under `other`.
        SeriesCapped = "series_capped",
        /// Labels longer than 248 bytes.
        LabelsCut = "labels_cut",
        /// Runs reaped at `max_runs`.
        RunsCapped = "runs_capped",
        /// Runs reaped at `max_run_age`.
        RunsAged = "runs_aged",
        /// Runs reaped because an ancestor had ended.
        RunsOrphaned = "runs_orphaned",
        /// Starts of a run already in flight.
        DuplicateStart = "duplicate_start",
        /// Runs whose times are not known, because another run with their id was in flight.
        SharedId = "shared_run_id",
        /// Ends of a run that had ended.
        DuplicateEnd = "duplicate_end",
        /// Ends of a run that had been reaped; its tokens are counted all the same.
        LateEnd = "late_end",
        /// Ends of a run that never started here.
        EndWithoutStart = "end_without_start",
        /// Tokens of a run not in flight.
        StrayTokens = "stray_tokens",
        /// Durations beyond 38 h, and times inside a hook beyond 2 minutes: counted as such.
        Clamped = "clamped",
        /// Gaps between tokens that went to the model that answered the call before.
        GapsMislaid = "gaps_mislaid",
        /// Usage figures that were no number.
        UsageRefused = "usage_refused",
        /// Exceptions inside a hook.
        HookErrors = "hook_errors",
        /// Exceptions of a user's callback.
        CallbackErrors = "callback_errors",
        /// Calls that did not fit a budget, and never began.
        BudgetRefused = "budget_refused",
        /// Labels of a call beyond the third.
        LabelsOver = "labels_over",
        /// Calls without a price that will not be priced later: too many wait already.
        UnpricedForgotten = "unpriced_forgotten",
        /// Trees of runs too large, or too many at once, for their critical path.
        PathsLost = "paths_lost",
        /// Bytes of streamed text beyond what is collected.
        StreamTextCut = "stream_text_cut",
        /// Events of streams that a slow consumer did not get.
        StreamEventsDropped = "stream_events_dropped",
        /// Streams whose pieces do not make the message they ended with.
        StreamMismatch = "stream_mismatch",
        /// Changes of a model beyond those that are kept.
        AnomaliesForgotten = "anomalies_forgotten",
        /// Costs and bills that a counter of pico-dollars did not hold any more: it stays at 18.4 million USD.
        MoneySaturated = "money_saturated",
        /// Durations that no room was left for.
        DurationsLost = "durations_lost",
        /// Anything else.
        Other = "other",
    }
}

/// Counters that say how runs ended.
pub const OUTCOMES: usize = Outcome::ALL.len();
/// Counters of a series: outcomes, then `Counter`.
pub const COUNTERS: usize = OUTCOMES + Counter::ALL.len();
/// What a call used: the first counters, `Input` to `Estimated`.
pub type Usage = [u64; Counter::Estimated as usize + 1];
