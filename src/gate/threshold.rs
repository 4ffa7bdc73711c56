//! Thresholds: a count or a percentage, where a gate fails and optionally where it warns.
//!
//! Percentages are kept as exact fractions: 90% of 10 rows is 9 rows, whatever a float thinks.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::source::Problem;

/// A number of rows, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many rows.
    Rows(u64),
    /// So many of every `per` rows; a percentage keeps its decimals exactly.
    Share {
        /// The numerator.
        parts: u64,
        /// The denominator; never 0.
        per: u64,
    },
}

impl Amount {
    /// Whether `count` of `total` is at least this much. An empty total reaches no share above 0%.
    pub fn is_reached(self, count: u64, total: u64) -> bool {
        match self {
            Amount::Rows(rows) => count >= rows,
            Amount::Share { parts: 0, .. } => true,
            Amount::Share { parts, per } => {
                total > 0
                    && u128::from(count) * u128::from(per) >= u128::from(parts) * u128::from(total)
            }
        }
    }

    /// Whether `count` of `total` is more than this much. Any row of an empty total is more.
    pub fn is_exceeded(self, count: u64, total: u64) -> bool {
        match self {
            Amount::Rows(rows) => count > rows,
            Amount::Share { parts, per } => {
                u128::from(count) * u128::from(per) > u128::from(parts) * u128::from(total)
            }
        }
    }

    /// Whether every measurement is at least this much.
    pub fn is_nothing(self) -> bool {
        matches!(self, Amount::Rows(0) | Amount::Share { parts: 0, .. })
    }

    /// `None` where the two are of different sorts and only data can tell.
    fn compare(self, other: Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Amount::Rows(a), Amount::Rows(b)) => Some(a.cmp(&b)),
            (Amount::Share { parts: a, per: x }, Amount::Share { parts: b, per: y }) => {
                Some((u128::from(a) * u128::from(y)).cmp(&(u128::from(b) * u128::from(x))))
            }
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is neither a count such as 10 nor a percentage such as \"99.5%\"");
        let Some(number) = text.trim().strip_suffix('%') else {
            return text.trim().parse().map(Amount::Rows).map_err(|_| wrong());
        };
        let (whole, decimals) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
        let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(decimals) || decimals.len() > 9 {
            return Err(wrong());
        }
        let per = 100 * 10_u64.pow(u32::try_from(decimals.len()).expect("at most 9 decimals"));
        let parts: u64 = format!("{whole}{decimals}").parse().map_err(|_| wrong())?;
        if parts > per {
            return Err(format!("`{text}` is more than 100%"));
        }
        Ok(Amount::Share { parts, per })
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Rows(rows) => f.write_str(&count(*rows)),
            Amount::Share { parts, per } => {
                let decimals = per.ilog10() - 2;
                let unit = per / 100;
                write!(f, "{}", parts / unit)?;
                if decimals > 0 {
                    let width = decimals as usize;
                    write!(f, ".{:0width$}", parts % unit)?;
                }
                f.write_str("%")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;
        impl Visitor<'_> for AmountVisitor {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count such as 10 or a percentage such as \"99.5%\"")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Amount, E> {
                Ok(Amount::Rows(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Amount, E> {
                u64::try_from(value).map(Amount::Rows).map_err(|_| {
                    E::custom(format!(
                        "`{value}` is negative, expected {}",
                        "a count from 0"
                    ))
                })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Amount::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(AmountVisitor)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of rows, or a percentage of them in quotes.",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+([.][0-9]{1,9})?%$" }
            ]
        })
    }
}

/// How bad a measurement is against its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Within both.
    Pass,
    /// Within the failing threshold, beyond the warning one.
    Warn,
    /// Beyond the failing threshold.
    Fail,
}

/// A lower bound: fails below `fail`, warns below `warn`.
#[derive(Clone, Copy, Debug)]
pub struct AtLeast {
    /// Below this the gate fails.
    pub fail: Amount,
    /// Below this the gate warns.
    pub warn: Option<Amount>,
}

impl AtLeast {
    /// How bad `count` of `total` is.
    pub fn level(&self, count: u64, total: u64) -> Level {
        if !self.fail.is_reached(count, total) {
            Level::Fail
        } else if self.warn.is_some_and(|warn| !warn.is_reached(count, total)) {
            Level::Warn
        } else {
            Level::Pass
        }
    }

    /// A warning level that can never fire is a mistake of the definition.
    pub fn problems(&self) -> Vec<Problem> {
        let is_never = |warn: Amount| {
            let order = warn.compare(self.fail);
            warn.is_nothing() || order.is_some_and(std::cmp::Ordering::is_le)
        };
        if !self.warn.is_some_and(is_never) {
            return Vec::new();
        }
        vec![
            Problem::new(
                "warn_below",
                format!(
                    "the warning level can never fire: below {} the gate already fails",
                    self.fail
                ),
            )
            .help("set `warn_below` above `at_least`"),
        ]
    }

    /// The bounds in words.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            fail: Some(format!("at least {}", self.fail)),
            warn: self.warn.map(|warn| format!("at least {warn}")),
        }
    }
}

/// An upper bound on offending rows: fails above `fail`, warns above `warn`.
#[derive(Clone, Copy, Debug)]
pub struct AtMost {
    /// Above this the gate fails.
    pub fail: Amount,
    /// Above this the gate warns.
    pub warn: Option<Amount>,
}

impl AtMost {
    /// From the two optional fields; none offending is allowed where nothing is said.
    pub fn new(at_most: Option<Amount>, warn_above: Option<Amount>) -> Self {
        Self {
            fail: at_most.unwrap_or(Amount::Rows(0)),
            warn: warn_above,
        }
    }

