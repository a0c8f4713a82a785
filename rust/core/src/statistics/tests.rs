use super::{Discrete, Sample};

#[test]
fn tails_of_coins_are_counted_by_hand() {
    let coins = Discrete::binomial(3, 0.5);
    for (k, at_most, at_least) in
        [(-1, 0.0, 8.0), (0, 1.0, 8.0), (1, 4.0, 7.0), (2, 7.0, 4.0), (3, 8.0, 1.0), (4, 8.0, 0.0)]
    {
        assert!((coins.at_most(k) * 8.0 - at_most).abs() < 1e-14, "{k}");
        assert!((coins.at_least(k) * 8.0 - at_least).abs() < 1e-14, "{k}");
    }
    assert_eq!([0.1, 0.5, 0.9, 1.0].map(|p| coins.largest(p)), [-1, 1, 2, 3]);
    // Two of four cards are marked, two are drawn.
    let drawn = Discrete::hypergeometric(2, 2, 2);
    assert!((drawn.at_most(0) - 1.0 / 6.0).abs() < 1e-15 && (drawn.at_least(1) - 5.0 / 6.0).abs() < 1e-15);
}

#[test]
fn samples_without_values_are_apart_nowhere() {
    let (none, one) = (Sample::new(&[]), Sample::new(&[(1.0, 1.0, 1)]));
    for pair in [[&none, &none], [&none, &one], [&one, &none]] {
        let apart = pair[0].apart(pair[1], 100);
        assert_eq!((apart.most, apart.parts), ([0, 0], Some([1.0, 1.0])));
        assert_eq!(pair[0].downsampled(0).n(), 0);
    }
}

#[test]
fn the_part_of_orders_is_counted_by_hand() {
    // Of six orders of two and two values one has both of the first before both of the second.
    let (low, high) = (Sample::new(&[(1.0, 1.0, 2)]), Sample::new(&[(5.0, 5.0, 2)]));
    let apart = low.apart(&high, 4);
    assert_eq!((apart.most, apart.end, apart.at_most), ([4, 0], 1.0, [2, 0]));
    assert_eq!(low.apart(&high, 3).parts, None);
    let [up, down] = apart.parts.expect("few values");
    // The values of one bucket are tied, so that only the end of it counts.
    assert!((up - 1.0 / 6.0).abs() < 1e-15 && (down - 1.0).abs() < 1e-15);
}
