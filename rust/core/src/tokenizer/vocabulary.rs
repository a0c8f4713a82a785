//! Look-up of tokens and merging of pieces by rank.

#![expect(
    clippy::cast_possible_truncation,
    reason = "places fit in 21 bits and a stretch that is merged in 31; a hash is cut on purpose"
)]
#![cfg_attr(
    not(test),
    expect(clippy::arithmetic_side_effects, reason = "positions in one text, whose bytes are at most isize::MAX")
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pieces::Text;

/// "Not a token": above every rank, so that the lowest rank is the next merge.
const NONE: u32 = u32::MAX;
/// Ends a token in the file, as in `build.rs`: no text in UTF-8 has this byte.
const END: u8 = 0xff;
/// Bits of a slot that hold a token's place in the file, as in `build.rs`; the others hold bits of
/// its hash.
const PLACE_BITS: u32 = 21;
/// Pieces up to this many bytes are merged by a scan for the lowest rank, on the stack. All values from 32 to 160
/// measured the same.
const SHORT: usize = 64;
/// Longest stretch merged at once, so that positions fit in 32 bits.
const LONGEST: usize = 1 << 31;

/// Ranks by token; a rank is the token's position in the file, which lists tokens in order of rank.
///
/// Tokens stay in the read-only file. A slot is four bytes, a rank and 11 bits of the token's hash, so that most look-ups of
/// byte strings that are not tokens end in the slot: 2 MB for `o200k_base`, where slots with the token's bytes take 8 MB.
pub(super) struct Vocabulary {
    /// The tokens of two bytes or more, each followed by `END`.
    file: &'static [u8],
    /// Open addressing with linear probing, at most half full: tokens of three bytes and more.
    slots: Box<[u32]>,
    /// Tokens of two bytes, which more than half of the look-ups ask for.
    pairs: Box<[u32]>,
    longest: usize,
}

impl Vocabulary {
    /// Reads the output of `build.rs`.
    pub(super) fn new(file: &'static [u8]) -> Self {
        let tokens = || {
            let mut place = 0;
            std::iter::from_fn(move || {
                let token = file.get(place..)?.split(|&byte| byte == END).next().filter(|token| !token.is_empty())?;
                let start = place as u32;
                place += token.len() + 1;
                Some((start, token))
            })
        };
        let mut slots: Box<[u32]> = vec![NONE; (tokens().count() * 2).next_power_of_two()].into();
        let mut pairs: Box<[u32]> = vec![NONE; 1 << 16].into();
        let mut longest = 0;
        for (place, token) in tokens() {
            longest = longest.max(token.len());
            match *token {
                [] | [_] => {}
                [a, b] => set(&mut pairs, pair(a, b), place),
                _ => {
                    let hash = hash(token, first(token));
                    let mut at = hash as usize & (slots.len() - 1);
                    while get(&slots, at) != NONE {
                        at = (at + 1) & (slots.len() - 1);
                    }
                    set(&mut slots, at, tag(hash) | place);
                }
            }
        }
        Self { file, slots, pairs, longest }
    }