    /// How bad `count` of `total` is.
    pub fn level(&self, count: u64, total: u64) -> Level {
        if self.fail.is_exceeded(count, total) {
            Level::Fail
        } else if self.warn.is_some_and(|warn| warn.is_exceeded(count, total)) {
            Level::Warn
        } else {
            Level::Pass
        }
    }

    /// A warning level that can never fire is a mistake of the definition.
    pub fn problems(&self) -> Vec<Problem> {
        let is_never = |warn: Amount| {
            let order = warn.compare(self.fail);
            self.fail.is_nothing() || order.is_some_and(std::cmp::Ordering::is_ge)
        };
        if !self.warn.is_some_and(is_never) {
            return Vec::new();
        }
        vec![
            Problem::new(
                "warn_above",
                format!(
                    "the warning level can never fire: above {} the gate already fails",
                    self.fail
                ),
            )
            .help("set `warn_above` below `at_most`"),
        ]
    }

    /// The bounds in words.
    pub fn bounds(&self) -> Bounds {
        let words = |amount: Amount| match amount {
            Amount::Rows(rows) => format!("at most {}", rows_of(rows, "row")),
            share @ Amount::Share { .. } => format!("at most {share} of rows"),
        };
        Bounds {
            fail: Some(words(self.fail)),
            warn: self.warn.map(words),
        }
    }
}

/// What a measurement was held against, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, JsonSchema)]
pub struct Bounds {
    /// Beyond this the gate fails.
    pub fail: Option<String>,
    /// Beyond this the gate warns.
    pub warn: Option<String>,
}

/// `12480` as `12,480`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 row", "12,480 rows".
pub fn rows_of(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{} {noun}s", count(n))
    }
}

/// A share in percent, rounded down to two decimals so that it never looks reached when it is not.
pub fn percent(count: u64, total: u64) -> String {
    if total == 0 {
        return "0%".to_owned();
    }
    let hundredths = u128::from(count) * 10_000 / u128::from(total);
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match rest {
        0 => format!("{whole}%"),
        rest if rest % 10 == 0 => format!("{whole}.{}%", rest / 10),
        rest => format!("{whole}.{rest:02}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("90%", "90%")]
    #[case("99.95%", "99.95%")]
    #[case("0.5%", "0.5%")]
    #[case("100%", "100%")]
    #[case("1200", "1,200")]
    fn an_amount_reads_back(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(
            Amount::parse(text).expect("it is an amount").to_string(),
            shown
        );
    }

    #[rstest]
    #[case("101%")]
    #[case("-1%")]
    #[case("many")]
    #[case("%")]
    #[case("1e2%")]
    fn what_is_no_amount_is_refused(#[case] text: &str) {
        Amount::parse(text).expect_err("it is no amount");
    }

    #[test]
    fn ninety_percent_of_ten_is_nine_exactly() {
        let bound = AtLeast {
            fail: Amount::parse("90%").unwrap(),
            warn: None,
        };
        assert_eq!(bound.level(9, 10), Level::Pass);
        assert_eq!(bound.level(8, 10), Level::Fail);
        assert_eq!(bound.level(0, 0), Level::Fail);
    }

    #[rstest]
    #[case("90%", "95%", true)]
    #[case("90%", "90%", false)]
    #[case("90%", "85.5%", false)]
    #[case("100", "90", false)]
    #[case("100", "90%", true)]
    #[case("100", "0%", false)]
    #[case("90%", "0", false)]
    fn a_warning_that_can_never_fire_is_a_problem(
        #[case] fail: &str,
        #[case] warn: &str,
        #[case] can_fire: bool,
    ) {
        let bound = AtLeast {
            fail: Amount::parse(fail).unwrap(),
            warn: Some(Amount::parse(warn).unwrap()),
        };
        assert_eq!(bound.problems().is_empty(), can_fire);
    }

    #[rstest]
    #[case(None, "5%", false)]
    #[case(Some("0%"), "5", false)]
    #[case(Some("5%"), "1%", true)]
    #[case(Some("5%"), "5.0%", false)]
    #[case(Some("10"), "1%", true)]
    fn no_warning_fires_where_the_first_row_fails(
        #[case] fail: Option<&str>,
        #[case] warn: &str,
        #[case] can_fire: bool,
    ) {
        let amount = |text| Amount::parse(text).unwrap();
        let bound = AtMost::new(fail.map(amount), Some(amount(warn)));
        assert_eq!(bound.problems().is_empty(), can_fire);
    }

    #[rstest]
    #[case(94, 100, "94%")]
    #[case(8996, 10_000, "89.96%")]
    #[case(999_999, 1_000_000, "99.99%")]
    #[case(0, 0, "0%")]
    #[case(1, 8, "12.5%")]
    #[case(5, 10_000, "0.05%")]
    fn a_percentage_is_never_rounded_up(#[case] n: u64, #[case] of: u64, #[case] shown: &str) {
        assert_eq!(percent(n, of), shown);
    }

    #[test]
    fn counts_have_separators_and_plurals() {
        assert_eq!(rows_of(12_480, "row"), "12,480 rows");
        assert_eq!(rows_of(1, "row"), "1 row");
        assert_eq!(count(1_000_000), "1,000,000");
    }

    proptest! {
        #[test]
        fn more_offending_rows_are_never_better(total in 1_u64..1_000_000, parts in 0_u64..=10_000, a in 0_u64..1_000_000, b in 0_u64..1_000_000) {
            let bound = AtMost { fail: Amount::Share { parts, per: 10_000 }, warn: None };
            let (few, many) = (a.min(b).min(total), a.max(b).min(total));
            prop_assert!(bound.level(few, total) <= bound.level(many, total));
        }
    }
}
