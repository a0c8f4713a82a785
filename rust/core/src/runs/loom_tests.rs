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
    Start { key, parent, now, kind, component: 7, model: 8, gaps: 9, held, labels, retried, piped: false }
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
        assert!(table.start(&cells, &start(6, 11), |_| panic!("room for two")));
        assert!(there.join().expect("joins"));
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
    let sets = table.sets_of(RunKey::new(5));
    (6..9999).find(|key| table.sets_of(RunKey::new(*key)) == sets).expect("one in some")
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
