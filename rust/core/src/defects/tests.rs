use super::book::{MAX_OPEN, REMEMBERED};
use super::*;
use crate::runs::RunKey;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ROW: [Option<usize>; 2] = [Some(40), None];

fn opening(defect: &str, number: Option<u32>, now: u64) -> Opening<'_> {
    Opening { defect, about: ["", "", "", ""], number, owner: None, now }
}

/// Figures of each row: what entered less what left.
#[derive(Default)]
struct Rows(BTreeMap<(usize, Tally), i64>, Vec<(u64, u32)>);

impl Rows {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Enter(row, tally, n) => *self.0.entry((row, tally)).or_default() += n.cast_signed(),
                Write::Leave(row, tally, n) => *self.0.entry((row, tally)).or_default() -= n.cast_signed(),
                Write::FirstFix(_, nanos, attempts) => self.1.push((nanos, attempts)),
                Write::Score(..) | Write::Calls(..) => {}
            }
        }
    }

    fn of(&self, row: usize, name: &str) -> i64 {
        self.0.iter().filter(|((at, tally), _)| *at == row && tally_name(*tally) == name).map(|(_, n)| *n).sum()
    }
}

fn verdict(outcome: FixOutcome, strength: u8) -> Verdict {
    Verdict { outcome, strength, source: strength, score: None }
}

