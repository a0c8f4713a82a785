//! Money: whole pico-dollars, rates per token.

use crate::figures::Usage;

/// What a rate applies to, in the order of `Band::rates`: input, output, cache read, cache write, cache write
/// for an hour, reasoning, audio in, audio out, image in, image out, video in, video out, cached audio, cached
/// image, citation, web search, file search, request.
pub const RATES: usize = 18;

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
        let [
            input,
            output,
            _,
            read,
            write,
            hour,
            reasoning,
            audio_in,
            audio_out,
            image_in,
            image_out,
            video_in,
            video_out,
            cached_audio,
            cached_image,
            citation,
            searches,
            file_searches,
            _,
        ] = *usage;
        let band = self.bands.iter().rev().find(|b| i64::try_from(input).unwrap_or(i64::MAX) > b.above)?;
        let less = |whole: u64, parts: &[u64]| parts.iter().try_fold(whole, |rest, part| rest.checked_sub(*part));
        // Cached audio and images are among the reads as well as among their kind.
        let (audio_in, image_in) = (audio_in.checked_sub(cached_audio)?, image_in.checked_sub(cached_image)?);
        let text = less(input, &[read, write, audio_in, image_in, video_in])?;
        let plain = less(output, &[reasoning, audio_out, image_out, video_out, citation])?;
        let read = less(read, &[cached_audio, cached_image])?;
        let short = write.checked_sub(hour)?;
        let counts: [u64; RATES] = [
            text,
            plain,
            read,
            short,
            hour,
            reasoning,
            audio_in,
            audio_out,
            image_in,
            image_out,
            video_in,
            video_out,
            cached_audio,
            cached_image,
            citation,
            searches,
            file_searches,
            1,
        ];
        counts.iter().zip(band.rates).try_fold(0_u64, |sum, (n, rate)| {
            if *n == 0 || rate == 0 { Some(sum) } else { sum.checked_add(n.checked_mul(rate)?) }
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::figures::Counter;
    use proptest::prelude::*;

    fn flat(above: i64, rate: u64) -> Band {
        Band { above, rates: [rate; RATES] }
    }

    /// A call's usage by name; the rest is 0.
    fn usage(parts: &[(Counter, u64)]) -> Usage {
        let mut usage = Usage::default();
        for (kind, n) in parts {
            usage[*kind as usize] = *n;
        }
        usage
    }

    #[test]
    fn each_kind_is_charged_at_its_rate() {
        use Counter::*;
        let rates = std::array::from_fn(|place| 10_u64.pow(u32::try_from(place).unwrap()));
        let card = RateCard { bands: vec![Band { above: -1, rates }] };
        // One of each kind; of the 6 reads 1 is audio and 1 an image, of the 2 writes 1 is for an hour.
        let inputs =
            [(Input, 12), (CacheRead, 6), (CacheWrite, 2), (CacheWrite1h, 1), (AudioInput, 2), (ImageInput, 2)];
        let more = [(VideoInput, 1), (CachedAudio, 1), (CachedImage, 1), (WebSearches, 1), (FileSearches, 1)];
        let outputs =
            [(Output, 6), (Reasoning, 1), (AudioOutput, 1), (ImageOutput, 1), (VideoOutput, 1), (Citation, 1)];
        let call = usage(&[&inputs[..], &more, &outputs].concat());
        assert_eq!(card.cost(&call), Some(111_111_111_111_111_111 + 3 * 100));
    }

    #[test]
    fn the_last_band_exceeded_prices_the_whole_call() {
        let card = RateCard { bands: vec![flat(-1, 1), flat(200, 2)] };
        let cost = |input| card.cost(&usage(&[(Counter::Input, input)]));
        assert_eq!((cost(0), cost(200), cost(201)), (Some(1), Some(201), Some(404)));
        assert_eq!(RateCard { bands: vec![] }.cost(&Usage::default()), None);
    }

    #[test]
    fn parts_beyond_their_whole_and_sums_beyond_64_bits_are_not_priced() {
        use Counter::*;
        let card = RateCard { bands: vec![flat(-1, 1)] };
        let over = |whole, n, parts: &[Counter]| {
            let parts: Vec<_> = parts.iter().map(|part| (*part, n)).collect();
            card.cost(&usage(&[&[whole][..], &parts].concat()))
        };
        for part in [CacheRead, CacheWrite, AudioInput, ImageInput, VideoInput] {
            assert_eq!(over((Input, 10), 11, &[part]), None, "{part:?}");
        }
        for part in [Reasoning, AudioOutput, ImageOutput, VideoOutput, Citation] {
            assert_eq!(over((Output, 5), 6, &[part]), None, "{part:?}");
        }
        assert_eq!(over((Input, 10), 2, &[CacheWrite1h]), None);
        assert_eq!(over((Input, 10), 2, &[CachedAudio, CacheRead]), None);
        assert_eq!(over((Input, 10), 2, &[CachedImage, ImageInput]), None);
        let dear = RateCard { bands: vec![flat(-1, u64::MAX)] };
        assert_eq!(dear.cost(&usage(&[(Input, 2)])), None);
    }

    proptest! {
        #[test]
        fn at_one_rate_for_all_only_the_wholes_matter(
            parts in prop::array::uniform5(0..1000_u64),
            out in prop::array::uniform6(0..1000_u64),
            cached in (0..1000_u64, 0..1000_u64),
            rate in 0..1_000_000_u64
        ) {
            use Counter::*;
            let (input, output) = (parts.iter().sum::<u64>(), out.iter().sum::<u64>());
            let (audio, image) = (cached.0.min(parts[3]), cached.1.min(parts[4]));
            let call = usage(&[
                (Input, input), (CacheRead, parts[1] + audio + image), (CacheWrite, parts[2]), (AudioInput, parts[3]),
                (ImageInput, parts[4]), (CachedAudio, audio), (CachedImage, image), (Output, output), (Reasoning, out[1]),
                (AudioOutput, out[2]), (ImageOutput, out[3]), (VideoOutput, out[4]), (Citation, out[5]),
            ]);
            let card = RateCard { bands: vec![flat(-1, rate)] };
            prop_assert_eq!(card.cost(&call), Some((input + output + 1) * rate));
        }
    }
}
