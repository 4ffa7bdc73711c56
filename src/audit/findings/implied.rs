//! References that are only in the names: `game_id` without a constraint, and a table `games`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::catalog::{Catalog, Name, Table};
use crate::audit::names::{entity, is_plural, leftover, referred, singular, words};

/// A column that by its name refers to a table, and has no constraint.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Implied {
    /// The table of the column.
    pub table: Name,
    /// The column.
    pub column: String,
    /// Its type.
    pub type_name: String,
    /// The table that it refers to by its name.
    pub references: Name,
    /// The column there.
    pub referenced_column: String,
    /// The type there.
    pub referenced_type: String,
    /// Whether a unique index covers the column there.
    pub is_target_unique: bool,
    /// Other tables that the name fits as well.
    pub alternatives: Vec<Name>,
    /// Whether one of those fits just as well as this one.
    pub is_tied: bool,
    /// Of a column that nothing keeps unique: which share of its values are different, by the last
    /// ANALYZE; null where that is unknown or may not be read.
    pub target_distinct: Option<f64>,
    /// Rows that refer to nothing; null where that was not counted.
    pub orphans: Option<u64>,
}

impl Implied {
    /// Whether the two types can be compared, and so can have a key.
    pub fn is_comparable(&self) -> bool {
        family(&self.type_name) == family(&self.referenced_type)
    }

    /// Whether it counts as broken: unless what it seems to refer to is no key, and no row is amiss.
    pub fn is_broken(&self) -> bool {
        !self.is_repeating() || self.orphans.is_some_and(|orphans| orphans > 0)
    }

    /// Whether the target's values are known to repeat, so that the column alone is no key of it and
    /// the reference is to something else, or has more columns.
    pub fn is_repeating(&self) -> bool {
        self.target_distinct.is_some_and(|share| share < 0.95)
    }
}

/// Types whose values a key can compare with each other.
pub(super) fn family(type_name: &str) -> &str {
    let bare = type_name.split('(').next().unwrap_or(type_name).trim_end();
    match bare {
        "smallint" | "integer" | "bigint" | "numeric" => "number",
        "text" | "character varying" | "character" | "citext" => "text",
        other => other,
    }
}

/// A table that columns may refer to.
struct Target<'a> {
    table: &'a Table,
    /// Its own words, as an entity.
    entity: String,
    /// Columns that a unique index covers alone, the primary key first.
    unique: Vec<&'a str>,
    /// Columns that are part of a unique index over several.
    partly: BTreeSet<&'a str>,
    referenced: usize,
    is_leftover: bool,
}

/// Names of more tables than this say nothing about which of them is meant.
const TOO_MANY: usize = 500;
/// What a guess is worth that declared keys of other tables make, and one whose types fit.
const USED: u32 = 100;
const FITS: u32 = 20;

/// The references that are only in the names, in the order of the tables.
///
/// A column refers to an entity when it ends in `id`, `key`, `uuid`, `guid` or `fk`. What it refers to
/// is, in this order: the table that keys of other tables' columns of the same name point to; the table
/// of that name (`game_id` → `game`, `games`); the table that the end of the name names
/// (`home_team_id` → `teams`); a table with the entity in the plural or at its end (`enhanced_games`,
/// `ml_experiments`); the table whose primary key is a column of that very name. A primary key of one
/// column, a view, a partition and a column that is part of a declared key are left alone, as is a
/// guess whose types do not fit, except where the table is named exactly so.
pub fn implied_keys(catalog: &Catalog) -> Vec<Implied> {
    let guesses = Guesses::new(catalog);
    let mut declared: BTreeSet<(&Name, &str)> = BTreeSet::new();
    for key in &catalog.keys {
        declared.extend(
            key.columns
                .iter()
                .map(|column| (&key.table, column.as_str())),
        );
    }
    let mut found = Vec::new();
    for table in catalog.tables.iter().filter(|table| table.is_own()) {
        for column in &table.columns {
            let is_own = table.primary_key.len() == 1 && table.primary_key[0] == column.name;
            if is_own || declared.contains(&(&table.name, column.name.as_str())) {
                continue;
            }
            if let Some(stem) = referred(&column.name) {
                found.extend(guesses.guess(table, &column.name, &column.type_name, &stem));
            }
        }
    }
    found
}

