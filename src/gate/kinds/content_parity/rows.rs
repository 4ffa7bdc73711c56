//! Rows of two sides, each known by the hash of its key and a hash of its own, held against each other in
//! 20 bytes a row.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The rows of one side.
pub(super) struct Side {
    /// The hash of the key and of the row, in the order in which rows are named.
    rows: Vec<(i64, i64)>,
    /// The places of rows in the order of their hashes.
    by_hash: Vec<u32>,
}

impl Side {
    /// Reads rows of 32 hexadecimal digits each.
    pub(super) fn read(text: &str) -> Self {
        let hash = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok();
            let hash = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            hash.expect("the statement builds hexadecimal digits")
                .cast_signed()
        };
        let rows = text.as_bytes().chunks(32);
        let rows: Vec<(i64, i64)> = rows
            .map(|row| (hash(&row[..16]), hash(&row[16..])))
            .collect();
        let count = u32::try_from(rows.len()).expect("rows are fetched up to a bound");
        let mut by_hash: Vec<u32> = (0..count).collect();
        by_hash.sort_unstable_by_key(|place| rows[*place as usize]);
        Self { rows, by_hash }
    }

    fn at(&self, place: usize) -> Option<(i64, i64)> {
        let place = self.by_hash.get(place)?;
        Some(self.rows[*place as usize])
    }

    /// How many rows from this place on have that key.
    fn run(&self, start: usize, key: i64) -> usize {
        let rest = (start..).map_while(|place| self.at(place));
        rest.take_while(|row| row.0 == key).count()
    }

    /// The keys that come first of those that `is_wanted`.
    fn first(&self, limit: usize, is_wanted: impl Fn(i64) -> bool) -> BTreeSet<i64> {
        let mut first = BTreeSet::new();
        for (key, _) in &self.rows {
            if first.len() == limit {
                break;
            }
            if is_wanted(*key) {
                first.insert(*key);
            }
        }
        first
    }
}

/// How the rows of a key differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Difference {
    /// The hash of the key.
    pub(super) key: i64,
    /// How many rows have another on the other side.
    pub(super) changed: u64,
    /// How many more there are on the first side.
    pub(super) extra: u64,
    /// How many more there are on the second side.
    pub(super) missing: u64,
    /// Whether no side has a second row of that key.
    pub(super) is_single: bool,
}

/// Two sides.
pub(super) struct Compare<'a> {
    ours: &'a Side,
    theirs: &'a Side,
    /// The keys that are looked at, in order, where that is not all of them.
    among: Option<&'a [i64]>,
}

impl<'a> Compare<'a> {
    /// Holds two sides against each other: all keys, or those in an ordered list.
    pub(super) fn new(ours: &'a Side, theirs: &'a Side, among: Option<&'a [i64]>) -> Self {
        Self {
            ours,
            theirs,
            among,
        }
    }

    /// What differs, in the order of the hashes of keys.
    pub(super) fn differences(&self) -> impl Iterator<Item = Difference> {
        let (mut own, mut other) = (0, 0);
        let all = std::iter::from_fn(move || {
            let keys = [self.ours.at(own), self.theirs.at(other)];
            let key = keys.into_iter().flatten().map(|row| row.0).min()?;
            let (ours, theirs) = (self.ours.run(own, key), self.theirs.run(other, key));
            let same = self.equal(own..own + ours, other..other + theirs);
            (own, other) = (own + ours, other + theirs);
            let changed = (ours - same).min(theirs - same);
            Some(Difference {
                key,
                changed: changed as u64,
                extra: (ours - same - changed) as u64,
                missing: (theirs - same - changed) as u64,
                is_single: ours < 2 && theirs < 2,
            })
        });
        let is_looked_at = |key: &i64| {
            self.among
                .is_none_or(|keys| keys.binary_search(key).is_ok())
        };
        all.filter(move |one| one.changed + one.extra + one.missing > 0 && is_looked_at(&one.key))
    }

