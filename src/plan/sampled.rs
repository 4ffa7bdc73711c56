//! Counts over the blocks of a sample: in each block, then over all of them.

use crate::gate::Aggregate;
use crate::gate::sampling::{Blocks, Sample};
use crate::sql;
use crate::sql::{Ident, Sql};

use super::{Step, column_of};

/// Counts in one statement at the most: each makes three columns of it.
const COUNTS_PER_SCAN: usize = 500;

/// A column of the statement's row, by its label.
pub(super) type Labelled = (String, usize);

/// One pass over a sample, while it is being filled.
pub(super) struct SampledScan<'a> {
    counts: Vec<&'a Aggregate>,
    gates: Vec<usize>,
    sample: Sample,
}

impl<'a> SampledScan<'a> {
    pub(super) fn new(sample: Sample) -> Self {
        Self {
            counts: Vec::new(),
            gates: Vec::new(),
            sample,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.counts.len() < COUNTS_PER_SCAN
    }

    /// The columns of this count with their labels; an equal one that is there already serves both.
    pub(super) fn add(&mut self, gate: usize, count: &'a Aggregate) -> [Labelled; 3] {
        if !self.gates.contains(&gate) {
            self.gates.push(gate);
        }
        let known = self.counts.iter().position(|other| {
            other.filter == count.filter && other.call == count.call && other.when == count.when
        });
        let index = known.unwrap_or_else(|| {
            self.counts.push(count);
            self.counts.len() - 1
        });
        [
            (count.label.clone(), 3 * index),
            (Blocks::blocks_label(&count.label), 3 * index + 1),
            (Blocks::fullest_label(&count.label), 3 * index + 2),
        ]
    }

    pub(super) fn into_step(self) -> Step {
        let first = self.counts.first().expect("a scan is made for a count");
        let name = |index| Ident::new(format!("n{index}"));
        let is_shared = self.counts.iter().all(|one| one.filter == first.filter);
        let inner = self.counts.iter().enumerate().map(|(index, count)| {
            let call = column_of(count, is_shared);
            sql!("{} as {}", call, name(index))
        });
        let outer = (0..self.counts.len()).map(|index| {
            let n = name(index);
            sql!(
                "coalesce(sum({}), 0)::text, (count(*) filter (where {} > 0))::text, coalesce(max({}), 0)::text",
                n,
                n,
                n
            )
        });
        let condition = match &first.filter {
            Some(filter) if is_shared => sql!(" where {}", filter),
            _ => sql!(""),
        };
        Step {
            sql: sql!(
                "select {} from (select {} from {}{}{} group by tableoid, (ctid::text::point)[0]) b",
                Sql::join(", ", outer),
                Sql::join(", ", inner),
                first.relation,
                self.sample.clause(),
                condition
            ),
            side: first.side.clone(),
            about: first.relation.clone(),
            timed: None,
            gates: self.gates,
            sample: Some(self.sample),
            is_first_row: false,
            limit: None,
        }
    }
}
