use super::*;
use crate::budget::Reservation;
use crate::series::Kind;
use loom::sync::Arc;
use loom::thread;

const NONE: Reservation = Reservation { budgets: 0, cost: 0, tokens: 0, input: [0; 2] };

fn table() -> (Arc<Cells>, RunTable) {
    (Arc::new(Cells::zeroed(RunTable::cells(2)).expect("cells")), RunTable::at(0, 2))
}

fn start(key: u64, now: u64) -> Start {
    let key = RunKey::new(key);
    let (parent, kind, held, labels, retried) = (None, Kind::Llm, NONE, Labels::default(), false);
    Start { key, parent, now, kind, component: 7, model: 8, gaps: 9, held, labels, retried, piped: false, witness: 0 }
}

#[test]
fn a_run_leaves_exactly_once() {
    loom::model(|| {
        let (cells, table) = table();
        table.start(&cells, &start(5, 10), |_| ());
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.take(&cells, RunKey::new(5), 2000))
        };
        let mut reaped = 0;
        table.reap(&cells, u64::MAX, 20, |run, _| {
            assert_eq!(run.start, 10);
            reaped += 1;
        });
        let ended = there.join().expect("joins");
        assert_eq!(reaped + u32::from(ended.is_some()), 1);
        assert_eq!(table.live(&cells), 0);
    });
}

#[test]
fn two_runs_that_start_together_are_both_in_flight() {
    loom::model(|| {
        let (cells, table) = table();
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.start(&cells, &start(5, 10), |_| panic!("room for two")))
        };
        assert_eq!(table.start(&cells, &start(6, 11), |_| panic!("room for two")), Started::New);
        assert_eq!(there.join().expect("joins"), Started::New);
        assert_eq!(table.take(&cells, RunKey::new(5), 2000).map(|r| r.start), Some(10));
        assert_eq!(table.take(&cells, RunKey::new(6), 2000).map(|r| r.start), Some(11));
    });
}

#[test]
fn a_reaper_never_takes_a_fresh_run_for_the_old_one_of_its_slot() {
    loom::model(|| {
        let (cells, table) = table();
        table.start(&cells, &start(5, 10), |_| ());
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || {
                table.take(&cells, RunKey::new(5), 2000);
                table.start(&cells, &start(7, 100), |_| ());
            })
        };
        table.reap(&cells, 50, 60, |run, _| assert_eq!(run.start, 10));
        there.join().expect("joins");
        assert_eq!(table.take(&cells, RunKey::new(7), 2000).map(|r| r.start), Some(100));
    });
}

#[test]
fn a_late_token_never_moves_the_figures_of_the_slots_next_run() {
    loom::model(|| {
        let (cells, table) = table();
        let next_key = next_of_5(table);
        table.start(&cells, &start(5, 10), |_| ());
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.token(&cells, RunKey::new(5), 20, Via::StreamEvent, true))
        };
        table.take(&cells, RunKey::new(5), 2000);
        table.start(&cells, &start(next_key, 100), |_| ());
        let token = there.join().expect("joins");
        assert!(matches!(token, Token::Unknown | Token::First | Token::Counted), "{token:?}");
        let next = table.token(&cells, RunKey::new(next_key), 130, Via::StreamEvent, true);
        assert_eq!(next, Token::First, "after {token:?}");
    });
}

/// A key that gets the slot of run 5, when that is free again.
fn next_of_5(table: RunTable) -> u64 {
    let sets = |key| table.deep_sets(RunKey::new(key).mixed());
    (6..9999).find(|key| sets(*key) == sets(5)).expect("one in some")
}

/// A chain, and room for two runs under it.
fn parent() -> (Arc<Cells>, RunTable) {
    let (cells, table) = (Arc::new(Cells::zeroed(RunTable::cells(4)).expect("cells")), RunTable::at(0, 4));
    table.start(&cells, &Start { kind: Kind::Chain, ..start(5, 100) }, |_| ());
    (cells, table)
}

fn child(key: u64, now: u64) -> Start {
    Start { parent: Some(RunKey::new(5)), ..start(key, now) }
}

