//! Where the time of a tree of runs went: its critical path, and what a faster component would save.
//!
//! A run's interval is clipped to its parent's: a run that outlives its parent, or has no end event, counts as ended
//! then. A run whose parent is not among the spans becomes a child of the root. Runs of length zero are ignored.
//!
//! In a streamed sequence each step begins with the first chunk of the step before it and ends after it, so that a
//! parser seems to run as long as its model. A `piped` run therefore counts from the end of its upstream steps: the
//! siblings that began and ended no later than it did.

use crate::pipeline::Span;
use crate::series::SeriesId;
use std::cmp::Reverse;

/// One run; its children are neighbours, in the order of their starts.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Position among the runs; 0 is the root.
    run: usize,
    /// Position among its siblings if no step waited for an upstream step.
    rank: usize,
    component: SeriesId,
    model: Option<SeriesId>,
    start: u64,
    end: u64,
    first: usize,
    last: usize,
}

impl Node {
    const fn of(at: usize, rank: usize, run: &Span, start: u64, end: u64) -> Self {
        Self { run: at, rank, component: run.component, model: run.model, start, end, first: 0, last: 0 }
    }

    fn counts_for(&self, series: SeriesId) -> bool {
        self.component == series || self.model == Some(series)
    }
}

/// The runs under one root.
///
/// For n runs: O(n log n) to build, O(n) for the critical path, and O(n) for each series whose saving is computed;
/// savings cost nothing where no siblings overlap. The benchmark `core` prints the times.
#[derive(Debug)]
pub struct Tree {
    /// Parents before their children, the root first.
    nodes: Vec<Node>,
    /// Positions of `nodes`, each run's children in the order of their ends instead.
    by_end: Vec<usize>,
    /// Whether any siblings overlap.
    parallel: bool,
}

impl Tree {
    /// Builds the tree of a root and the spans under it, which may be in any order.
    pub fn new(root: &Span, spans: &[Span]) -> Self {
        let runs = || std::iter::once(root).chain(spans).enumerate();
        let mut known: Vec<(u64, usize)> = runs().map(|(i, run)| (run.key, i)).collect();
        known.sort_unstable();
        let position =
            |key| known.get(known.partition_point(|k| *k < (key, 0))).filter(|k| k.0 == key).map_or(0, |k| k.1);
        // Each span has one parent, so the walk below ends whatever the keys are.
        let mut under: Vec<(usize, usize)> = runs().skip(1).map(|(i, run)| (position(run.parent), i)).collect();
        under.sort_unstable();

        let mut nodes = Vec::with_capacity(known.len());
        nodes.push(Node::of(0, 0, root, root.start, root.end.max(root.start)));
        let mut by_end = Vec::with_capacity(known.len());
        by_end.push(0);
        let (mut at, mut parallel, mut group) = (0, false, Vec::new());
        while let Some(node) = nodes.get(at).copied() {
            let from = under.partition_point(|child| child.0 < node.run);
            let children = under.iter().skip(from).take_while(|child| child.0 == node.run);
            group.clear();
            group.extend(children.filter_map(|(_, i)| {
                let run = spans.get(i.wrapping_sub(1))?;
                let start = run.start.clamp(node.start, node.end);
                Some((start, run.end.clamp(start, node.end), run.key, *i))
            }));
            group.sort_unstable();
            let (first, mut waited) = (nodes.len(), false);
            for (rank, (start, end, _, i)) in group.iter().enumerate() {
                let Some(run) = spans.get(i.wrapping_sub(1)) else { continue };
                let mut start = *start;
                if run.piped {
                    let before = group.iter().take(rank).map(|earlier| earlier.1).filter(|e| e <= end).max();
                    waited |= before > Some(start);
                    start = before.map_or(start, |e| e.max(start));
                }
                if start < *end {
                    by_end.push(nodes.len());
                    nodes.push(Node::of(*i, rank, run, start, *end));
                }
            }
            let last = nodes.len();
            if let Some(children) = nodes.get_mut(first..) {
                if waited {
                    children.sort_unstable_by_key(|n| (n.start, n.rank));
                }
                let mut busy_until = node.start;
                for child in children {
                    parallel |= child.start < busy_until;
                    busy_until = busy_until.max(child.end);
                }
            }
            // Backwards: among those that ended together, the longest first.
            let order = |i: &usize| nodes.get(*i).map(|n| (n.end, Reverse(n.start), Reverse(n.rank)));
            if let Some(children) = by_end.get_mut(first..) {
                children.sort_unstable_by_key(order);
            }
            if let Some(node) = nodes.get_mut(at) {
                (node.first, node.last) = (first, last);
            }
            at = at.wrapping_add(1);
        }
        Self { nodes, by_end, parallel }
    }

