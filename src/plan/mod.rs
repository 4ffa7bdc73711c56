//! Step 3: what will be asked. Gates on one table share a scan, and a pass that names their offending rows.
//!
//! Knows no connection.

mod naming;
mod sampled;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::gate::catalog::Side;
use crate::gate::sampling::Sample;
use crate::gate::{Aggregate, Ask, Measure, Runs};
use crate::sql;
use crate::sql::{Relation, Sql};

use sampled::{Labelled, SampledScan};

pub use naming::{Part, Pass, Unnamed, passes};

/// Aggregates in one statement at the most; Postgres' own limit is 1664 output columns.
const AGGREGATES_PER_SCAN: usize = 800;

/// One statement and what depends on it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which database it reads.
    pub side: Side,
    /// The relation it scans.
    pub about: Relation,
    /// The statement: one row, every column text, unless it is timed.
    pub sql: Sql,
    /// How often it runs, where its time is what is asked for.
    pub timed: Option<Runs>,
    /// The gates that need its answer, by their index.
    pub gates: Vec<usize>,
    /// Which blocks of its relation it reads, where that is not all of them.
    pub sample: Option<Sample>,
    /// Whether the first row of its relation answers it.
    pub is_first_row: bool,
    /// How long it may take, where that is not up to the session.
    pub limit: Option<Duration>,
}

/// Where one value of a gate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The gate's name for it.
    pub label: String,
    /// The step.
    pub step: usize,
    /// The column of its row.
    pub column: usize,
}

/// All statements of a run, and for each gate where its values come from.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order in which the gates first need them.
    pub steps: Vec<Step>,
    /// By the gate's index.
    pub bindings: BTreeMap<usize, Vec<Binding>>,
}

