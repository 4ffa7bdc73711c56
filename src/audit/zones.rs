//! Zones: groups of schemas with a direction in which data flows through them.

use std::collections::BTreeMap;

use super::catalog::Key;

/// Which schemas belong to which zone, and in which order data passes the zones.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    /// Zone by schema.
    by_schema: BTreeMap<String, String>,
    /// The zones in the order of the flow.
    flow: Vec<String>,
}

/// How a key lies between zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// It stays within a schema or a zone.
    None,
    /// It leaves its zone, in the direction of the flow or where no flow says anything.
    Across,
    /// It points from an earlier zone to a later one.
    Against,
}

impl Zones {
    /// Zones as `(name, schemas)`, and the flow as names of zones or of schemas that are a zone each.
    pub fn new(zones: &[(String, Vec<String>)], flow: Vec<String>) -> Self {
        let mut by_schema: BTreeMap<String, String> = flow
            .iter()
            .map(|zone| (zone.clone(), zone.clone()))
            .collect();
        for (zone, schemas) in zones {
            // A zone that has schemas of its own holds just those.
            by_schema.remove(zone);
            for schema in schemas {
                by_schema.insert(schema.clone(), zone.clone());
            }
        }
        Self { by_schema, flow }
    }

    /// The zone of a schema; a schema in none is its own.
    pub fn of<'a>(&'a self, schema: &'a str) -> &'a str {
        self.by_schema
            .get(schema)
            .map_or(schema, |zone| zone.as_str())
    }

    /// Whether any zone was named.
    pub fn is_empty(&self) -> bool {
        self.by_schema.is_empty()
    }

    /// The zones in the order of the flow.
    pub fn flow(&self) -> &[String] {
        &self.flow
    }

    /// The schemas that are named and the zones of the flow, for the question whether they exist.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.by_schema.keys().map(String::as_str)
    }

    /// Where a schema stands in the flow.
    pub fn position(&self, schema: &str) -> Option<usize> {
        let zone = self.of(schema);
        self.flow.iter().position(|other| other == zone)
    }

    /// How a key between two schemas lies. Data flows from the first zone to the last, and a key may
    /// point to its own zone or to an earlier one: what it refers to is loaded before it.
    pub fn between(&self, from: &str, to: &str) -> Crossing {
        if self.of(from) == self.of(to) {
            return Crossing::None;
        }
        match (self.position(from), self.position(to)) {
            (Some(from), Some(to)) if from < to => Crossing::Against,
            _ => Crossing::Across,
        }
    }

    /// How a declared key lies.
    pub fn crossing(&self, key: &Key) -> Crossing {
        self.between(&key.table.schema, &key.references.schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("staging", "raw_data", Crossing::Across)]
    #[case("raw_data", "action_network", Crossing::None)]
    #[case("action_network", "curated", Crossing::Against)]
    #[case("curated", "staging", Crossing::Across)]
    #[case("monitoring", "curated", Crossing::Across)]
    #[case("curated", "curated", Crossing::None)]
    fn a_key_may_point_to_what_is_loaded_before(
        #[case] from: &str,
        #[case] to: &str,
        #[case] expected: Crossing,
    ) {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let zones = Zones::new(
            &[("raw".to_owned(), list("raw_data,action_network"))],
            list("raw,staging,curated"),
        );
        assert_eq!(zones.between(from, to), expected);
    }
}
