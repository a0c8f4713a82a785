use super::call::{brief_in, in_brief, with_brief};
use super::packing::{LOW_32, gap_bits, gap_in};
use super::reaping::GRACE;
use super::*;
use crate::budget::Reservation;
use crate::series::Kind;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NONE: Reservation = Reservation { budgets: 0, cost: 0, tokens: 0, input: [0; 2] };

fn table(capacity: u64) -> (Cells, RunTable) {
    (Cells::zeroed(RunTable::cells(capacity)).expect("cells"), RunTable::at(0, capacity))
}

fn start(key: u64, now: u64) -> Start {
    let key = RunKey::new(key);
    let (parent, kind, held, labels, retried) = (None, Kind::Llm, NONE, Labels::default(), false);
    Start { key, parent, now, kind, component: 7, model: 8, gaps: 9, held, labels, retried, piped: false, witness: 0 }
}

/// The sets of a key.
fn sets_of(table: RunTable, key: RunKey) -> (Option<usize>, (Option<usize>, [usize; 2])) {
    (table.small_set(key.mixed()), table.deep_sets(key.mixed()))
}

#[test]
fn a_run_leaves_with_what_it_came_with() {
    let (cells, table) = table(4);
    let held = Reservation { budgets: 5, cost: 6, tokens: 7, input: [2, 1] };
    let labels = Labels::new([3, 1_000_010]);
    let s = Start { parent: Some(RunKey::new(99)), held, labels, retried: true, piped: true, ..start(5, 1000) };
    assert_eq!(table.start(&cells, &s, |_| unreachable!()), Started::New);
    let call = Asked { model: 8, start: 1000, budgets: 5, labels, streamed: false, unpriced: false };
    assert_eq!(table.asked(&cells, s.key), Some(call));
    table.chunk(&cells, s.key, 4_000);
    table.chunk(&cells, s.key, 5_000);
    assert_eq!(table.token(&cells, s.key, 6_000, Via::Token, false), Token::First);
    assert_eq!(table.token(&cells, s.key, 26_000, Via::Token, true), Token::Next { series: 9, gap: 20_000 });
    assert_eq!(table.token(&cells, s.key, 36_000, Via::Token, true), Token::Next { series: 9, gap: 10_000 });
    let run = table.take(&cells, s.key, 50_000).expect("in flight");
    let want = Run {
        key: s.key,
        parent: s.parent,
        start: 1000,
        first_chunk: Some(3_000),
        first_token: Some(5_000),
        first_visible: Some(25_000),
        last_token: Some(36_000),
        longest_gap: 20_000,
        kind: Kind::Llm,
        component: 7,
        model: 8,
        gaps: 9,
        events: 3,
        children: 0,
        held: s.held,
        labels,
        retried: true,
        piped: true,
        shared: false,
        failed: None,
        own: 49_000,
        branch: Branch::Root(0),
    };
    assert_eq!(run, want);
    assert_eq!(table.take(&cells, s.key, 50_000), None);
    assert_eq!(table.live(&cells), 0);
    // What the slot held before is not its next run's.
    table.start(&cells, &start(5, 1), |_| ());
    let next = table.take(&cells, s.key, 2).map(|r| (r.held, r.labels, r.retried, r.longest_gap, r.first_token));
    assert_eq!(next, Some((NONE, Labels::default(), false, 0, None)));
}

#[test]
fn labels_are_up_to_three_series() {
    let all: Vec<_> = Labels::new([0, 1_000_010, 7, 9]).iter().collect();
    assert_eq!(all, [0, 1_000_010, 7]);
    assert_eq!(Labels::default().iter().count(), 0);
}

