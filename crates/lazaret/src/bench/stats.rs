//! The statistics of a comparison: medians, spreads, paired ratios, and the random order of a round. Pure.
//!
//! Everything here is free of assumptions about the distribution of the measurements, because on a busy machine the
//! tails are scheduler noise: medians and percentiles, no means and no standard deviations.

use crate::report::data::{Interval, Spread};

/// The `p` quantile of values in ascending order, linear between neighbours (Hyndman and Fan's type 7).
fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = p.clamp(0.0, 1.0) * last as f64;
    // 0 <= at <= last, so both are indices; `get` keeps that from mattering.
    let below = *sorted.get(at.floor() as usize)?;
    let above = *sorted.get(at.ceil() as usize)?;
    Some(below + (above - below) * at.fract())
}

/// The shortest symmetric interval of order statistics that holds the true median with at least 95 % confidence.
///
/// The number of measurements below the true median is binomial(n, ½), so the interval from the k-th smallest to the
/// k-th largest misses it with probability 2·P(B < k). With n < 6 even the whole range misses it too often.
fn median_interval(sorted: &[f64]) -> Option<Interval> {
    let n = sorted.len();
    let mut probability = 0.5_f64.powi(i32::try_from(n).ok()?); // P(B = 0)
    let mut below = 0.0;
    let mut k = 0;
    while k < n {
        below += probability; // P(B <= k) = P(B < k + 1)
        if 2.0 * below > 0.05 {
            break;
        }
        probability *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    Some(Interval {
        low: *sorted.get(k.checked_sub(1)?)?,
        high: *sorted.get(n.checked_sub(k)?)?,
    })
}

/// Median, 10th and 90th percentile, and the 95 % interval of the median.
///
/// `low` and `high` say how much single rounds differ; `median_interval` says how well the median is known. `None`
/// without values, and when any value is not finite: a spread over nonsense is nonsense.
#[must_use]
pub fn spread(values: &[f64]) -> Option<Spread> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Spread {
        median: quantile(&sorted, 0.5)?,
        low: quantile(&sorted, 0.1)?,
        high: quantile(&sorted, 0.9)?,
        n: sorted.len() as u64,
        median_interval: median_interval(&sorted),
    })
}

/// The ratios of pairs of one round each; pairs that have no ratio (a zero, a value that is not finite) are left out,
/// and `n` of the spread shows that.
#[must_use]
pub fn ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Spread> {
    let ratios: Vec<f64> = pairs
        .into_iter()
        .filter(|(over, under)| *over > 0.0 && *under > 0.0)
        .map(|(over, under)| over / under)
        .filter(|ratio| ratio.is_finite())
        .collect();
    spread(&ratios)
}

/// The orders in which rounds visit their targets: random, and the same for the same seed.
#[derive(Clone, Debug)]
pub struct Orders(u64);

impl Orders {
    /// Orders from this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Orders {
        Orders(seed)
    }

    /// The next order: a permutation of `0..len`.
    #[must_use]
    pub fn next_order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        // Fisher and Yates, from the end; `% (last + 1)` is biased by less than len / 2⁶⁴.
        for last in (1..len).rev() {
            order.swap(last, (self.random() % (last as u64 + 1)) as usize);
        }
        order
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_to(n: u32) -> Vec<f64> {
        (1..=n).rev().map(f64::from).collect()
    }

    #[test]
    fn spread_of_known_values() {
        let eleven = spread(&one_to(11)).expect("values");
        assert_eq!((eleven.low, eleven.median, eleven.high), (2.0, 6.0, 10.0));
        let two = spread(&[3.0, 1.0]).expect("values");
        assert_eq!((two.low, two.median, two.high), (1.2, 2.0, 2.8));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, f64::NAN]), None);
    }

    /// Against the table of the sign test's order statistics (Conover, "Practical Nonparametric Statistics").
    #[test]
    fn median_interval_is_the_sign_test() {
        for (n, expected) in [
            (1, None),
            (5, None),
            (6, Some((1.0, 6.0))),
            (8, Some((1.0, 8.0))),
            (9, Some((2.0, 8.0))),
            (10, Some((2.0, 9.0))),
            (15, Some((4.0, 12.0))),
            (20, Some((6.0, 15.0))),
            (100, Some((40.0, 61.0))),
        ] {
            let found = spread(&one_to(n)).and_then(|spread| spread.median_interval);
            assert_eq!(
                found.map(|interval| (interval.low, interval.high)),
                expected,
                "n = {n}"
            );
        }
    }

    #[test]
    fn ratios_pair_and_leave_out_what_has_none() {
        let found = ratios([
            (1.0, 2.0),
            (0.0, 2.0),
            (3.0, 0.0),
            (3.0, 2.0),
            (f64::NAN, 1.0),
        ])
        .expect("two pairs");
        assert_eq!((found.n, found.median), (2, 1.0));
        assert_eq!(ratios([(1.0, 0.0)]), None);
    }

    #[test]
    fn orders_are_permutations_repeat_with_the_seed_and_vary() {
        let orders = |seed| {
            let mut orders = Orders::new(seed);
            (0..50).map(|_| orders.next_order(4)).collect::<Vec<_>>()
        };
        for order in orders(7) {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3], "{order:?}");
        }
        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7), orders(8));
        // Each target leads some round: none is always measured first.
        for first in 0..4 {
            assert!(orders(7).iter().any(|order| order.first() == Some(&first)));
        }
        assert_eq!(Orders::new(1).next_order(0), Vec::<usize>::new());
    }
}