    /// Number of tokens of `text`; `piece_end` gives the end of the piece that starts at a position.
    #[inline]
    pub(super) fn count(&self, text: &str, piece_end: impl Fn(Text<'_>, usize) -> usize) -> usize {
        let (mut start, mut count) = (0, 0);
        while start < text.len() {
            let end = piece_end(Text::new(text), start);
            debug_assert!(end > start && text.is_char_boundary(end));
            // Every pattern takes every character; this line ends the loop even if one did not.
            let end = end.max(start + 1);
            count += text.as_bytes().get(start..end).map_or(0, |piece| self.count_piece(piece));
            start = end;
        }
        count
    }

    #[inline]
    fn count_piece(&self, piece: &[u8]) -> usize {
        if piece.len() == 1 || self.rank(piece) != NONE {
            1
        } else if piece.len() <= SHORT {
            self.merge_short(piece)
        } else {
            piece.chunks(LONGEST).map(|piece| self.merge_long(piece)).sum()
        }
    }

    /// Rank of `token`, which has two bytes or more; `NONE` if it is not a token.
    #[inline]
    fn rank(&self, token: &[u8]) -> u32 {
        if let [a, b] = *token {
            return get(&self.pairs, pair(a, b));
        }
        if token.len() > self.longest {
            return NONE;
        }
        let first = first(token);
        let hash = hash(token, first);
        let mut at = hash as usize;
        loop {
            let slot = get(&self.slots, at & (self.slots.len() - 1));
            if slot == NONE {
                return NONE;
            }
            let place = slot & ((1 << PLACE_BITS) - 1);
            if slot ^ place == tag(hash) && self.is_token(place, token, first) {
                return place;
            }
            at = at.wrapping_add(1);
        }
    }

    #[inline]
    fn is_token(&self, place: u32, token: &[u8], first: u64) -> bool {
        let len = token.len();
        let Some(bytes) = self.file.get(place as usize..).filter(|bytes| bytes.get(len) == Some(&END)) else {
            return false;
        };
        // A text has no `END`: where its bytes are those before one, they are the whole token.
        match bytes.first_chunk() {
            // One comparison of a register; memcmp took a sixth of the total time.
            Some(bytes) if len <= 8 => (u64::from_le_bytes(*bytes) ^ first) << (64 - 8 * len) == 0,
            _ => bytes.starts_with(token),
        }
    }

    /// Ranks of neighbouring bytes in `piece`.
    fn neighbours(&self, piece: &[u8]) -> impl Iterator<Item = u32> {
        piece.iter().zip(piece.iter().skip(1)).map(|(&a, &b)| get(&self.pairs, pair(a, b)))
    }

    /// Number of tokens of a piece of 2 to `SHORT` bytes.
    fn merge_short(&self, piece: &[u8]) -> usize {
        // Part k starts at starts[k] and has rank ranks[k] when joined to the next part.
        let mut starts = [0; SHORT + 1];
        let mut ranks = [NONE; SHORT];
        let mut parts = piece.len();
        for (start, i) in starts.iter_mut().zip(0..=parts as u32) {
            *start = i;
        }
        for (slot, rank) in ranks.iter_mut().zip(self.neighbours(piece)) {
            *slot = rank;
        }
        while parts > 1 {
            let (mut k, mut lowest) = (0, NONE);
            for (i, &rank) in ranks.iter().enumerate().take(parts - 1) {
                if rank < lowest {
                    (k, lowest) = (i, rank);
                }
            }
            if lowest == NONE {
                break;
            }
            starts.copy_within(k + 2..=parts, k + 1);
            ranks.copy_within(k + 1..parts, k);
            parts -= 1;
            let join = |k: usize| {
                let joined = piece.get(get(&starts, k) as usize..get(&starts, k + 2) as usize);
                joined.map_or(NONE, |token| self.rank(token))
            };
            if k + 1 < parts {
                set(&mut ranks, k, join(k));
            }
            if k > 0 {
                set(&mut ranks, k - 1, join(k - 1));
            }
        }
        parts
    }

    /// Like `merge_short`, for any length, in `O(n log n)`.
    fn merge_long(&self, piece: &[u8]) -> usize {
        // Parts as a linked list by position of their first byte; the end of the piece ends it. A merged part has rank NONE, and
        // an entry of the heap that differs from its position's rank is stale.
        let end = piece.len() as u32;
        let mut next: Vec<u32> = (1..=end).collect();
        let mut previous: Vec<u32> = (0..end).map(|i| i.saturating_sub(1)).collect();
        let mut ranks: Vec<u32> = self.neighbours(piece).chain([NONE]).collect();
        let ranked = ranks.iter().zip(0u32..).filter(|&(&rank, _)| rank != NONE);
        let mut heap: BinaryHeap<_> = ranked.map(|(&rank, at)| Reverse((rank, at))).collect();
        let mut parts = piece.len();
        while let Some(Reverse((rank, at))) = heap.pop() {
            if get(&ranks, at as usize) != rank {
                continue;
            }
            let gone = get(&next, at as usize);
            let after = get(&next, gone as usize);
            set(&mut next, at as usize, after);
            set(&mut previous, after as usize, at);
            set(&mut ranks, gone as usize, NONE);
            parts -= 1;
            let mut join = |at: u32, end: u32| {
                let rank = piece.get(at as usize..end as usize).map_or(NONE, |token| self.rank(token));
                set(&mut ranks, at as usize, rank);
                if rank != NONE {
                    heap.push(Reverse((rank, at)));
                }
            };
            // The last part has no neighbour to join: its end is NONE, which is outside the piece.
            join(at, get(&next, after as usize));
            if at > 0 {
                join(get(&previous, at as usize), after);
            }
        }
        parts
    }
}

fn get(list: &[u32], at: usize) -> u32 {
    list.get(at).copied().unwrap_or(NONE)
}

fn set(list: &mut [u32], at: usize, value: u32) {
    if let Some(slot) = list.get_mut(at) {
        *slot = value;
    }
}

fn pair(a: u8, b: u8) -> usize {
    usize::from(a) << 8 | usize::from(b)
}

/// The first bytes of a token of three or more, at most eight, the rest of the word zero.
#[inline]
fn first(token: &[u8]) -> u64 {
    if let Some(bytes) = token.first_chunk() {
        return u64::from_le_bytes(*bytes);
    }
    match (token.first_chunk(), token.last_chunk()) {
        (Some(low), Some(high)) => {
            // The two overlap where the token has less than eight bytes, with the same bits.
            let high = u64::from(u32::from_le_bytes(*high)) << (8 * token.len() - 32);
            u64::from(u32::from_le_bytes(*low)) | high
        }
        _ => token.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// Multiply and fold, eight bytes at a time.
#[inline]
fn hash(token: &[u8], first: u64) -> u64 {
    let mix = |hash: u64| {
        let wide = u128::from(hash) * 0x9e37_79b9_7f4a_7c15;
        (wide >> 64) as u64 ^ wide as u64
    };
    let mut hash = mix(first ^ (token.len() as u64) << 56);
    if let (true, Some(last)) = (token.len() > 8, token.last_chunk()) {
        for bytes in token.as_chunks().0.iter().skip(1).chain([last]) {
            hash = mix(hash ^ u64::from_le_bytes(*bytes));
        }
    }
    hash
}

/// Bits of a hash that a slot keeps, at their position in the slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & !((1 << PLACE_BITS) - 1)
}