    /// How many rows of these places are equal: a key may be there several times, and equal rows cancel
    /// each other one by one.
    fn equal(&self, ours: std::ops::Range<usize>, theirs: std::ops::Range<usize>) -> usize {
        let (mut ours, mut theirs) = (ours.peekable(), theirs.peekable());
        let mut same = 0;
        while let (Some(own), Some(other)) = (ours.peek(), theirs.peek()) {
            let order = self.ours.at(*own).cmp(&self.theirs.at(*other));
            same += usize::from(order.is_eq());
            if order.is_le() {
                ours.next();
            }
            if order.is_ge() {
                theirs.next();
            }
        }
        same
    }

    /// The keys that differ, in the order of their hashes.
    pub(super) fn keys(&self) -> Vec<i64> {
        self.differences().map(|one| one.key).collect()
    }

    /// The keys that come first on each side, as many of each: among them are those that come first of all.
    pub(super) fn first(&self, limit: usize) -> Vec<Difference> {
        let keys = self.keys();
        let is_wanted = |key: i64| keys.binary_search(&key).is_ok();
        let mut first = self.ours.first(limit, is_wanted);
        first.append(&mut self.theirs.first(limit, is_wanted));
        self.differences()
            .filter(|one| first.contains(&one.key))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(rows: &[(i64, i64)]) -> String {
        rows.iter()
            .map(|(key, hash)| format!("{key:016x}{hash:016x}"))
            .collect()
    }

    /// Key, changed, extra, missing: by lists, without any order.
    fn by_lists(ours: &[(i64, i64)], theirs: &[(i64, i64)]) -> Vec<(i64, u64, u64, u64)> {
        let keys: BTreeSet<i64> = ours.iter().chain(theirs).map(|row| row.0).collect();
        let found = keys.into_iter().map(|key| {
            let of = |rows: &[(i64, i64)]| -> Vec<i64> {
                rows.iter()
                    .filter(|row| row.0 == key)
                    .map(|row| row.1)
                    .collect()
            };
            let (mut ours, mut theirs) = (of(ours), of(theirs));
            ours.retain(|hash| {
                let same = theirs.iter().position(|other| other == hash);
                same.map(|at| theirs.swap_remove(at)).is_none()
            });
            let changed = ours.len().min(theirs.len());
            let more = [changed, ours.len() - changed, theirs.len() - changed];
            let [changed, extra, missing] = more.map(|rows| rows as u64);
            (key, changed, extra, missing)
        });
        found.filter(|one| one.1 + one.2 + one.3 > 0).collect()
    }

    fn rows() -> impl Strategy<Value = Vec<(i64, i64)>> {
        let hash = prop_oneof![-3..3_i64, Just(i64::MIN), Just(i64::MAX)];
        proptest::collection::vec((hash.clone(), hash), 0..20)
    }

    proptest! {
        #[test]
        fn rows_cancel_each_other_one_by_one(ours in rows(), theirs in rows(), limit in 0..5_usize) {
            let (own, other) = (Side::read(&text(&ours)), Side::read(&text(&theirs)));
            let compare = Compare::new(&own, &other, None);
            let found = compare.differences();
            let found: Vec<_> = found.map(|one| (one.key, one.changed, one.extra, one.missing)).collect();
            let expected = by_lists(&ours, &theirs);
            prop_assert_eq!(&found, &expected);
            let keys: Vec<i64> = expected.iter().map(|one| one.0).collect();
            prop_assert_eq!(compare.keys(), keys.clone());
            // Those that come first on a side are named, in whichever order the hashes are.
            let named: Vec<i64> = compare.first(limit).iter().map(|one| one.key).collect();
            for side in [&ours, &theirs] {
                let mut first: Vec<i64> = Vec::new();
                for (key, _) in side.iter().filter(|row| keys.contains(&row.0)) {
                    if !first.contains(key) {
                        first.push(*key);
                    }
                }
                prop_assert!(first.iter().take(limit).all(|key| named.contains(key)));
            }
            let few = &keys[..keys.len() / 2];
            prop_assert_eq!(Compare::new(&own, &other, Some(few)).keys(), few);
        }
    }
}