struct Guesses<'a> {
    targets: Vec<Target<'a>>,
    /// Targets by their entity, by every end of it, and by a plural in it.
    by_entity: HashMap<String, Vec<usize>>,
    by_part: HashMap<String, Vec<usize>>,
    by_key: HashMap<String, Vec<usize>>,
    /// Targets of declared keys by the referencing column's name: how many keys, and to which column.
    by_use: HashMap<String, BTreeMap<usize, (usize, &'a str)>>,
}

impl<'a> Guesses<'a> {
    fn new(catalog: &'a Catalog) -> Self {
        let mut by_name = BTreeMap::new();
        let mut targets = Vec::new();
        let indexes = catalog.indexes_by_table();
        for (at, table) in catalog
            .tables
            .iter()
            .enumerate()
            .filter(|(_, table)| table.is_own())
        {
            let words = words(&table.name.name);
            let mut unique: Vec<&str> = Vec::new();
            let mut partly = BTreeSet::new();
            for index in indexes[at].iter().map(|index| &catalog.indexes[*index]) {
                if !index.is_unique
                    || !index.is_valid
                    || index.predicate.is_some()
                    || index.expressions.is_some()
                {
                    continue;
                }
                match index.columns.as_slice() {
                    [column] if index.is_primary => unique.insert(0, column),
                    [column] => unique.push(column),
                    columns => partly.extend(columns.iter().map(String::as_str)),
                }
            }
            by_name.insert(&table.name, targets.len());
            targets.push(Target {
                table,
                entity: entity(&words),
                unique,
                partly,
                referenced: 0,
                is_leftover: leftover(&words).is_some(),
            });
        }
        let mut by_use: HashMap<String, BTreeMap<usize, (usize, &str)>> = HashMap::new();
        for key in &catalog.keys {
            if let Some(&target) = by_name.get(&key.references) {
                targets[target].referenced += 1;
                let columns = (key.columns.as_slice(), key.referenced_columns.as_slice());
                if let (([column], [referenced]), true) = (columns, key.table != key.references) {
                    let uses = by_use.entry(column.to_lowercase()).or_default();
                    uses.entry(target).or_insert((0, referenced)).0 += 1;
                }
            }
        }
        let mut guesses = Self {
            targets,
            by_entity: HashMap::new(),
            by_part: HashMap::new(),
            by_key: HashMap::new(),
            by_use,
        };
        guesses.index();
        guesses
    }

    fn index(&mut self) {
        for (at, target) in self.targets.iter().enumerate() {
            let words = words(&target.table.name.name);
            self.by_entity
                .entry(target.entity.clone())
                .or_default()
                .push(at);
            let mut parts: BTreeSet<String> = (1..words.len())
                .map(|from| entity(&words[from..]))
                .collect();
            parts.extend(
                words
                    .iter()
                    .filter(|word| is_plural(word))
                    .map(|word| singular(word)),
            );
            parts.remove(&target.entity);
            for part in parts {
                self.by_part.entry(part).or_default().push(at);
            }
            if let [column] = target.table.primary_key.as_slice() {
                self.by_key
                    .entry(column.to_lowercase())
                    .or_default()
                    .push(at);
            }
        }
    }

