use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn table(slots: usize) -> (Cells, SeriesTable) {
    (Cells::zeroed(SeriesTable::cells(slots)).expect("cells"), SeriesTable::at(0, slots))
}

proptest! {
    #[test]
    fn a_label_set_reads_back_as_written(kind in 0..Kind::ALL.len(), a in "\\PC{0,40}", b in "\\PC{0,40}") {
        let (cells, table) = table(8);
        let kind = Kind::ALL[kind];
        let (id, other, cut) = table.resolve(&cells, kind, &a, &b);
        prop_assert!(!other && !cut);
        prop_assert_eq!(table.labels(&cells, id), Some(LabelSet { kind, a: a.clone(), b: b.clone() }));
        prop_assert_eq!(table.resolve(&cells, kind, &a, &b).0, id);
    }

    #[test]
    fn different_label_sets_are_different_series(names in prop::collection::btree_set(("[a-c]{0,9}", "[a-c]{0,9}"), 0..60)) {
        let (cells, table) = table(64);
        let ids: BTreeSet<_> = names.iter().map(|(a, b)| table.resolve(&cells, Kind::Model, a, b).0).collect();
        prop_assert_eq!(ids.len(), names.len());
        prop_assert_eq!(table.ids(&cells).count(), names.len() + Kind::ALL.len());
    }
}

/// Keys that a look-up of a name reads.
fn probes(cells: &Cells, table: SeriesTable, kind: Kind, a: &str, b: &str) -> usize {
    let (first, keys) = table.first(hash(what(kind, None), a, b));
    let key = |n: usize| cells.get(HEADER + (first + n) % keys);
    let slot = |n: usize| usize::try_from(key(n) & ID).expect("21 bits").checked_sub(1);
    let read =
        (0..PROBES.min(keys)).find(|n| slot(*n).is_none_or(|slot| table.is(cells, slot, what(kind, None), a, b)));
    read.map_or(PROBES, |n| n + 1)
}

#[test]
fn a_full_table_holds_every_name_and_no_look_up_reads_more_than_64_keys() {
    for slots in [1, 3, 1024, 30_000] {
        let (cells, table) = table(slots);
        let names: Vec<String> = (0..slots).map(|n| format!("model-{n}")).collect();
        let ids: BTreeSet<_> = names.iter().map(|name| table.resolve(&cells, Kind::Model, "openai", name).0).collect();
        assert_eq!(
            (ids.len(), ids.first(), ids.last()),
            (slots, Some(&Kind::ALL.len()), Some(&(slots + Kind::ALL.len() - 1)))
        );
        let mut read: Vec<_> = names.iter().map(|name| probes(&cells, table, Kind::Model, "openai", name)).collect();
        read.extend((0..slots).map(|n| probes(&cells, table, Kind::Model, "openai", &format!("unknown-{n}"))));
        let most = read.iter().max().copied().unwrap_or(0);
        assert!(most < 64, "{most} keys of {slots} series");
        assert!(read.iter().sum::<usize>() <= 8 * read.len(), "more than a line on average");
        for n in 0..100 {
            let (id, other, _) = table.resolve(&cells, Kind::Model, "openai", &format!("unknown-{n}"));
            assert_eq!((id, other), (Kind::Model as usize, true));
        }
        assert_eq!(table.ids(&cells).count(), slots + Kind::ALL.len());
    }
}

#[test]
fn names_that_were_chosen_to_have_one_hash_are_two_series() {
    // The product of a folded multiply is 0 where a word equals the state, which forgets all that came before.
    let known = |part: &[u8], short: u64, h: u64| {
        fold(fold(h ^ part.len() as u64, 0xA076_1D64_78BD_642F) ^ short, 0x8EBC_6AF0_9C88_C6E3)
    };
    let team = b"team".iter().fold(0_u64, |w, byte| w << 8 | u64::from(*byte));
    let state = known(b"team", team, 0x9E37_79B9_7F4A_7C15_u64 ^ what(Kind::Label, None));
    let state = fold(state ^ 0x18, 0xA076_1D64_78BD_642F);
    let mut chosen = (0_u64..).filter_map(|n| {
        let start = format!("{n:08}");
        let word = u64::from_le_bytes(*start.as_bytes().first_chunk()?);
        let middle = fold(state ^ word, 0xE703_7ED1_A0B4_28DB).to_le_bytes();
        Some(format!("{start}{}customer", std::str::from_utf8(&middle).ok()?))
    });
    let (one, two) = (chosen.next().expect("one"), chosen.next().expect("another"));
    assert_eq!(hash(what(Kind::Label, None), "team", &one), hash(what(Kind::Label, None), "team", &two));
    let (cells, table) = table(64);
    let ids = [&one, &two, &one, &two].map(|name| table.resolve(&cells, Kind::Label, "team", name));
    assert!(ids[0].0 != ids[1].0 && ids[0] == ids[2] && ids[1] == ids[3]);
    for (id, name) in ids.iter().zip([&one, &two]) {
        assert_eq!(table.labels(&cells, id.0).map(|l| l.b).as_ref(), Some(name));
    }
}

