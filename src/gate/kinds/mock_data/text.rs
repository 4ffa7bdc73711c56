//! What text says that somebody made it up.
//!
//! All text columns of a row are looked at as one text, their values divided by a control character:
//! one expression per row instead of one per column, and a cheap one before the dear one.

use crate::gate::catalog::{Column, RelationInfo};
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

use super::Sensitivity;

/// Words that are a placeholder when they are the whole value.
const WHOLE: &[&str] = &[
    "test",
    "testing",
    "dummy",
    "mock",
    "fake",
    "placeholder",
    "foo",
    "foobar",
    "asdf",
    "qwerty",
    "changeme",
];
/// Words that make a name with what follows them: `test_123`, `mock-team`.
const STEMS: &[&str] = &["mock", "test", "dummy", "fake"];
/// Words that make a generated name with a number: `user1`, `Customer 12`.
const COUNTED: &[&str] = &[
    "user", "customer", "client", "person", "player", "employee", "account", "company", "product",
    "item", "name", "test", "dummy", "mock", "fake", "sample", "foo",
];
/// Words that are a placeholder within a text.
const WITHIN: &[&str] = &["mock", "mocked", "dummy", "fake", "placeholder"];
/// Words that real text holds, too.
const DOUBTFUL: &[&str] = &["test", "sample", "example"];
/// Words that are the names of people: Dummy Hoy, Garrett Mock, Billy Sample.
const NAMES: &[&str] = &["dummy", "mock", "sample", "foo"];
/// Mail domains that nobody can have (RFC 2606, RFC 6761).
const MAIL: &str =
    r"[^\u0001]*@([^\u0001]*\.)?(example\.(com|org|net)|test|example|invalid|localhost)";
/// Text that typesetters fill a page with.
const FILLER: &str = r"(lorem ipsum|dolor sit amet)";
/// Card numbers that payment services give out for tests.
const CARDS: &str = "(4111[ -]?1111[ -]?1111[ -]?1111|4242[ -]?4242[ -]?4242[ -]?4242|5555[ -]?5555[ -]?5555[ -]?4444\
|5105[ -]?1051[ -]?0510[ -]?5100|4012[ -]?8888[ -]?8888[ -]?1881|3782[ -]?822463[ -]?10005|6011[ -]?1111[ -]?1111[ -]?1117)";
/// Telephone numbers kept free for fiction in North America: 555-0100 to 555-0199 of any area.
const PHONES: &str = r"(\+?1[-. ]?)?\(?[0-9]{3}\)?[-. ]?555[-. ]?01[0-9]{2}";
/// What text must hold, one of them, for any of the above to be in it, in small letters. Several short
/// patterns: Postgres' regular expressions cost more than twice as much with twice the alternatives.
const CHEAP: &[&str] = &[
    "test|dummy|mock|fake|placeholder|foo|asdf|qwerty",
    "xxx|changeme|lorem|dolor|@localhost|invalid|sample|example",
    "555[-. ]?01|4111|4242|5555|5105|4012|3782|6011",
];
/// The same for the generated names: the ends of their words.
const CHEAP_COUNTED: &str = "(er|nt|on|ee|ny|ct|em|me)[ _-]?[0-9]";
/// Values in one call at the most; Postgres takes 100 arguments.
const VALUES_MAX: usize = 90;

/// The words, in the spellings in which they are no name of a person.
fn words(list: &[&str], is_name: bool) -> String {
    let mut spellings: Vec<String> = Vec::new();
    for word in list {
        spellings.push((*word).to_owned());
        if is_name {
            spellings.push(word.to_uppercase());
            if !NAMES.contains(word) {
                let (first, rest) = word.split_at(1);
                spellings.push(format!("{}{rest}", first.to_uppercase()));
            }
        }
    }
    format!("({})", spellings.join("|"))
}

fn pattern(sensitivity: Sensitivity, is_name: bool) -> String {
    let mut whole = vec![
        words(WHOLE, is_name),
        "xxx+".to_owned(),
        format!("{}([_-][^\\u0001]*|[0-9]+)", words(STEMS, is_name)),
        MAIL.to_owned(),
        CARDS.to_owned(),
        format!("{FILLER}[^\\u0001]*"),
    ];
    let mut within = Vec::new();
    if sensitivity >= Sensitivity::Medium {
        whole.push(format!("{}[ _-]?[0-9]+", words(COUNTED, is_name)));
        whole.push(PHONES.to_owned());
        within.push(words(WITHIN, is_name));
        within.push(FILLER.to_owned());
    }
    if sensitivity >= Sensitivity::High {
        within.push(words(DOUBTFUL, is_name));
    }
    let mut pattern = format!("(^|\\u0001)\\s*({})\\s*(\\u0001|$)", whole.join("|"));
    if !within.is_empty() {
        pattern.push_str(&format!("|\\m({})\\M", within.join("|")));
    }
    pattern
}

