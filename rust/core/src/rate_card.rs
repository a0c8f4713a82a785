//! Money: whole pico-dollars, rates per token.

use crate::metrics::Usage;

/// Units that rates apply to, in the order of `Band::rates`: input, output, cache read, cache write, cache write for an
/// hour, reasoning, audio in, audio out, image in, image out, video in, video out, cached audio, cached image, citation,
/// web search, file search, request.
pub const RATES: usize = 18;

/// Rates of all tokens of a call with more than `above` input tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Input tokens; -1 for the first band.
    pub above: i64,
    /// Rates in `1 / scale` pico-dollars; a kind without a price of its own has the rate of the kind it is part of.
    pub rates: [u128; RATES],
}

/// Rates of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateCard {
    /// Bands in ascending order. The last one whose `above` is exceeded applies to the whole call.
    pub bands: Vec<Band>,
    /// Parts of a pico-dollar in which rates are counted: 1 for nearly all models. The cost is rounded once, at the end.
    pub scale: u128,
}

/// Units that are charged at each rate, in the order of `Band::rates`.
type Charged = [u64; RATES];

impl RateCard {
    /// Cost of a call in pico-dollars, rounded half to even; `u128::MAX` on overflow. Usage whose parts exceed their whole is
    /// charged too: see `contested`.
    pub fn cost(&self, usage: &Usage) -> u128 {
        let input = i64::try_from(usage[0]).unwrap_or(i64::MAX);
        let Some(band) = self.bands.iter().rev().find(|b| input > b.above) else { return 0 };
        let charged = disjoint(usage).unwrap_or_else(|| contested(&band.rates, usage));
        let mut sum = 0_u128;
        for (n, rate) in charged.into_iter().zip(band.rates) {
            if n > 0 {
                sum = sum.saturating_add(rate.saturating_mul(u128::from(n)));
            }
        }
        if self.scale <= 1 || sum == u128::MAX {
            return sum;
        }
        let (Some(whole), Some(rest)) = (sum.checked_div(self.scale), sum.checked_rem(self.scale)) else { return sum };
        let other = self.scale.saturating_sub(rest);
        let up = rest > other || (rest == other && !whole.is_multiple_of(2));
        whole.saturating_add(u128::from(up))
    }
}

/// Whether parts of a usage exceed their whole.
pub fn is_contested(usage: &Usage) -> bool {
    disjoint(usage).is_none()
}

/// The usage as disjoint parts; None where parts exceed their whole.
fn disjoint(usage: &Usage) -> Option<Charged> {
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
    let less = |whole: u64, parts: &[u64]| parts.iter().try_fold(whole, |rest, part| rest.checked_sub(*part));
    // Cached audio and images are counted both among the reads and among their kind.
    let (audio_in, image_in) = (audio_in.checked_sub(cached_audio)?, image_in.checked_sub(cached_image)?);
    Some([
        less(input, &[read, write, audio_in, image_in, video_in])?,
        less(output, &[reasoning, audio_out, image_out, video_out, citation])?,
        less(read, &[cached_audio, cached_image])?,
        write.checked_sub(hour)?,
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
    ])
}

