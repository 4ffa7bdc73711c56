//! Which gates have their offending rows named by a pass over their relation, in place of their own statements.
//!
//! A gate's own statement, `… order by key limit 10`, stops early only where an index gives the order and
//! offending rows are many. Where they are few, it reads all of the table, and by the index in the order of the keys,
//! which takes several times as long. How many they are is known by now. So gates with few have all of theirs taken
//! by one pass, of which each then sorts its own. Where they are many and named by where they lie, the first are in
//! the first blocks, and a pass reads no others. What a pass does not find, as far as the counts go, is asked for by
//! the gate's own statement.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::gate::catalog::{RelationInfo, Side};
use crate::gate::{Evidence, RowsOf};
use crate::sql;
use crate::sql::{Ident, Literal, Relation, Sql};

/// A gate with more offending rows than this does not have all of them taken.
const FEW: u64 = 10_000;
/// So many rows one pass takes at the most: each of its gates looks through all of them.
const ROWS_PER_PASS: u64 = 20_000;
/// Gates in one pass at the most.
const GATES_PER_PASS: usize = 50;
/// How many times more rows are taken, at the least, than would do if offending rows were spread evenly.
const MARGIN: u64 = 4;

/// A gate whose offending rows are to be named.
#[derive(Clone, Copy, Debug)]
pub struct Unnamed<'a> {
    /// Its index.
    pub gate: usize,
    /// How to name them.
    pub evidence: &'a Evidence,
    /// The relation that it is about.
    pub table: &'a RelationInfo,
    /// How many there are.
    pub count: u64,
    /// How many are named at the most.
    pub limit: usize,
}

/// One statement that names the offending rows of gates on one relation.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Which database it reads.
    pub side: Side,
    /// The statement. The first column of each row is the place of its part in `parts`, the last ones are what is
    /// shown of an offending row, in the order in which the gate names them; all are text.
    pub sql: Sql,
    /// Its gates.
    pub parts: Vec<Part>,
}

/// What a pass has for one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The gate's index.
    pub gate: usize,
    /// How many rows are to be named; a pass that has fewer has not found all of them.
    pub rows: usize,
    /// How many columns at the end of a row are the gate's.
    pub columns: usize,
}

/// The passes that are worth it; gates that are in none have their own statements.
pub fn passes(unnamed: &[Unnamed<'_>], with_values: bool) -> Vec<Pass> {
    let mut few: BTreeMap<(&Side, &Relation), Vec<Candidate<'_>>> = BTreeMap::new();
    let mut many = few.clone();
    for one in unnamed {
        let Some(one) = Candidate::of(*one, with_values) else {
            continue;
        };
        let of = (&one.evidence.side, &one.rows.relation);
        if one.count <= FEW {
            few.entry(of).or_default().push(one);
        } else if one.blocks.is_some_and(|blocks| blocks > 0) {
            many.entry(of).or_default().push(one);
        }
    }
    let mut passes = Vec::new();
    for mut gates in few.into_values() {
        gates.sort_by_key(|one| one.count);
        let groups = grouped(gates, |group| offending(group) <= ROWS_PER_PASS);
        let groups = groups.into_iter().filter(|group| reads_less(group));
        passes.extend(groups.map(|group| pass(&group, with_values, None)));
    }
    for mut gates in many.into_values() {
        gates.sort_by_key(|one| Reverse(one.count));
        let groups = grouped(gates, is_enough).into_iter();
        passes.extend(groups.map(|group| pass(&group, with_values, Some(first_blocks(&group)))));
    }
    passes
}

/// A gate that may share a pass.
#[derive(Clone)]
struct Candidate<'a> {
    gate: usize,
    evidence: &'a Evidence,
    rows: &'a RowsOf,
    count: u64,
    /// How many rows are to be named.
    wanted: u64,
    /// Whether an index may give the order of its rows.
    is_ordered: bool,
    /// How many blocks there are, where its rows are named by where they lie.
    blocks: Option<u64>,
}