#[test]
fn own_time_is_that_in_which_no_child_ran() {
    let (cells, table) = table(64);
    let run = |key, parent, now| Start { parent, kind: Kind::Chain, ..start(key, now) };
    let of = |key| Some(RunKey::new(key));
    table.start(&cells, &run(10, None, 100), |_| ());
    // Two that overlap, from 110 to 150; one after them; one still open at the end.
    table.start(&cells, &run(11, of(10), 110), |_| ());
    table.start(&cells, &run(12, of(10), 120), |_| ());
    table.start(&cells, &run(13, of(11), 122), |_| ());
    assert_eq!(table.take(&cells, RunKey::new(13), 128).map(|r| r.own), Some(6));
    assert_eq!(table.take(&cells, RunKey::new(11), 130).map(|r| r.own), Some(14));
    assert_eq!(table.take(&cells, RunKey::new(12), 150).map(|r| r.own), Some(30));
    table.start(&cells, &run(14, of(10), 160), |_| ());
    assert_eq!(table.take(&cells, RunKey::new(14), 165).map(|r| r.own), Some(5));
    table.start(&cells, &run(15, of(10), 180), |_| ());
    let root = table.take(&cells, RunKey::new(10), 200).expect("in flight");
    assert_eq!((root.own, root.children), (100 - 40 - 5 - 20, 1));
}

#[test]
fn a_run_whose_ancestor_went_without_a_word_is_no_pipeline_of_its_own() {
    let (cells, table) = table(64);
    let run = |key, parent, now| Start { parent, kind: Kind::Chain, ..start(key, now) };
    let of = |key| Some(RunKey::new(key));
    table.start(&cells, &run(10, None, 1), |_| ());
    table.start(&cells, &run(11, of(10), 2), |_| ());
    table.start(&cells, &run(12, of(11), 3), |_| ());
    let root = sets_of(table, RunKey::new(10));
    table.reap(&cells, 2, 5, |_, _| ());
    // Another pipeline in the same slot is not its root.
    let other = (20..9999).find(|key| sets_of(table, RunKey::new(*key)) == root).expect("a key of the same sets");
    table.start(&cells, &run(other, None, 6), |_| ());
    assert_eq!(table.take(&cells, RunKey::new(12), 7).map(|r| r.branch), Some(Branch::Lost));
    assert_eq!(table.take(&cells, RunKey::new(11), 8).map(|r| r.branch), Some(Branch::Lost));
    assert_eq!(table.take(&cells, RunKey::new(other), 9).map(|r| r.branch), Some(Branch::Root(0)));
}

#[test]
fn a_span_does_not_hang_under_the_next_run_of_its_roots_slot() {
    let (cells, table) = table(64);
    let run = |key, parent, now| Start { parent, kind: Kind::Chain, ..start(key, now) };
    table.start(&cells, &run(10, None, 1), |_| ());
    table.start(&cells, &run(11, Some(RunKey::new(10)), 2), |_| ());
    let Some(Branch::Under(root)) = table.take(&cells, RunKey::new(11), 3).map(|r| r.branch) else {
        panic!("it has a root");
    };
    let before = table.newest_span(&cells, root).expect("in flight");
    table.take(&cells, RunKey::new(10), 4);
    let sets = sets_of(table, RunKey::new(10));
    let next = (20..9999).find(|key| sets_of(table, RunKey::new(*key)) == sets).expect("a key of the same sets");
    table.start(&cells, &run(next, None, 5), |_| ());
    assert_eq!(table.find(&cells, RunKey::new(next)), Some(root.slot));
    assert!(!table.hang(&cells, root, before, 77));
    assert_eq!(table.take(&cells, RunKey::new(next), 6).map(|r| r.branch), Some(Branch::Root(0)));
}

#[test]
fn spans_hang_under_the_root_of_their_tree() {
    let (cells, table) = table(64);
    let run = |key, parent, kind| Start { parent, kind, ..start(key, 1) };
    let of = |key| Some(RunKey::new(key));
    table.start(&cells, &run(10, None, Kind::Chain), |_| ());
    table.start(&cells, &run(11, of(10), Kind::Chain), |_| ());
    table.start(&cells, &run(12, of(11), Kind::Llm), |_| ());
    let Some(Branch::Under(root)) = table.take(&cells, RunKey::new(12), 2).map(|r| r.branch) else {
        panic!("it has a root");
    };
    let none = table.newest_span(&cells, root).expect("in flight");
    assert_eq!((root.key(), none.span()), (RunKey::new(10), 0));
    assert!(table.hang(&cells, root, none, 77));
    assert!(!table.hang(&cells, root, none, 78));
    assert_eq!(table.take(&cells, RunKey::new(11), 3).map(|r| r.branch), Some(Branch::Under(root)));
    assert_eq!(table.take(&cells, RunKey::new(10), 4).map(|r| r.branch), Some(Branch::Root(77)));
    assert_eq!(table.newest_span(&cells, root), None);
}