/// The condition that some of these columns hold made-up text; `None` where there is no column.
pub(super) fn condition(
    table: &RelationInfo,
    columns: &[&str],
    sensitivity: Sensitivity,
) -> Option<Sql> {
    let (names, others): (Vec<&str>, Vec<&str>) = columns
        .iter()
        .copied()
        .partition(|column| holds_names(table, column));
    let mut conditions = Vec::new();
    for (group, is_name) in [(others, false), (names, true)] {
        let pattern = pattern(sensitivity, is_name);
        for some in group.chunks(VALUES_MAX) {
            let names = some.iter().map(|column| Ident::new(*column));
            let text = sql!("concat_ws(chr(1), {})", Sql::join(", ", names));
            // In the "C" collation, in which small letters are quick and ASCII is all that is asked.
            let small = sql!("lower({} collate \"C\")", text);
            let looked_at = if is_name { text } else { small.clone() };
            let counted = (sensitivity >= Sensitivity::Medium).then_some(&CHEAP_COUNTED);
            let cheap = CHEAP
                .iter()
                .chain(counted)
                .map(|pattern| sql!("{} ~ {}", small, Literal(pattern)));
            conditions.push(sql!(
                "(({}) and {} collate \"C\" ~ {})",
                Sql::join(" or ", cheap),
                looked_at,
                Literal(&pattern)
            ));
        }
    }
    match conditions.len() {
        0 => None,
        _ => Some(sql!("({})", Sql::join(" or ", conditions))),
    }
}

/// Whether a column holds text.
pub(super) fn is_text(column: &Column) -> bool {
    matches!(column.category, 'S' | 'E')
}

/// Whether a column holds the names of people, or parts of them.
fn holds_names(table: &RelationInfo, column: &str) -> bool {
    const PARTS: &[&str] = &[
        "first", "last", "given", "middle", "full", "nick", "family", "maiden",
    ];
    const PEOPLE: &[&str] = &[
        "people",
        "person",
        "player",
        "pitcher",
        "batter",
        "catcher",
        "umpire",
        "manager",
        "coach",
        "scout",
        "customer",
        "user",
        "employee",
        "contact",
        "author",
        "surname",
        "nickname",
        "firstname",
        "lastname",
        "fullname",
    ];
    let is_person = |parts: &[String]| {
        parts
            .iter()
            .any(|part| PEOPLE.contains(&part.strip_suffix('s').unwrap_or(part)))
    };
    let own = parts_of(column);
    let is_a_name = own.iter().any(|part| part == "name");
    is_person(&own)
        || (is_a_name && own.iter().any(|part| PARTS.contains(&part.as_str())))
        || (is_a_name && is_person(&parts_of(table.relation.name.as_str())))
}

/// `nameFirst`, `name_first` and `Name First` as `name`, `first`.
pub(super) fn parts_of(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && was_small) {
            parts.push(String::new());
        }
        was_small = c.is_lowercase();
        if c.is_alphanumeric() {
            let last = parts.last_mut().expect("there is always a part");
            last.extend(c.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A word whose end is forgotten above would never be looked for.
    #[test]
    fn the_cheap_patterns_know_every_generated_name() {
        let ends: Vec<&str> = CHEAP_COUNTED
            .trim_start_matches('(')
            .split(')')
            .next()
            .into_iter()
            .flat_map(|ends| ends.split('|'))
            .collect();
        let all = CHEAP.join("|");
        let words: Vec<&str> = all.split('|').collect();
        for word in COUNTED {
            let is_known = ends.iter().any(|end| word.ends_with(end));
            assert!(is_known || words.contains(word), "{word}");
        }
        for word in WHOLE.iter().chain(STEMS).chain(WITHIN).chain(DOUBTFUL) {
            assert!(words.iter().any(|cheap| word.contains(cheap)), "{word}");
        }
    }

    #[rstest]
    #[case("nameFirst", &["name", "first"])]
    #[case("Name First", &["name", "first"])]
    #[case("home_pitcher", &["home", "pitcher"])]
    #[case("ID", &["id"])]
    fn a_name_has_parts(#[case] name: &str, #[case] parts: &[&str]) {
        assert_eq!(parts_of(name), parts);
    }
}
