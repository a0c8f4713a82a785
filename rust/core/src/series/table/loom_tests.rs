use super::*;
use loom::sync::Arc;

#[test]
fn a_label_set_that_two_threads_meet_first_is_one_series() {
    loom::model(|| {
        let cells = Arc::new(Cells::zeroed(SeriesTable::cells(2)).expect("cells"));
        let table = SeriesTable::at(0, 2);
        let other = {
            let cells = Arc::clone(&cells);
            loom::thread::spawn(move || table.resolve(&cells, Kind::Tool, "x", "").0)
        };
        let here = table.resolve(&cells, Kind::Tool, "x", "").0;
        // Published whole or not at all.
        if let Some(labels) = table.labels(&cells, here) {
            assert_eq!(labels.a, "x");
        }
        assert_eq!(other.join().expect("joins"), here);
        assert_eq!(table.labels(&cells, here).map(|l| l.a), Some("x".into()));
        // And room for another: what was taken twice has been given back.
        assert!(!table.resolve(&cells, Kind::Tool, "y", "").1);
    });
}

#[test]
fn two_label_sets_that_race_for_a_slot_get_one_each() {
    loom::model(|| {
        let cells = Arc::new(Cells::zeroed(SeriesTable::cells(2)).expect("cells"));
        let table = SeriesTable::at(0, 2);
        let other = {
            let cells = Arc::clone(&cells);
            loom::thread::spawn(move || table.resolve(&cells, Kind::Tool, "x", ""))
        };
        let (here, full, _) = table.resolve(&cells, Kind::Tool, "y", "");
        let (there, full_there, _) = other.join().expect("joins");
        assert!(!full && !full_there && here != there);
        assert_eq!(table.labels(&cells, here).map(|l| l.a), Some("y".into()));
        assert_eq!(table.labels(&cells, there).map(|l| l.a), Some("x".into()));
    });
}
