//! What was measured of a query, and what it means. Knows neither clock nor connection.

use std::fmt;
use std::time::Duration;

use super::workload::Workload;

/// The times of one query's runs, and what else was seen of it.
#[derive(Clone, Debug)]
pub struct Samples {
    /// One duration per run, ascending; never empty.
    sorted: Vec<Duration>,
    /// How many rows the last run returned.
    pub rows: u64,
    /// `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)` of one run apart from the measured ones; `None`
    /// when it was not asked for.
    pub plan: Option<serde_json::Value>,
}

/// What the samples of a workload mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The percentile is within the budget.
    Within {
        /// The percentile's duration.
        measured: Duration,
        /// The most it may be.
        budget: Duration,
    },
    /// The percentile is over the budget.
    Over {
        /// The percentile's duration.
        measured: Duration,
        /// The most it may be.
        budget: Duration,
    },
    /// The query returned no row: nothing is proved by nothing.
    NoRows,
}

impl Verdict {
    /// Whether the workload has passed.
    pub fn is_passed(&self) -> bool {
        matches!(self, Self::Within { .. })
    }
}

impl Samples {
    /// The samples of some runs; `None` when there are none.
    pub fn new(mut durations: Vec<Duration>, rows: u64) -> Option<Self> {
        durations.sort_unstable();
        (!durations.is_empty()).then_some(Self {
            sorted: durations,
            rows,
            plan: None,
        })
    }

    /// The durations, ascending.
    pub fn durations(&self) -> &[Duration] {
        &self.sorted
    }

    /// The shortest run.
    pub fn min(&self) -> Duration {
        self.percentile(0)
    }

    /// The 50th percentile by nearest rank: of an even number of runs the lower middle one.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The longest run.
    pub fn max(&self) -> Duration {
        self.percentile(100)
    }

    /// The `percentile`th percentile by nearest rank: the smallest duration such that at least
    /// that share of the runs took no longer. It is always one that was measured.
    ///
    /// The ordinal rank is ⌈P/100 · N⌉ (<https://en.wikipedia.org/wiki/Percentile>, "nearest-rank
    /// method"); 0 gives the shortest. Of 10 runs the 95th percentile is the longest.
    pub fn percentile(&self, percentile: u8) -> Duration {
        let rank = (usize::from(percentile) * self.sorted.len()).div_ceil(100);
        let index = rank.clamp(1, self.sorted.len()) - 1;
        self.sorted[index]
    }

    /// Whether these samples keep the workload's budget. At exactly the budget they do.
    pub fn judge(&self, workload: &Workload) -> Verdict {
        let (measured, budget) = (self.percentile(workload.percentile), workload.budget);
        if self.rows == 0 {
            Verdict::NoRows
        } else if measured <= budget {
            Verdict::Within { measured, budget }
        } else {
            Verdict::Over { measured, budget }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within { measured, budget } => {
                write!(f, "{measured:.1?} is within the budget of {budget:?}")
            }
            Self::Over { measured, budget } => {
                write!(f, "{measured:.1?} is over the budget of {budget:?}")
            }
            Self::NoRows => f.write_str("no row returned: nothing is proved by nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn ms(milliseconds: &[u64]) -> Vec<Duration> {
        milliseconds
            .iter()
            .copied()
            .map(Duration::from_millis)
            .collect()
    }

    /// The example of the article that the definition comes from.
    #[rstest]
    #[case(5, 15)]
    #[case(30, 20)]
    #[case(40, 20)]
    #[case(50, 35)]
    #[case(100, 50)]
    #[case(0, 15)]
    fn the_percentile_is_the_nearest_rank(#[case] percentile: u8, #[case] expected: u64) {
        let samples = Samples::new(ms(&[40, 15, 50, 20, 35]), 1).unwrap();
        assert_eq!(
            samples.percentile(percentile),
            Duration::from_millis(expected)
        );
    }

    #[rstest]
    #[case::at_the_budget(&[1, 100], 1, "100.0ms is within the budget of 100ms")]
    #[case::over(&[1, 101], 1, "101.0ms is over the budget of 100ms")]
    #[case::quick_but_empty(&[1, 2], 0, "no row returned: nothing is proved by nothing")]
    fn samples_are_judged(#[case] times: &[u64], #[case] rows: u64, #[case] expected: &str) {
        let text = "-- budget: 100ms\nselect 1";
        let workload = Workload::parse(std::path::Path::new("q.sql"), text).unwrap();
        let samples = Samples::new(ms(times), rows).unwrap();
        assert_eq!(samples.judge(&workload).to_string(), expected);
    }

    #[test]
    fn no_runs_are_no_samples() {
        assert!(Samples::new(Vec::new(), 1).is_none());
    }

    proptest! {
        #[test]
        fn at_least_that_share_took_no_longer(
            times in proptest::collection::vec(0u64..1000, 1..50), percentile in 0u8..=100
        ) {
            let samples = Samples::new(ms(&times), 1).unwrap();
            let value = samples.percentile(percentile);
            let count = |keep: &dyn Fn(&Duration) -> bool| samples.durations().iter().filter(|d| keep(d)).count();
            let share = usize::from(percentile) * times.len();
            prop_assert!(count(&|d| *d <= value) * 100 >= share);
            prop_assert!(samples.min() <= value && value <= samples.max());
            // The smallest such: of anything shorter there are too few.
            let shorter = count(&|d| *d < value);
            prop_assert!(shorter == 0 || shorter * 100 < share);
        }
    }
}