#[test]
fn children_that_start_and_end_at_once_leave_their_parent_with_none_and_all_of_its_time() {
    loom::model(|| {
        let (cells, table) = parent();
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || {
                table.start(&cells, &child(6, 110), |_| panic!("room for it"));
                table.take(&cells, RunKey::new(6), 110).map(|r| r.start)
            })
        };
        table.start(&cells, &child(7, 110), |_| panic!("room for it"));
        assert_eq!(table.take(&cells, RunKey::new(7), 110).map(|r| r.start), Some(110));
        assert_eq!(there.join().expect("joins"), Some(110));
        let parent = table.take(&cells, RunKey::new(5), 200).expect("in flight");
        // Neither took any time.
        assert_eq!((parent.children, parent.own), (0, 100));
    });
}

#[test]
fn the_time_of_children_that_end_at_once_is_covered_once() {
    loom::model(|| {
        let (cells, table) = parent();
        table.start(&cells, &child(6, 110), |_| panic!("room for it"));
        table.start(&cells, &child(7, 110), |_| panic!("room for it"));
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.take(&cells, RunKey::new(6), 150).is_some())
        };
        assert!(table.take(&cells, RunKey::new(7), 150).is_some());
        assert!(there.join().expect("joins"));
        let parent = table.take(&cells, RunKey::new(5), 200).expect("in flight");
        assert_eq!((parent.children, parent.own), (0, 60));
    });
}

#[test]
fn a_late_token_never_moves_the_longest_gap_of_the_slots_next_run() {
    loom::model(|| {
        let (cells, table) = table();
        let next_key = next_of_5(table);
        table.start(&cells, &start(5, 10), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(5), 20, Via::Token, true), Token::First);
        let slot = table.find(&cells, RunKey::new(5));
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.token(&cells, RunKey::new(5), 9_000_000, Via::Token, true))
        };
        table.take(&cells, RunKey::new(5), 2000);
        table.start(&cells, &start(next_key, 100), |_| ());
        assert_eq!(table.find(&cells, RunKey::new(next_key)), slot);
        there.join().expect("joins");
        assert_eq!(table.token(&cells, RunKey::new(next_key), 130, Via::Token, true), Token::First);
        let next = table.take(&cells, RunKey::new(next_key), 200).expect("in flight");
        assert_eq!((next.start, next.events, next.longest_gap), (100, 1, 0));
    });
}

#[test]
fn of_two_spans_that_hang_at_once_each_hangs_before_or_after_the_other() {
    loom::model(|| {
        let (cells, table) = parent();
        table.start(&cells, &child(6, 110), |_| ());
        let Some(Branch::Under(root)) = table.take(&cells, RunKey::new(6), 120).map(|r| r.branch) else {
            panic!("it has a root");
        };
        let hang = move |cells: &Cells, handle| loop {
            let before = table.newest_span(cells, root).expect("in flight");
            if table.hang(cells, root, before, handle) {
                return before.span();
            }
        };
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || hang(&cells, 1))
        };
        let two = hang(&cells, 2);
        let one = there.join().expect("joins");
        let newest = table.take(&cells, RunKey::new(5), 200).map(|r| r.branch);
        let chains = [(0, 1, Branch::Root(2)), (2, 0, Branch::Root(1))];
        assert!(chains.contains(&(one, two, newest.expect("in flight"))), "{one} {two} {newest:?}");
    });
}

/// Run 5 gets a late `event` in another thread, while this one ends it and starts `next` in its slot; then `check` looks at
/// that.
fn late(
    cells: &Arc<Cells>,
    table: RunTable,
    event: impl FnOnce(&Cells) + Send + 'static,
    (end, next): (u64, Start),
    check: impl FnOnce(&Cells),
) {
    let there = {
        let cells = Arc::clone(cells);
        thread::spawn(move || event(&cells))
    };
    table.take(cells, RunKey::new(5), end);
    table.start(cells, &next, |_| ());
    check(cells);
    there.join().expect("joins");
}

