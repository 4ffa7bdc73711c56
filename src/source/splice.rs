//! Values put into SQL text without a way out of their place.
//!
//! Inside quotes a value is escaped as these quotes want it; outside of quotes it can only be a
//! name or a number; a comment is left as it was written.

use std::ops::Range;

use squawk_lexer::{LiteralKind, TokenKind, tokenize};

/// Text with values in it.
#[derive(Default)]
pub(super) struct Splice {
    /// The text with one letter for each value.
    skeleton: String,
    values: Vec<Value>,
}

struct Value {
    /// Where its letter stands in the skeleton.
    at: usize,
    reference: String,
    value: String,
    place: Range<usize>,
}

/// A value that cannot stand where it is named.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: String,
}

/// What stands for a value while its surroundings are read: it goes on with any word beside it.
const LETTER: &str = "x";

impl Splice {
    pub(super) fn push_text(&mut self, text: &str) {
        self.skeleton.push_str(text);
    }

    pub(super) fn push_value(&mut self, reference: &str, value: String, place: Range<usize>) {
        self.values.push(Value {
            at: self.skeleton.len(),
            reference: reference.to_owned(),
            value,
            place,
        });
        self.skeleton.push_str(LETTER);
    }

    /// The text with its values as they are.
    pub(super) fn plain(&self) -> String {
        let values = self.values.iter().map(|value| value.value.clone());
        self.with(values)
    }

    fn with(&self, values: impl Iterator<Item = String>) -> String {
        let (mut out, mut from) = (String::new(), 0);
        for (slot, value) in self.values.iter().zip(values) {
            out.push_str(&self.skeleton[from..slot.at]);
            out.push_str(&value);
            from = slot.at + LETTER.len();
        }
        out.push_str(&self.skeleton[from..]);
        out
    }

    /// The SQL, and what cannot stand in it.
    pub(super) fn into_sql(self) -> (String, Vec<(Wrong, Range<usize>)>) {
        let mut tokens = Vec::new();
        let mut start = 0;
        for token in tokenize(&self.skeleton) {
            let end = start + token.len as usize;
            tokens.push((start..end, token.kind));
            start = end;
        }
        let has_escapes = tokens
            .iter()
            .any(|(_, kind)| literal(*kind) == Some(LiteralKind::EscStr { terminated: true }));
        let (mut values, mut wrong) = (Vec::new(), Vec::new());
        for slot in &self.values {
            let kind = tokens
                .iter()
                .find(|(span, _)| span.contains(&slot.at))
                .map_or(TokenKind::Unknown, |(_, kind)| *kind);
            let before = self.skeleton[..slot.at].chars().next_back();
            match embedded(slot, kind, before, has_escapes) {
                Ok(value) => values.push(value),
                Err(found) => {
                    values.push(String::new());
                    wrong.push((found, slot.place.clone()));
                }
            }
        }
        (self.with(values.into_iter()), wrong)
    }
}

fn literal(kind: TokenKind) -> Option<LiteralKind> {
    match kind {
        TokenKind::Literal { kind } => Some(kind),
        _ => None,
    }
}

/// A value as it stands inside of a token.
fn embedded(
    slot: &Value,
    kind: TokenKind,
    before: Option<char>,
    has_escapes: bool,
) -> Result<String, Wrong> {
    let value = &slot.value;
    let refuse = |why: &str, help: String| Wrong {
        message: format!("the value of `{}` {why}", slot.reference),
        help,
    };
    let quoted = value.replace('\'', "''");
    let has_backslash = value.contains('\\');
    let backslash = || {
        refuse(
            "holds a backslash, which does not stand for itself in every kind of quotes",
            format!("write E'${{{}}}'", slot.reference),
        )
    };
    match kind {
        // What is not run keeps what was written: a value with a line break would end a comment.
        TokenKind::LineComment | TokenKind::BlockComment { .. } => {
            Ok(format!("${{{}}}", slot.reference))
        }
        TokenKind::QuotedIdent { uescape: false, .. } => Ok(value.replace('"', "\"\"")),
        TokenKind::QuotedIdent { uescape: true, .. } if has_backslash => Err(backslash()),
        TokenKind::QuotedIdent { uescape: true, .. } => Ok(value.replace('"', "\"\"")),
        TokenKind::Literal {
            kind: LiteralKind::EscStr { .. },
        } => Ok(quoted.replace('\\', "\\\\")),
        TokenKind::Literal {
            kind: LiteralKind::Str { .. },
            // The next line of an E'…' looks like a '…' of its own.
        } if has_backslash && !has_escapes => Ok(quoted),
        TokenKind::Literal {
            kind:
                LiteralKind::Str { .. }
                | LiteralKind::NationalStr { .. }
                | LiteralKind::ByteStr { .. }
                | LiteralKind::BitStr { .. }
                | LiteralKind::UnicodeEscStr { .. },
        } => match has_backslash {
            true => Err(backslash()),
            false => Ok(quoted),
        },
        TokenKind::Literal {
            kind: LiteralKind::DollarQuotedString { .. },
        } => match value.contains('$') {
            true => Err(refuse(
                "holds a `$`, which could end the dollar quotes around it",
                format!("write '${{{}}}'", slot.reference),
            )),
            false => Ok(value.clone()),
        },
        _ if is_name(value) => Ok(value.clone()),
        _ if is_number(value) => Ok(match (value.starts_with('-'), before) {
            (true, Some('-')) => format!(" {value}"),
            _ => value.clone(),
        }),
        _ => Err(refuse(
            "is neither a name nor a number",
            format!(
                "in SQL, write '${{{0}}}' for a text and \"${{{0}}}\" for a name with spaces or quotes",
                slot.reference
            ),
        )),
    }
}

