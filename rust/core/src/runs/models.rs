use super::*;
use crate::budget::Reservation;
use crate::series::Kind;
use loom::sync::Arc;
use loom::thread;

const NONE: Reservation = Reservation { budgets: 0, cost: 0, tokens: 0 };

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
        table.start(&cells, &start(5, 10), |_| ());
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || table.token(&cells, RunKey::new(5), 20, Via::StreamEvent, true))
        };
        table.take(&cells, RunKey::new(5), 2000);
        table.start(&cells, &start(7, 100), |_| ());
        let token = there.join().expect("joins");
        assert!(matches!(token, Token::Unknown | Token::First | Token::Counted), "{token:?}");
        let next = table.token(&cells, RunKey::new(7), 130, Via::StreamEvent, true);
        assert_eq!(next, Token::First, "after {token:?}");
    });
}