impl<'a> Candidate<'a> {
    /// `None` for a gate whose rows a pass would not name the same, or at a price that it does not have alone.
    fn of(one: Unnamed<'a>, with_values: bool) -> Option<Self> {
        let rows = one.evidence.rows.as_ref()?;
        let key = &one.evidence.key;
        // Among rows of the same key it is up to the plan which comes first.
        if !one.table.is_told_apart_by(key) || one.limit == 0 {
            return None;
        }
        // Alone, a subquery is a join; beside other conditions it is run for each row.
        let columns = one.evidence.columns(with_values);
        let mut texts = columns.map(|column| &column.sql).chain([&rows.condition]);
        if texts.any(may_ask_tables) {
            return None;
        }
        Some(Self {
            gate: one.gate,
            evidence: one.evidence,
            rows,
            count: one.count,
            wanted: one.count.min(one.limit as u64),
            is_ordered: one.table.may_be_ordered_by(key),
            blocks: one.table.blocks_by(key),
        })
    }
}

/// Whether there may be a subquery in it; a name or a text with such a word in it is taken for one, too.
fn may_ask_tables(sql: &Sql) -> bool {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = sql.as_str().split(|c| !is_of_word(c));
    words.any(|word| word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("table"))
}

/// Gates in groups, each as long as it fits.
fn grouped<'a>(
    gates: Vec<Candidate<'a>>,
    fits: impl Fn(&[Candidate<'a>]) -> bool,
) -> Vec<Vec<Candidate<'a>>> {
    let mut groups: Vec<Vec<Candidate<'a>>> = Vec::new();
    for gate in gates {
        let Some(group) = groups.last_mut() else {
            groups.push(vec![gate]);
            continue;
        };
        group.push(gate);
        if group.len() > GATES_PER_PASS || !fits(group) {
            let gate = group.pop();
            groups.push(gate.into_iter().collect());
        }
    }
    groups
}

