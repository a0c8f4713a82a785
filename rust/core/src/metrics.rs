//! Definitions of metrics: outcomes, counters, distributions, and kinds of dropped events.

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name users see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

pub(crate) use named;

named! {
    /// How a run ended; also the first counters of a series.
    Outcome {
        /// The run returned a result.
        Ok = "ok",
        /// The run failed.
        Error = "error",
        /// The caller cancelled it.
        Cancelled = "cancelled",
        /// No end event came: the run was reaped by age, by capacity or with its ancestor.
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
        /// Total as the provider reports it, else input + output.
        Total = "total",
        /// Input read from the provider's prompt cache.
        CacheRead = "cache_read",
        /// Input written to the prompt cache, every lifetime.
        CacheWrite = "cache_write",
        /// Input written to the prompt cache for an hour.
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
        /// Tokens of `total` that are estimated here, because the provider did not report them.
        Estimated = "estimated",
        /// Cost in pico-dollars.
        Cost = "cost",
        /// Calls that `cost` covers.
        PricedCalls = "priced_calls",
        /// Calls with tokens and no price.
        UnpricedCalls = "unpriced_calls",
        /// Calls that streamed.
        Streamed = "streamed",
        /// Token events of streamed calls.
        TokenEvents = "token_events",
        /// Tokens that a response-cache hit saved.
        SavedTotal = "saved_total",
        /// Tokens of calls without a price.
        UnpricedTotal = "unpriced_total",
        /// Calls among the unpriced that were priced later.
        RepricedCalls = "repriced_calls",
        /// Tokens of the calls priced later.
        RepricedTotal = "repriced_total",
        /// Cost that providers reported, in pico-dollars.
        Billed = "billed",
        /// Calls that `billed` covers.
        BilledCalls = "billed_calls",
        /// Cost of calls that failed.
        CostError = "cost_error",
        /// Cost of calls that the caller cancelled.
        CostCancelled = "cost_cancelled",
        /// Calls that were a second or later attempt.
        RetriedCalls = "retried_calls",
        /// Cost of second and later attempts.
        RetriedCost = "retried_cost",
        /// Failed calls that a later call under the same parent recovered.
        Recovered = "recovered",
        /// Answers truncated at the output limit.
        Truncated = "truncated",
        /// Stalls of streams.
        Stalls = "stalls",
        /// Durations, in nanoseconds, of runs that ended with an outcome of their own.
        Duration = "duration",
        /// Self time: nanoseconds during which none of a run's children ran.
        SelfTime = "self_time",
        /// Time on the critical path of pipelines, nanoseconds.
        CriticalTime = "critical_time",
        /// Nanoseconds by which pipelines would end sooner if this series were twice as fast.
        SavedIfTwiceAsFast = "saved_if_twice_as_fast",
        /// Pipelines (runs without a parent) that the series took part in.
        Pipelines = "pipelines",
        /// Total duration of those pipelines, nanoseconds.
        PipelineTime = "pipeline_time",
    }
}

named! {
    /// Distributions of a series: durations, but for those that say what they hold in place of microseconds.
    Measure {
        /// Start to end.
        Latency = "latency",
        /// Start to first output of a stream.
        FirstToken = "time_to_first_token",
        /// Between one output of a stream and the next.
        Gap = "inter_token_latency",
        /// Start to first output that is not reasoning.
        FirstVisibleToken = "time_to_first_visible_token",
        /// Start to first chunk of a stream, whatever the chunk holds.
        FirstChunk = "time_to_first_chunk",
        /// The longest of the gaps of a stream.
        LongestGap = "longest_gap",
        /// First output of a stream to its last.
        StreamDuration = "stream_duration",
        /// First output to last, divided by the output tokens of the final usage.
        TimePerToken = "time_per_output_token",
        /// Time that the provider reports the call waited in its queue.
        Queue = "queue_time",
        /// Time during which none of a run's children ran.
        SelfTime = "self_time",
        /// From the begin of the first attempt at a defect to the end of the one that fixed it.
        TimeToFix = "time_to_fix",
        /// Attempts until a defect was fixed, in place of microseconds, which are exact up to 255.
        AttemptsToFix = "attempts_to_fix",
        /// Quality of fixes from 0 to 1, in place of seconds.
        Quality = "quality",
        /// Input tokens of calls that had any, in place of microseconds.
        InputTokens = "input_tokens",
        /// Output tokens of calls that had any, in place of microseconds.
        OutputTokens = "output_tokens",
        /// Start to end of runs that failed or were cancelled. A snapshot has them in `Latency` too.
        FailedLatency = "failed_latency",
    }
}

