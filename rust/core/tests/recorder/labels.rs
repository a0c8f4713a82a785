//! Rows of labels and failures, and series that find no room.

use super::common::{USED, bench, counter, dropped, key, label, measure, model, outcome_of, rows, series};
use langmeter_core::{Clock, Counter, Dropped, End, Kind, LabelSet, Measure, Outcome, Recorder, SeriesData, Settings};
use std::time::Duration;

#[test]
fn beyond_max_series_all_goes_to_other_and_is_said() {
    let b = bench(Settings { max_series: 2, ..Settings::default() });
    for name in ["a", "b", "c", "d"] {
        b.recorder.count(Kind::Tool, name, Outcome::Ok, Some(1_000_000));
    }
    b.recorder.count(Kind::Fix, "x", Outcome::Error, None);
    let s = b.recorder.snapshot();
    let at = |kind, a: &str| s.series[&LabelSet { kind, a: a.into(), b: String::new() }].counters;
    assert_eq!(at(Kind::Tool, "other")[Outcome::Ok as usize], 2);
    assert_eq!(at(Kind::Fix, "other")[Outcome::Error as usize], 1);
    assert_eq!(dropped(&s, Dropped::SeriesCapped), 3);
}

#[test]
fn long_names_and_clamped_durations_are_said() {
    let b = bench(Settings::default());
    b.recorder.count(Kind::Tool, &"x".repeat(300), Outcome::Ok, Some(u64::MAX / 2));
    b.recorder.dropped(Dropped::HookErrors, 3);
    let s = b.recorder.snapshot();
    assert_eq!(
        (dropped(&s, Dropped::LabelsCut), dropped(&s, Dropped::Clamped), dropped(&s, Dropped::HookErrors)),
        (1, 1, 3)
    );
}

#[test]
fn settings_outside_their_range_are_refused_by_name() {
    let bad = [
        (Settings { max_series: 0, ..Settings::default() }, "max_series"),
        (Settings { max_runs: 0, ..Settings::default() }, "max_runs"),
        (Settings { significant_digits: 4, ..Settings::default() }, "significant_digits"),
        (Settings { max_run_age: Duration::ZERO, ..Settings::default() }, "max_run_age"),
    ];
    for (settings, name) in bad {
        let error = Recorder::new(settings, Clock::monotonic()).expect_err("refused").to_string();
        assert!(error.contains(name) && error.contains("allowed"), "{error}");
    }
}

#[test]
fn a_call_counts_under_each_of_its_labels() {
    let b = bench(Settings::default());
    b.begin_with(2, None, &[("team", "search"), ("tier", "gold"), ("x", "1"), ("y", "2")], false);
    b.wait(3);
    b.finish(&End { usage: Some(USED), cost: Some(77), ..End::new(key(2), Kind::Llm) });
    b.begin_with(3, None, &[("team", "search")], false);
    b.wait(4_000_000);
    let s = b.recorder.snapshot();
    let team = label(&s, "team", "search");
    assert_eq!((outcome_of(&team, Outcome::Ok), outcome_of(&team, Outcome::Abandoned)), (1, 1));
    assert_eq!((counter(&team, Counter::Total), counter(&team, Counter::Cost)), (120, 77));
    assert_eq!((measure(&team, Measure::Latency).count(), team.windows[2].counts), (1, [1, 0, 0, 0]));
    assert_eq!(counter(&label(&s, "tier", "gold"), Counter::PricedCalls), 1);
    assert_eq!(label(&s, "y", "2"), SeriesData::default());
    assert_eq!(dropped(&s, Dropped::LabelsOver), 1);
    // The money of a call flows once, however many labels it has.
    assert_eq!(b.recorder.spent_lately()[2].2, 0);
}