/// Whether a pass reads less than the gates' own statements, or the same in a better order. These go in the order of
/// an index as far as the last row that is named, which lies anywhere; without one always to the end.
fn reads_less(group: &[Candidate<'_>]) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let share = |one: &Candidate<'_>| match one.is_ordered {
        true => one.wanted as f64 / one.count.max(1) as f64,
        false => 1.0,
    };
    let is_gain = group.len() > 1 || group.iter().any(|one| one.is_ordered);
    is_gain && group.iter().map(share).sum::<f64>() >= 1.0
}

fn offending(group: &[Candidate<'_>]) -> u64 {
    group.iter().map(|one| one.count).sum()
}

/// Whether as many rows as a pass takes, of all gates together, probably hold those that each of them wants.
fn is_enough(group: &[Candidate<'_>]) -> bool {
    let all = offending(group);
    group.iter().all(|one| {
        let of_all = one.wanted.saturating_mul(all).div_ceil(one.count.max(1));
        of_all.saturating_mul(MARGIN) <= ROWS_PER_PASS
    })
}

/// The condition for the blocks in which about as many rows offend as a pass takes.
fn first_blocks(group: &[Candidate<'_>]) -> Sql {
    let blocks = group.iter().filter_map(|one| one.blocks).max().unwrap_or(0);
    let read = blocks.saturating_mul(ROWS_PER_PASS);
    let read = read
        .div_ceil(offending(group).max(1))
        .min(u64::from(u32::MAX));
    sql!("ctid < {}::tid", Literal(&format!("({read},0)")))
}

/// The pass for a group of gates, over the whole relation or where a condition holds.
fn pass(group: &[Candidate<'_>], with_values: bool, within: Option<Sql>) -> Pass {
    let lead = group.first().expect("a group has gates");
    let mut conditions = Distinct::new('b');
    let mut columns = Distinct::new('k');
    let named: Vec<(Ident, Vec<Ident>)> = group
        .iter()
        .map(|one| {
            let of_row = one.evidence.columns(with_values);
            let places = of_row.map(|column| columns.place(&column.sql)).collect();
            (conditions.place(&one.rows.condition), places)
        })
        .collect();
    let any = conditions.all.iter().map(|one| sql!("({})", one));
    let any = Sql::join(" or ", any);
    let condition = match within {
        Some(within) => sql!("{} and ({})", within, any),
        None => any,
    };
    // Materialized: it is read once, and no limit of a part makes it read in the order of an index.
    let offending = sql!(
        "select {} from {} where {}",
        Sql::join(", ", columns.named().chain(conditions.named())),
        lead.rows.relation,
        condition
    );
    let width = named.iter().map(|(_, places)| places.len()).max();
    let parts = group.iter().zip(&named).enumerate();
    let parts = parts.map(|(index, (one, (condition, places)))| {
        let own = sql!(
            "select {} from offending where {} order by {} limit {}",
            Sql::join(", ", places),
            condition,
            Sql::join(", ", &places[..one.evidence.key.len()]),
            one.wanted
        );
        let shown = one.evidence.shown(with_values, &own);
        let shown = shown.expect("what has a key has columns");
        let missing = width.unwrap_or(0).saturating_sub(places.len());
        let nulls = std::iter::repeat_n(sql!("null::text, "), missing);
        sql!(
            "(select {}, {}{})",
            Literal(&index.to_string()),
            Sql::join("", nulls),
            shown
        )
    });
    Pass {
        side: lead.evidence.side.clone(),
        sql: sql!(
            "with offending as materialized ({}) {}",
            offending,
            Sql::join(" union all ", parts)
        ),
        parts: group
            .iter()
            .zip(&named)
            .map(|(one, (_, places))| Part {
                gate: one.gate,
                rows: usize::try_from(one.wanted).unwrap_or(usize::MAX),
                columns: places.len(),
            })
            .collect(),
    }
}

/// Expressions, each once, under names of their own.
struct Distinct<'a> {
    letter: char,
    all: Vec<&'a Sql>,
}

impl<'a> Distinct<'a> {
    fn new(letter: char) -> Self {
        Self {
            letter,
            all: Vec::new(),
        }
    }

    /// The name of an expression.
    fn place(&mut self, expression: &'a Sql) -> Ident {
        let known = self.all.iter().position(|other| *other == expression);
        let place = known.unwrap_or_else(|| {
            self.all.push(expression);
            self.all.len() - 1
        });
        self.name(place)
    }

    fn name(&self, place: usize) -> Ident {
        Ident::new(format!("{}{place}", self.letter))
    }

    /// Each expression with its name.
    fn named(&self) -> impl Iterator<Item = Sql> {
        let all = self.all.iter().enumerate();
        all.map(|(place, one)| sql!("({}) as {}", one, self.name(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::catalog::{Column, RelationKind};
    use crate::gate::{Scope, Values};
    use crate::sql::{AuthorSql, Fixed};
    use rstest::rstest;

    fn column(name: &str) -> Column {
        Column {
            name: name.to_owned(),
            type_name: "text".to_owned(),
            category: 'S',
            is_not_null: name == "id",
            is_nullable: name != "id",
            is_masked: name == "mail",
        }
    }

    /// A table of a few columns with a primary key, or without.
    fn table(has_key: bool) -> RelationInfo {
        let key: Vec<Vec<String>> = has_key.then(|| vec!["id".to_owned()]).into_iter().collect();
        RelationInfo {
            relation: Relation::new("s", "t"),
            kind: RelationKind::Table,
            is_partition: false,
            columns: ["id", "mail", "note"].map(column).to_vec(),
            primary_key: key.concat(),
            unique_keys: key.clone(),
            indexes: key,
            proofs: Vec::new(),
            is_enforced: true,
            bytes: 1000 * 8192,
        }
    }

    /// How to name the rows of the table for which a condition holds, by a key of one's own or its own.
    fn evidence(table: &RelationInfo, key: &[&str], filter: Option<&str>, when: &Sql) -> Evidence {
        let scope = Scope {
            side: Side::Main,
            relation: table.relation.clone(),
            filter: filter.map(AuthorSql::new),
            sample: None,
        };
        let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
        Evidence::rows("n", &scope, table.row_key(&key).unwrap(), when)
    }

    fn unnamed<'a>(
        table: &'a RelationInfo,
        all: &'a [Evidence],
        count: impl Fn(usize) -> u64,
    ) -> Vec<Unnamed<'a>> {
        let all = all.iter().enumerate();
        all.map(|(gate, evidence)| Unnamed {
            gate,
            evidence,
            table,
            count: count(gate),
            limit: 2,
        })
        .collect()
    }

    fn shared(passes: &[Pass]) -> Vec<Vec<usize>> {
        let gates = |pass: &Pass| pass.parts.iter().map(|part| part.gate).collect();
        passes.iter().map(gates).collect()
    }

    #[rstest]
    #[case::each_would_read_all(true, &[2, 1], "[[1, 0]]")]
    #[case::one_would_read_all_by_its_index(true, &[2], "[[0]]")]
    #[case::one_reads_all_anyway(false, &[2], "[]")]
    // Two of four: an index finds them halfway, and twice a half is a whole.
    #[case::half_and_half(true, &[4, 4], "[[0, 1]]")]
    #[case::an_index_finds_them_soon(true, &[4, 5], "[]")]
    #[case::without_an_index_each_is_a_scan(false, &[900, 800], "[[1, 0]]")]
    #[case::too_many_for_one(false, &[9_000, 9_001, 9_002], "[[0, 1]]")]
    #[case::many_by_place(false, &[20_000, 50_000], "[[1, 0]]")]
    #[case::many_by_place_alone(false, &[20_000], "[[0]]")]
    #[case::many_by_an_index(true, &[20_000, 50_000], "[]")]
    #[case::few_and_many(false, &[1, 20_000, 3, 50_000], "[[0, 2], [3, 1]]")]
    #[case::too_rare_among_the_first(false, &[10_001, 900_000_000], "[[1], [0]]")]
    fn gates_share_a_pass_that_reads_less(
        #[case] has_key: bool,
        #[case] counts: &[u64],
        #[case] expected: &str,
    ) {
        let table = table(has_key);
        let all = (0..counts.len()).map(|n| evidence(&table, &[], None, &sql!("note = {}", n)));
        let all: Vec<Evidence> = all.collect();
        let unnamed = unnamed(&table, &all, |gate| counts[gate]);
        assert_eq!(format!("{:?}", shared(&passes(&unnamed, false))), expected);
    }

    #[rstest]
    #[case::rows_of_one_key_in_any_order(&["note"], None, "true")]
    #[case::a_key_that_may_be_null(&["mail"], None, "true")]
    #[case::a_subquery(&[], Some("exists (Select 1)"), "true")]
    #[case::another(&[], Some("note in (table s.u)"), "true")]
    fn what_a_pass_might_name_otherwise_stays_alone(
        #[case] key: &[&str],
        #[case] filter: Option<&str>,
        #[case] when: &'static str,
    ) {
        let mut table = table(true);
        table.unique_keys.push(vec!["mail".to_owned()]);
        let one = evidence(&table, key, filter, &sql!("{}", Fixed(when)));
        let plain = || {
            evidence(
                &table,
                &["note", "id"],
                Some("\"selected\" > 1"),
                &sql!("true"),
            )
        };
        let all = [plain(), one, plain()];
        let among = passes(&unnamed(&table, &all, |_| 1), false);
        assert_eq!(shared(&among), [[0, 2]]);
    }

    #[test]
    fn the_rows_of_a_table_that_others_inherit_from_are_not_told_apart() {
        let mut table = table(false);
        table.is_enforced = false;
        let all = [(); 2].map(|()| evidence(&table, &[], None, &sql!("true")));
        assert!(passes(&unnamed(&table, &all, |_| 1), false).is_empty());
    }

    #[test]
    fn a_pass_asks_for_each_condition_and_column_once() {
        let table = table(true);
        let shown = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let columns = table.shown(&names).unwrap();
            Values {
                columns,
                is_named: true,
            }
        };
        let late = || {
            evidence(
                &table,
                &[],
                Some("note > 'x' -- late"),
                &sql!("mail is null"),
            )
        };
        let all = [
            late().showing(shown(&["note", "mail"])),
            evidence(&table, &["mail", "id"], None, &sql!("note is null")),
            late(),
        ];
        let passes = passes(&unnamed(&table, &all, |_| 2), true);
        let [pass] = passes.as_slice() else {
            panic!("one pass is enough");
        };
        insta::assert_snapshot!(pass.sql.as_str());
        let columns = pass.parts.iter().map(|part| (part.gate, part.columns));
        assert_eq!(columns.collect::<Vec<_>>(), [(0, 3), (1, 2), (2, 1)]);
    }

    #[test]
    fn of_many_the_first_blocks_are_read() {
        let mut table = table(false);
        let all =
            ["a", "b"].map(|note| evidence(&table, &[], None, &sql!("note = {}", Literal(note))));
        let counts = [100_000, 25_000];
        let first = passes(&unnamed(&table, &all, |gate| counts[gate]), false);
        // 125 offend in each of a thousand blocks.
        let condition = r#" where ctid < '(160,0)'::tid and ((note = 'a') or (note = 'b'))) "#;
        assert!(
            first[0].sql.as_str().contains(condition),
            "{}",
            first[0].sql
        );
        // Nobody knows how many there are.
        table.bytes = 0;
        let none = passes(&unnamed(&table, &all, |gate| counts[gate]), false);
        assert!(none.is_empty());
    }
}
