//! Keys whose constraint is taken at its word, where a gate looks at several.

use crate::gate::kinds::shared::{ask_proved, scope_of};
use crate::gate::threshold::{count, rows_of};
use crate::gate::{Aggregate, Ask, Finding, Measure, Measured};

use super::REFERENCING;
use super::key::Key;

/// The label of the constraint that proves a key.
const PROVED: &str = "proved ";

/// Asks whether there are rows that refer to something, or how many, where a share is of all of them.
pub(super) fn ask(key: &Key<'_>, constraint: &str, is_share: bool) -> Ask {
    let name = key.name();
    let label = format!("{REFERENCING}{name}");
    let scope = scope_of(key.table, None);
    let mut ask = ask_proved(&label, &scope, key.columns, constraint.to_owned());
    if is_share {
        ask.measures = vec![Aggregate::count(&label, &scope, Some(key.present()))];
    }
    let constraint = ask.proof.take();
    ask.known.push((format!("{PROVED}{name}"), constraint));
    ask
}

/// The keys that were proved.
pub(super) struct Proved<'a> {
    /// Each with its constraint.
    keys: Vec<(&'a str, &'a str)>,
    /// How many have no row, so that nothing is proved of them.
    pub(super) empty: u64,
    /// How many rows refer to something, where all of them were counted.
    pub(super) rows: Option<u64>,
}

impl<'a> Proved<'a> {
    pub(super) fn of(measured: &'a Measured) -> Self {
        let mut proved = Self {
            keys: Vec::new(),
            empty: 0,
            rows: Some(0),
        };
        let names = measured
            .labels()
            .filter_map(|label| label.strip_prefix(PROVED));
        for key in names {
            let label = format!("{REFERENCING}{key}");
            let counted = measured.has(&label).then(|| measured.count(&label));
            let has_rows = match counted {
                Some(rows) => rows > 0,
                None => measured.count(&Measure::any(&label)) > 0,
            };
            if has_rows {
                let constraint = measured.text(&format!("{PROVED}{key}"));
                proved.keys.push((key, constraint.unwrap_or_default()));
                proved.rows = proved.rows.zip(counted).map(|(sum, rows)| sum + rows);
            } else {
                proved.empty += 1;
            }
        }
        proved
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// "all rows refer to a row that is there, through 2 foreign keys, each proved by its constraint".
    pub(super) fn alone(&self) -> String {
        let rows = self.rows.map(|rows| rows_of(rows, "row"));
        format!(
            "{} refer to a row that is there, through {}, {}proved by its constraint",
            rows.unwrap_or_else(|| "all rows".to_owned()),
            rows_of(self.keys.len() as u64, "foreign key"),
            if self.keys.len() == 1 { "" } else { "each " }
        )
    }

    /// "; 2 more proved by their constraints", beside what was looked at.
    pub(super) fn beside(&self) -> String {
        match self.keys.len() as u64 {
            0 => String::new(),
            1 => "; 1 more proved by its constraint".to_owned(),
            n => format!("; {} more proved by their constraints", count(n)),
        }
    }

    /// Which they are.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.keys.iter().map(|(key, constraint)| Finding {
            what: format!("{key}: not scanned, proved by `{constraint}`"),
            is_failure: false,
            repair: None,
        })
    }
}