#[test]
fn a_later_attempt_under_the_same_parent_makes_good_for_a_failed_one() {
    let (cells, table) = table(64);
    let parent = Some(RunKey::new(10));
    table.start(&cells, &Start { kind: Kind::Chain, ..start(10, 1) }, |_| ());
    assert_eq!(table.recovered(&cells, parent, 9), None);
    table.failed(&cells, parent, 8, 5);
    assert_eq!(table.recovered(&cells, parent, 4), None, "it had begun before the other failed");
    assert_eq!(table.recovered(&cells, parent, 6), Some(8));
    assert_eq!(table.recovered(&cells, parent, 7), None, "once");
    table.failed(&cells, Some(RunKey::new(11)), 8, 5);
    assert_eq!(table.recovered(&cells, None, 7), None);
}

#[test]
fn a_run_that_takes_the_place_of_one_that_failed_makes_good_for_the_calls_in_it() {
    let (cells, table) = table(64);
    let of = |key| Some(RunKey::new(key));
    let chain = |key, parent, now| Start { kind: Kind::Chain, parent, ..start(key, now) };
    table.start(&cells, &chain(10, None, 1), |_| ());
    table.start(&cells, &chain(11, of(10), 2), |_| ());
    table.start(&cells, &chain(12, of(10), 2), |_| ());
    table.failed(&cells, of(11), 8, 5);
    let failed = table.take(&cells, RunKey::new(11), 6).expect("in flight");
    assert_eq!(failed.failed, Some(8));
    table.failed(&cells, failed.parent, 8, 6);
    table.start(&cells, &chain(13, of(10), 7), |_| ());
    table.start(&cells, &chain(14, of(13), 8), |_| ());
    assert_eq!(table.recovered(&cells, of(12), 9), None, "run 12 had begun before the other failed");
    assert_eq!(table.recovered(&cells, of(14), 9), Some(8));
    assert_eq!(table.recovered(&cells, of(14), 9), None, "once");
    let root = table.take(&cells, RunKey::new(10), 20).expect("in flight");
    assert_eq!(root.failed, None);
}

#[test]
fn what_is_below_a_second_attempt_is_one_too() {
    let (cells, table) = table(64);
    table.start(&cells, &Start { kind: Kind::Chain, retried: true, ..start(10, 1) }, |_| ());
    table.start(&cells, &Start { parent: Some(RunKey::new(10)), ..start(11, 1) }, |_| ());
    assert_eq!(table.take(&cells, RunKey::new(11), 2).map(|r| r.retried), Some(true));
}

#[test]
fn a_stream_without_a_token_for_long_is_silent() {
    let (cells, table) = table(64);
    for (key, last) in [(5, 40), (6, 60)] {
        table.start(&cells, &start(key, 10), |_| ());
        table.token(&cells, RunKey::new(key), last, Via::Token, true);
    }
    table.start(&cells, &start(7, 10), |_| ());
    let mut silent = Vec::new();
    table.silent(&cells, 50, |s| silent.push(s));
    assert_eq!(silent, [Streaming { key: RunKey::new(5), model: 8, gaps: 9, start: 10, last: 40, events: 1 }]);
}

#[test]
fn a_token_of_a_run_that_is_no_model_call_is_none() {
    let (cells, table) = table(64);
    table.start(&cells, &Start { kind: Kind::Chain, ..start(5, 1) }, |_| ());
    assert_eq!(table.token(&cells, RunKey::new(5), 2, Via::Token, true), Token::Unknown);
    assert_eq!(table.take(&cells, RunKey::new(5), 9).map(|r| (r.own, r.events)), Some((8, 0)));
}

