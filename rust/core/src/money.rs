//! Money: whole pico-dollars, rates per token.

use crate::figures::Usage;

/// What a rate applies to, in the order of `Band::rates`: input, output, cache read, cache write, cache write
/// for an hour, reasoning, audio in, audio out, image in, cached audio, cached image, web search, request.
pub const RATES: usize = 13;

/// Rates of all tokens of a call with more than `above` input tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Input tokens; -1 for the first band.
    pub above: i64,
    /// Pico-dollars each; a kind without a price of its own has that of the kind it is part of.
    pub rates: [u64; RATES],
}

/// What one model costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateCard {
    /// Ascending. The last whose `above` is exceeded applies to the whole call.
    pub bands: Vec<Band>,
}

impl RateCard {
    /// Pico-dollars of a call. None when a part of the usage exceeds its whole, or the sum 18.4 million
    /// dollars: who keeps the prices knows what to make of that.
    pub fn cost(&self, usage: &Usage) -> Option<u64> {
        let [input, output, _, read, write, hour, reasoning, audio_in, audio_out, image, searches, _] = *usage;
        let band = self.bands.iter().rev().find(|b| i64::try_from(input).unwrap_or(i64::MAX) > b.above)?;
        let text = input.checked_sub(read)?.checked_sub(write)?.checked_sub(audio_in)?.checked_sub(image)?;
        let plain = output.checked_sub(reasoning)?.checked_sub(audio_out)?;
        let short = write.checked_sub(hour)?;
        // Cached audio and images are among the reads; without word of how many, there are none.
        let counts = [text, plain, read, short, hour, reasoning, audio_in, audio_out, image, 0, 0, searches, 1];
        counts.iter().zip(band.rates).try_fold(0_u64, |sum, (n, rate)| {
            if *n == 0 || rate == 0 { Some(sum) } else { sum.checked_add(n.checked_mul(rate)?) }
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flat(above: i64, rate: u64) -> Band {
        Band { above, rates: [rate; RATES] }
    }

    #[test]
    fn each_kind_is_charged_at_its_rate() {
        let rates = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 7, 7, 3, 5];
        let card = RateCard { bands: vec![Band { above: -1, rates }] };
        // 100 in (of them 20 read, 9 written, 4 of those for an hour, 2 audio, 1 image), 50 out (8 reasoning, 3 audio).
        let usage = [100, 50, 150, 20, 9, 4, 8, 2, 3, 1, 6, 0];
        let want = 68 + 39 * 10 + 20 * 100 + 5 * 1000 + 4 * 10_000 + 8 * 100_000 + 2 * 1_000_000 + 3 * 10_000_000;
        assert_eq!(card.cost(&usage), Some(want + 100_000_000 + 6 * 3 + 5));
    }

    #[test]
    fn the_last_band_exceeded_prices_the_whole_call() {
        let card = RateCard { bands: vec![flat(-1, 1), flat(200, 2)] };
        let cost = |input| card.cost(&[input, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((cost(0), cost(200), cost(201)), (Some(1), Some(201), Some(404)));
        assert_eq!(RateCard { bands: vec![] }.cost(&[0; 12]), None);
    }

    #[test]
    fn parts_beyond_their_whole_and_sums_beyond_64_bits_are_not_priced() {
        let card = RateCard { bands: vec![flat(-1, 1)] };
        assert_eq!(card.cost(&[10, 0, 10, 11, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(card.cost(&[10, 5, 15, 0, 0, 0, 6, 0, 0, 0, 0, 0]), None);
        assert_eq!(card.cost(&[10, 0, 10, 0, 2, 3, 0, 0, 0, 0, 0, 0]), None);
        let dear = RateCard { bands: vec![flat(-1, u64::MAX)] };
        assert_eq!(dear.cost(&[2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn at_one_rate_for_all_only_the_wholes_matter(
            parts in prop::array::uniform4(0..1000_u64), out in prop::array::uniform3(0..1000_u64), rate in 0..1_000_000_u64
        ) {
            let (input, output) = (parts.iter().sum::<u64>(), out.iter().sum::<u64>());
            let usage = [input, output, 0, parts[1], parts[2], 0, out[1], parts[3], out[2], 0, 0, 0];
            let card = RateCard { bands: vec![flat(-1, rate)] };
            prop_assert_eq!(card.cost(&usage), Some((input + output + 1) * rate));
        }
    }
}
