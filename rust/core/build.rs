//! Writes what the tokenizer embeds: the vocabularies and the Unicode classes.
//!
//! Both come from packages, at build time only: the ranks from `tiktoken` (crates.io; equal to
//! `OpenAI`'s files, as `tests/core/test_tokenizer.py` shows), the classes from `regex-syntax`, the tables
//! that the tiktoken of `PyPI` is built on. The core itself then needs neither at run time.
//!
//! A vocabulary is stored plain: a wheel is a zip and compresses it as well as we could, and plain
//! bytes stay in the shared object's read-only pages instead of being inflated onto the heap.

use std::{env, error::Error, fs, path::Path};

use regex_syntax::hir::{Class, HirKind};

/// Rank that `p50k_base` leaves to `<|endoftext|>`: no ordinary token has it.
const P50K_GAP: u32 = 50_256;
/// Ends a token: no text in UTF-8 has this byte, as in `src/tokenizer`.
const END: u8 = 0xff;
/// Bits that `src/tokenizer` has for a token's place in the file.
const PLACE_BITS: u32 = 21;
/// Code points a block of the class table; see `wide` in `src/tokenizer`.
const BLOCK: usize = 256;
/// One class a code point, as the bits 1 to 6 that `src/tokenizer` names; bit 0 is the rest.
const CLASSES: [&str; 6] = [r"[\p{Lu}\p{Lt}]", r"\p{Ll}", r"[\p{Lm}\p{Lo}]", r"\p{M}", r"\p{N}", r"\s"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    for name in ["cl100k_base", "o200k_base", "p50k_base"] {
        fs::write(out.join(format!("{name}.vocab")), vocabulary(name)?)?;
    }
    let (index, blocks) = classes()?;
    fs::write(out.join("class_index"), index)?;
    fs::write(out.join("class_blocks"), blocks)?;
    Ok(())
}

/// Each token of two bytes or more in order of rank, and `END` behind it. A token's place in the
/// file then stands for its rank, which is all that merging asks of a rank. Lengths before the
/// tokens in place of the ends would make a wheel 0.18 MB larger.
fn vocabulary(name: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let encoding = tiktoken::get_encoding(name).ok_or("vocabulary not in the tiktoken crate")?;
    let gap = (name == "p50k_base").then_some(P50K_GAP);
    let n = u32::try_from(encoding.vocab_size())? + u32::from(gap.is_some());
    let (mut file, mut singles) = (Vec::new(), 0);
    for rank in (0..n).filter(|&rank| Some(rank) != gap) {
        let token = encoding.decode(&[rank]);
        if token.is_empty() {
            return Err(format!("{name}: rank {rank} has no token").into());
        }
        if token.len() == 1 {
            singles += 1;
            continue;
        }
        if token.contains(&END) {
            return Err(format!("{name}: rank {rank} has the byte that ends tokens").into());
        }
        file.extend(token);
        file.push(END);
    }
    if singles != 256 || file.len() >= 1 << PLACE_BITS {
        return Err(format!("{name}: {singles} of 256 single bytes, {} bytes", file.len()).into());
    }
    Ok(file)
}

/// A two-stage table: the block of each 256 code points, and the distinct blocks.
fn classes() -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let mut table = vec![1u8; 0x11_0000];
    for (class, pattern) in (1u8..).zip(CLASSES) {
        let hir = regex_syntax::parse(pattern)?;
        let HirKind::Class(Class::Unicode(set)) = hir.kind() else {
            return Err("not a class of code points".into());
        };
        for range in set.ranges() {
            table[range.start() as usize..=range.end() as usize].fill(1 << class);
        }
    }
    let mut blocks: Vec<&[u8]> = Vec::new();
    let mut index = Vec::new();
    for block in table.chunks(BLOCK) {
        let at = blocks.iter().position(|b| *b == block).unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        });
        index.push(u8::try_from(at)?);
    }
    Ok((index, blocks.concat()))
}