#[test]
fn a_reaped_run_leaves_its_budgets_and_its_charge_behind() {
    let (cells, table) = table(64);
    let charged = Reservation { budgets: 5, cost: 0, tokens: 0, input: [2, 1] };
    let held = Reservation { budgets: 5, cost: 6, tokens: 7, input: [2, 1] };
    table.start(&cells, &Start { held, ..start(5, 1) }, |_| ());
    table.reap(&cells, 2, 20, |_, _| ());
    assert_eq!(table.charged_for_reaped(&cells, RunKey::new(5)), charged);
    table.start(&cells, &start(5, 1), |_| ());
    table.reap(&cells, 2, 20, |_, _| ());
    assert_eq!(table.charged_for_reaped(&cells, RunKey::new(5)), Reservation::default());
}

#[test]
fn a_second_start_of_a_run_is_refused() {
    let (cells, table) = table(4);
    assert_eq!(table.start(&cells, &start(5, 1), |_| ()), Started::New);
    assert_eq!(table.start(&cells, &start(5, 2), |_| ()), Started::Echo);
    assert_eq!((table.live(&cells), table.take(&cells, RunKey::new(5), 2000).map(|r| r.start)), (1, Some(1)));
}

#[test]
fn a_start_that_comes_again_before_any_other_event_is_an_echo() {
    let (cells, table) = table(64);
    for kind in [Kind::Llm, Kind::Chain, Kind::Tool] {
        let run = Start { kind, witness: 9, ..start(5, 1) };
        let (first, again) = (table.start(&cells, &run, |_| ()), table.start(&cells, &Start { now: 3, ..run }, |_| ()));
        assert_eq!((first, again, table.live(&cells)), (Started::New, Started::Echo, 1));
        assert!(table.is_echo(&cells, run.key, 9) && !table.is_echo(&cells, run.key, 8));
        assert_eq!(table.take(&cells, run.key, 9).map(|r| (r.start, r.shared)), Some((1, false)));
        assert_eq!(table.take(&cells, run.key, 9), None);
    }
}

#[test]
fn another_start_of_a_live_id_is_a_run_of_its_own() {
    let (cells, table) = table(64);
    let run = Start { witness: 9, ..start(5, 1) };
    let chain = Start { kind: Kind::Chain, ..run };
    let child = Start { parent: Some(run.key), ..start(6, 5) };
    let events: [(Start, &dyn Fn()); 5] = [
        (run, &|| assert_eq!(table.token(&cells, run.key, 5, Via::Token, true), Token::First)),
        (run, &|| table.chunk(&cells, run.key, 5)),
        (run, &|| assert_eq!(table.start(&cells, &child, |_| ()), Started::New)),
        (chain, &|| assert_eq!(table.start(&cells, &child, |_| ()), Started::New)),
        (chain, &|| table.failed(&cells, Some(run.key), 3, 5)),
    ];
    for (run, event) in events {
        assert_eq!(table.start(&cells, &run, |_| ()), Started::New);
        event();
        assert_eq!(table.start(&cells, &run, |_| ()), Started::SharesId);
        assert_eq!(table.start(&cells, &Start { witness: 8, ..run }, |_| ()), Started::SharesId);
        assert!((0..3).all(|_| table.take(&cells, run.key, 9).is_some_and(|r| r.shared)));
        assert_eq!(table.take(&cells, run.key, 9), None);
        table.take(&cells, RunKey::new(6), 9);
        assert_eq!(table.live(&cells), 0);
    }
}

#[test]
fn how_often_the_start_came_says_which_tokens_are_echoes() {
    for copies in 1..5 {
        let (cells, table) = table(64);
        let (run, key) = (Start { witness: 9, ..start(5, 1000) }, RunKey::new(5));
        for _ in 0..copies {
            table.start(&cells, &run, |_| ());
        }
        for (via, echo) in [(Via::Token, false), (Via::StreamEvent, true), (Via::Token, false)] {
            let tokens = (0..copies).map(|_| table.token(&cells, key, 6_000, via, true));
            assert_eq!(tokens.filter(|t| *t != Token::Echo).count(), usize::from(!echo), "{copies}");
        }
        let run = table.take(&cells, key, 9_000).expect("in flight");
        assert_eq!((run.events, run.first_token), (2, Some(5_000)));
    }
}