/// Parts to charge where they exceed their whole; the whole is then at least their sum.
///
/// This happens legitimately where cached tokens are also audio or image tokens and the provider does not report how
/// many: the overlap is then taken as small as the counts allow, which gives the highest possible cost wherever audio
/// costs more than text.
fn contested(rates: &[u128; RATES], usage: &Usage) -> Charged {
    let [
        mut input,
        mut output,
        _,
        read,
        mut write,
        hour,
        mut reasoning,
        mut audio_in,
        mut audio_out,
        mut image_in,
        mut image_out,
        mut video_in,
        mut video_out,
        mut cached_audio,
        mut cached_image,
        mut citation,
        searches,
        file_searches,
        _,
    ] = *usage;
    let sum = |parts: &[u64]| parts.iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
    let mut hour = hour.min(write);
    input = input.max(sum(&[read, write])).max(sum(&[audio_in, image_in, video_in]));
    output = output.max(reasoning).max(sum(&[audio_out, image_out, video_out])).max(citation);
    // A kind that costs the same as its whole need not be subtracted.
    let [of_input, of_output, of_read, of_write, of_hour, of_reasoning, of_audio_in, of_audio_out, ..] = *rates;
    let [
        ..,
        of_image_in,
        of_image_out,
        of_video_in,
        of_video_out,
        of_cached_audio,
        of_cached_image,
        of_citation,
        _,
        _,
        _,
    ] = *rates;
    if of_audio_in == of_input && of_cached_audio == of_read {
        (audio_in, cached_audio) = (0, 0);
    }
    if of_image_in == of_input && of_cached_image == of_read {
        (image_in, cached_image) = (0, 0);
    }
    if of_write == of_hour && of_write == of_input {
        (write, hour) = (0, 0);
    }
    for (part, rate, whole) in [
        (&mut video_in, of_video_in, of_input),
        (&mut reasoning, of_reasoning, of_output),
        (&mut audio_out, of_audio_out, of_output),
        (&mut image_out, of_image_out, of_output),
        (&mut video_out, of_video_out, of_output),
        (&mut citation, of_citation, of_output),
    ] {
        if rate == whole {
            *part = 0;
        }
    }
    let over = sum(&[read, write, audio_in, image_in, video_in]).saturating_sub(input);
    cached_audio = over.saturating_sub(cached_image).max(cached_audio).min(read).min(audio_in);
    cached_image =
        over.saturating_sub(cached_audio).max(cached_image).min(read.saturating_sub(cached_audio)).min(image_in);
    let both = cached_audio.saturating_add(cached_image); // at most the reads
    let rest = |whole: u64, parts: &[u64]| whole.saturating_sub(sum(parts));
    [
        rest(input.saturating_add(both), &[read, write, audio_in, image_in, video_in]),
        rest(output, &[reasoning, audio_out, image_out, video_out, citation]),
        read.saturating_sub(both),
        write.saturating_sub(hour),
        hour,
        reasoning,
        audio_in.saturating_sub(cached_audio),
        audio_out,
        image_in.saturating_sub(cached_image),
        image_out,
        video_in,
        video_out,
        cached_audio,
        cached_image,
        citation,
        searches,
        file_searches,
        1,
    ]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::metrics::Counter;
    use proptest::prelude::*;

    fn flat(above: i64, rate: u128) -> Band {
        Band { above, rates: [rate; RATES] }
    }

    fn card(bands: Vec<Band>) -> RateCard {
        RateCard { bands, scale: 1 }
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
        let rates = std::array::from_fn(|place| 10_u128.pow(u32::try_from(place).unwrap()));
        // One of each kind; of the 6 reads 1 is audio and 1 an image, of the 2 writes 1 is for an hour.
        let inputs =
            [(Input, 12), (CacheRead, 6), (CacheWrite, 2), (CacheWrite1h, 1), (AudioInput, 2), (ImageInput, 2)];
        let more = [(VideoInput, 1), (CachedAudio, 1), (CachedImage, 1), (WebSearches, 1), (FileSearches, 1)];
        let outputs =
            [(Output, 6), (Reasoning, 1), (AudioOutput, 1), (ImageOutput, 1), (VideoOutput, 1), (Citation, 1)];
        let call = usage(&[&inputs[..], &more, &outputs].concat());
        assert_eq!(card(vec![Band { above: -1, rates }]).cost(&call), 111_111_111_111_111_111 + 3 * 100);
    }

    #[test]
    fn the_last_band_exceeded_prices_the_whole_call() {
        let card = card(vec![flat(-1, 1), flat(200, 2)]);
        let cost = |input| card.cost(&usage(&[(Counter::Input, input)]));
        assert_eq!((cost(0), cost(200), cost(201), cost(u64::MAX)), (1, 201, 404, 1 << 65));
    }

    #[test]
    fn parts_beyond_their_whole_are_charged_as_if_the_whole_were_their_sum() {
        use Counter::*;
        let mut rates = [7; RATES];
        let parts = [(CacheRead, 2), (AudioInput, 6), (ImageInput, 8), (VideoInput, 10)];
        for (kind, place) in parts {
            rates[place] = 1000 + place as u128;
            let card = card(vec![Band { above: -1, rates }]);
            let call = |whole| usage(&[(Input, whole), (kind, 11), (Output, 3)]);
            assert!(is_contested(&call(10)));
            assert_eq!(card.cost(&call(10)), card.cost(&call(11)), "{kind:?}");
        }
        for (kind, place) in [(Reasoning, 5), (AudioOutput, 7), (ImageOutput, 9), (VideoOutput, 11), (Citation, 14)] {
            rates[place] = 1000 + place as u128;
            let card = card(vec![Band { above: -1, rates }]);
            let call = |whole| usage(&[(Input, 3), (kind, 6), (Output, whole)]);
            assert!(is_contested(&call(5)));
            assert_eq!(card.cost(&call(5)), card.cost(&call(6)), "{kind:?}");
        }
    }

    #[test]
    fn cached_audio_that_is_not_reported_is_the_least_that_the_counts_allow() {
        use Counter::*;
        let mut rates = [0; RATES];
        (rates[0], rates[2], rates[6], rates[12]) = (1, 10, 100, 1000);
        let card = card(vec![Band { above: -1, rates }]);
        // 6 reads and 7 of audio among 10: 3 are both, 3 read as text, 4 audio alone.
        assert_eq!(card.cost(&usage(&[(Input, 10), (CacheRead, 6), (AudioInput, 7)])), 3 * 10 + 4 * 100 + 3 * 1000);
    }

    #[test]
    fn what_128_bits_cannot_hold_stays_at_their_most() {
        let dear = card(vec![flat(-1, u128::MAX)]);
        assert_eq!(dear.cost(&usage(&[(Counter::Input, 2)])), u128::MAX);
        assert_eq!(dear.cost(&[u64::MAX; 19]), u128::MAX);
        assert_eq!(RateCard { bands: vec![flat(-1, u128::MAX)], scale: 3 }.cost(&[u64::MAX; 19]), u128::MAX);
    }

    #[test]
    fn half_a_pico_dollar_is_rounded_to_even() {
        let mut rates = [0; RATES];
        rates[0] = 1;
        let half = RateCard { bands: vec![Band { above: -1, rates }], scale: 2 };
        let costs: Vec<_> = (0..6).map(|n| half.cost(&usage(&[(Counter::Input, n)]))).collect();
        assert_eq!(costs, [0, 0, 1, 2, 2, 2]);
    }

    proptest! {
        #[test]
        fn at_one_rate_for_all_only_the_wholes_matter(
            parts in prop::array::uniform5(0..1000_u64),
            out in prop::array::uniform6(0..1000_u64),
            cached in (0..1000_u64, 0..1000_u64),
            rate in 0..1_000_000_u128
        ) {
            use Counter::*;
            let (input, output) = (parts.iter().sum::<u64>(), out.iter().sum::<u64>());
            let (audio, image) = (cached.0.min(parts[3]), cached.1.min(parts[4]));
            let call = usage(&[
                (Input, input), (CacheRead, parts[1] + audio + image), (CacheWrite, parts[2]), (AudioInput, parts[3]),
                (ImageInput, parts[4]), (CachedAudio, audio), (CachedImage, image), (Output, output), (Reasoning, out[1]),
                (AudioOutput, out[2]), (ImageOutput, out[3]), (VideoOutput, out[4]), (Citation, out[5]),
            ]);
            prop_assert!(!is_contested(&call));
            prop_assert_eq!(card(vec![flat(-1, rate)]).cost(&call), u128::from(input + output + 1) * rate);
        }

        #[test]
        fn no_usage_overflows(usage in prop::array::uniform19(prop_oneof![0..9_u64, Just(u64::MAX)]), scale in 1..9_u128) {
            let card = RateCard { bands: vec![flat(-1, 3), flat(5, 7)], scale };
            prop_assert!(card.cost(&usage) >= 1);
        }
    }
}
