//! What is wrong with a catalog: pure functions from [`Catalog`] to findings.
//!
//! Knows nothing of connections. A check sees the whole database; which findings are shown is decided
//! by the schemas that were asked for.

mod duplicates;
mod implied;
mod indexes;
mod keys;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

pub use implied::{Implied, implied_keys};

use super::catalog::{Catalog, Name};
use super::zones::Zones;
use crate::sql::Sql;

/// How bad a finding is, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Leads to wrong or slow answers sooner or later.
    High,
    /// Data may be wrong now and nothing prevents it.
    Critical,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $id:ident => $word:literal, $title:literal, $why:literal;)+) => {
        /// What sort of finding it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $($(#[doc = $doc])+ $id,)+ }

        impl Kind {
            /// Every kind, in the order they are shown.
            pub const ALL: &[Self] = &[$(Self::$id,)+];

            /// The word that machines read.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$id => $word,)+ }
            }

            /// The words that people read, in the plural.
            pub fn title(self) -> &'static str {
                match self { $(Self::$id => $title,)+ }
            }

            /// Why it matters.
            pub fn why(self) -> &'static str {
                match self { $(Self::$id => $why,)+ }
            }
        }
    };
}

kinds! {
    /// Rows refer to rows that are not there.
    OrphanedRows => "orphaned_rows", "orphaned rows",
        "what they refer to is not there: joins drop them without a word, and a valid key cannot be had before they are repaired";
    /// The key's triggers are switched off, or it is declared as not enforced.
    KeyNotEnforced => "key_not_enforced", "keys that are not enforced",
        "the key looks valid and checks nothing: every write may break it";
    /// The rows that were there before the key have not been checked.
    KeyNotValid => "key_not_valid", "keys that are not valid",
        "only new rows are checked; nobody knows whether the old ones hold, and the planner does not rely on it";
    /// Several tables hold the same entity.
    TwoMasters => "two_masters", "entities with several masters",
        "the same thing is kept twice: the copies drift apart, and what a join gives depends on which one it takes";
    /// A key that points against the flow of the zones.
    KeyAgainstFlow => "key_against_flow", "keys against the flow",
        "an earlier zone depends on a later one: neither can be loaded, moved or restored without the other";
    /// A column that by its name refers to a table, without a constraint.
    UndeclaredKey => "undeclared_key", "references without a constraint",
        "nothing keeps rows from referring to what is not there";
    /// A reference whose two sides have different types.
    KeyTypeMismatch => "key_type_mismatch", "references between different types",
        "values of one side may not fit the other, casts keep indexes from being used, and unlike types cannot have a key at all";
    /// A reference to columns that no unique index covers.
    KeyTargetNotUnique => "key_target_not_unique", "references to something that is not unique",
        "no key can be declared, and a join multiplies rows as soon as a value repeats";
    /// The same table name in several schemas.
    SameName => "same_name", "table names in several schemas",
        "which one is meant depends on the search path";
    /// The same columns under different names.
    SameShape => "same_shape", "tables of the same shape",
        "copies, or parts of what should be one table";
    /// Schemas that serve the same purpose.
    OverlappingSchemas => "overlapping_schemas", "schemas that overlap",
        "nobody knows which one to look in or to write to";
    /// A key into another schema or zone.
    CrossSchemaKey => "cross_schema_key", "keys that cross schemas",
        "neither side can be moved, restored or dropped without the other";
    /// A test, a copy or a leftover.
    TestTable => "test_table", "test tables and leftovers",
        "they are read by mistake, backed up and migrated for nothing, and make every inventory wrong";
    /// A table without a primary key.
    NoPrimaryKey => "no_primary_key", "tables without a primary key",
        "rows cannot be told apart: nothing prevents doubles, and logical replication cannot update or delete";
    /// An index that cannot be used.
    InvalidIndex => "invalid_index", "invalid indexes",
        "a build that failed: it costs every write and serves no query, and as a unique index it guarantees nothing about old rows";
    /// A reference whose columns no index leads with.
    KeyWithoutIndex => "key_without_index", "keys without an index on the referencing side",
        "every delete or change of the referenced row reads the whole referencing table";
    /// An index that another one makes superfluous.
    DuplicateIndex => "duplicate_index", "redundant indexes",
        "each costs space and slows every write; the other one answers the same queries";
    /// An index that no query used.
    UnusedIndex => "unused_index", "indexes that were never used",
        "each costs space and slows every write";
    /// A large table that is mostly read from end to end.
    SeqScannedTable => "seq_scanned_table", "large tables read from end to end",
        "an index on what those queries filter by is probably missing";
    /// A trigger that is switched off.
    DisabledTrigger => "disabled_trigger", "triggers that are switched off",
        "what they maintain is no longer maintained; they are often left off after a load";
    /// Tables with rows that were never analyzed.
    NeverAnalyzed => "never_analyzed", "tables that were never analyzed",
        "the planner guesses, and so does this report about their rows";
    /// A schema with nothing in it.
    EmptySchema => "empty_schema", "empty schemas",
        "a name without content, usually left over from a move";
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// What sort of finding it is.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, as a person writes it.
    pub object: String,
    /// The schemas it concerns.
    pub schemas: BTreeSet<String>,
    /// The tables it concerns, the one it is about first.
    pub tables: Vec<Name>,
    /// One sentence.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// SQL that would repair it, where there is such; never executed here.
    pub repair: Option<String>,
}

impl Finding {
    pub(super) fn new(
        kind: Kind,
        severity: Severity,
        object: String,
        tables: Vec<Name>,
        what: String,
    ) -> Self {
        Self {
            kind,
            severity,
            object,
            schemas: tables.iter().map(|table| table.schema.clone()).collect(),
            tables,
            what,
            why: kind.why().to_owned(),
            repair: None,
        }
    }

    pub(super) fn repair(mut self, sql: &Sql) -> Self {
        self.repair = Some(sql.as_str().to_owned());
        self
    }
}

/// What the checks share: the catalog, and ways into it.
pub(super) struct Known<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) implied: &'a [Implied],
    pub(super) zones: &'a Zones,
    pub(super) by_name: BTreeMap<&'a Name, usize>,
    pub(super) indexes: Vec<Vec<usize>>,
}

/// Everything that is wrong, worst first; the order depends on nothing but the catalog.
pub fn find(catalog: &Catalog, implied: &[Implied], zones: &Zones) -> Vec<Finding> {
    let known = Known {
        catalog,
        implied,
        zones,
        by_name: catalog.by_name(),
        indexes: catalog.indexes_by_table(),
    };
    let mut findings = keys::find(&known);
    findings.extend(duplicates::find(&known));
    findings.extend(tables::find(&known));
    findings.extend(indexes::find(&known));
    findings.sort_by(|a, b| {
        (b.severity, a.kind, &a.object, &a.what).cmp(&(a.severity, b.kind, &b.object, &b.what))
    });
    findings
}
