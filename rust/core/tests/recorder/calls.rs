//! What calls of models leave: tokens, money, streams.

use super::common::{USED, bench, counter, dropped, key, measure, model, outcome_of};
use langmeter_core::{Counter, Dropped, End, Kind, LabelSet, Measure, Outcome, Settings, Via};
use std::time::Duration;

#[test]
fn a_call_counts_under_the_name_in_its_response() {
    let b = bench(Settings::default());
    assert!(b.recorder.is_empty());
    b.start(2, None, Kind::Llm);
    assert_eq!(b.recorder.snapshot().in_flight, 1);
    b.wait(250);
    b.finish(&End {
        provider: "openai",
        model: "gpt-4o-2024",
        usage: Some(USED),
        cost: Some(77),
        ..End::new(key(2), Kind::Llm)
    });
    let s = b.recorder.snapshot();
    assert_eq!(model(&s, "gpt-4o"), None);
    let data = model(&s, "gpt-4o-2024").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), s.in_flight), (1, 0));
    let used: Vec<u64> = Counter::ALL.iter().take(USED.len()).map(|c| counter(&data, *c)).collect();
    assert_eq!(used, USED);
    assert_eq!((counter(&data, Counter::Cost), counter(&data, Counter::PricedCalls)), (77, 1));
    assert_eq!(counter(&data, Counter::UnpricedCalls), 0);
    assert_eq!(
        (measure(&data, Measure::Latency).count(), measure(&data, Measure::Latency).quantile_micros(0.5)),
        (1, Some(250_111))
    );
    assert_eq!(data.windows[0].counts, [1, 100, 20, 0]);
    let component = &s.series[&LabelSet { kind: Kind::Llm, a: "name".into(), b: String::new() }];
    assert_eq!((outcome_of(component, Outcome::Ok), measure(component, Measure::Latency).count()), (1, 1));
    assert!(!b.recorder.is_empty());
}

#[test]
fn what_the_response_does_not_name_is_as_requested() {
    let b = bench(Settings::default());
    for (n, provider, name) in [(2, "", ""), (3, "azure", ""), (4, "", "o1")] {
        b.start(n, None, Kind::Llm);
        let end = End { provider, model: name, ..End::new(key(n), Kind::Llm) };
        b.finish(&end);
    }
    let names: Vec<_> = b.recorder.snapshot().series.into_keys().filter(|l| l.kind == Kind::Model).collect();
    let names: Vec<_> = names.iter().map(|l| (l.a.as_str(), l.b.as_str())).collect();
    assert_eq!(names, [("azure", "gpt-4o"), ("openai", "gpt-4o"), ("openai", "o1")]);
}

#[test]
fn a_stream_gives_first_token_and_gaps_to_the_model_that_answered() {
    let b = bench(Settings::default());
    for round in 0..3 {
        b.start(2 + round, None, Kind::Llm);
        for wait in [300, 10, 20] {
            b.wait(wait);
            assert!(b.recorder.token(key(2 + round), Via::Token, true));
            assert!(!b.recorder.token(key(2 + round), Via::StreamEvent, true));
        }
        if round == 0 {
            // Before the first response has named its model the gaps wait: a snapshot never takes back.
            let waits = model(&b.recorder.snapshot(), "gpt-4o").expect("in flight");
            assert_eq!((waits.in_flight, waits.peak, measure(&waits, Measure::Gap).count()), (1, 1, 0));
        }
        b.end(2 + round, Outcome::Ok, "gpt-4o-2024", Some(USED));
        let s = b.recorder.snapshot();
        let data = model(&s, "gpt-4o-2024").expect("counted");
        assert_eq!(measure(&data, Measure::FirstToken).count(), round + 1);
        assert_eq!(measure(&data, Measure::Gap).count(), 2 * (round + 1));
        assert_eq!(
            (counter(&data, Counter::Streamed), counter(&data, Counter::TokenEvents)),
            (round + 1, 3 * (round + 1))
        );
        assert_eq!(s.dropped.len(), 0, "{:?}", s.dropped);
        assert_eq!(model(&s, "gpt-4o"), None);
    }
}

#[test]
fn gaps_of_a_request_that_another_model_answers_are_said_to_be_mislaid() {
    let b = bench(Settings::default());
    for (n, answer) in [(2, "a"), (3, "b"), (4, "b")] {
        b.start(n, None, Kind::Llm);
        for _ in 0..3 {
            b.recorder.token(key(n), Via::Token, true);
        }
        b.end(n, Outcome::Ok, answer, None);
    }
    let s = b.recorder.snapshot();
    assert_eq!(dropped(&s, Dropped::GapsMislaid), 2);
    let gaps = |name| model(&s, name).map(|d| measure(&d, Measure::Gap).count());
    assert_eq!((gaps("a"), gaps("b")), (Some(4), Some(2)));
}

#[test]
fn a_stream_that_breaks_before_its_model_is_named_mislays_no_gaps() {
    let b = bench(Settings::default());
    for (n, answer) in [(2, ""), (3, "a"), (4, "")] {
        b.start(n, None, Kind::Llm);
        for _ in 0..3 {
            b.wait(1);
            b.recorder.token(key(n), Via::Token, true);
        }
        b.end(n, Outcome::Cancelled, answer, None);
    }
    let s = b.recorder.snapshot();
    assert_eq!(s.dropped.len(), 0, "{:?}", s.dropped);
    assert_eq!(model(&s, "a").map(|d| measure(&d, Measure::Gap).count()), Some(6));
}

