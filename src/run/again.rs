//! How often a run starts over after a connection was lost, and which gates it gives up.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;

/// How often a run starts over where nobody says.
pub const RETRIES: u32 = 3;

/// What is left of the patience with lost connections.
pub(super) struct Patience {
    left: u32,
    /// Gates on whose account a connection may have been lost already.
    suspects: BTreeSet<usize>,
    /// Gates that are not asked again.
    pub(super) given_up: BTreeMap<usize, Error>,
    /// What made the run start over.
    pub(super) notes: Vec<String>,
}

/// Why a connection was lost, as far as it says whether to ask a gate again.
enum Loss {
    /// The standby had to remove rows that the snapshot still saw: no gate is to blame.
    Conflict,
    /// Somebody, or a crash of the server, ended it: asked again, the gate might end it again.
    Ended,
    /// It broke, perhaps under the gate.
    Broken,
}

impl Loss {
    fn of(error: &Error) -> Self {
        match error.sqlstate() {
            Some("40001" | "40P01") => Self::Conflict,
            Some("57P01" | "57P02" | "57P04" | "57P05") => Self::Ended,
            _ => Self::Broken,
        }
    }
}

impl Patience {
    /// That of a run that may start over so often.
    pub(super) fn new(retries: u32) -> Self {
        Self {
            left: retries,
            suspects: BTreeSet::new(),
            given_up: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Whether to start over after these gates have lost their connection. A gate on whose account it may
    /// have been is asked once more, and then given up. Of gates whose rows were named together none is blamed: they
    /// will be named alone.
    pub(super) fn again(&mut self, lost: &BTreeMap<usize, Error>, is_together: bool) -> bool {
        let Some(first) = lost.values().next() else {
            return false;
        };
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.notes.push(format!(
            "all gates were evaluated anew, on a new snapshot: {}",
            first.one_line()
        ));
        for (gate, error) in lost {
            let is_given_up = match Loss::of(error) {
                _ if is_together => false,
                Loss::Conflict => false,
                Loss::Ended => true,
                Loss::Broken => !self.suspects.insert(*gate),
            };
            if is_given_up {
                self.given_up.insert(*gate, error.clone());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use rstest::rstest;

    #[rstest]
    // A conflict is nobody's fault, as long as the patience lasts.
    #[case("40001", 3, &[false, false, false])]
    // Who was ended is not asked again.
    #[case("57P01", 3, &[true, true, true])]
    // What broke once may break by chance, and twice not.
    #[case("08006", 3, &[false, true, true])]
    fn a_gate_is_asked_again_unless_it_is_to_blame(
        #[case] sqlstate: &'static str,
        #[case] retries: u32,
        #[case] given_up: &[bool],
    ) {
        let mut patience = Patience::new(retries);
        let error = Error::new(ErrorKind::ConnectionLost, "gone").with_sqlstate(sqlstate);
        let lost = BTreeMap::from([(7, error)]);
        for expected in given_up {
            assert!(patience.again(&lost, false));
            assert_eq!(patience.given_up.contains_key(&7), *expected);
        }
        assert!(!patience.again(&lost, false), "the patience has an end");
        assert_eq!(patience.notes.len(), given_up.len());
    }

    #[test]
    fn no_gate_is_to_blame_for_what_many_have_lost_together() {
        let mut patience = Patience::new(2);
        let error = Error::new(ErrorKind::ConnectionLost, "gone").with_sqlstate("57P01");
        let lost = BTreeMap::from([(7, error.clone()), (8, error)]);
        assert!(patience.again(&lost, true));
        assert!(patience.given_up.is_empty());
        assert!(patience.again(&lost, false));
        assert_eq!(patience.given_up.len(), 2);
    }

    #[test]
    fn without_a_loss_there_is_nothing_to_do_again() {
        assert!(!Patience::new(3).again(&BTreeMap::new(), false));
    }
}
