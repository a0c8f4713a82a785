//! The definitions of [`super`] written again, slowly: a sweep over every elementary interval, and relaxation of every
//! constraint up to a fixed point. Index 0 is the root, `i + 1` is span `i`.

use crate::pipeline::Span;
use crate::series::SeriesId;

struct Run {
    parent: Option<usize>,
    start: u64,
    end: u64,
    order: (u64, u64, u64),
}

/// Every run clipped to its parent, and `waiting`: piped ones from the end of their upstream steps.
fn runs(root: &Span, spans: &[Span], waiting: bool) -> Vec<Run> {
    let all: Vec<&Span> = std::iter::once(root).chain(spans).collect();
    let parent = |i: usize| (i > 0).then(|| all.iter().position(|p| p.key == all[i].parent).unwrap_or(0));
    let inside = |i: usize, (lo, hi): (u64, u64)| {
        let start = all[i].start.max(lo).min(hi);
        (start, all[i].end.min(hi).max(start))
    };
    let mut runs: Vec<Option<Run>> = all.iter().map(|_| None).collect();
    let (start, end) = (root.start, root.end.max(root.start));
    runs[0] = Some(Run { parent: None, start, end, order: (0, 0, 0) });
    while runs.iter().any(Option::is_none) {
        for i in 1..all.len() {
            let up = parent(i).expect("below the root");
            let Some(around) = runs[up].as_ref().map(|r| (r.start, r.end)) else { continue };
            let order = |j: usize| (inside(j, around).0, inside(j, around).1, all[j].key);
            let (mut start, end) = inside(i, around);
            for j in (1..all.len()).filter(|j| parent(*j) == Some(up) && order(*j) < order(i)) {
                let other = inside(j, around).1;
                if waiting && all[i].piped && other <= end {
                    start = start.max(other);
                }
            }
            runs[i] = Some(Run { parent: Some(up), start, end, order: order(i) });
        }
    }
    runs.into_iter().flatten().collect()
}

/// From the first moment to the last.
fn elementary(runs: &[Run]) -> Vec<(u64, u64)> {
    let mut moments: Vec<u64> = runs.iter().flat_map(|r| [r.start, r.end]).collect();
    moments.sort_unstable();
    moments.windows(2).map(|w| (w[0], w[1])).filter(|(from, to)| from < to).collect()
}

/// Self time of each run: time in which it runs and none of its children does.
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

/// What the root loses when the self time of a series is halved.
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