#[test]
fn the_echo_of_an_end_does_not_end_another_run_of_that_id() {
    let (cells, table) = table(64);
    for witness in [9, 9, 8, 8] {
        table.start(&cells, &Start { witness, ..start(5, 1) }, |_| ());
    }
    let ends: Vec<_> = (0..5).map(|_| table.take(&cells, RunKey::new(5), 9).is_some()).collect();
    assert_eq!((ends, table.live(&cells)), (vec![true, false, true, false, false], 0));
}

#[test]
fn an_end_is_remembered_over_4_000_later_ends() {
    let (cells, table) = table(64);
    let key = |n: u64| RunKey::new(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2);
    for n in 1..20_000_u64 {
        table.start(&cells, &Start { key: key(n), ..start(0, n) }, |_| ());
        table.take(&cells, key(n), n);
        if let Some(before) = n.checked_sub(4_000).filter(|n| *n > 0) {
            assert_eq!(table.left(&cells, key(before)), Some(Left::Ended), "{before}");
        }
    }
}

#[test]
fn a_late_end_is_one_also_where_an_earlier_run_with_its_id_has_ended() {
    let (cells, table) = table(64);
    let held = Reservation { budgets: 5, cost: 6, tokens: 7, input: [2, 1] };
    table.start(&cells, &start(5, 1), |_| ());
    table.take(&cells, RunKey::new(5), 2);
    assert_eq!(table.left(&cells, RunKey::new(5)), Some(Left::Ended));
    table.start(&cells, &Start { held, ..start(5, 3) }, |_| ());
    table.reap(&cells, 4, 5, |_, _| ());
    let left = (table.left(&cells, RunKey::new(5)), table.charged_for_reaped(&cells, RunKey::new(5)).budgets);
    assert_eq!(left, (Some(Left::Reaped), 5));
    assert!(table.remember(&cells, RunKey::new(5)) && !table.remember(&cells, RunKey::new(5)));
}

#[test]
#[cfg_attr(miri, ignore = "minutes, and nothing unsafe in it")]
fn after_a_burst_only_the_first_level_is_in_use_again() {
    let (cells, table) = table(65_536);
    let first = table.slots_in_use(&cells);
    for n in 2..20_000 {
        table.start(&cells, &start(n, n), |_| ());
    }
    assert!(table.slots_in_use(&cells) > first * 10);
    for n in 2..20_000 {
        assert!(table.take(&cells, RunKey::new(n), n).is_some());
    }
    assert_eq!((table.slots_in_use(&cells), first, table.live(&cells)), (1024, 1024, 0));
}

#[test]
fn a_call_with_a_reservation_says_when_it_was_heard_and_whether_its_ancestors_are_in_flight() {
    let (cells, table) = table(64);
    let held = Reservation { budgets: 5, cost: 6, tokens: 7, input: [2, 1] };
    let chain = |key, parent, now| Start { kind: Kind::Chain, parent, ..start(key, now) };
    let of = |key| Some(RunKey::new(key));
    table.start(&cells, &chain(10, None, 1), |_| ());
    table.start(&cells, &chain(11, of(10), 2), |_| ());
    table.start(&cells, &Start { parent: of(11), held, ..start(12, 3) }, |_| ());
    table.start(&cells, &Start { parent: of(99), held, ..start(13, 1000) }, |_| ());
    table.start(&cells, &start(14, 3), |_| ());
    let look = || {
        let mut holders = Vec::new();
        table.reserving(&cells, |call| holders.push((call.key.get(), call.heard, call.orphaned, call.budgets)));
        holders.sort_unstable();
        holders
    };
    assert_eq!(look(), [(12, None, false, 5), (13, None, false, 5)]);
    table.chunk(&cells, RunKey::new(13), 4_000);
    table.token(&cells, RunKey::new(12), 9_000, Via::Token, true);
    table.take(&cells, RunKey::new(10), 20);
    assert_eq!(look(), [(12, Some(9_000), true, 5), (13, Some(4_000), false, 5)]);
    let mut gone = Vec::new();
    table.abandon(&cells, &[RunKey::new(12), RunKey::new(77)], 30, |run| gone.push((run.key.get(), run.held)));
    assert_eq!((gone, table.left(&cells, RunKey::new(12))), (vec![(12, held)], Some(Left::Reaped)));
}

