//! Words that the keys of a response are compared with: by address first, by text where that differs.
//!
//! A key costs about 75 instructions as a text (its bytes, then a comparison by length and content) and 15 by its
//! address. Python interns the names that stand in source code, among them the keys that LangChain and the clients'
//! models write; keys that were decoded from JSON are other objects, and are compared as texts.

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Meanings of words, by the addresses of the interned words. The table holds the words, so that an address stays
/// what it is.
pub struct Words<T> {
    slots: Box<[Option<(usize, T)>]>,
    _held: Vec<Py<PyString>>,
}

impl<T: Copy> Words<T> {
    pub fn new(py: Python<'_>, words: impl Iterator<Item = (&'static str, T)>) -> Self {
        let (held, meanings): (Vec<_>, Vec<_>) =
            words.map(|(word, meaning)| (PyString::intern(py, word).unbind(), meaning)).unzip();
        // A quarter full: nearly every word stands at its own place.
        let mut table = Self { slots: vec![None; (held.len() * 4).next_power_of_two()].into(), _held: Vec::new() };
        for (word, meaning) in held.iter().zip(meanings) {
            let address = word.as_ptr() as usize;
            let place = table.places(address).find(|place| table.slots.get(*place).is_some_and(Option::is_none));
            if let Some(slot) = place.and_then(|place| table.slots.get_mut(place)) {
                *slot = Some((address, meaning));
            }
        }
        Self { _held: held, ..table }
    }

    /// The meaning of a word that is interned; None for another object, whatever its text.
    #[inline]
    pub fn by_address(&self, word: &Bound<'_, PyString>) -> Option<T> {
        let address = word.as_ptr() as usize;
        for place in self.places(address) {
            match self.slots.get(place)? {
                Some((held, meaning)) if *held == address => return Some(*meaning),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    /// Places at which an address may stand, in the order of looking. Objects lie at multiples of 16.
    #[inline]
    fn places(&self, address: usize) -> impl Iterator<Item = usize> + use<T> {
        let mask = self.slots.len().wrapping_sub(1);
        let first = (address >> 4).wrapping_mul(0x9E37_79B9) >> 8;
        (0..=mask).map(move |step| first.wrapping_add(step) & mask)
    }
}