    /// What a column refers to, if its name says so.
    fn guess(
        &self,
        table: &Table,
        column: &str,
        type_name: &str,
        stem: &[String],
    ) -> Option<Implied> {
        let mut scores: BTreeMap<usize, u32> = BTreeMap::new();
        let mut offer = |targets: Option<&Vec<usize>>, score: u32| {
            for at in targets.into_iter().flatten().take(TOO_MANY) {
                let best = scores.entry(*at).or_default();
                *best = score.max(*best);
            }
        };
        let whole = entity(stem);
        let lower = column.to_lowercase();
        offer(self.by_entity.get(&whole), 80);
        for from in 1..stem.len() {
            offer(self.by_entity.get(&entity(&stem[from..])), 60);
        }
        offer(self.by_part.get(&whole), 50);
        offer(
            self.by_key
                .get(&lower)
                .filter(|targets| targets.len() <= 50),
            40,
        );
        let used = self.by_use.get(&lower);
        for (at, (uses, _)) in used.into_iter().flatten() {
            let uses = u32::try_from(*uses).unwrap_or(u32::MAX).min(9);
            scores.insert(*at, USED + uses);
        }
        let is_named = scores.values().any(|score| *score >= 80);
        let mut ranked: Vec<(u32, u32, usize, &str, bool)> = Vec::new();
        for (at, score) in scores {
            let target = &self.targets[at];
            let is_self = target.table.name == table.name;
            // A table's own identifier refers to nothing; `parent_game_id` in `games` does.
            if is_self && score != 60 {
                // A master of what the column names is named by it, unless another table has just that name.
                if score >= 80 || score == 50 && !is_named {
                    return None;
                }
                continue;
            }
            let used = used
                .and_then(|used| used.get(&at))
                .map(|(_, column)| (*column, true));
            let Some((key, is_unique)) = used.or_else(|| target.key(&lower, &whole, score)) else {
                continue;
            };
            let key_type = target
                .table
                .column(key)
                .map_or("", |column| column.type_name.as_str());
            let fits = family(key_type) == family(type_name);
            if !fits && score < 80 {
                continue;
            }
            // What is sure about the guess first; what is merely near decides between equals.
            let sure = score + if fits { FITS } else { 0 } + if is_unique { 10 } else { 0 };
            let near = u32::from(target.table.name.schema == table.name.schema) * 8
                + u32::from(target.referenced > 0) * 4
                + u32::from(!target.is_leftover) * 2
                + u32::from(target.table.name.schema == "public");
            ranked.push((sure, near, at, key, is_unique));
        }
        ranked.sort_by(|a, b| (b.0, b.1, a.2).cmp(&(a.0, a.1, b.2)));
        let &(sure, near, at, key, is_target_unique) = ranked.first()?;
        let target = self.targets[at].table;
        let is_tied = ranked
            .get(1)
            .is_some_and(|other| (other.0, other.1) == (sure, near));
        let alternatives = ranked[1..]
            .iter()
            .filter(|other| (other.0, other.1) == (sure, near) || sure.min(other.0) >= USED + FITS)
            .map(|other| self.targets[other.2].table.name.clone());
        Some(Implied {
            table: table.name.clone(),
            column: column.to_owned(),
            type_name: type_name.to_owned(),
            references: target.name.clone(),
            referenced_column: key.to_owned(),
            referenced_type: target.column(key)?.type_name.clone(),
            is_target_unique,
            alternatives: alternatives.collect(),
            is_tied,
            target_distinct: None,
            orphans: None,
        })
    }
}

