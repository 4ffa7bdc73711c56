//! What names say: their words, the entity that a column refers to, tests and leftovers.
//!
//! A name is split at everything that is neither letter nor digit and where its case changes, so that
//! `game_id`, `gameId` and `GameID` are the same words.

/// The words of a name, in lower case.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let chars: Vec<char> = name.chars().collect();
    for (at, &c) in chars.iter().enumerate() {
        let is_start = c.is_uppercase()
            && at > 0
            && (chars[at - 1].is_lowercase()
                || chars[at - 1].is_uppercase()
                    && chars.get(at + 1).is_some_and(|next| next.is_lowercase()));
        if (!c.is_alphanumeric() || is_start) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// An English word in the singular, as far as its ending tells. Both sides of a comparison go through
/// this, so that a wrong form does no harm as long as it is the same one.
pub(super) fn singular(word: &str) -> String {
    let ends = |ending: &str| word.len() > ending.len() + 1 && word.ends_with(ending);
    let cut = |letters: usize| word[..word.len() - letters].to_owned();
    if word == "people" {
        "person".to_owned()
    } else if word == "children" {
        "child".to_owned()
    } else if ends("ies") && word != "series" {
        cut(3) + "y"
    } else if ["sses", "shes", "ches", "xes", "zes"]
        .iter()
        .any(|e| ends(e))
    {
        cut(2)
    } else if ends("s") && !["ss", "us", "is"].iter().any(|e| ends(e)) && word != "series" {
        cut(1)
    } else {
        word.to_owned()
    }
}

/// Whether the word is a plural by its ending.
pub(super) fn is_plural(word: &str) -> bool {
    singular(word) != word
}

/// The words of a name in the singular, as one text.
pub(super) fn entity(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| singular(word)).collect();
    words.join("_")
}

/// The last word of columns that refer to something.
const REFERENCE: &[&str] = &["id", "uuid", "guid", "key", "fk"];

/// First words of columns that hold another system's identifiers.
const FOREIGN: &[&str] = &[
    "api", "ext", "external", "foreign", "legacy", "old", "original", "partner", "remote",
    "source", "src", "upstream", "vendor",
];

/// The words before `_id` of a column that refers to an entity of this database; `None` for others.
pub(super) fn referred(column: &str) -> Option<Vec<String>> {
    let mut words = words(column);
    let last = words.pop()?;
    let is_foreign = words.iter().any(|word| FOREIGN.contains(&word.as_str()));
    (REFERENCE.contains(&last.as_str()) && !words.is_empty() && !is_foreign).then_some(words)
}

/// Words that begin or end the name of a table nobody meant to keep.
const LEFTOVER: &[&str] = &[
    "test",
    "tests",
    "testing",
    "tmp",
    "temp",
    "bak",
    "backup",
    "bkp",
    "copy",
    "old",
    "benchmark",
    "dummy",
    "deleteme",
    "scratch",
];

/// The word by which a name says that it is a test, a copy or a leftover.
pub(super) fn leftover(words: &[String]) -> Option<&str> {
    let is_experiment = |at: usize| at > 0 && words[at - 1] == "ab";
    let ends = [0, words.len().saturating_sub(1)];
    ends.into_iter()
        .filter(|at| !is_experiment(*at))
        .filter_map(|at| words.get(at))
        .map(|word| {
            // test2, backup20230101: a number belongs to the copy, not to the word.
            let bare = word.trim_end_matches(|c: char| c.is_ascii_digit());
            if bare.is_empty() { word.as_str() } else { bare }
        })
        .find(|word| LEFTOVER.contains(word))
}

/// A name without the date at its end (`games_2023`, `games_20230131`, `games_2023_01`), if it has one.
pub(super) fn undated(name: &str) -> Option<&str> {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '-');
    let tail = &name[bare.len()..];
    let digits: String = tail.chars().filter(char::is_ascii_digit).collect();
    let is_year = digits.starts_with("19") || digits.starts_with("20");
    let is_date = is_year && matches!(digits.len(), 4 | 6 | 8 | 12 | 14);
    (is_date && !bare.is_empty() && tail.starts_with(['_', '-'])).then_some(bare)
}

/// Whether two names of schemas mean about the same: the same words, or words with a common stem.
pub(super) fn is_similar(a: &[String], b: &[String]) -> bool {
    let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            let (a, b) = (singular(a), singular(b));
            let prefix = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
            a == b || !is_number(&a) && prefix >= 4 && strsim::jaro_winkler(&a, &b) >= 0.9
        })
}

/// The share of names that two sorted lists have in common (Jaccard similarity).
pub(super) fn similarity(a: &[String], b: &[String]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0_u32);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let all = a.len() + b.len() - common as usize;
    if all == 0 {
        0.0
    } else {
        f64::from(common) / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("game_id", "game id")]
    #[case("gameId", "game id")]
    #[case("playerID", "player id")]
    #[case("MLBGame", "mlb game")]
    #[case("we\"ird Ünïcode", "we ird ünïcode")]
    #[case("__", "")]
    fn a_name_has_words(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(words(name).join(" "), expected);
    }

    #[rstest]
    #[case("games", "game")]
    #[case("categories", "category")]
    #[case("matches", "match")]
    #[case("status", "status")]
    #[case("analysis", "analysis")]
    #[case("series", "series")]
    #[case("Ünïs", "Ünï")]
    #[case("s", "s")]
    fn a_word_has_a_singular(#[case] word: &str, #[case] expected: &str) {
        assert_eq!(singular(word), expected);
    }

    #[rstest]
    #[case("game_id", Some("game"))]
    #[case("home_team_id", Some("home team"))]
    #[case("park_key", Some("park"))]
    #[case("id", None)]
    #[case("external_game_id", None)]
    #[case("paid", None)]
    fn a_column_refers_to_an_entity(#[case] column: &str, #[case] expected: Option<&str>) {
        assert_eq!(
            referred(column).map(|words| words.join(" ")).as_deref(),
            expected
        );
    }

    #[rstest]
    #[case("test_table", Some("test"))]
    #[case("concurrency_test", Some("test"))]
    #[case("games_backup2", Some("backup"))]
    #[case("gamesOld", Some("old"))]
    #[case("latest", None)]
    #[case("contest_entries", None)]
    #[case("ab_test", None)]
    #[case("unit_test_runs", None)]
    #[case("2023", None)]
    fn a_leftover_says_so(#[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(leftover(&words(name)), expected);
    }

    #[rstest]
    #[case("games_2023", Some("games"))]
    #[case("games_20230131", Some("games"))]
    #[case("games_2023_01", Some("games"))]
    #[case("games_1", None)]
    #[case("games2023", None)]
    #[case("_2023", None)]
    fn a_dated_name_has_a_bare_one(#[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(undated(name), expected);
    }

    #[rstest]
    #[case("analysis", "analytics", true)]
    #[case("operational", "operations", true)]
    #[case("raw_data", "raw_datas", true)]
    #[case("core_betting", "core_billing", false)]
    #[case("staging", "curated", false)]
    #[case("raw_data", "raw", false)]
    #[case("tenant_1", "tenant_2", false)]
    fn schemas_are_similar_by_name(#[case] a: &str, #[case] b: &str, #[case] expected: bool) {
        assert_eq!(is_similar(&words(a), &words(b)), expected);
    }

    #[test]
    fn similarity_is_the_share_in_common() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!((similarity(&list("a b c"), &list("b c d")) - 0.5).abs() < 1e-9);
        assert!(similarity(&[], &[]) < 1e-9);
    }
}