#[derive(Debug, Clone)]
enum Step {
    Open { defect: u8 },
    Close { attempt: usize, row: usize, outcome: FixOutcome },
    Judge { attempt: usize, outcome: FixOutcome, strength: u8 },
    Candidate { attempt: usize, index: i64, right: Option<bool>, recommended: bool },
    Confidence { attempt: usize, confidence: f32 },
    Spent { attempt: usize, cost: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let attempt = 0..24_usize;
    let outcome = (0..FixOutcome::ALL.len()).prop_map(|at| FixOutcome::ALL[at]);
    let step = prop_oneof![
        3 => (0..6_u8).prop_map(|defect| Step::Open { defect }),
        3 => (attempt.clone(), 40..42_usize, outcome.clone())
            .prop_map(|(attempt, row, outcome)| Step::Close { attempt, row, outcome }),
        5 => (attempt.clone(), outcome, 1..6_u8)
            .prop_map(|(attempt, outcome, strength)| Step::Judge { attempt, outcome, strength }),
        2 => (attempt.clone(), 0..4_i64, prop::option::of(any::<bool>()), any::<bool>())
            .prop_map(|(attempt, index, right, recommended)| Step::Candidate { attempt, index, right, recommended }),
        1 => (attempt.clone(), 0.0..=1.0_f32).prop_map(|(attempt, confidence)| Step::Confidence { attempt, confidence }),
        1 => (attempt, 1..1000_u64).prop_map(|(attempt, cost)| Step::Spent { attempt, cost }),
    ];
    prop::collection::vec(step, 0..80)
}

/// A figure of a defect by its fixed attempts and those with a verdict.
type OfCluster = fn(i64, i64) -> i64;

/// What is known of an attempt, kept as plainly as it can be.
#[derive(Default, Clone)]
struct Plain {
    defect: u8,
    row: Option<usize>,
    standing: Option<(u8, FixOutcome)>,
    left_with: Option<FixOutcome>,
    cost: u64,
}

impl Plain {
    fn outcome(&self) -> FixOutcome {
        self.standing.map(|(_, outcome)| outcome).or(self.left_with).unwrap_or(FixOutcome::Unverified)
    }
}

proptest! {
    #[test]
    fn figures_are_those_of_the_verdicts_that_count_whatever_the_order(steps in steps()) {
        let (mut book, mut rows, mut plain) = (Book::default(), Rows::default(), Vec::<Plain>::new());
        for (now, step) in (1..).zip(&steps) {
            match step {
                Step::Open { defect } => {
                    let (id, oldest) = book.open(&opening(&format!("D{defect}"), None, now));
                    prop_assert_eq!((id, oldest), (plain.len() as u64 + 1, None));
                    plain.push(Plain { defect: *defect, ..Plain::default() });
                }
                Step::Close { attempt, row, outcome } => {
                    rows.apply(book.close(*attempt as u64 + 1, [Some(*row), None], *outcome, now));
                    if let Some(known) = plain.get_mut(*attempt).filter(|known| known.row.is_none()) {
                        (known.row, known.left_with) = (Some(*row), Some(*outcome));
                        // A score alone is not a verdict.
                        known.standing = known.standing.filter(|(_, known)| *known != FixOutcome::Unverified || *outcome == *known);
                    }
                }
                Step::Judge { attempt, outcome, strength } => {
                    let (judged, writes) = book.judge(*attempt as u64 + 1, verdict(*outcome, *strength));
                    rows.apply(writes);
                    let Some(known) = plain.get_mut(*attempt) else {
                        prop_assert_eq!(judged, Judged::Unknown);
                        continue;
                    };
                    let expected = match known.standing {
                        Some((known, _)) if *strength < known => Judged::Weaker,
                        Some(same) if same == (*strength, *outcome) => Judged::Same,
                        _ => Judged::Counts,
                    };
                    prop_assert_eq!(judged, expected);
                    if judged == Judged::Counts {
                        known.standing = Some((*strength, *outcome));
                    }
                }
                Step::Candidate { attempt, index, right, recommended } => {
                    rows.apply(book.candidate(*attempt as u64 + 1, *index, *recommended).0);
                    if let Some(right) = right {
                        rows.apply(book.judge_candidate(*attempt as u64 + 1, *index, *right, 3));
                    }
                }
                Step::Confidence { attempt, confidence } => rows.apply(book.state(*attempt as u64 + 1, *confidence)),
                Step::Spent { attempt, cost } => {
                    rows.apply(book.spent(*attempt as u64 + 1, *cost));
                    if let Some(known) = plain.get_mut(*attempt) {
                        known.cost += cost;
                    }
                }
            }
        }
        for row in 40..42_usize {
            let ended: Vec<&Plain> = plain.iter().filter(|known| known.row == Some(row)).collect();
            for outcome in FixOutcome::ALL {
                let count: i64 = ended.iter().map(|known| i64::from(known.outcome() == *outcome)).sum();
                prop_assert_eq!(rows.of(row, &format!("outcome_{}", outcome.name())), count, "{:?}", outcome);
            }
            let cost: u64 = ended.iter().filter(|known| known.outcome() == FixOutcome::Fixed).map(|known| known.cost).sum();
            prop_assert_eq!(rows.of(row, "cost_fixed"), cost.cast_signed());
            let mut clusters: BTreeMap<u8, (i64, i64)> = BTreeMap::new();
            for known in &ended {
                let cluster = clusters.entry(known.defect).or_default();
                cluster.0 += i64::from(known.outcome() == FixOutcome::Fixed);
                cluster.1 += i64::from(known.outcome().is_scored());
            }
            let sum = |of: OfCluster| clusters.values().map(|(k, m)| of(*k, *m)).sum::<i64>();
            let sums: [(&str, OfCluster); 8] = [
                ("defects", |_, _| 1),
                ("defects_closed", |_, m| i64::from(m > 0)),
                ("defects_fixed", |k, _| i64::from(k > 0)),
                ("sum_k", |k, _| k),
                ("sum_m", |_, m| m),
                ("sum_kk", |k, _| k * k),
                ("sum_km", |k, m| k * m),
                ("sum_mm", |_, m| m * m),
            ];
            for (name, of) in sums {
                prop_assert_eq!(rows.of(row, name), sum(of), "{}", name);
            }
            let samples: i64 = rows.0.iter().filter(|((at, tally), _)| *at == row && tally_name(*tally).starts_with("samples_")).map(|(_, n)| *n).sum();
            prop_assert!(samples <= ended.iter().map(|_| 1).sum());
            prop_assert!(rows.0.values().all(|n| *n >= 0), "a figure fell below zero");
        }
    }
}

#[test]
fn a_stronger_verdict_counts_and_an_equal_one_counts_if_it_is_newer() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let (id, _) = book.open(&opening("D", None, 5));
    rows.apply(book.close(id, ROW, FixOutcome::Unverified, 9));
    let mut judge = |outcome, strength| {
        let (judged, writes) = book.judge(id, verdict(outcome, strength));
        rows.apply(writes);
        judged
    };
    assert_eq!(judge(FixOutcome::Fixed, 3), Judged::Counts);
    assert_eq!(judge(FixOutcome::Failed, 2), Judged::Weaker);
    assert_eq!(judge(FixOutcome::Failed, 3), Judged::Counts);
    assert_eq!(judge(FixOutcome::Failed, 3), Judged::Same);
    assert_eq!(judge(FixOutcome::Fixed, 5), Judged::Counts);
    assert_eq!((rows.of(40, "revisions"), rows.of(40, "outcome_fixed"), rows.of(40, "stage_still_right")), (2, 1, 1));
    assert_eq!(rows.1, [(4, 1)], "the time to the first fix is recorded once");
}

#[test]
fn a_defect_first_tried_elsewhere_is_not_a_new_one_here() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let (id, _) = book.open(&opening("D", Some(2), 1));
    rows.apply(book.close(id, ROW, FixOutcome::Failed, 2));
    assert_eq!((rows.of(40, "defects"), rows.of(40, "defects_closed"), rows.of(40, "first_attempts")), (0, 1, 0));
    // The next attempt has the next number, and in the row of another model the defect is new.
    let (id, _) = book.open(&opening("D", None, 3));
    assert_eq!(book.attempt(id).map(|attempt| attempt.number), Some(3));
    rows.apply(book.close(id, [Some(41), None], FixOutcome::Fixed, 4));
    assert_eq!((rows.of(41, "defects"), rows.of(41, "defects_fixed")), (1, 1));
}