#[test]
fn a_label_has_a_row_for_each_model_that_answered() {
    let b = bench(Settings::default());
    let crossed = ("team\u{1F}tier", "search\u{1F}gold");
    // The second call begins under the model that answered the first.
    for n in 2..4 {
        b.begin_with(n, None, &[("team", "search"), crossed], false);
        b.end(n, Outcome::Ok, "gpt-4o-2024", Some(USED));
    }
    b.begin_with(4, None, &[("team", "search"), crossed], false);
    b.end(4, Outcome::Ok, "gpt-4o-mini", Some(USED));
    // What is abandoned counts as of the model that was requested, as it does there.
    b.begin_with(5, None, &[("team", ""), ("team\u{1F}tier", "\u{1F}gold")], false);
    b.wait(4_000_000);
    let s = b.recorder.snapshot();
    let row = |text: &str, n| (text.to_owned(), n);
    let of =
        |value: &str| [row(&format!("{value}|openai|gpt-4o-2024"), 2), row(&format!("{value}|openai|gpt-4o-mini"), 1)];
    let [first, second] = of("search");
    assert_eq!(rows(&s, "team"), [row("|openai|gpt-4o", 1), first, second]);
    let [first, second] = of("search|gold");
    assert_eq!(rows(&s, "team\u{1F}tier"), [row("|gold|openai|gpt-4o", 1), first, second]);
}

#[test]
fn an_end_without_a_start_counts_under_each_label_without_a_value() {
    let b = bench(Settings::default());
    let labels = ["team", "team\u{1F}tier"];
    let end = End { provider: "openai", model: "gpt-4o", usage: Some(USED), ..End::new(key(2), Kind::Llm) };
    b.finish(&End { labels: &labels, ..end });
    let s = b.recorder.snapshot();
    assert_eq!(rows(&s, "team"), [("|openai|gpt-4o".to_owned(), 1)]);
    assert_eq!(rows(&s, "team\u{1F}tier"), [("||openai|gpt-4o".to_owned(), 1)]);
}

#[test]
fn a_label_of_many_values_leaves_room_for_the_other_labels_and_for_models() {
    let b = bench(Settings { max_series: 40, ..Settings::default() });
    for n in 2..102 {
        let (request, both) = (format!("{n}"), format!("{n}\u{1F}gold"));
        b.begin_with(n, None, &[("request", &request), ("request\u{1F}tier", &both), ("team", "search")], false);
        b.end(n, Outcome::Ok, "gpt-4o", Some(USED));
    }
    let s = b.recorder.snapshot();
    // Three quarters of 40 series are for labels, 10 for each of them.
    let (one, two) = (rows(&s, "request"), rows(&s, "request\u{1F}tier"));
    assert_eq!((one.len(), two.len()), (11, 11));
    assert!(one.contains(&("other|openai|gpt-4o".to_owned(), 90)));
    assert!(two.contains(&("other|other|openai|gpt-4o".to_owned(), 90)));
    assert_eq!(counter(&label(&s, "team", "search"), Counter::Total), 100 * USED[2]);
    assert_eq!(dropped(&s, Dropped::SeriesCapped), 180);
    assert!(model(&s, "gpt-4o").is_some());
}

#[test]
fn a_label_without_room_for_a_row_of_a_model_counts_under_other() {
    // Component, model and the place of the label's rows.
    let b = bench(Settings { max_series: 3, ..Settings::default() });
    b.begin_with(2, None, &[("team", "search")], false);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    assert_eq!(rows(&b.recorder.snapshot(), "team"), [("other".to_owned(), 1)]);
}

#[test]
fn failures_say_who_and_how_and_what_they_cost() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    let failed = |n| End { outcome: Outcome::Error, error: Some("RateLimitError 429"), ..End::new(key(n), Kind::Llm) };
    b.finish(&End { usage: Some(USED), cost: Some(9), ..failed(2) });
    b.start(3, None, Kind::Tool);
    b.finish(&failed(3));
    b.begin_with(4, None, &[], true);
    b.finish(&End { outcome: Outcome::Cancelled, usage: Some(USED), cost: Some(5), ..End::new(key(4), Kind::Llm) });
    b.finish(&End { provider: "openai", model: "gpt-4o", ..failed(5) });
    let s = b.recorder.snapshot();
    let of = |who| outcome_of(&series(&s, Kind::Error, who, "RateLimitError 429"), Outcome::Error);
    assert_eq!((of("openai/gpt-4o"), of("tool name")), (2, 1));
    let data = model(&s, "gpt-4o").expect("counted");
    let money = [Counter::Cost, Counter::CostError, Counter::CostCancelled, Counter::RetriedCost];
    assert_eq!(money.map(|c| counter(&data, c)), [14, 9, 5, 5]);
    assert_eq!(counter(&data, Counter::RetriedCalls), 1);
}