#[test]
fn a_late_token_leaves_the_times_of_the_slots_next_stream_alone() {
    loom::model(|| {
        let (cells, table) = table();
        let next_key = next_of_5(table);
        table.start(&cells, &start(5, 10_000), |_| ());
        let token = move |cells: &Cells| {
            let _ = table.token(cells, RunKey::new(5), 20_000_000, Via::Token, true);
        };
        late(&cells, table, token, (30_000_000, start(next_key, 31_000_000)), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(next_key), 35_000_000, Via::Token, true), Token::First);
        let next = table.take(&cells, RunKey::new(next_key), 40_000_000).expect("in flight");
        assert_eq!((next.events, next.first_token), (1, Some(4_000_000)));
    });
}

#[test]
fn a_late_token_leaves_the_own_time_of_the_slots_next_chain_alone() {
    loom::model(|| {
        let (cells, table) = table();
        let next_key = next_of_5(table);
        table.start(&cells, &start(5, 10_000), |_| ());
        let token = move |cells: &Cells| {
            let _ = table.token(cells, RunKey::new(5), 20_000_000, Via::Token, true);
        };
        let chain = Start { kind: Kind::Chain, ..start(next_key, 31_000_000) };
        late(&cells, table, token, (30_000_000, chain), |_| ());
        let next = table.take(&cells, RunKey::new(next_key), 40_000_000).expect("in flight");
        assert_eq!(next.own, 9_000_000);
    });
}

#[test]
fn a_late_chunk_leaves_the_slots_next_run_alone() {
    loom::model(|| {
        let (cells, table) = table();
        let next_key = next_of_5(table);
        table.start(&cells, &start(5, 10_000), |_| ());
        let chunk = move |cells: &Cells| table.chunk(cells, RunKey::new(5), 20_000_000);
        late(&cells, table, chunk, (30_000_000, start(next_key, 31_000_000)), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(next_key), 35_000_000, Via::Token, true), Token::First);
        let next = table.take(&cells, RunKey::new(next_key), 40_000_000).expect("in flight");
        assert_eq!((next.events, next.first_chunk), (1, Some(4_000_000)));
    });
}

#[test]
fn a_late_gap_goes_to_the_series_of_its_own_run() {
    loom::model(|| {
        let (cells, table) = table();
        let next_key = next_of_5(table);
        table.start(&cells, &start(5, 10_000), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(5), 15_000_000, Via::Token, true), Token::First);
        let token = move |cells: &Cells| {
            let token = table.token(cells, RunKey::new(5), 20_000_000, Via::Token, true);
            assert!(!matches!(token, Token::Next { series: 19, .. }), "{token:?}");
        };
        late(&cells, table, token, (30_000_000, Start { gaps: 19, ..start(next_key, 31_000_000) }), |_| ());
    });
}

#[test]
fn a_child_that_starts_while_its_parent_ends_is_not_a_child_of_the_slots_next_run() {
    loom::model(|| {
        let (cells, table) = parent();
        let next_key = next_of_5(table);
        let starts = move |cells: &Cells| {
            let _ = table.start(cells, &child(6, 110), |_| panic!("room"));
        };
        late(&cells, table, starts, (120, Start { kind: Kind::Chain, ..start(next_key, 130) }), |_| ());
        let next = table.take(&cells, RunKey::new(next_key), 200).expect("in flight");
        assert_eq!((next.children, next.own), (0, 70));
    });
}

#[test]
fn a_child_that_ends_while_its_parent_ends_does_not_take_the_child_of_the_slots_next_run() {
    loom::model(|| {
        let (cells, table) = parent();
        let next_key = next_of_5(table);
        table.start(&cells, &child(6, 110), |_| panic!("room"));
        let ends = move |cells: &Cells| {
            let _ = table.take(cells, RunKey::new(6), 115);
        };
        let next_child = Start { parent: Some(RunKey::new(next_key)), ..start(9, 140) };
        late(&cells, table, ends, (120, Start { kind: Kind::Chain, ..start(next_key, 130) }), |cells| {
            table.start(cells, &next_child, |_| ());
        });
        let next = table.take(&cells, RunKey::new(next_key), 200).expect("in flight");
        assert_eq!(next.children, 1);
    });
}