    fn children(&self, node: &Node) -> impl DoubleEndedIterator<Item = (usize, &Node)> {
        (node.first..node.last).zip(self.nodes.get(node.first..node.last).unwrap_or_default())
    }

    fn children_by_end(&self, node: &Node) -> impl DoubleEndedIterator<Item = (usize, &Node)> {
        let positions = self.by_end.get(node.first..node.last).unwrap_or_default();
        positions.iter().filter_map(|i| Some((*i, self.nodes.get(*i)?)))
    }

    /// Each run's time on the critical path: component, model, nanoseconds.
    ///
    /// Starts at the root's end and walks backwards: the child that ended last at or before the current moment takes the path
    /// into it (the longest of several that ended together); time between children belongs to the run itself. The shares sum
    /// to the root's duration.
    pub fn critical_path(&self, mut share: impl FnMut(SeriesId, Option<SeriesId>, u64)) {
        let mut on_path = vec![false; self.nodes.len()];
        if let Some(root) = on_path.first_mut() {
            *root = true;
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if on_path.get(at) != Some(&true) {
                continue;
            }
            let (mut own, mut moment) = (0_u64, node.end);
            for (i, child) in self.children_by_end(node).rev() {
                if child.end <= moment {
                    own = own.wrapping_add(moment.wrapping_sub(child.end));
                    moment = child.start;
                    if let Some(flag) = on_path.get_mut(i) {
                        *flag = true;
                    }
                }
            }
            own = own.wrapping_add(moment.wrapping_sub(node.start));
            if own > 0 {
                share(node.component, node.model, own);
            }
        }
    }

    /// Nanoseconds that the root's duration would lose if a component or model were twice as fast, i.e. if its runs' self time
    /// on the path were halved and everything else took as long as it did. Calls `saved` for each series on the critical
    /// path, rounded down; other series would save nothing.
    ///
    /// A child starts when every sibling that had ended before it began has ended and the run's own time in between has
    /// passed; a run ends when all its children have ended and its own time after them has passed. Branches overlap, so a
    /// series saves at most half its time on the critical path, and less where another branch takes over.
    pub fn saved_if_twice_as_fast(&self, mut saved: impl FnMut(SeriesId, u64)) {
        let mut critical: Vec<(SeriesId, u64)> = Vec::new();
        let mut add = |series, ns: u64| match critical.iter_mut().find(|(known, _)| *known == series) {
            Some((_, sum)) => *sum = sum.wrapping_add(ns),
            None => critical.push((series, ns)),
        };
        self.critical_path(|component, model, ns| {
            add(component, ns);
            if let Some(model) = model.filter(|m| *m != component) {
                add(model, ns);
            }
        });
        let mut took = Vec::new();
        for (series, ns) in critical {
            saved(series, if self.parallel { self.replayed(series, &mut took) } else { ns / 2 });
        }
    }