/// A name, perhaps with dots, each part a word or in double quotes.
fn is_name(value: &str) -> bool {
    let mut rest = value;
    loop {
        let after = match rest.strip_prefix('"') {
            Some(inner) => match end_of_quotes(inner) {
                Some(after) => after,
                None => return false,
            },
            None => {
                let is_first = |c: char| c.is_alphabetic() || c == '_';
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                if !rest.starts_with(is_first) {
                    return false;
                }
                &rest[end.unwrap_or(rest.len())..]
            }
        };
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return after.is_empty(),
        }
    }
}

/// What follows the quote that ends a quoted name; it must not be empty.
fn end_of_quotes(inner: &str) -> Option<&str> {
    let mut chars = inner.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '"' && chars.next_if(|(_, next)| *next == '"').is_none() {
            return (at > 0).then(|| &inner[at + 1..]);
        }
    }
    None
}

/// Digits, perhaps with a sign and a fraction.
fn is_number(value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn sql(before: &str, value: &str, after: &str) -> Result<String, String> {
        let mut splice = Splice::default();
        splice.push_text(before);
        splice.push_value("v", value.to_owned(), 0..0);
        splice.push_text(after);
        let (text, wrong) = splice.into_sql();
        match wrong.first() {
            Some((wrong, _)) => Err(wrong.message.clone()),
            None => Ok(text),
        }
    }

    #[rstest]
    #[case("a = '", "it's", "'", "a = 'it''s'")]
    #[case("a = E'", r"\'", "'", r"a = E'\\'''")]
    #[case("a ~ '", r"^\d$", "'", r"a ~ '^\d$'")]
    #[case("from \"", "we\"ird", "\".t", "from \"we\"\"ird\".t")]
    #[case("from ", "s.t", " where true", "from s.t where true")]
    #[case("from ", "s.\"a; b\"", "", "from s.\"a; b\"")]
    #[case("from ", "Ünï", ".t", "from Ünï.t")]
    #[case("from games_", "2024", "", "from games_2024")]
    #[case("n >= ", "-1.5", "", "n >= -1.5")]
    #[case("1 -", "-1", "", "1 - -1")]
    #[case("a -- ", "x\ndrop", "\n", "a -- ${v}\n")]
    #[case("a /* ", "*/ drop", " */", "a /* ${v} */")]
    #[case("$$ ", "a'b", " $$", "$$ a'b $$")]
    fn a_value_stays_in_its_place(
        #[case] before: &str,
        #[case] value: &str,
        #[case] after: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(sql(before, value, after).as_deref(), Ok(expected));
    }

    #[rstest]
    #[case("a = ", "1 or true", "", "neither a name nor a number")]
    #[case("a = ", "'x'", "", "neither a name nor a number")]
    #[case("from ", "t; drop table t", "", "neither a name nor a number")]
    #[case("from ", "t--", "", "neither a name nor a number")]
    #[case("from ", "", "", "neither a name nor a number")]
    #[case("from ", "\"\"", "", "neither a name nor a number")]
    #[case("from ", "\"a", "", "neither a name nor a number")]
    #[case("$$ ", "$$", " $$", "could end the dollar quotes")]
    #[case("U&'", r"\0027", "'", "holds a backslash")]
    #[case("E'a'\n'", r"\", "'", "holds a backslash")]
    fn a_value_that_would_leave_its_place_is_refused(
        #[case] before: &str,
        #[case] value: &str,
        #[case] after: &str,
        #[case] expected: &str,
    ) {
        let told = sql(before, value, after).expect_err("it is refused");
        assert!(told.contains(expected), "{told}");
    }

    /// The kinds of the tokens of a text but for white space.
    fn kinds(text: &str) -> Vec<TokenKind> {
        let tokens = tokenize(text).map(|token| token.kind);
        tokens
            .filter(|kind| *kind != TokenKind::Whitespace)
            .collect()
    }

    proptest! {
        #[test]
        fn no_value_changes_what_stands_around_it(
            value in r#"['"\\$;/*.\-a-z0-9\n ]{0,8}"#,
            place in 0_usize..7,
        ) {
            let (before, after) = [
                ("a = '", "' and b"), ("a = E'", "' and b"), ("from \"", "\" where b"),
                ("a = $q$", "$q$ and b"), ("a /* ", " */ and b"), ("a -- ", "\nand b"), ("a = N'", "' and b"),
            ][place];
            if let Ok(text) = sql(before, &value, after) {
                prop_assert_eq!(kinds(&text), kinds(&format!("{before}x{after}")), "{}", text);
            }
        }
    }
}