#[test]
fn a_series_of_one_model_alone_ends_with_its_names() {
    let (cells, table) = table(8);
    let models = ["x", "y"].map(|name| table.resolve(&cells, Kind::Model, "openai", name).0);
    let of = |model| table.resolve_of(&cells, Kind::Label, model, "team", "red").0;
    let rows = [Some(models[0]), Some(models[1]), None, Some(Kind::Model as usize)].map(of);
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), 4);
    let texts = rows.map(|row| table.labels(&cells, row).map(|l| l.b));
    let expected = ["red\u{1F}openai\u{1F}x", "red\u{1F}openai\u{1F}y", "red", "red\u{1F}other\u{1F}other"];
    assert_eq!(texts, expected.map(|text| Some(text.to_owned())));
    assert_eq!(
        rows.map(|row| table.model_of(&cells, row)),
        [Some(models[0]), Some(models[1]), None, Some(Kind::Model as usize)]
    );
    assert_eq!(rows.map(|row| table.own_labels(&cells, row).map(|l| l.0.b)), [(); 4].map(|()| Some("red".into())));
    assert_eq!(table.find(&cells, Kind::Label, models[1], "team", "red"), Some((rows[1], false)));
    assert_eq!(table.find(&cells, Kind::Label, models[1], "team", "blue"), None);
    assert_eq!(table.ids(&cells).count(), 6 + Kind::ALL.len());
}

#[test]
fn a_series_that_was_given_back_is_the_next_one_taken() {
    let (cells, table) = table(2);
    let taken = [(); 2].map(|()| table.take(&cells, what(Kind::Tool, None), "x", ""));
    assert_eq!((taken, table.take(&cells, what(Kind::Tool, None), "x", "")), ([Some(0), Some(1)], None));
    table.give_back(&cells, 0);
    table.give_back(&cells, 1);
    assert_eq!(table.ids(&cells).count(), Kind::ALL.len());
    let ids = ["x", "y", "z"].map(|name| table.resolve(&cells, Kind::Tool, name, "").0);
    let first = Kind::ALL.len();
    assert_eq!(ids, [first + 1, first, Kind::Tool as usize]);
}

#[test]
fn a_full_table_sends_the_rest_to_the_other_of_their_kind() {
    let (cells, table) = table(2);
    let seen: BTreeMap<_, _> = ["x", "y", "z"].map(|n| (n, table.resolve(&cells, Kind::Tool, n, ""))).into();
    assert!(!seen["x"].1 && !seen["y"].1 && seen["z"].1);
    assert_eq!(seen["z"].0, Kind::Tool as usize);
    assert_eq!(table.labels(&cells, seen["z"].0).map(|l| (l.kind, l.a)), Some((Kind::Tool, OTHER.into())));
    assert_eq!(table.labels(&cells, Kind::Model as usize).map(|l| l.b), Some(OTHER.into()));
    assert_eq!(table.labels(&cells, 99), None);
}

#[test]
fn long_text_is_cut_at_a_character() {
    let (cells, table) = table(2);
    let (id, _, was_cut) = table.resolve(&cells, Kind::Chain, &"é".repeat(200), "");
    assert!(was_cut);
    assert_eq!(table.labels(&cells, id).map(|l| l.a), Some("é".repeat(124)));
    assert_eq!(cut("ééé", 3), ("é", true));
}

#[test]
fn a_series_without_text_yet_is_left_out_and_a_cleared_table_is_empty() {
    let (cells, table) = table(4);
    let (id, ..) = table.resolve(&cells, Kind::Tool, "x", "");
    let text = table.text(id - Kind::ALL.len());
    cells.set(text, cells.get(text) & !SHOWN);
    assert_eq!((table.labels(&cells, id), table.ids(&cells).count()), (None, Kind::ALL.len()));
    // Who meets it shows it.
    assert_eq!(table.resolve(&cells, Kind::Tool, "x", "").0, id);
    assert_eq!(table.labels(&cells, id).map(|l| l.a), Some("x".into()));
    table.clear(&cells);
    assert_eq!(table.ids(&cells).count(), Kind::ALL.len());
}

#[test]
fn a_cap_outside_its_range_is_refused() {
    assert_eq!(SeriesTable::check(7), Ok(7));
    for bad in [0, 1_000_001, u64::MAX] {
        assert!(SeriesTable::check(bad).is_err());
    }
}