#[test]
fn candidates_from_the_response_cache_are_no_samples() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let (id, _) = book.open(&opening("D", None, 1));
    for (index, cached) in [(0, false), (1, true), (2, false)] {
        let place = Place { candidate: Some(index), ..Place::of(id) };
        assert_eq!(book.candidate(id, index, index == 2), (Vec::new(), false));
        book.answered(place, 7 + usize::try_from(index).expect("small"), cached);
        rows.apply(book.judge_candidate(id, index, index > 0, 3));
    }
    assert_eq!(book.attempt(id).and_then(Attempt::belongs_to), Some(9), "the model of the recommended one");
    rows.apply(book.close(id, ROW, FixOutcome::Unverified, 2));
    assert_eq!((rows.of(40, "samples_2_1"), rows.of(40, "candidates"), rows.of(40, "candidates_cached")), (1, 3, 1));
    // A verdict on the attempt is one on its recommended candidate, unless a stronger source has judged that.
    for (outcome, strength, right) in [
        (FixOutcome::Failed, 3, 0),
        (FixOutcome::Fixed, 4, 1),
        (FixOutcome::Unverified, 4, 1),
        (FixOutcome::Failed, 4, 0),
    ] {
        rows.apply(book.judge(id, verdict(outcome, strength)).1);
        let samples = ["samples_2_0", "samples_2_1"].map(|name| rows.of(40, name));
        assert_eq!(samples, [1 - right, right], "{outcome:?} by {strength}");
    }
    rows.apply(book.judge(id, verdict(FixOutcome::Infrastructure, 4)).1);
    assert_eq!((rows.of(40, "samples_2_0"), rows.of(40, "samples_1_0")), (0, 1), "the checker failed");
}

#[test]
fn the_seventeenth_candidate_is_left_out_unless_it_is_recommended() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let (id, _) = book.open(&opening("D", None, 1));
    assert!((0..16).all(|index| !book.candidate(id, index, false).1));
    assert!(book.candidate(id, 16, false).1 && !book.candidate(id, 3, true).1);
    rows.apply(book.judge_candidate(id, 15, true, 3));
    // It takes the place of the last one without a verdict.
    assert!(book.candidate(id, 17, true).1);
    let known = |book: &Book| book.attempt(id).map(|known| known.candidates.clone()).unwrap_or_default();
    let indexes: Vec<i64> = known(&book).iter().map(|known| known.index).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17]);
    rows.apply(book.close(id, ROW, FixOutcome::Fixed, 2));
    // Also after the end; the response cache gave it, and not the one whose place it takes.
    book.answered(Place::of(id), 7, true);
    let (writes, capped) = book.candidate(id, 18, true);
    rows.apply(writes);
    assert_eq!((capped, rows.of(40, "candidates"), rows.of(40, "candidates_cached")), (true, 16, 1));
    assert_eq!(
        known(&book).iter().filter(|known| known.recommended).map(|known| known.index).collect::<Vec<_>>(),
        [18]
    );
}

#[test]
fn the_next_number_is_one_more_than_the_largest() {
    let mut book = Book::default();
    let numbers = [(Some(5), 5), (Some(2), 2), (None, 6), (Some(0), 7)];
    for (given, expected) in numbers {
        let (id, _) = book.open(&opening("D", given, 1));
        assert_eq!(book.attempt(id).map(|attempt| attempt.number), Some(expected), "{given:?}");
    }
}

#[test]
fn a_defect_first_tried_elsewhere_is_not_new_in_the_row_of_its_strategy() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let (id, _) = book.open(&opening("D", Some(2), 1));
    rows.apply(book.close(id, [Some(40), Some(50)], FixOutcome::Failed, 2));
    assert_eq!((rows.of(40, "defects"), rows.of(50, "defects"), rows.of(50, "defects_closed")), (0, 0, 1));
}

#[test]
fn an_exception_counts_although_a_score_came_before_it() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    for (standing, left_with, expected) in [
        (FixOutcome::Unverified, FixOutcome::Infrastructure, FixOutcome::Infrastructure),
        (FixOutcome::Unverified, FixOutcome::Unverified, FixOutcome::Unverified),
        (FixOutcome::Failed, FixOutcome::Infrastructure, FixOutcome::Failed),
    ] {
        let (id, _) = book.open(&opening("D", None, 1));
        book.judge(id, Verdict { score: Some(0.5), ..verdict(standing, 1) });
        let writes = book.close(id, ROW, left_with, 2);
        assert!(writes.contains(&Write::Score(40, 0.5)));
        rows.apply(writes);
        assert_eq!(book.attempt(id).map(|attempt| attempt.verdict.outcome), Some(expected));
    }
}

