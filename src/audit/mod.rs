//! What there is in a database and what is wrong with it: schemas, tables, keys, as one [`Audit`] value.
//!
//! [`audit`] reads `pg_catalog` on one read-only snapshot; everything after that is a pure
//! function: references that are only in names ([`findings::implied_keys`]), findings
//! ([`findings::find`]), and the renderings in [`report::audit`](crate::report::audit). It needs no
//! privilege on any table, unless orphans are to be counted.

pub mod catalog;
pub mod findings;
mod names;
mod orphans;
mod read;
pub(crate) mod words;
pub mod zones;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

pub use catalog::{Catalog, Column, Index, Key, Name, Schema, Table, TableKind};
pub use findings::{Finding, Implied, Kind, Severity};
pub use zones::{Crossing, Zones};

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::matches;
use crate::pg::{Address, Limits, Session, Snapshot};

/// What an audit looks at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How long things may take.
    pub limits: Limits,
    /// Which schemas, as patterns in which `*` stands for any text; all of the user's when empty.
    pub schemas: Vec<String>,
    /// Zones as `(name, schemas)`.
    pub zones: Vec<(String, Vec<String>)>,
    /// The order in which data passes the zones.
    pub flow: Vec<String>,
    /// Whether to count the rows that refer to nothing; it reads every referencing table.
    pub is_counting_orphans: bool,
    /// From which severity on a finding makes the exit code 1; never when `None`.
    pub fail_on: Option<Severity>,
}

/// Everything an audit has to say.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Audit {
    /// The version of this format: 1.
    pub version: u32,
    /// The database, without its password.
    pub target: String,
    /// The one moment that everything was read at.
    pub snapshot: Snapshot,
    /// How fragmented the database is, in numbers.
    pub summary: Summary,
    /// The schemas that were asked for, by name.
    pub schemas: Vec<Schema>,
    /// Their relations, by name.
    pub tables: Vec<Table>,
    /// The declared foreign keys from or to them.
    pub keys: Vec<Key>,
    /// The references from or to them that are only in names.
    pub implied_keys: Vec<Implied>,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// What could not be told, or only in part.
    pub notes: Vec<String>,
    /// Zones, for the renderings.
    #[serde(skip)]
    pub zones: Zones,
}

/// How fragmented a database is, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// 0, or 1 when a finding is as severe as was asked for, or 3 when orphans could not be counted.
    pub exit_code: u8,
    /// Schemas that are the user's.
    pub schemas: usize,
    /// Tables, without partitions.
    pub tables: usize,
    /// Partitions of tables.
    pub partitions: usize,
    /// Views.
    pub views: usize,
    /// Materialized views.
    pub materialized_views: usize,
    /// Foreign tables.
    pub foreign_tables: usize,
    /// Sequences.
    pub sequences: u64,
    /// Functions, procedures and aggregates.
    pub functions: u64,
    /// Rows, estimated.
    pub rows_estimated: u64,
    /// Bytes with indexes and TOAST.
    pub bytes: u64,
    /// Declared foreign keys.
    pub foreign_keys: usize,
    /// References that do not hold or that nothing holds: not valid, not enforced, undeclared, with
    /// orphans, between different types without a key, or to something that is not unique.
    pub broken_keys: usize,
    /// Declared keys into another schema.
    pub cross_schema_keys: usize,
    /// Declared keys into another zone; null where no zone was named.
    pub cross_zone_keys: Option<usize>,
    /// Declared keys against the flow; null where no flow was named.
    pub keys_against_flow: Option<usize>,
    /// Declared keys without an index on the referencing side.
    pub keys_without_index: usize,
    /// Test tables and leftovers.
    pub test_tables: usize,
    /// Groups of tables: same name in several schemas, same shape, masters of one entity.
    pub duplicate_groups: usize,
    /// Entities with several masters, part of the groups above.
    pub entities_with_several_masters: usize,
    /// Groups of schemas that overlap.
    pub overlapping_schemas: usize,
    /// Tables without a primary key.
    pub tables_without_primary_key: usize,
    /// Indexes.
    pub indexes: usize,
    /// Indexes that another one makes superfluous.
    pub redundant_indexes: usize,
    /// Indexes that were never used.
    pub unused_indexes: usize,
    /// Indexes that cannot be used.
    pub invalid_indexes: usize,
    /// Critical findings.
    pub critical: usize,
    /// High findings.
    pub high: usize,
    /// Findings worth knowing.
    pub info: usize,
}