#[test]
fn a_cache_hit_is_saved_not_spent() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.end(2, Outcome::CacheHit, "gpt-4o", Some(USED));
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::CacheHit), counter(&data, Counter::SavedTotal)), (1, 120));
    assert_eq!(
        (
            counter(&data, Counter::Total),
            counter(&data, Counter::UnpricedCalls),
            measure(&data, Measure::Latency).count()
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_call_with_tokens_and_no_price_is_unpriced() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.start(3, None, Kind::Llm);
    b.end(3, Outcome::Error, "gpt-4o", None);
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    assert_eq!((counter(&data, Counter::PricedCalls), counter(&data, Counter::UnpricedCalls)), (0, 1));
    assert_eq!(data.windows[0].counts, [2, 100, 20, 1]);
}

#[test]
fn a_failed_call_is_made_good_by_a_later_one_under_the_same_parent() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Chain);
    for (n, outcome) in [(3, Outcome::Error), (4, Outcome::Error), (5, Outcome::Ok), (6, Outcome::Ok)] {
        b.start(n, Some(2), Kind::Llm);
        b.wait(1);
        b.end(n, outcome, "gpt-4o", None);
    }
    let recovered = counter(&model(&b.recorder.snapshot(), "gpt-4o").expect("counted"), Counter::Recovered);
    assert_eq!(recovered, 1, "one call was made good; the first attempt's retry failed too");
}

#[test]
fn a_stream_tells_its_visible_output_its_longest_gap_and_its_speed() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    for (wait, visible) in [(100, false), (20, false), (50, true), (30, true)] {
        b.wait(wait);
        b.recorder.token(key(2), Via::Token, visible);
    }
    b.wait(7);
    b.finish(&End { usage: Some(USED), queue: Some(5_000_000), truncated: true, ..End::new(key(2), Kind::Llm) });
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    let max = |m| measure(&data, m).quantile_micros(0.5).map(|micros| micros / 1000);
    assert_eq!((max(Measure::FirstToken), max(Measure::FirstVisibleToken)), (Some(100), Some(170)));
    // Two digits: within one part in a hundred.
    assert_eq!((max(Measure::LongestGap), max(Measure::StreamDuration)), (Some(50), Some(100)));
    // 100 ms for the 19 output tokens after the first.
    assert_eq!((max(Measure::TimePerToken), max(Measure::Queue)), (Some(5), Some(5)));
    assert_eq!(counter(&data, Counter::Truncated), 1);
}

#[test]
fn a_stream_that_pauses_for_a_day_has_a_gap_of_a_day() {
    let b = bench(Settings { max_run_age: Duration::from_secs(1_000_000), ..Settings::default() });
    b.start(2, None, Kind::Llm);
    for millis in [1, 86_400_000, 60_000] {
        b.wait(millis);
        b.recorder.token(key(2), Via::Token, true);
    }
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    let longest = measure(&data, Measure::LongestGap).quantile_micros(1.0).expect("one gap");
    // Three digits: within one part in a thousand.
    assert!(longest.abs_diff(86_400_000_000) < 86_400_000, "{longest}");
}

#[test]
fn calls_at_once_are_counted_under_the_model_that_answers() {
    let b = bench(Settings::default());
    for round in 0..2 {
        for n in 0..3 {
            b.start(2 + n, None, Kind::Llm);
        }
        let s = b.recorder.snapshot();
        let name = if round == 0 { "gpt-4o" } else { "gpt-4o-2024" };
        let data = model(&s, name).expect("in flight");
        assert_eq!((data.in_flight, data.peak, s.in_flight, s.peak), (3, 3, 3, 3));
        for n in 0..3 {
            b.end(2 + n, Outcome::Ok, "gpt-4o-2024", Some(USED));
        }
    }
    b.start(9, None, Kind::Llm);
    b.wait(4_000_000);
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o-2024").expect("counted");
    assert_eq!((data.in_flight, data.peak, s.peak), (0, 3, 3));
}

#[test]
fn silent_streams_and_the_pulse_of_models_are_told() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.wait(10);
    b.recorder.token(key(2), Via::Token, true);
    b.wait(2000);
    assert!(b.recorder.silent(Duration::from_secs(3)).is_empty());
    let silent = b.recorder.silent(Duration::from_secs(1));
    let [(labels, began, last, stream)] = silent.as_slice() else { panic!("one") };
    assert_eq!((labels.b.as_str(), last - began, stream.events), ("gpt-4o", 10_000_000, 1));
    b.recorder.stalled("openai", "gpt-4o");
    b.finish(&End { usage: Some(USED), cost: Some(3), ..End::new(key(2), Kind::Llm) });
    let [pulse] = b.recorder.pulse().try_into().expect("one model");
    assert_eq!((pulse.calls, pulse.errors, pulse.tokens, pulse.cost, pulse.duration), (1, 0, 120, 3, 2_010_000_000));
    assert_eq!(counter(&model(&b.recorder.snapshot(), "gpt-4o").expect("counted"), Counter::Stalls), 1);
}
