//! Cuts text into pieces by the pattern of each encoding (tiktoken 0.14).

#![cfg_attr(
    not(test),
    expect(clippy::arithmetic_side_effects, reason = "positions in one text, whose bytes are at most isize::MAX")
)]

// A code point's class, one bit each, so that a set of classes is a mask. `build.rs` writes them.
const OTHER: u8 = 1;
const UPPER: u8 = 1 << 1; // Lu, Lt
const LOWER: u8 = 1 << 2; // Ll
const CASELESS: u8 = 1 << 3; // Lm, Lo
const MARK: u8 = 1 << 4; // M
const NUMBER: u8 = 1 << 5; // N
const SPACE: u8 = 1 << 6; // \s

const LETTER: u8 = UPPER | LOWER | CASELESS; // \p{L}
const SYMBOL: u8 = OTHER | MARK; // [^\s\p{L}\p{N}]
const HEAD: u8 = UPPER | CASELESS | MARK; // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
const TAIL: u8 = LOWER | CASELESS | MARK; // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

static CLASS_INDEX: &[u8; 0x1100] = include_bytes!(concat!(env!("OUT_DIR"), "/class_index"));
static CLASS_BLOCKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/class_blocks"));
/// Block 0 of the table on its own: ASCII needs no second look-up and no bounds check.
static LATIN: [u8; 256] = match CLASS_BLOCKS.first_chunk() {
    Some(block) => *block,
    None => [OTHER; 256],
};

/// Bytes of a `str`, read by code point.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl Text<'_> {
    /// Class and length of the code point at `i`; class 0 past the end.
    #[inline]
    fn at(self, i: usize) -> (u8, usize) {
        match self.0.get(i) {
            Some(&byte) if byte < 0x80 => (LATIN.get(usize::from(byte)).map_or(OTHER, |&class| class), 1),
            Some(&byte) => self.wide(i, byte),
            None => (0, 0),
        }
    }

    /// Like `at`, for a code point whose first byte announces more.
    fn wide(self, i: usize, first: u8) -> (u8, usize) {
        let bits = |k: usize| self.0.get(i + k).map_or(0, |byte| usize::from(byte & 0x3f));
        let (point, len) = match first {
            ..0xe0 => (usize::from(first & 0x1f) << 6 | bits(1), 2),
            0xe0..0xf0 => (usize::from(first & 0x0f) << 12 | bits(1) << 6 | bits(2), 3),
            _ => (usize::from(first & 0x07) << 18 | bits(1) << 12 | bits(2) << 6 | bits(3), 4),
        };
        let block = CLASS_INDEX.get(point >> 8).map_or(0, |&block| usize::from(block));
        (CLASS_BLOCKS.get(block << 8 | point & 0xff).map_or(OTHER, |&class| class), len)
    }

    fn byte(self, i: usize) -> u8 {
        self.0.get(i).map_or(0, |&byte| byte)
    }

    /// End of the run of code points of `set` that starts at `i`.
    #[inline]
    fn run(self, mut i: usize, set: u8) -> usize {
        loop {
            let (class, len) = self.at(i);
            if class & set == 0 {
                return i;
            }
            i += len;
        }
    }

    /// End of the run of bytes of `set` (ASCII) that starts at `i`.
    fn bytes(self, mut i: usize, set: &[u8]) -> usize {
        while self.0.get(i).is_some_and(|byte| set.contains(byte)) {
            i += 1;
        }
        i
    }

    /// `\p{N}{1,3}`, the first of them `len` bytes long.
    fn number(self, i: usize, len: usize) -> usize {
        let mut end = i + len;
        for _ in 0..2 {
            let (class, len) = self.at(end);
            if class & NUMBER == 0 {
                break;
            }
            end += len;
        }
        end
    }

    /// Length of `'(?i:[sdmt]|ll|ve|re)` at `i`, 0 if it is not there. Long s folds to s.
    fn contraction(self, i: usize) -> usize {
        if self.byte(i) != b'\'' {
            return 0;
        }
        match (self.byte(i + 1), self.byte(i + 2)) {
            (b's' | b'S' | b'd' | b'D' | b'm' | b'M' | b't' | b'T', _) => 2,
            (b'l' | b'L', b'l' | b'L') | (b'v' | b'V' | b'r' | b'R', b'e' | b'E') | (0xc5, 0xbf) => 3,
            _ => 0,
        }
    }

    /// `\s+(?!\S)|\s`, and before it `\s*[\r\n]+` if `newlines`: to the last newline of the run.
    fn space(self, i: usize, newlines: bool) -> usize {
        let (mut end, mut last, mut line) = (i, i, i);
        loop {
            let (class, len) = self.at(end);
            if class & SPACE == 0 {
                break;
            }
            last = end;
            end += len;
            if matches!(self.byte(last), b'\r' | b'\n') {
                line = end;
            }
        }
        if newlines && line > i {
            line
        } else if end < self.0.len() && last > i {
            // The last space belongs to the next piece, unless the run is nothing else.
            last
        } else {
            end
        }
    }
}

/// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`
///
/// `\s++$` before the rule on newlines changes no count: no token continues past a last newline.
#[inline]
pub(super) fn cl100k(text: Text<'_>, i: usize) -> usize {
    let (class, len) = text.at(i);
    if class & LETTER != 0 {
        return text.run(i + len, LETTER);
    }
    if class & NUMBER != 0 {
        return text.number(i, len);
    }
    let byte = text.byte(i);
    let contraction = text.contraction(i);
    if contraction > 0 {
        return i + contraction;
    }
    if !matches!(byte, b'\r' | b'\n') {
        let (next, next_len) = text.at(i + len);
        if next & LETTER != 0 {
            return text.run(i + len + next_len, LETTER);
        }
    }
    let start = if byte == b' ' { i + 1 } else { i };
    let end = text.run(start, SYMBOL);
    if end > start {
        return text.bytes(end, b"\r\n");
    }
    text.space(i, true)
}

/// `[^\r\n\p{L}\p{N}]?HEAD*TAIL+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?HEAD+TAIL*(?i:…)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
#[inline]
pub(super) fn o200k(text: Text<'_>, i: usize) -> usize {
    let (class, len) = text.at(i);
    let byte = text.byte(i);
    let word = if class & LETTER != 0 {
        Some(word(text, i))
    } else if class & NUMBER != 0 || matches!(byte, b'\r' | b'\n') {
        None
    } else {
        // The optional first character; a mark may also be the word's own first letter, and is one where only capitals follow:
        // the first alternative then wins without the prefix.
        let word_after = word(text, i + len);
        if class & MARK != 0 && !word_after.1 {
            Some(word(text, i))
        } else {
            Some(word_after).filter(|w| w.0 > i + len)
        }
    };
    if let Some((end, _)) = word {
        return end + text.contraction(end);
    }
    if class & NUMBER != 0 {
        return text.number(i, len);
    }
    let start = if byte == b' ' { i + 1 } else { i };
    let end = text.run(start, SYMBOL);
    if end > start {
        return text.bytes(end, b"\r\n/");
    }
    text.space(i, true)
}

/// Returns the end of `HEAD*TAIL+` at `i` and true; where that does not match, the end of `HEAD*` and false.
#[inline]
fn word(text: Text<'_>, i: usize) -> (usize, bool) {
    // HEAD* takes everything it can, then gives back up to the last character that TAIL+ can take.
    let (mut end, mut tail) = (i, i);
    loop {
        let (class, len) = text.at(end);
        if class & HEAD == 0 {
            if class & TAIL != 0 {
                return (text.run(end + len, TAIL), true);
            }
            return if tail > i { (tail, true) } else { (end, false) };
        }
        end += len;
        if class & TAIL != 0 {
            tail = end;
        }
    }
}

/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s`
#[inline]
pub(super) fn p50k(text: Text<'_>, i: usize) -> usize {
    let byte = text.byte(i);
    if byte == b'\'' {
        match (text.byte(i + 1), text.byte(i + 2)) {
            (b's' | b'd' | b'm' | b't', _) => return i + 2,
            (b'l', b'l') | (b'v' | b'r', b'e') => return i + 3,
            _ => {}
        }
    }
    let start = if byte == b' ' { i + 1 } else { i };
    let (class, len) = text.at(start);
    for set in [LETTER, NUMBER, SYMBOL] {
        if class & set != 0 {
            return text.run(start + len, set);
        }
    }
    text.space(i, false)
}