/// Audits a database: reads its catalog, and its tables only where orphans are to be counted.
pub async fn audit(address: &Address, options: &Options) -> Result<Audit> {
    check_zones(options)?;
    let mut session = Session::open(address, &options.limits, "").await?;
    let read = read_all(&mut session, options).await;
    let snapshot = session.snapshot().clone();
    session.close().await;
    let (catalog, implied) = read?;
    Ok(Audit::new(
        catalog,
        implied,
        address.to_string(),
        snapshot,
        options,
    ))
}

async fn read_all(session: &mut Session, options: &Options) -> Result<(Catalog, Vec<Implied>)> {
    let mut catalog = read::read(session).await?;
    check_names(&catalog, options)?;
    let mut implied = findings::implied_keys(&catalog);
    read::distinct(session, &catalog, &mut implied).await?;
    if options.is_counting_orphans {
        let is_asked = |schema: &str| is_selected(options, schema);
        // References of schemas that nobody asked about are neither counted nor shown.
        catalog
            .keys
            .retain(|key| is_asked(&key.table.schema) || is_asked(&key.references.schema));
        implied.retain(|implied| {
            is_asked(&implied.table.schema) || is_asked(&implied.references.schema)
        });
        let uncounted = orphans::count(session, &mut catalog.keys, &mut implied).await?;
        catalog.notes.extend(uncounted);
    }
    Ok((catalog, implied))
}

/// A schema has one zone, and the flow is one of zones.
fn check_zones(options: &Options) -> Result<()> {
    let mut zone_of: BTreeMap<&str, &str> = BTreeMap::new();
    for (zone, schemas) in &options.zones {
        for schema in schemas {
            match zone_of.insert(schema, zone) {
                Some(other) if other != zone => {
                    let message =
                        format!("the schema `{schema}` is in two zones: `{other}` and `{zone}`");
                    return Err(Error::usage(message));
                }
                _ => {}
            }
        }
    }
    for step in &options.flow {
        let is_zone = options.zones.iter().any(|(zone, _)| zone == step);
        if let (Some(zone), false) = (zone_of.get(step.as_str()), is_zone) {
            let message =
                format!("the flow passes the schema `{step}`, which is in the zone `{zone}`");
            return Err(Error::usage(message).help(format!("name the zone in --flow: `{zone}`")));
        }
    }
    Ok(())
}

/// A pattern, zone or step of the flow that names nothing would pass for a clean answer.
fn check_names(catalog: &Catalog, options: &Options) -> Result<()> {
    let names: Vec<&str> = catalog
        .schemas
        .iter()
        .map(|schema| schema.name.as_str())
        .collect();
    let zones = Zones::new(&options.zones, options.flow.clone());
    let unknown = options
        .schemas
        .iter()
        .find(|pattern| !names.iter().any(|name| matches(pattern, name)))
        .map(|pattern| (pattern.as_str(), format!("no schema matches `{pattern}`")));
    let unknown = unknown.or_else(|| {
        let mut schemas = zones.schemas();
        let schema = schemas.find(|schema| !names.contains(schema))?.to_owned();
        let name = options
            .flow
            .iter()
            .chain(options.zones.iter().flat_map(|(_, schemas)| schemas))
            .find(|name| **name == schema)?;
        Some((
            name,
            format!("`{schema}` is neither a zone nor a schema of this database"),
        ))
    });
    let Some((name, message)) = unknown else {
        return Ok(());
    };
    let error = Error::new(ErrorKind::Database, message);
    Err(match crate::error::nearest(name, names) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error,
    })
}

fn is_selected(options: &Options, schema: &str) -> bool {
    options.schemas.is_empty()
        || options
            .schemas
            .iter()
            .any(|pattern| matches(pattern, schema))
}

impl Audit {
    /// Judges a catalog and keeps what concerns the schemas that were asked for.
    pub fn new(
        catalog: Catalog,
        implied: Vec<Implied>,
        target: String,
        snapshot: Snapshot,
        options: &Options,
    ) -> Self {
        let zones = Zones::new(&options.zones, options.flow.clone());
        let mut findings = findings::find(&catalog, &implied, &zones);
        let is_asked = |schema: &str| is_selected(options, schema);
        let indexes = catalog
            .indexes
            .iter()
            .filter(|index| {
                !index.is_partition && is_asked(&catalog.tables[index.table].name.schema)
            })
            .count();
        let notes = notes(&catalog, indexes);
        let Catalog {
            mut schemas,
            mut tables,
            mut keys,
            ..
        } = catalog;
        let mut implied = implied;
        schemas.retain(|schema| is_asked(&schema.name));
        tables.retain(|table| is_asked(&table.name.schema));
        keys.retain(|key| is_asked(&key.table.schema) || is_asked(&key.references.schema));
        implied.retain(|implied| {
            is_asked(&implied.table.schema) || is_asked(&implied.references.schema)
        });
        findings.retain(|finding| finding.schemas.iter().any(|schema| is_asked(schema)));
        let mut audit = Self {
            version: 1,
            target,
            snapshot,
            summary: Summary::default(),
            schemas,
            tables,
            keys,
            implied_keys: implied,
            findings,
            notes,
            zones,
        };
        audit.summary = audit.sum_up(indexes, options);
        audit
    }