/// Plans the asks of gates, each with its index: aggregates over the same relation of the same
/// database become one scan, equal ones are asked once, everything else stays a statement of its own,
/// and so does what a gate with a limit of its own asks.
pub fn plan<'a>(asks: impl IntoIterator<Item = (usize, &'a Ask)>) -> Plan {
    let mut plan = Plan::default();
    let mut scans: Vec<Scan<'a>> = Vec::new();
    let mut index: BTreeMap<(&'a Side, &'a Relation, Option<usize>), usize> = BTreeMap::new();
    let mut wanted: Vec<(usize, &'a str, usize, usize)> = Vec::new();
    let mut presences: Vec<(usize, &'a Aggregate)> = Vec::new();
    let mut limits: BTreeMap<usize, Duration> = BTreeMap::new();
    let mut samples = Samples::default();
    for (gate, ask) in asks {
        plan.bindings.entry(gate).or_default();
        limits.extend(ask.limit.map(|limit| (gate, limit)));
        let alone = ask.limit.map(|_| gate);
        for measure in &ask.measures {
            match measure {
                Measure::Aggregate(count) if count.sample.is_some() => {
                    samples.add(gate, alone, count);
                }
                Measure::Aggregate(aggregate) => {
                    let key = (&aggregate.side, &aggregate.relation, alone);
                    let slot = index
                        .get(&key)
                        .copied()
                        .filter(|slot| scans[*slot].has_room());
                    let slot = slot.unwrap_or_else(|| {
                        scans.push(Scan::default());
                        index.insert(key, scans.len() - 1);
                        scans.len() - 1
                    });
                    let column = scans[slot].add(gate, aggregate);
                    wanted.push((gate, &aggregate.label, slot, column));
                }
                Measure::Presence(aggregate) => presences.push((gate, aggregate)),
                Measure::Statement {
                    labels,
                    side,
                    about,
                    sql,
                } => {
                    let step = Step {
                        side: side.clone(),
                        about: about.clone(),
                        sql: sql.clone(),
                        timed: None,
                        gates: vec![gate],
                        sample: None,
                        is_first_row: false,
                        limit: None,
                    };
                    plan.add(gate, step, labels.iter().map(String::as_str));
                }
                Measure::Timed {
                    side,
                    about,
                    sql,
                    runs,
                } => {
                    let step = Step {
                        side: side.clone(),
                        about: about.clone(),
                        sql: sql.clone(),
                        timed: Some(*runs),
                        gates: vec![gate],
                        sample: None,
                        is_first_row: false,
                        limit: None,
                    };
                    let labels = [Measure::SAMPLES, Measure::ROWS, Measure::PLAN];
                    plan.add(gate, step, labels.into_iter());
                }
            }
        }
    }
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for (gate, rows) in presences {
        // Only where it makes no scan read more rows.
        let alone = limits.contains_key(&gate).then_some(gate);
        let slot = index.get(&(&rows.side, &rows.relation, alone)).copied();
        let slot = slot.filter(|slot| scans[*slot].has_room() && scans[*slot].reads(rows));
        if let Some(slot) = slot {
            let column = scans[slot].add(gate, rows);
            wanted.push((gate, &rows.label, slot, column));
        } else {
            plan.add_presence(gate, alone, rows, &mut known);
        }
    }
    let first_scan = plan.steps.len();
    plan.steps.extend(scans.into_iter().map(Scan::into_step));
    for (gate, label, slot, column) in wanted {
        plan.bindings.entry(gate).or_default().push(Binding {
            label: label.to_owned(),
            step: first_scan + slot,
            column,
        });
    }
    samples.end(&mut plan);
    for step in &mut plan.steps {
        if let [gate] = step.gates.as_slice() {
            step.limit = limits.get(gate).copied();
        }
    }
    plan
}

/// The passes over samples, while they are being filled.
#[derive(Default)]
struct Samples<'a> {
    scans: Vec<SampledScan<'a>>,
    index: BTreeMap<(&'a Side, &'a Relation, Sample, Option<usize>), usize>,
    /// By gate, the scan and what was added to it.
    wanted: Vec<(usize, usize, [Labelled; 3])>,
}

impl<'a> Samples<'a> {
    fn add(&mut self, gate: usize, alone: Option<usize>, count: &'a Aggregate) {
        let Some(sample) = count.sample else { return };
        let key = (&count.side, &count.relation, sample, alone);
        let known = self.index.get(&key).copied();
        let slot = known.filter(|slot| self.scans[*slot].has_room());
        let slot = slot.unwrap_or_else(|| {
            self.scans.push(SampledScan::new(sample));
            self.index.insert(key, self.scans.len() - 1);
            self.scans.len() - 1
        });
        let columns = self.scans[slot].add(gate, count);
        self.wanted.push((gate, slot, columns));
    }

    fn end(self, plan: &mut Plan) {
        let first = plan.steps.len();
        let scans = self.scans.into_iter();
        plan.steps.extend(scans.map(SampledScan::into_step));
        for (gate, slot, columns) in self.wanted {
            let bound = plan.bindings.entry(gate).or_default();
            bound.extend(columns.into_iter().map(|(label, column)| Binding {
                label,
                step: first + slot,
                column,
            }));
        }
    }
}

impl Plan {
    /// Adds a statement of its own.
    fn add<'a>(&mut self, gate: usize, step: Step, labels: impl Iterator<Item = &'a str>) {
        let index = self.steps.len();
        self.steps.push(step);
        let bound = self.bindings.entry(gate).or_default();
        bound.extend(labels.enumerate().map(|(column, label)| Binding {
            label: label.to_owned(),
            step: index,
            column,
        }));
    }

    /// Adds the question whether there is a row; gates that ask the same share it.
    fn add_presence(
        &mut self,
        gate: usize,
        alone: Option<usize>,
        rows: &Aggregate,
        known: &mut BTreeMap<String, usize>,
    ) {
        let conditions = [
            rows.filter.as_ref().map(|filter| sql!("({})", filter)),
            rows.when.as_ref().map(|when| sql!("({})", when)),
        ];
        let condition = Sql::join(" and ", conditions.into_iter().flatten());
        let condition = match condition.as_str() {
            "" => sql!(""),
            _ => sql!(" where {}", condition),
        };
        let sql = sql!(
            "select (exists (select from {}{}))::int::text",
            rows.relation,
            condition
        );
        let label = Measure::any(&rows.label);
        let key = format!("{:?} {alone:?} {}", rows.side, sql.as_str());
        if let Some(step) = known.get(&key) {
            self.steps[*step].gates.push(gate);
            self.bindings.entry(gate).or_default().push(Binding {
                label,
                step: *step,
                column: 0,
            });
            return;
        }
        known.insert(key, self.steps.len());
        let step = Step {
            side: rows.side.clone(),
            about: rows.relation.clone(),
            sql,
            timed: None,
            gates: vec![gate],
            sample: None,
            is_first_row: rows.filter.is_none(),
            limit: None,
        };
        self.add(gate, step, std::iter::once(label.as_str()));
    }
}

/// One pass over a relation, while it is being filled.
#[derive(Default)]
struct Scan<'a> {
    aggregates: Vec<&'a Aggregate>,
    gates: Vec<usize>,
}

impl<'a> Scan<'a> {
    /// Whether the rows that an aggregate is about are read already.
    fn reads(&self, other: &Aggregate) -> bool {
        self.aggregates.iter().any(|a| a.filter == other.filter)
    }

    fn has_room(&self) -> bool {
        self.aggregates.len() < AGGREGATES_PER_SCAN
    }