/// Distributions of a series.
pub const MEASURES: usize = Measure::ALL.len();
/// Distributions with the digits of the settings; the others have 2 digits.
pub const PRECISE: usize = FIRST_COARSE + 1;
const FIRST_COARSE: usize = Measure::StreamDuration as usize;

impl Measure {
    /// Place of a distribution among those with the digits of the settings.
    #[inline]
    pub const fn precise(self) -> Option<usize> {
        match self {
            Self::FailedLatency => Some(FIRST_COARSE), // it is added to `Latency`
            _ if (self as usize) < FIRST_COARSE => Some(self as usize),
            _ => None,
        }
    }

    /// Place of a distribution of 2 digits among its like.
    #[inline]
    pub const fn coarse(self) -> usize {
        (self as usize).wrapping_sub(FIRST_COARSE)
    }
}

impl Outcome {
    /// Where the duration of a run with this outcome is recorded.
    #[inline]
    pub const fn latency(self) -> Measure {
        match self {
            Self::Error | Self::Cancelled => Measure::FailedLatency,
            _ => Measure::Latency,
        }
    }
}

named! {
    /// What was capped, reaped or refused.
    Dropped {
        /// Events of label sets beyond `max_series`, or beyond a label's share of it: counted under `other`.
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
        /// Runs whose times are unknown, because another run with the same id was in flight.
        SharedId = "shared_run_id",
        /// Ends of a run that had already ended.
        DuplicateEnd = "duplicate_end",
        /// Ends of a run that had been reaped; its tokens are still counted.
        LateEnd = "late_end",
        /// Ends of a run that never started here.
        EndWithoutStart = "end_without_start",
        /// Tokens of a run not in flight.
        StrayTokens = "stray_tokens",
        /// Durations beyond 38 h, and times inside a hook beyond 2 minutes: recorded at that limit.
        Clamped = "clamped",
        /// Gaps between tokens that were attributed to the model that answered the call before.
        GapsMislaid = "gaps_mislaid",
        /// Usage figures that were not numbers.
        UsageRefused = "usage_refused",
        /// Exceptions inside a hook.
        HookErrors = "hook_errors",
        /// Exceptions of a user's callback.
        CallbackErrors = "callback_errors",
        /// Calls refused because they did not fit a budget.
        BudgetRefused = "budget_refused",
        /// Labels of a call beyond the third.
        LabelsOver = "labels_over",
        /// Calls without a price that will not be priced later: the queue of waiting calls is full.
        UnpricedForgotten = "unpriced_forgotten",
        /// Trees of runs without a critical path: too large, or too many at once.
        PathsLost = "paths_lost",
        /// Bytes of streamed text beyond the limit of collected text.
        StreamTextCut = "stream_text_cut",
        /// Stream events that a slow consumer did not receive.
        StreamEventsDropped = "stream_events_dropped",
        /// Streams whose collected pieces differ from the final message.
        StreamMismatch = "stream_mismatch",
        /// Change points of a model beyond the number that is kept.
        AnomaliesForgotten = "anomalies_forgotten",
        /// Costs and bills that no longer fit a counter of pico-dollars, which saturates at 18.4 million USD.
        MoneySaturated = "money_saturated",
        /// Durations for which the histogram pool had no room.
        DurationsLost = "durations_lost",
        /// Warnings that were not logged, because ten of their kind had been.
        Warnings = "warnings",
        /// Times that a recorder could not count into its directory, and counts in memory.
        DirectoryUnavailable = "directory_unavailable",
        /// Attempts at defects that were closed without a verdict because 4,096 others were open.
        AttemptsCapped = "attempts_capped",
        /// Runs under attempts at defects that are not counted there, because 65,536 others were in flight.
        AttemptRunsCapped = "attempt_runs_capped",
        /// Candidates of an attempt beyond the 16th.
        CandidatesCapped = "candidates_capped",
        /// Verdicts on attempts that are not known, or no longer.
        VerdictsUnknown = "verdicts_unknown",
        /// Times that the store of a shared budget did not answer.
        StoreUnavailable = "store_unavailable",
        /// Anything else.
        Other = "other",
    }
}

/// Counters that say how runs ended.
pub const OUTCOMES: usize = Outcome::ALL.len();
/// Counters of a series: outcomes, then `Counter`.
pub const COUNTERS: usize = OUTCOMES + Counter::ALL.len();
/// Usage of a call: the first counters, `Input` to `Estimated`.
pub type Usage = [u64; Counter::Estimated as usize + 1];
