//! The definitions of [`super`] again, slowly: a sweep over every elementary interval, and a relaxation of every
//! constraint until nothing moves. Index 0 is the root, `i + 1` is span `i`.

use crate::series::SeriesId;
use crate::spans::Span;

struct Run {
    parent: Option<usize>,
    start: u64,
    end: u64,
    order: (u64, u64),
}

/// Every run clipped to its parent, and `waiting`: piped ones from the end of what they live on.
fn runs(root: &Span, spans: &[Span], waiting: bool) -> Vec<Run> {
    let all: Vec<&Span> = std::iter::once(root).chain(spans).collect();
    let parent = |i: usize| (i > 0).then(|| all.iter().position(|p| p.key == all[i].parent).unwrap_or(0));
    let order = |i: usize| (all[i].start, all[i].key);
    let mut clipped: Vec<Option<(u64, u64)>> = vec![None; all.len()];
    clipped[0] = Some((root.start, root.end.max(root.start)));
    while clipped.contains(&None) {
        for i in 1..all.len() {
            let up = parent(i).expect("below the root");
            let earlier: Vec<usize> =
                (1..all.len()).filter(|j| parent(*j) == Some(up) && order(*j) < order(i)).collect();
            let (Some((lo, hi)), true) = (clipped[up], earlier.iter().all(|j| clipped[*j].is_some())) else { continue };
            let (mut start, end) = (all[i].start.max(lo).min(hi), all[i].end.min(hi));
            let latest = earlier.iter().filter_map(|j| clipped[*j]).filter(|(a, b)| a < b).map(|(_, b)| b).max();
            if let Some(latest) = latest.filter(|latest| waiting && all[i].piped && *latest <= end) {
                start = start.max(latest);
            }
            clipped[i] = Some((start, end.max(start)));
        }
    }
    let run = |(i, (start, end))| Run { parent: parent(i), start, end, order: order(i) };
    clipped.into_iter().flatten().enumerate().map(run).collect()
}

/// From the first moment to the last.
fn elementary(runs: &[Run]) -> Vec<(u64, u64)> {
    let mut moments: Vec<u64> = runs.iter().flat_map(|r| [r.start, r.end]).collect();
    moments.sort_unstable();
    moments.windows(2).map(|w| (w[0], w[1])).filter(|(from, to)| from < to).collect()
}

/// Exclusive time of each run: where it runs and no child of its does.
pub fn self_times(root: &Span, spans: &[Span]) -> Vec<u64> {
    let runs = runs(root, spans, false);
    let active = |r: &Run, (from, to): (u64, u64)| r.start <= from && to <= r.end;
    let own = |i: usize, at| active(&runs[i], at) && !runs.iter().any(|r| r.parent == Some(i) && active(r, at));
    let sum = |i| elementary(&runs).into_iter().filter(|at| own(i, *at)).map(|(from, to)| to - from).sum();
    (0..runs.len()).map(sum).collect()
}

/// Time of each run on the critical path.
pub fn critical_path(root: &Span, spans: &[Span]) -> Vec<u64> {
    let runs = runs(root, spans, true);
    let mut shares = vec![0; runs.len()];
    let mut inside = 0;
    for (from, to) in elementary(&runs).into_iter().rev() {
        while inside != 0 && runs[inside].start == to {
            inside = runs[inside].parent.expect("below the root");
        }
        let ended_now = |inside| {
            let child = |i: &usize| runs[*i].parent == Some(inside) && runs[*i].end == to && runs[*i].start < to;
            (0..runs.len()).filter(child).min_by_key(|i| (runs[*i].start, runs[*i].order))
        };
        while let Some(child) = ended_now(inside) {
            inside = child;
        }
        shares[inside] += to - from;
    }
    shares
}

/// What the root loses with the own time of a series halved.
pub fn saved(root: &Span, spans: &[Span], series: SeriesId) -> u64 {
    let runs = runs(root, spans, true);
    let all: Vec<&Span> = std::iter::once(root).chain(spans).collect();
    let weight = |i: usize| if all[i].component == series || all[i].model == Some(series) { 1 } else { 2 };
    let there = |i: &usize| runs[*i].start < runs[*i].end;
    let children = |i| (0..runs.len()).filter(|c| there(c) && runs[*c].parent == Some(i)).collect::<Vec<_>>();
    let mut at = vec![(0_u64, 0_u64); runs.len()];
    loop {
        let before = at.clone();
        for i in (0..runs.len()).filter(&there) {
            for child in children(i) {
                let earlier = |j: &usize| runs[*j].end <= runs[child].start;
                let siblings: Vec<usize> = children(i).into_iter().filter(earlier).collect();
                let was = siblings.iter().map(|j| runs[*j].end).max().unwrap_or(runs[i].start);
                let now = siblings.iter().map(|j| at[*j].1).max().unwrap_or(at[i].0);
                at[child].0 = at[child].0.max(now + weight(i) * (runs[child].start - was));
            }
            let was = children(i).iter().map(|c| runs[*c].end).max().unwrap_or(runs[i].start);
            let now = children(i).iter().map(|c| at[*c].1).max().unwrap_or(at[i].0);
            at[i].1 = at[i].1.max(now + weight(i) * (runs[i].end - was));
        }
        if at == before {
            return (2 * (runs[0].end - runs[0].start) - at[0].1) / 2;
        }
    }
}