    /// The column of this aggregate; an equal one that is there already serves both.
    fn add(&mut self, gate: usize, aggregate: &'a Aggregate) -> usize {
        if !self.gates.contains(&gate) {
            self.gates.push(gate);
        }
        let known = self.aggregates.iter().position(|other| {
            other.filter == aggregate.filter
                && other.call == aggregate.call
                && other.when == aggregate.when
                && other.around == aggregate.around
        });
        known.unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len() - 1
        })
    }

    fn into_step(self) -> Step {
        let first = self
            .aggregates
            .first()
            .expect("a scan is made for an aggregate");
        let is_shared = self.aggregates.iter().all(|a| a.filter == first.filter);
        let columns = self.aggregates.iter().map(|a| column(a, is_shared));
        // With different filters each goes into its FILTER clause, and rows that none wants are
        // left out, so that an index or a partition bound can still help.
        let condition = if let (true, Some(filter)) = (is_shared, &first.filter) {
            sql!(" where {}", filter)
        } else if self.aggregates.iter().all(|a| a.filter.is_some()) {
            let mut filters: Vec<_> = self
                .aggregates
                .iter()
                .filter_map(|a| a.filter.as_ref())
                .collect();
            filters.sort();
            filters.dedup();
            let any = filters.into_iter().map(|filter| sql!("({})", filter));
            sql!(" where {}", Sql::join(" or ", any))
        } else {
            sql!("")
        };
        Step {
            sql: sql!(
                "select {} from {}{}",
                Sql::join(", ", columns),
                first.relation,
                condition
            ),
            side: first.side.clone(),
            about: first.relation.clone(),
            timed: None,
            gates: self.gates,
            sample: None,
            is_first_row: false,
            limit: None,
        }
    }
}

/// The text of an aggregate in its scan.
fn column(aggregate: &Aggregate, filter_is_shared: bool) -> Sql {
    let (before, after) = &aggregate.around;
    sql!(
        "({}{}{})::text",
        before,
        column_of(aggregate, filter_is_shared),
        after
    )
}

/// The call of an aggregate over its rows.
fn column_of(aggregate: &Aggregate, filter_is_shared: bool) -> Sql {
    let filter = aggregate.filter.as_ref().filter(|_| !filter_is_shared);
    match (filter, &aggregate.when) {
        (None, None) => aggregate.call.clone(),
        (None, Some(when)) => sql!("{} filter (where {})", aggregate.call, when),
        (Some(filter), None) => sql!("{} filter (where {})", aggregate.call, filter),
        (Some(filter), Some(when)) => {
            sql!(
                "{} filter (where ({}) and ({}))",
                aggregate.call,
                filter,
                when
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Scope;
    use crate::sql::AuthorSql;

    fn scope(table: &str, filter: Option<&str>) -> Scope {
        Scope {
            side: Side::Main,
            relation: Relation::new("s", table),
            filter: filter.map(AuthorSql::new),
            sample: None,
        }
    }

    fn ask(measures: Vec<Measure>) -> Ask {
        Ask {
            measures,
            ..Ask::default()
        }
    }

    #[test]
    fn gates_on_one_table_share_a_scan_and_equal_measures() {
        let a = ask(vec![
            Aggregate::count("rows", &scope("t", None), None),
            Aggregate::count("bad", &scope("t", None), Some(sql!("x < 0"))),
        ]);
        let b = ask(vec![Aggregate::count("rows", &scope("t", None), None)]);
        let plan = plan([(0, &a), (1, &b)]);
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(
            plan.steps[0].sql.as_str(),
            r#"select (count(*))::text, (count(*) filter (where x < 0))::text from "s"."t""#
        );
        assert_eq!(plan.bindings[&1][0].column, 0);
    }

    #[test]
    fn a_gate_with_a_limit_shares_no_statement() {
        let limit = Some(Duration::from_secs(1));
        let scan = Aggregate::count("rows", &scope("t", None), None);
        let Measure::Aggregate(one) = scan.clone() else {
            panic!("a count is an aggregate");
        };
        let asks = [scan, Measure::Presence(one)]
            .map(|measure| [ask(vec![measure.clone()]), ask(vec![measure])]);
        for [free, mut bound] in asks {
            bound.limit = limit;
            let plan = plan([(0, &free), (1, &bound), (2, &free)]);
            let steps = plan
                .steps
                .iter()
                .map(|step| (step.gates.as_slice(), step.limit));
            let expected: [(&[usize], _); 2] = [(&[0, 2], None), (&[1], limit)];
            assert_eq!(steps.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn different_filters_share_a_scan_and_keep_apart() {
        let a = ask(vec![Aggregate::count(
            "rows",
            &scope("t", Some("day > 1")),
            None,
        )]);
        let b = ask(vec![Aggregate::count(
            "rows",
            &scope("t", Some("day < 0 -- old")),
            None,
        )]);
        let plan = plan([(0, &a), (1, &b)]);
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(plan.bindings[&0][0].column, 0);
        assert_eq!(plan.bindings[&1][0].column, 1);
        assert!(plan.steps[0].sql.as_str().contains(" or "));
    }

    #[test]
    fn two_databases_never_share_a_scan() {
        let mut other = scope("t", None);
        other.side = Side::Other("before".into());
        let a = ask(vec![
            Aggregate::count("here", &scope("t", None), None),
            Aggregate::count("there", &other, None),
        ]);
        assert_eq!(plan([(0, &a)]).steps.len(), 2);
    }
}
