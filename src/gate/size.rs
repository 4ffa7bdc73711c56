//! An amount of bytes, as a person writes and reads it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

/// In powers of 1024, as Postgres counts them.
const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB"];

/// An amount of bytes such as `10GB` or `512 MB`, in powers of 1024 as in Postgres' own settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Reads an amount above zero; upper and lower case are the same.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no amount of bytes, expected for example 500MB, 10GB or 1.5TB");
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = trimmed.split_at(end.unwrap_or(0));
        let unit = unit.trim();
        let power = UNITS
            .iter()
            .position(|known| known.eq_ignore_ascii_case(unit));
        let power = power.ok_or_else(wrong)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || decimals.len() > 6 {
            return Err(wrong());
        }
        let per = 10_u128.pow(u32::try_from(decimals.len()).expect("at most 6 decimals"));
        let digits: u128 = format!("{whole}{decimals}").parse().map_err(|_| wrong())?;
        let bytes = digits
            .checked_mul(1 << (10 * power))
            .map(|bytes| bytes / per);
        match bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
            Some(0) => Err(format!("`{text}` is not above zero")),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(wrong()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 || value >= 100.0 || value.fract() < 0.05 {
            write!(f, "{value:.0} {}", UNITS[unit])
        } else {
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount of bytes such as `500MB` or `10GB`, in powers of 1024.",
            "type": "string",
            "examples": ["500MB", "10GB"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("8kB", 8192, "8 kB")]
    #[case("512 mb", 512 << 20, "512 MB")]
    #[case("1.5GB", 3 << 29, "1.5 GB")]
    #[case("10GB", 10 << 30, "10 GB")]
    #[case("100B", 100, "100 B")]
    fn a_size_reads_back(#[case] text: &str, #[case] bytes: u64, #[case] shown: &str) {
        let size = Size::parse(text).expect("it is a size");
        assert_eq!(size, Size(bytes));
        assert_eq!(size.to_string(), shown);
    }

    #[rstest]
    #[case("0MB")]
    #[case("10")]
    #[case("GB")]
    #[case("-1GB")]
    #[case("1..5GB")]
    #[case("10 gigabytes")]
    #[case("99999999999999999999999PB")]
    fn what_is_no_size_is_refused(#[case] text: &str) {
        Size::parse(text).expect_err("it is no size");
    }

    #[rstest]
    #[case(0, "0 B")]
    #[case(1536, "1.5 kB")]
    #[case(123_456_789, "118 MB")]
    #[case(u64::MAX, "16384 PB")]
    fn bytes_are_said_short(#[case] n: u64, #[case] expected: &str) {
        assert_eq!(Size(n).to_string(), expected);
    }
}