#[test]
fn a_failure_under_a_parent_that_ends_leaves_the_slots_next_run_alone() {
    loom::model(|| {
        let (cells, table) = parent();
        let next_key = next_of_5(table);
        let fails = move |cells: &Cells| table.failed(cells, Some(RunKey::new(5)), 3, 115);
        late(&cells, table, fails, (120, start(next_key, 130)), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(next_key), 140, Via::Token, true), Token::First);
        let next = table.take(&cells, RunKey::new(next_key), 200).expect("in flight");
        assert_eq!(next.events, 1);
    });
}

#[test]
fn a_failure_under_a_parent_that_ends_is_not_made_good_under_the_slots_next_run() {
    loom::model(|| {
        let (cells, table) = parent();
        let next_key = next_of_5(table);
        let fails = move |cells: &Cells| table.failed(cells, Some(RunKey::new(5)), 3, 115);
        late(&cells, table, fails, (120, Start { kind: Kind::Chain, ..start(next_key, 130) }), |_| ());
        assert_eq!(table.recovered(&cells, Some(RunKey::new(next_key)), 150), None);
    });
}

#[test]
fn two_starts_of_one_id_that_may_be_one_are_one_run() {
    loom::model(|| {
        let (cells, table) = table();
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.start(&cells, &start(5, 10), |_| ()))
        };
        let here = table.start(&cells, &start(5, 11), |_| ());
        let there = there.join().expect("joins");
        assert!(here != there, "live {}", table.live(&cells));
        assert_eq!(table.live(&cells), 1);
        assert!(table.take(&cells, RunKey::new(5), 20).is_some());
        assert_eq!((table.take(&cells, RunKey::new(5), 21), table.live(&cells)), (None, 0));
    });
}

#[test]
fn two_starts_of_one_id_by_two_threads_are_two_runs_that_end_once_each() {
    loom::model(|| {
        let (cells, table) = table();
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.start(&cells, &Start { witness: 1, ..start(5, 10) }, |_| ()))
        };
        let here = table.start(&cells, &Start { witness: 2, ..start(5, 11) }, |_| ());
        let there = there.join().expect("joins");
        assert!(here != Started::Echo && there != Started::Echo, "{here:?} {there:?}");
        let ends: Vec<_> = (0..3).map_while(|_| table.take(&cells, RunKey::new(5), 20)).collect();
        assert!(ends.len() == 2 && ends.iter().all(|run| run.shared), "{ends:?}");
        assert_eq!(table.live(&cells), 0);
    });
}

#[test]
fn two_ends_at_once_of_two_runs_with_one_id_take_one_each() {
    loom::model(|| {
        let (cells, table) = table();
        for witness in [1, 2] {
            table.start(&cells, &Start { witness, ..start(5, 10) }, |_| ());
        }
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.take(&cells, RunKey::new(5), 20).is_some())
        };
        assert!(table.take(&cells, RunKey::new(5), 20).is_some());
        assert!(there.join().expect("joins"));
        assert_eq!(table.live(&cells), 0);
    });
}

#[test]
fn two_ends_without_a_start_are_one_end() {
    loom::model(|| {
        let (cells, table) = table();
        let once = move |cells: &Cells| {
            u32::from(table.left(cells, RunKey::new(5)).is_none() && table.remember(cells, RunKey::new(5)))
        };
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || once(&cells))
        };
        let here = once(&cells);
        assert_eq!(here + there.join().expect("joins"), 1);
    });
}

#[test]
fn budgets_of_a_reaped_run_are_never_those_of_another() {
    loom::model(|| {
        let (cells, table) = table();
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || {
                // Two more than a ring of reaped runs remembers here.
                for key in 6..9 {
                    table.remember_as(&cells, RunKey::new(key), REAPING, &Reservation { budgets: key, ..NONE }, 0);
                }
            })
        };
        table.remember_as(&cells, RunKey::new(5), REAPING, &Reservation { budgets: 5, ..NONE }, 0);
        let budgets = table.charged_for_reaped(&cells, RunKey::new(5)).budgets;
        assert!(budgets == 5 || budgets == 0, "{budgets}");
        there.join().expect("joins");
    });
}