#[test]
fn an_open_attempt_is_closed_before_those_of_others_make_it_forgotten() {
    let mut book = Book::default();
    let (first, _) = book.open(&opening("D", None, 1));
    let known = book.attempt(first).expect("remembered").clone();
    for n in 1..REMEMBERED {
        assert_eq!(book.crowded_out(), None);
        book.adopt(&format!("other-{n}"), Default::default(), 1, || Attempt {
            ended: 2,
            totals: None,
            ..known.clone()
        });
    }
    assert_eq!(book.crowded_out(), Some(first));
    book.close(first, ROW, FixOutcome::Unverified, 3);
    assert_eq!(book.crowded_out(), None);
}

#[test]
fn runs_that_were_given_up_make_room_once_their_attempt_has_closed() {
    let mut book = Book::default();
    let (id, _) = book.open(&opening("D", None, 1));
    let run = |n: usize| RunKey::new(n as u64 + 1);
    assert!((0..REMEMBERED).all(|n| book.join(run(n), Place::of(id))));
    assert!(!book.join(run(REMEMBERED), Place::of(id)));
    book.close(id, ROW, FixOutcome::Unverified, 2);
    let (next, _) = book.open(&opening("D", None, 3));
    assert!(book.join(run(REMEMBERED), Place::of(next)) && book.place(run(0)).is_none());
}

#[test]
fn a_million_attempts_leave_at_most_65_536_and_close_the_oldest_open_ones() {
    let mut book = Book::default();
    let mut closed = 0_usize;
    for now in 1..200_000_u64 {
        let (id, oldest) = book.open(&opening(&format!("D{now}"), None, now));
        assert!(book.join(RunKey::new(now + 2), Place::of(id)) || book.has_runs());
        if let Some(oldest) = oldest {
            book.close(oldest, ROW, FixOutcome::Unverified, now);
            closed += 1;
        }
    }
    assert_eq!(closed, 199_999 - MAX_OPEN);
    assert!(book.attempt(199_999 - REMEMBERED as u64).is_none() && book.is_open(199_999));
    assert_eq!(book.judge(3, verdict(FixOutcome::Fixed, 3)).0, Judged::Unknown);
    assert_eq!(book.attempt(199_999 - REMEMBERED as u64 + 1).map(|attempt| attempt.ended > 0), Some(true));
}

#[test]
fn numbers_go_on_after_everything_was_forgotten() {
    let mut book = Book::default();
    let (first, _) = book.open(&opening("D", None, 1));
    book.clear();
    assert!(book.attempt(first).is_none());
    let (next, _) = book.open(&opening("D", None, 2));
    assert_eq!((next, book.attempt(next).map(|attempt| attempt.number)), (first + 1, Some(1)));
}

#[test]
fn sources_beyond_the_thirty_second_rank_as_callers_under_one_name() {
    let mut book = Book::default();
    assert_eq!(book.source("reviewer").0, 5);
    let own: Vec<(u8, u8)> = (0..40).map(|n| book.source(&format!("team {n}"))).collect();
    assert!(own.iter().all(|(strength, _)| *strength == 3));
    assert_eq!((own[31].1 == own[0].1 + 31, own[32].1 == own[39].1), (true, true));
    assert_eq!(book.source("team 0"), own[0]);
}

#[test]
fn an_attempt_of_another_recorder_is_adopted_once() {
    let (mut book, mut rows) = (Book::default(), Rows::default());
    let known = Attempt {
        defect: 5,
        number: 1,
        started: 1,
        ended: 2,
        owner: 0,
        about: None,
        totals: None,
        rows: ROW,
        model: None,
        called: None,
        answered: true,
        cached: false,
        candidates: Vec::new(),
        verdict: Verdict::without_source(FixOutcome::Unverified),
        confidence: None,
        cost: 70,
    };
    let id = book.adopt("other-1", Default::default(), 1, || known.clone());
    assert_eq!(book.adopt("other-1", Default::default(), 1, || unreachable!("known")), id);
    rows.apply(book.judge(id, verdict(FixOutcome::Fixed, 5)).1);
    rows.apply(book.judge(id, verdict(FixOutcome::Fixed, 5)).1);
    // What left is what the other recorder counts as entered.
    assert_eq!((rows.of(40, "outcome_unverified"), rows.of(40, "outcome_fixed")), (-1, 1));
    assert_eq!((rows.of(40, "cost_unverified"), rows.of(40, "cost_fixed"), rows.of(40, "defects_fixed")), (-70, 70, 1));
}