    fn sum_up(&self, indexes: usize, options: &Options) -> Summary {
        let of = |kind: Kind| {
            self.findings
                .iter()
                .filter(|found| found.kind == kind)
                .count()
        };
        let at = |severity: Severity| {
            self.findings
                .iter()
                .filter(|found| found.severity == severity)
                .count()
        };
        let sum = |size: fn(&Schema) -> u64| self.schemas.iter().map(size).sum::<u64>();
        let number = |size: fn(&Schema) -> usize| self.schemas.iter().map(size).sum::<usize>();
        let crossing = |wanted: fn(Crossing) -> bool| {
            self.keys
                .iter()
                .filter(|key| wanted(self.zones.crossing(key)))
                .count()
        };
        let broken_declared: BTreeSet<(&Name, &[String])> = self
            .keys
            .iter()
            .filter(|key| key.is_broken())
            .map(|key| (&key.table, key.columns.as_slice()))
            .collect();
        let uncounted = options.is_counting_orphans
            && (self.keys.iter().any(|key| key.orphans.is_none())
                || self
                    .implied_keys
                    .iter()
                    .any(|key| key.is_comparable() && key.orphans.is_none()));
        let fails = options.fail_on.is_some_and(|least| {
            self.findings
                .iter()
                .any(|finding| finding.severity >= least)
        });
        Summary {
            exit_code: if uncounted { 3 } else { u8::from(fails) },
            schemas: self.schemas.len(),
            tables: number(|schema| schema.tables),
            partitions: number(|schema| schema.partitions),
            views: number(|schema| schema.views),
            materialized_views: number(|schema| schema.materialized_views),
            foreign_tables: number(|schema| schema.foreign_tables),
            sequences: sum(|schema| schema.sequences),
            functions: sum(|schema| schema.functions),
            rows_estimated: sum(|schema| schema.rows_estimated),
            bytes: sum(|schema| schema.bytes),
            foreign_keys: self.keys.len(),
            broken_keys: broken_declared.len()
                + self
                    .implied_keys
                    .iter()
                    .filter(|key| key.is_broken())
                    .count(),
            cross_schema_keys: self
                .keys
                .iter()
                .filter(|key| key.table.schema != key.references.schema)
                .count(),
            cross_zone_keys: (!self.zones.is_empty())
                .then(|| crossing(|crossing| crossing != Crossing::None)),
            keys_against_flow: (!options.flow.is_empty())
                .then(|| crossing(|crossing| crossing == Crossing::Against)),
            keys_without_index: of(Kind::KeyWithoutIndex),
            test_tables: of(Kind::TestTable),
            duplicate_groups: of(Kind::SameName) + of(Kind::SameShape) + of(Kind::TwoMasters),
            entities_with_several_masters: of(Kind::TwoMasters),
            overlapping_schemas: of(Kind::OverlappingSchemas),
            tables_without_primary_key: of(Kind::NoPrimaryKey),
            indexes,
            redundant_indexes: of(Kind::DuplicateIndex),
            unused_indexes: of(Kind::UnusedIndex),
            invalid_indexes: of(Kind::InvalidIndex),
            critical: at(Severity::Critical),
            high: at(Severity::High),
            info: at(Severity::Info),
        }
    }
}

/// What the numbers cannot tell.
fn notes(catalog: &Catalog, indexes: usize) -> Vec<String> {
    let mut notes = catalog.notes.clone();
    if indexes > 0 && catalog.indexes.iter().all(|index| index.scans == 0) {
        notes.push(
            "no index was used since the server began to count: which ones are never used cannot be told".to_owned(),
        );
    }
    if catalog.in_recovery {
        notes.push("this is a hot standby: how tables and indexes are used is counted here, not on the primary".to_owned());
    }
    notes
}