impl<'a> Target<'a> {
    /// The column that a reference by that name means, and whether it is unique: a unique column of the
    /// same name, the primary key when it is called `id` or after the entity, and for a table that is
    /// named exactly so a column of that name which nothing keeps unique.
    fn key(&self, column: &str, stem: &str, score: u32) -> Option<(&'a str, bool)> {
        let is_named = |name: &&&str| name.to_lowercase() == column;
        if let Some(same) = self.unique.iter().find(is_named) {
            return Some((same, true));
        }
        if score == 40 {
            return None;
        }
        let names_the_row = |name: &&&str| {
            let words = words(name);
            let stem_of = referred(name).map(|stem| entity(&stem));
            words.len() == 1 && matches!(words[0].as_str(), "id" | "uuid" | "guid" | "key")
                || stem_of.is_some_and(|own| {
                    own == stem || self.entity == own || stem.ends_with(&format!("_{own}"))
                })
        };
        if let Some(own) = self.unique.iter().find(names_the_row) {
            return Some((own, true));
        }
        let same = self
            .table
            .columns
            .iter()
            .find(|other| other.name.to_lowercase() == column)?;
        let is_loose = score == 80 && !self.partly.contains(same.name.as_str());
        is_loose.then_some((same.name.as_str(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::catalog::{Column, Index, Key};
    use rstest::rstest;

    /// Tables as `schema.name: column type, column! type`, where `!` is the primary key and `=` unique;
    /// keys as `schema.name.column > schema.name.column`.
    fn catalog(text: &str) -> Catalog {
        let mut catalog = Catalog::default();
        let name = |text: &str| {
            let (schema, name) = text.trim().split_once('.').expect("a name has a schema");
            Name::new(schema, name)
        };
        for line in text
            .split(';')
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            if let Some((from, to)) = line.split_once('>') {
                let (table, column) = from.trim().rsplit_once('.').expect("a column has a table");
                let (other, referenced) = to.trim().rsplit_once('.').expect("a column has a table");
                catalog.keys.push(Key {
                    table: name(table),
                    columns: vec![column.to_owned()],
                    references: name(other),
                    referenced_columns: vec![referenced.to_owned()],
                    ..Key::default()
                });
                continue;
            }
            let (table, columns) = line.split_once(':').expect("a table has columns");
            let mut found = Table {
                name: name(table),
                ..Table::default()
            };
            for column in columns.split(',') {
                let (column, type_name) =
                    column.trim().split_once(' ').expect("a column has a type");
                let bare = column.trim_end_matches(['!', '=']);
                if bare != column {
                    let is_primary = column.ends_with('!');
                    if is_primary {
                        found.primary_key = vec![bare.to_owned()];
                    }
                    catalog.indexes.push(Index {
                        table: catalog.tables.len(),
                        columns: vec![bare.to_owned()],
                        is_unique: true,
                        is_valid: true,
                        is_primary,
                        ..Index::default()
                    });
                }
                found.columns.push(Column {
                    number: 0,
                    name: bare.to_owned(),
                    type_name: type_name.to_owned(),
                    is_nullable: true,
                });
            }
            catalog.tables.push(found);
        }
        catalog
    }

    #[rstest]
    #[case::plural("a.games: id! int; a.bets: game_id int", "a.bets.game_id > a.games.id")]
    #[case::other_case("a.Game: ID! int; a.bets: gameId int", "a.bets.gameId > a.Game.ID")]
    #[case::own_name(
        "a.games: game_id! int; b.bets: game_id int",
        "b.bets.game_id > a.games.game_id"
    )]
    #[case::role(
        "a.teams: id! int; a.games: home_team_id int",
        "a.games.home_team_id > a.teams.id"
    )]
    #[case::itself(
        "a.games: id! int, parent_game_id int",
        "a.games.parent_game_id > a.games.id"
    )]
    #[case::prefixed(
        "a.ml_experiments: experiment_id! int; b.alerts: experiment_id int",
        "b.alerts.experiment_id > a.ml_experiments.experiment_id"
    )]
    #[case::qualified(
        "a.games_complete: id! int; b.bets: game_id int",
        "b.bets.game_id > a.games_complete.id"
    )]
    #[case::as_others_do(
        "a.games: id! int; a.fixtures: id! int; a.x: game_id int; a.y: game_id int; a.x.game_id > a.fixtures.id",
        "a.y.game_id > a.fixtures.id"
    )]
    #[case::the_near_one(
        "a.games: id! int; b.games: id! int; b.bets: game_id int",
        "b.bets.game_id > b.games.id"
    )]
    #[case::a_copy_last(
        "a.test_games: id! int; a.all_games: id! int; a.x: game_id int",
        "a.x.game_id > a.all_games.id"
    )]
    #[case::loose(
        "a.games: game_id int; a.bets: game_id int",
        "a.bets.game_id > a.games.game_id"
    )]
    #[case::no_such_table("a.games: id! int; a.bets: player_id int", "")]
    #[case::declared(
        "a.games: id! int; a.bets: game_id int; a.bets.game_id > a.games.id",
        ""
    )]
    #[case::its_own_key("a.games: game_id! int; a.weather: game_id! int", "")]
    #[case::its_own_name("a.games: id! int, game_id text", "")]
    #[case::other_systems("a.games: id! int; a.bets: external_game_id int", "")]
    #[case::no_reference("a.games: id! int; a.bets: game int, paid bool, id int", "")]
    #[case::unlike_and_far("a.all_games: id! int; a.bets: game_id text", "")]
    #[case::unlike_and_exact(
        "a.games: id! int; a.bets: game_id text",
        "a.bets.game_id > a.games.id"
    )]
    fn a_name_refers(#[case] tables: &str, #[case] expected: &str) {
        let found: Vec<String> = implied_keys(&catalog(tables))
            .iter()
            .map(|key| {
                let (from, to) = (&key.table, &key.references);
                format!("{from}.{} > {to}.{}", key.column, key.referenced_column)
            })
            .collect();
        assert_eq!(found.join("; "), expected);
    }

    #[test]
    fn what_fits_as_well_is_told() {
        let text = "a.games: id! int; b.games: id! int; c.bets: game_id int";
        let found = implied_keys(&catalog(text));
        assert_eq!(found[0].alternatives, [Name::new("b", "games")]);
        assert!(found[0].is_tied && found[0].is_target_unique);
    }
}