#[test]
fn a_token_reported_by_both_hooks_counts_once() {
    let (cells, table) = table(4);
    table.start(&cells, &start(5, 1), |_| ());
    let key = RunKey::new(5);
    assert_eq!(table.token(&cells, key, 2, Via::Token, true), Token::First);
    assert_eq!(table.token(&cells, key, 2, Via::StreamEvent, true), Token::Echo);
    assert_eq!(table.token(&cells, key, 3, Via::Token, true), Token::Next { series: 9, gap: 1 });
    assert_eq!(table.take(&cells, key, 9).map(|r| r.events), Some(2));
    table.start(&cells, &start(6, 1), |_| ());
    assert_eq!(table.token(&cells, RunKey::new(6), 2, Via::StreamEvent, true), Token::First);
    assert_eq!(table.token(&cells, RunKey::new(6), 4, Via::StreamEvent, true), Token::Next { series: 9, gap: 2 });
    assert_eq!(table.token(&cells, RunKey::new(7), 4, Via::Token, true), Token::Unknown);
}

#[test]
fn a_first_token_at_the_instant_of_the_start_is_a_first_token() {
    let (cells, table) = table(4);
    table.start(&cells, &start(5, 10), |_| ());
    assert_eq!(table.token(&cells, RunKey::new(5), 10, Via::Token, true), Token::First);
    assert_eq!(table.token(&cells, RunKey::new(5), 10, Via::Token, true), Token::Next { series: 9, gap: 0 });
    assert_eq!(table.take(&cells, RunKey::new(5), 2000).and_then(|r| r.first_token), Some(1000));
}