    /// Nanoseconds that the root loses when the self time of `series` is halved. `ends` is scratch space.
    fn replayed(&self, series: SeriesId, ends: &mut Vec<u64>) -> u64 {
        // In half nanoseconds: each run's duration, and once its parent is reached, its end relative to its parent's start.
        ends.clear();
        ends.resize(self.nodes.len(), 0);
        for (at, node) in self.nodes.iter().enumerate().rev() {
            let weight = if node.counts_for(series) { 1 } else { 2 };
            let own = |ns: u64| ns.wrapping_mul(weight);
            // The last end so far: before and after the change.
            let (mut was, mut now) = (node.start, 0_u64);
            let mut ended = self.children_by_end(node).peekable();
            for (i, child) in self.children(node) {
                while let Some((j, _)) = ended.next_if(|(_, other)| other.end <= child.start) {
                    was = self.nodes.get(j).map_or(was, |n| n.end);
                    now = now.max(ends.get(j).copied().unwrap_or(0));
                }
                if let Some(end) = ends.get_mut(i) {
                    *end = end.wrapping_add(now).wrapping_add(own(child.start.wrapping_sub(was)));
                }
            }
            for (j, other) in ended {
                was = other.end;
                now = now.max(ends.get(j).copied().unwrap_or(0));
            }
            if let Some(end) = ends.get_mut(at) {
                *end = now.wrapping_add(own(node.end.wrapping_sub(was)));
            }
        }
        let length = self.nodes.first().map_or(0, |root| root.end.wrapping_sub(root.start));
        length.wrapping_mul(2).wrapping_sub(ends.first().copied().unwrap_or(0)) / 2
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ROOT: u64 = 100;

    fn span(key: u64, parent: u64, component: SeriesId, start: u64, end: u64) -> Span {
        Span { key, parent, root: ROOT, component, model: None, piped: false, start, end }
    }

    /// The share of the path of each series, and what each would save.
    fn shares_and_savings(root: &Span, spans: &[Span]) -> (BTreeMap<SeriesId, u64>, BTreeMap<SeriesId, u64>) {
        let (mut shares, mut saved) = (BTreeMap::new(), BTreeMap::new());
        let tree = Tree::new(root, spans);
        tree.critical_path(|component, _, ns| *shares.entry(component).or_default() += ns);
        tree.saved_if_twice_as_fast(|series, ns| assert_eq!(saved.insert(series, ns), None, "reported twice"));
        (shares, saved)
    }

    /// A root and up to 11 runs under it: any earlier run as parent, or a missing one; times from a small range, so that many
    /// are equal; some runs without an end.
    fn trees() -> impl Strategy<Value = (Span, Vec<Span>)> {
        let model = prop_oneof![Just(None), (10..12_usize).prop_map(Some)];
        let time = 0..16_u64;
        let end = prop_oneof![6 => time.clone(), 1 => Just(u64::MAX)];
        let run = (any::<prop::sample::Index>(), 0..5_usize, model, any::<bool>(), time, end);
        (0..8_u64, 8..20_u64, prop::collection::vec(run, 0..12)).prop_map(|(start, end, runs)| {
            let mut spans: Vec<Span> = Vec::new();
            for (i, (parent, component, model, piped, start, end)) in runs.into_iter().enumerate() {
                // Position 0 is the root, the last one is missing.
                let parent = parent.index(i + 2);
                let parent = if parent == 0 { ROOT } else { spans.get(parent - 1).map_or(77, |p| p.key) };
                // Keys against the order of the runs.
                spans.push(Span { model, piped, ..span(50 - i as u64, parent, component, start, end) });
            }
            (span(ROOT, 0, 4, start, end), spans)
        })
    }

    proptest! {
        #[test]
        fn the_critical_path_is_that_of_a_sweep_and_sums_to_the_duration((root, spans) in trees()) {
            let all: Vec<&Span> = std::iter::once(&root).chain(&spans).collect();
            let mut expected = BTreeMap::new();
            for (run, ns) in all.iter().zip(super::super::oracle::critical_path(&root, &spans)) {
                *expected.entry((run.component, run.model)).or_default() += ns;
            }
            expected.retain(|_, ns| *ns > 0);
            let mut shares = BTreeMap::new();
            Tree::new(&root, &spans).critical_path(|component, model, ns| *shares.entry((component, model)).or_default() += ns);
            prop_assert_eq!(shares.values().sum::<u64>(), root.end - root.start);
            prop_assert_eq!(shares, expected);
        }

        #[test]
        fn what_twice_as_fast_saves_is_what_the_constraints_give((root, spans) in trees()) {
            let (_, saved) = shares_and_savings(&root, &spans);
            for series in 0..12 {
                let expected = super::super::oracle::saved(&root, &spans, series);
                prop_assert_eq!(saved.get(&series).copied().unwrap_or(0), expected, "series {}", series);
            }
        }

        #[test]
        fn no_series_saves_more_than_half_of_its_share_of_the_path((root, spans) in trees()) {
            let mut shares: BTreeMap<SeriesId, u64> = BTreeMap::new();
            let tree = Tree::new(&root, &spans);
            tree.critical_path(|component, model, ns| {
                *shares.entry(component).or_default() += ns;
                if let Some(model) = model {
                    *shares.entry(model).or_default() += ns;
                }
            });
            tree.saved_if_twice_as_fast(|series, ns| assert!(ns <= shares[&series] / 2, "{series}: {ns}"));
        }

        #[test]
        fn the_order_of_the_spans_does_not_matter((root, spans) in trees(), shuffle in any::<u64>()) {
            let mut other = spans.clone();
            other.sort_by_key(|s| (s.key ^ shuffle).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            prop_assert_eq!(shares_and_savings(&root, &spans), shares_and_savings(&root, &other));
        }

        #[test]
        fn exclusive_times_of_runs_that_never_overlap_are_their_shares_of_the_path(lengths in prop::collection::vec(0..9_u64, 1..9)) {
            let mut at = 3;
            let spans: Vec<Span> = (1..).zip(&lengths).map(|(key, length)| {
                at += 2 + length;
                span(key, ROOT, 1, at - length, at)
            }).collect();
            let root = span(ROOT, 0, 0, 3, at + 1);
            prop_assert_eq!(super::super::oracle::critical_path(&root, &spans), super::super::oracle::self_times(&root, &spans));
        }

        #[test]
        fn keys_in_any_disorder_end_and_the_path_still_sums_to_the_duration(
            runs in prop::collection::vec((0..6_u64, 0..6_u64, 0..9_u64, 0..9_u64), 0..12)
        ) {
            // Duplicates, runs that are their own parent, parents of each other, and the root's key again.
            let spans: Vec<Span> = runs.into_iter().map(|(key, parent, a, b)| span(key, parent, 1, a, b)).collect();
            let (shares, _) = shares_and_savings(&Span { key: 0, ..span(0, 9, 0, 1, 8) }, &spans);
            prop_assert_eq!(shares.values().sum::<u64>(), 7);
        }
    }

    #[test]
    fn a_sequence_gives_each_step_its_length_and_half_of_it() {
        let spans = [span(1, ROOT, 1, 2, 6), span(2, ROOT, 2, 6, 16)];
        let results = shares_and_savings(&span(ROOT, 0, 0, 0, 20), &spans);
        assert_eq!(results, ([(0, 6), (1, 4), (2, 10)].into(), [(0, 3), (1, 2), (2, 5)].into()));
    }

    #[test]
    fn of_two_branches_the_longer_is_critical_until_the_other_takes_over() {
        let spans = [span(1, ROOT, 1, 0, 100), span(2, ROOT, 2, 0, 90), span(3, ROOT, 3, 100, 110)];
        let results = shares_and_savings(&span(ROOT, 0, 0, 0, 110), &spans);
        // Twice as fast, the first would be done at 50; the third still waits for the second.
        assert_eq!(results, ([(1, 100), (3, 10)].into(), [(1, 10), (3, 5)].into()));
    }

    #[test]
    fn a_parser_that_lives_on_a_stream_is_not_charged_for_waiting_for_it() {
        // Streamed: the parser begins with the model's first chunk, and the one after it with the parser's.
        let piped = |key, component, start, end| Span { piped: true, ..span(key, ROOT, component, start, end) };
        let spans = [piped(1, 1, 2, 90), piped(2, 2, 30, 95), piped(3, 3, 31, 96)];
        let all = shares_and_savings(&span(ROOT, 0, 0, 0, 100), &spans);
        let (shares, saved) = ([(0, 6), (1, 88), (2, 5), (3, 1)], [(0, 3), (1, 44), (2, 2), (3, 0)]);
        assert_eq!(all, (shares.into(), saved.into()));
        // Closed before its model because the caller stopped reading.
        let spans = [piped(1, 1, 2, 90), piped(2, 2, 30, 50)];
        assert_eq!(shares_and_savings(&span(ROOT, 0, 0, 0, 100), &spans).0, [(0, 12), (1, 88)].into());
    }

    #[test]
    fn a_model_and_its_component_each_save_and_one_that_is_both_is_allonce() {
        let spans = [
            Span { model: Some(9), ..span(1, ROOT, 1, 0, 10) },
            Span { model: Some(9), ..span(2, ROOT, 2, 10, 16) },
            Span { model: Some(3), ..span(3, ROOT, 3, 16, 20) },
        ];
        let (_, saved) = shares_and_savings(&span(ROOT, 0, 0, 0, 20), &spans);
        assert_eq!(saved, [(1, 5), (2, 3), (3, 2), (9, 8)].into());
    }

    #[test]
    fn a_child_that_nobody_ended_counts_as_ended_with_its_parent() {
        let spans = [span(1, ROOT, 1, 2, 8), span(2, 1, 2, 4, u64::MAX)];
        assert_eq!(shares_and_savings(&span(ROOT, 0, 0, 0, 10), &spans).0, [(0, 4), (1, 2), (2, 4)].into());
    }

    #[test]
    fn a_run_alone_saves_half_of_it_and_one_without_length_nothing() {
        assert_eq!(shares_and_savings(&span(ROOT, 0, 0, 5, 12), &[]), ([(0, 7)].into(), [(0, 3)].into()));
        let none = shares_and_savings(&span(ROOT, 0, 0, 5, 5), &[span(1, ROOT, 1, 5, 9)]);
        assert_eq!(none, (BTreeMap::new(), BTreeMap::new()));
        // A clock that ran backwards gives length zero.
        assert_eq!(shares_and_savings(&span(ROOT, 0, 0, 5, 4), &[]), none);
    }

    #[test]
    fn self_times_count_parallel_children_once() {
        let spans = [span(1, ROOT, 1, 2, 6), span(2, ROOT, 2, 4, 9), span(3, 2, 1, 5, 20)];
        assert_eq!(super::super::oracle::self_times(&span(ROOT, 0, 0, 0, 10), &spans), [3, 4, 1, 4]);
    }
}
