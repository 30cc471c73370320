//! Medians and spreads of a few dozen rounds.

use serde::Serialize;

/// Of the same figure in several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// A quarter of the rounds lies below.
    pub(crate) low: f64,
    /// Half of them.
    pub(crate) median: f64,
    /// A quarter lies above.
    pub(crate) high: f64,
}

impl Spread {
    /// Of what was measured once.
    pub(crate) fn one(value: f64) -> Spread {
        Spread::of([value])
    }

    /// Of these; all zero for none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| {
            let last = values.len().saturating_sub(1) as f64;
            // between two values in proportion; both places are below the length
            let (place, rest) = ((last * part).floor(), (last * part).fract());
            let value = |place: f64| values.get(place as usize).copied().unwrap_or_default();
            value(place) * (1.0 - rest) + value((place + 1.0).min(last)) * rest
        };
        Spread {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        }
    }

    /// Each figure divided by the one of the same round.
    pub(crate) fn of_ratios(values: &[f64], bases: &[f64]) -> Spread {
        Spread::of(values.iter().zip(bases).map(|(value, base)| value / base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_values() {
        let spread = |values: &[f64]| {
            let Spread { low, median, high } = Spread::of(values.iter().copied());
            [low, median, high]
        };
        assert_eq!(spread(&[]), [0.0; 3]);
        assert_eq!(spread(&[7.0]), [7.0; 3]);
        assert_eq!(spread(&[5.0, 1.0, 3.0, 2.0, 4.0]), [2.0, 3.0, 4.0]);
        assert_eq!(spread(&[1.0, 2.0]), [1.25, 1.5, 1.75]);
        let ratios = Spread::of_ratios(&[2.0, 9.0], &[1.0, 3.0]);
        assert_eq!(ratios.median, 2.5);
    }
}