#[test]
#[cfg_attr(miri, ignore = "minutes, and nothing unsafe in it")]
fn at_capacity_the_oldest_makes_room() {
    for capacity in [1, 5, 100, 1000, 10_000] {
        let (cells, table) = table(capacity);
        let mut gone = Vec::new();
        for i in 0..capacity + 700 {
            table.start(&cells, &start(i, 1000 + i), |run| gone.push(run.start));
        }
        let want: Vec<u64> = (1000..1700).collect();
        assert_eq!((gone, table.live(&cells)), (want, capacity));
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes, and nothing unsafe in it")]
fn a_full_pair_of_sets_gives_up_its_oldest() {
    let (cells, table) = table(1000);
    let home = sets_of(table, RunKey::new(3));
    let same: Vec<u64> = (3..2_000_000)
        .filter(|k| {
            let s = sets_of(table, RunKey::new(*k));
            s == home
        })
        .take(17)
        .collect();
    assert_eq!(same.len(), 17);
    let mut gone = Vec::new();
    for (t, key) in same.iter().enumerate() {
        table.start(&cells, &start(*key, 1 + t as u64), |run| gone.push(run.key));
    }
    assert_eq!((gone, table.live(&cells)), (vec![RunKey::new(same[0])], 16));
}

#[test]
fn an_ancestor_orphans_its_descendants_of_every_generation() {
    let (cells, table) = table(64);
    let child = |key, parent| Start { parent: Some(RunKey::new(parent)), ..start(key, 1) };
    table.start(&cells, &start(10, 1), |_| ());
    for (key, parent) in [(11, 10), (12, 10), (13, 11), (14, 13), (15, 11), (20, 19)] {
        table.start(&cells, &child(key, parent), |_| ());
    }
    assert_eq!(table.take(&cells, RunKey::new(12), 2000).map(|r| r.children), Some(0));
    let root = table.take(&cells, RunKey::new(10), 2000).expect("in flight");
    assert_eq!(root.children, 1);
    table.orphan(&cells, root.key, 5, |_| (), |_| unreachable!());
    // One ends by itself after all; the others go with the next look that is a second later.
    assert!(table.take(&cells, RunKey::new(15), 2000).is_some());
    let mut gone = Vec::new();
    table.orphan(&cells, RunKey::new(77), 5 + GRACE * 1000, |_| (), |_| unreachable!());
    table.orphan(&cells, RunKey::new(77), 1005 + GRACE * 1000, |_| (), |r| gone.push((r.key.get(), r.children)));
    gone.sort_unstable();
    assert_eq!((gone, table.live(&cells)), (vec![(11, 0), (13, 0), (14, 0)], 1));
}

#[test]
fn orphans_are_reaped_whatever_their_age() {
    let (cells, table) = table(64);
    table.start(&cells, &start(10, 9), |_| ());
    table.start(&cells, &Start { parent: Some(RunKey::new(10)), ..start(11, 9) }, |_| ());
    table.start(&cells, &start(12, 1), |_| ());
    table.take(&cells, RunKey::new(10), 2000);
    table.orphan(&cells, RunKey::new(10), 10, |_| (), |_| unreachable!());
    let mut gone = Vec::new();
    assert_eq!(table.reap(&cells, 5, 20, |run, orphan| gone.push((run.key.get(), orphan))), 0);
    gone.sort_unstable();
    assert_eq!(gone, vec![(11, true), (12, false)]);
}

#[test]
fn what_is_older_than_the_limit_is_reaped_and_the_rest_counted() {
    let (cells, table) = table(64);
    for i in 2..12 {
        let kind = if i % 2 == 0 { Kind::Llm } else { Kind::Chain };
        table.start(&cells, &Start { kind, ..start(i, i) }, |_| ());
    }
    let mut gone = Vec::new();
    assert_eq!(table.reap(&cells, 7, 20, |r, _| gone.push(r.start)), 2);
    gone.sort_unstable();
    assert_eq!(gone, vec![2, 3, 4, 5, 6]);
    table.clear(&cells);
    assert_eq!((table.live(&cells), table.reap(&cells, u64::MAX, 20, |_, _| unreachable!())), (0, 0));
}

#[test]
fn keys_the_table_uses_itself_move_elsewhere_and_a_cap_outside_its_range_is_refused() {
    let (cells, table) = table(4);
    for key in [0, 1] {
        assert_eq!(table.start(&cells, &start(key, 1), |_| ()), Started::New);
        assert!(table.take(&cells, RunKey::new(key), 2000).is_some());
    }
    assert!(RunTable::check(0).is_err() && RunTable::check(1 << 25).is_err());
    assert_eq!(RunTable::check(9), Ok(9));
}

proptest! {
    /// Against a plain map with the same rules.
    #[test]
    fn the_table_is_a_bounded_map(steps in prop::collection::vec((0..4_u8, 2..40_u64), 1..300), capacity in 1..24_u64) {
        let (cells, table) = table(capacity);
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        for (now, (op, key)) in (1..).zip(steps) {
            match op {
                0 | 1 => {
                    let mut gone = Vec::new();
                    let fresh = table.start(&cells, &start(key, now), |r| gone.push(r.key.get())) == Started::New;
                    prop_assert_eq!(fresh, !model.contains_key(&key));
                    if fresh {
                        if model.len() as u64 >= capacity {
                            let oldest = *model.iter().min_by_key(|(_, t)| **t).expect("not empty").0;
                            model.remove(&oldest);
                            prop_assert_eq!(gone, vec![oldest]);
                        }
                        model.insert(key, now);
                    }
                }
                2 => prop_assert_eq!(table.take(&cells, RunKey::new(key), 2000).map(|r| r.start), model.remove(&key)),
                _ => prop_assert_eq!(
                    table.token(&cells, RunKey::new(key), now, Via::Token, true) != Token::Unknown, model.contains_key(&key)
                ),
            }
            prop_assert_eq!(table.live(&cells), model.len() as u64);
        }
    }

    /// Against a clock that ticks for each run while no child of it is in flight.
    #[test]
    fn own_time_is_that_of_a_clock_that_stops_while_a_child_runs(
        steps in prop::collection::vec((0..8_u8, 0..10_u64, 0..10_u64, 0..50_u64), 1..120)
    ) {
        struct Ticking { start: u64, own: u64, parent: Option<(u64, u64)> }
        let (cells, table) = table(64);
        let mut runs: BTreeMap<u64, Ticking> = BTreeMap::new();
        let mut now = 1000;
        for (op, key, other, passes) in steps {
            let covered: Vec<_> = runs.values().filter_map(|r| r.parent).collect();
            for (key, run) in &mut runs {
                if !covered.contains(&(*key, run.start)) {
                    run.own += passes;
                }
            }
            now += passes;
            let (key, other) = (key + 2, other + 2);
            match op {
                0..=3 => {
                    // A parent is who has that key now; ends come in any order.
                    let parent = runs.get(&other).filter(|_| other != key).map(|p| (other, p.start));
                    let run = Start { parent: Some(RunKey::new(other)), kind: Kind::Chain, ..start(key, now) };
                    let fresh = table.start(&cells, &run, |_| unreachable!()) == Started::New;
                    prop_assert_eq!(fresh, !runs.contains_key(&key));
                    if fresh {
                        runs.insert(key, Ticking { start: now, own: 0, parent });
                    }
                    now += 1; // no two runs with one key and one start
                    let covered: Vec<_> = runs.values().filter_map(|r| r.parent).collect();
                    for (key, run) in &mut runs {
                        run.own += u64::from(!covered.contains(&(*key, run.start)));
                    }
                }
                4..=6 => {
                    let left = table.take(&cells, RunKey::new(key), now).map(|r| (r.start, r.own));
                    prop_assert_eq!(left, runs.remove(&key).map(|r| (r.start, r.own)));
                }
                _ => {
                    let limit = now.saturating_sub(other * 20);
                    let mut gone = Vec::new();
                    table.reap(&cells, limit, now, |r, _| gone.push((r.key.get(), r.own)));
                    gone.sort_unstable();
                    let due: Vec<_> = runs.iter().filter(|(_, r)| r.start < limit).map(|(k, r)| (*k, r.own)).collect();
                    runs.retain(|_, r| r.start >= limit);
                    prop_assert_eq!(gone, due);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_gap_of_up_to_fifty_days_keeps_six_digits_and_its_order(
        gaps in prop::array::uniform2(prop_oneof![
            0..10_000_000_000_u64,
            2_147_000_000_000..2_148_000_000_000_u64,
            0..4_300_000_000_000_000_u64
        ]),
    ) {
        for nanos in gaps {
            let bits = gap_bits(nanos);
            prop_assert!(bits <= LOW_32 && gap_in(bits | !LOW_32).abs_diff(nanos) <= (nanos / 1_000_000).max(500));
        }
        prop_assert_eq!(gap_bits(gaps[0].min(gaps[1])), gap_bits(gaps[0]).min(gap_bits(gaps[1])));
        prop_assert_eq!(gap_bits(u64::MAX), LOW_32);
    }

    #[test]
    fn a_time_in_brief_is_right_to_a_part_in_8_192(nanos in prop_oneof![0..200_000_000_u64, any::<u64>()]) {
        let unpacked = brief_in(in_brief(nanos), 0).expect("never none");
        let micros = (nanos.saturating_add(500) / 1000).max(1);
        if micros < (1 << 43) {
            prop_assert!((unpacked / 1000).abs_diff(micros) <= micros >> 13, "{micros} {unpacked}");
        }
        let three = with_brief(with_brief(with_brief(in_brief(7_000), 2, in_brief(nanos)), 1, in_brief(5_000)), 1, 9);
        prop_assert_eq!((brief_in(three, 0), brief_in(three, 1)), (Some(7_000), Some(5_000)));
        prop_assert_eq!(brief_in(three, 2), Some(unpacked));
    }
}
