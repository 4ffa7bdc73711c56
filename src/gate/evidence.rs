//! How offending rows are named: which they are, and what of them is shown.

use crate::sql;
use crate::sql::{Ident, Relation, Sql};

use super::catalog::{ShownColumn, Side};
use super::mask;
use super::measured::Scope;

/// What is shown beside the key of an offending row, where values are asked for.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The columns.
    pub columns: Vec<ShownColumn>,
    /// Whether the gate's `show` names them.
    pub is_named: bool,
}

/// How to name offending rows, once there are some.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The label whose value says how many there are; it is asked only when that is above 0.
    pub counted_by: String,
    /// What is wrong with these rows, where a gate can find several things.
    pub what: Option<String>,
    /// Where it runs.
    pub side: Side,
    /// What names a row; empty where nothing does.
    pub key: Vec<ShownColumn>,
    /// What is shown beside its key, where values are asked for.
    pub values: Vec<ShownColumn>,
    /// Where the offending rows come from, in a fixed order: `from … where … order by …`.
    pub from: Sql,
    /// The same said in its parts, where they are rows of one relation in the order of their key.
    pub rows: Option<RowsOf>,
    /// The statement that shows a person every offending row as it is.
    pub sql: Sql,
}

/// The rows of a relation for which a condition holds: one pass over it can name those of several gates.
#[derive(Clone, Debug)]
pub struct RowsOf {
    /// The relation; all of it is read.
    pub relation: Relation,
    /// Which of its rows offend, the gate's filter included.
    pub condition: Sql,
}

impl RowsOf {
    /// A column of the relation, qualified: the bare name would be the text in the output, and 10 come before 9.
    pub fn qualified(&self, column: &ShownColumn) -> Sql {
        sql!("{}.{}", self.relation, column.sql)
    }

    /// `order by` the key of the rows; nothing where there is no key.
    pub fn order(&self, key: &[ShownColumn]) -> Sql {
        if key.is_empty() {
            return sql!("");
        }
        let columns = key.iter().map(|column| self.qualified(column));
        sql!(" order by {}", Sql::join(", ", columns))
    }
}

impl Evidence {
    /// Rows that `from` yields, by their key.
    pub fn new(
        counted_by: impl Into<String>,
        side: Side,
        key: Vec<ShownColumn>,
        from: Sql,
    ) -> Self {
        Self {
            counted_by: counted_by.into(),
            what: None,
            side,
            values: Vec::new(),
            sql: select(&key, &[], &from),
            key,
            from,
            rows: None,
        }
    }

    /// The rows of a scope for which `condition` holds, by their key.
    pub fn rows(
        counted_by: impl Into<String>,
        scope: &Scope,
        key: Vec<ShownColumn>,
        condition: &Sql,
    ) -> Self {
        let rows = RowsOf {
            relation: scope.relation.clone(),
            condition: scope.condition(Some(condition)),
        };
        let from = sql!(
            "from {} where {}{}",
            scope.from(),
            rows.condition,
            rows.order(&key)
        );
        Self {
            rows: scope.sample.is_none().then_some(rows),
            ..Self::new(counted_by, scope.side.clone(), key, from)
        }
    }

    /// Says what is wrong with these rows.
    #[must_use]
    pub fn because(mut self, what: impl Into<String>) -> Self {
        self.what = Some(what.into());
        self
    }

    /// Says what is shown beside the key; those that were asked for by name are in the statement, too.
    #[must_use]
    pub fn showing(mut self, values: Values) -> Self {
        let Values { columns, is_named } = values;
        let is_key = |column: &ShownColumn| self.key.iter().any(|key| key.name == column.name);
        self.values = columns.into_iter().filter(|one| !is_key(one)).collect();
        if is_named {
            self.sql = select(&self.key, &self.values, &self.from);
        }
        self
    }

    /// The columns that are shown, the key first.
    pub fn columns(&self, with_values: bool) -> impl Iterator<Item = &ShownColumn> {
        let values = self.values.iter().filter(move |_| with_values);
        self.key.iter().chain(values)
    }

    /// The first of these rows, what is masked masked, what is long cut; `None` where nothing of them
    /// is shown.
    pub fn first(&self, limit: usize, with_values: bool) -> Option<Sql> {
        let columns = self.columns(with_values).map(|column| &column.sql);
        // Limited before anything is cut: no value is unpacked that is not shown.
        let first = sql!(
            "select {} {} limit {}",
            Sql::join(", ", columns),
            self.from,
            limit
        );
        let shown = self.shown(with_values, &first)?;
        Some(sql!("select {}", shown))
    }

    /// What is shown of the rows of a query that has these columns, what is masked masked, what is long cut: what
    /// stands behind `select`. `None` where nothing of them is shown.
    pub fn shown(&self, with_values: bool, query: &Sql) -> Option<Sql> {
        let places = (0..self.columns(with_values).count()).map(|n| Ident::new(format!("c{n}")));
        let places: Vec<Ident> = places.collect();
        let shown = self.columns(with_values).zip(&places).enumerate();
        let shown = shown.map(|(n, (column, place))| {
            let value = sql!("e.{}", place);
            match (column.is_masked, n < self.key.len()) {
                (false, _) => mask::cut(&value),
                (true, true) => mask::stand_in(&value),
                (true, false) => mask::masked(&value),
            }
        });
        (!places.is_empty()).then(|| {
            sql!(
                "{} from ({}) e({})",
                Sql::join(", ", shown),
                query,
                Sql::join(", ", &places)
            )
        })
    }
}

fn select(key: &[ShownColumn], values: &[ShownColumn], from: &Sql) -> Sql {
    let columns = key.iter().chain(values);
    let columns = columns.map(|column| sql!("{}::text", column.sql));
    match key.len() + values.len() {
        0 => sql!("select * {}", from),
        _ => sql!("select {} {}", Sql::join(", ", columns), from),
    }
}
