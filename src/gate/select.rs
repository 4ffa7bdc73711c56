//! Which gates of a suite are meant: `kind:unique and not tag:slow, orders_*`.
//!
//! ```text
//! either = both { "or" both }
//! both   = one { ("and" | ",") one }
//! one    = "not" one | "(" either ")" | [key ":"] pattern
//! ```
//! A pattern without a key is an id; `*` stands for any text; quotes keep spaces and commas
//! together. Knows nothing of files or of the command line.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Errors, Excerpt, nearest, one_of};

use super::Gate;
use super::catalog::matches;

/// A parsed selection.
#[derive(Clone, Debug)]
pub struct Selection {
    text: Arc<str>,
    root: Node,
}

#[derive(Clone, Debug)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Term(Term),
}

#[derive(Clone, Debug)]
struct Term {
    key: Key,
    pattern: String,
    /// Where the pattern stands in the text.
    span: Range<usize>,
}

/// What a pattern is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Kind,
    Tag,
    Table,
    Severity,
    Suite,
    File,
    Owner,
}

const KEYS: [(&str, Key); 8] = [
    ("id", Key::Id),
    ("kind", Key::Kind),
    ("tag", Key::Tag),
    ("table", Key::Table),
    ("severity", Key::Severity),
    ("suite", Key::Suite),
    ("file", Key::File),
    ("owner", Key::Owner),
];

impl Selection {
    /// Reads a selection; a mistake is pointed at.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text: Arc<str> = text.into();
        let tokens = tokens(&text)?;
        let mut parser = Parser {
            text: &text,
            tokens: &tokens,
            at: 0,
        };
        let root = parser.either()?;
        if let Some((token, span)) = parser.peek() {
            let error = excerpted(&text, span.clone(), "unexpected in a selection", "");
            return Err(match token {
                Token::Word(word) => error.help(format!(
                    "write `and {word}` or `or {word}`; quotes keep a name with spaces together"
                )),
                _ => error,
            });
        }
        Ok(Self { text, root })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the selection takes a gate.
    pub fn takes(&self, gate: &Gate) -> bool {
        self.root.takes(gate)
    }

    /// The gates that the selection takes.
    ///
    /// A pattern that matches no gate at all is an error, because a misspelt one would silently
    /// leave its gates out; not so behind `not`, where it leaves out nothing. A selection that
    /// takes nothing is an error: nothing is proved by nothing.
    pub fn pick(&self, gates: Vec<Gate>) -> Result<Vec<Gate>, Errors> {
        let mut errors = Vec::new();
        self.unmatched(&self.root, &gates, &mut errors);
        if errors.is_empty() && !gates.iter().any(|gate| self.takes(gate)) {
            errors.push(
                excerpted(&self.text, 0..self.text.len(), "the selection takes no gate", "")
                    .help("a run without gates proves nothing; `postern list --select` shows what a selection takes"),
            );
        }
        Errors(errors).into_result()?;
        Ok(gates.into_iter().filter(|gate| self.takes(gate)).collect())
    }

    fn unmatched(&self, node: &Node, gates: &[Gate], errors: &mut Vec<Error>) {
        match node {
            Node::Any(nodes) | Node::All(nodes) => {
                for node in nodes {
                    self.unmatched(node, gates, errors);
                }
            }
            Node::Not(_) => {}
            Node::Term(term) if gates.iter().any(|gate| term.takes(gate)) => {}
            Node::Term(term) => errors.push(self.no_match(term, gates)),
        }
    }

    fn no_match(&self, term: &Term, gates: &[Gate]) -> Error {
        let what = match term.key {
            Key::Id => "has this id",
            Key::Kind => "is of this kind",
            Key::Tag => "has this tag",
            Key::Table => "names this table",
            Key::Severity => "has this severity",
            Key::Suite => "stands in this suite",
            Key::File => "stands in this file",
            Key::Owner => "has this owner",
        };
        let error = excerpted(
            &self.text,
            term.span.clone(),
            format!("the selection `{}` matches no gate", term.pattern),
            format!("no gate {what}"),
        );
        let mut known: Vec<String> = gates.iter().flat_map(|gate| term.key.of(gate)).collect();
        known.sort();
        known.dedup();
        let words = || known.iter().map(String::as_str);
        match nearest(&term.pattern, words()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None if known.is_empty() => error,
            None if known.len() <= 12 => error.help(format!("known are {}", one_of(words()))),
            None => error.help("`postern list` shows all gates"),
        }
    }
}

impl Node {
    fn takes(&self, gate: &Gate) -> bool {
        match self {
            Node::Any(nodes) => nodes.iter().any(|node| node.takes(gate)),
            Node::All(nodes) => nodes.iter().all(|node| node.takes(gate)),
            Node::Not(node) => !node.takes(gate),
            Node::Term(term) => term.takes(gate),
        }
    }
}

impl Term {
    fn takes(&self, gate: &Gate) -> bool {
        let values = self.key.of(gate);
        values.iter().any(|value| matches(&self.pattern, value))
    }
}

impl Key {
    /// What a gate has under this key, in every form that a person may write.
    fn of(self, gate: &Gate) -> Vec<String> {
        match self {
            Key::Id => vec![gate.id.clone()],
            Key::Kind => vec![gate.kind.to_owned()],
            Key::Tag => gate.tags.clone(),
            Key::Severity => vec![gate.severity.as_str().to_owned()],
            Key::Suite => vec![gate.suite.clone()],
            Key::Owner => gate.owner.iter().cloned().collect(),
            Key::File => {
                let file = &gate.place.file;
                let name = file.rsplit('/').next().unwrap_or(file);
                vec![file.clone(), name.to_owned()]
            }
            Key::Table => {
                let needs = gate.definition.needs();
                let mut names = Vec::new();
                for (_, relation) in needs.relations {
                    names.push(relation.readable());
                    names.push(relation.name.as_str().to_owned());
                }
                names.extend(needs.schemas.iter().map(|schema| format!("{schema}.*")));
                names
            }
        }
    }
}

enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Word(String),
}

fn tokens(text: &Arc<str>) -> Result<Vec<(Token, Range<usize>)>, Error> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(start, c)) = chars.peek() {
        let single = match c {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            ',' => Some(Token::And),
            _ => None,
        };
        if single.is_some() || c.is_whitespace() {
            chars.next();
            tokens.extend(single.map(|token| (token, start..start + 1)));
            continue;
        }
        let (mut word, mut end, mut quote, mut is_quoted) = (String::new(), start, None, false);
        while let Some(&(at, c)) = chars.peek() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '"' | '\'') => (quote, is_quoted) = (Some(c), true),
                (None, '(' | ')' | ',') => break,
                (None, c) if c.is_whitespace() => break,
                _ => word.push(c),
            }
            chars.next();
            end = at + c.len_utf8();
        }
        if quote.is_some() {
            return Err(excerpted(
                text,
                start..end,
                "a quote in the selection is never closed",
                "",
            ));
        }
        let token = match word.as_str() {
            "and" if !is_quoted => Token::And,
            "or" if !is_quoted => Token::Or,
            "not" if !is_quoted => Token::Not,
            _ => Token::Word(word),
        };
        tokens.push((token, start..end));
    }
    Ok(tokens)
}

struct Parser<'a> {
    text: &'a Arc<str>,
    tokens: &'a [(Token, Range<usize>)],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a (Token, Range<usize>)> {
        self.tokens.get(self.at)
    }

    fn next_is(&mut self, is_wanted: fn(&Token) -> bool) -> bool {
        let is = self.peek().is_some_and(|(token, _)| is_wanted(token));
        self.at += usize::from(is);
        is
    }

    fn either(&mut self) -> Result<Node, Error> {
        let mut nodes = vec![self.both()?];
        while self.next_is(|token| matches!(token, Token::Or)) {
            nodes.push(self.both()?);
        }
        Ok(Node::Any(nodes))
    }

    fn both(&mut self) -> Result<Node, Error> {
        let mut nodes = vec![self.one()?];
        while self.next_is(|token| matches!(token, Token::And)) {
            nodes.push(self.one()?);
        }
        Ok(Node::All(nodes))
    }

    fn one(&mut self) -> Result<Node, Error> {
        let Some((token, span)) = self.peek() else {
            let end = self.text.len();
            return Err(excerpted(
                self.text,
                end..end,
                "the selection ends too early",
                "expected a pattern",
            ));
        };
        self.at += 1;
        match token {
            Token::Not => Ok(Node::Not(Box::new(self.one()?))),
            Token::Word(word) => self.term(word, span),
            Token::Open => {
                let inner = self.either()?;
                if self.next_is(|token| matches!(token, Token::Close)) {
                    Ok(inner)
                } else {
                    Err(excerpted(
                        self.text,
                        span.clone(),
                        "a parenthesis in the selection is never closed",
                        "",
                    ))
                }
            }
            Token::Close | Token::And | Token::Or => Err(excerpted(
                self.text,
                span.clone(),
                "unexpected in a selection",
                "expected a pattern",
            )),
        }
    }

    fn term(&self, word: &str, span: &Range<usize>) -> Result<Node, Error> {
        let Some((name, pattern)) = word.split_once(':') else {
            return Ok(Node::Term(Term {
                key: Key::Id,
                pattern: word.to_owned(),
                span: span.clone(),
            }));
        };
        let names = || KEYS.iter().map(|(name, _)| *name);
        match KEYS.iter().find(|(known, _)| *known == name) {
            Some((_, key)) => Ok(Node::Term(Term {
                key: *key,
                pattern: pattern.to_owned(),
                span: span.start + name.len() + 1..span.end,
            })),
            None => {
                let error = excerpted(
                    self.text,
                    span.clone(),
                    format!("gates cannot be selected by `{name}`"),
                    format!("expected {}", one_of(names())),
                );
                Err(match nearest(name, names()) {
                    Some(near) => error.help(format!("did you mean `{near}:`?")),
                    None => error,
                })
            }
        }
    }
}

fn excerpted(
    text: &Arc<str>,
    span: Range<usize>,
    message: impl Into<String>,
    label: impl Into<String>,
) -> Error {
    Error::new(ErrorKind::Usage, message).at(Excerpt {
        file: PathBuf::from("the selection"),
        text: Arc::clone(text),
        span,
        label: label.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SUITE: &str = r#"
        [suite]
        tags = ["all"]
        [[gate]]
        id = "orders_key"
        kind = "unique"
        table = "sales.orders"
        columns = ["id"]
        tags = ["slow"]
        [[gate]]
        id = "orders_count"
        kind = "row_count"
        table = "sales.orders"
        at_least = 1
        severity = "warn"
        owner = "data team"
        [[gate]]
        id = "lines_count"
        kind = "row_count"
        table = "sales.lines"
        at_least = 1
    "#;

    fn gates() -> Vec<Gate> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.toml");
        std::fs::write(&file, SUITE).unwrap();
        super::super::load(&[file], &super::super::LoadOptions::default())
            .unwrap()
            .gates
    }

    #[rstest]
    #[case("orders_key", "orders_key")]
    #[case("*_count", "orders_count lines_count")]
    #[case("id:orders_*", "orders_key orders_count")]
    #[case("kind:unique", "orders_key")]
    #[case("tag:slow or table:lines", "orders_key lines_count")]
    #[case("table:sales.orders and kind:row_count", "orders_count")]
    #[case("table:sales.orders, kind:row_count", "orders_count")]
    #[case("table:*.lines", "lines_count")]
    #[case("not tag:slow", "orders_count lines_count")]
    #[case("tag:all and not (tag:slow or severity:warn)", "lines_count")]
    #[case("not not severity:warn", "orders_count")]
    #[case("owner:\"data team\"", "orders_count")]
    #[case("'owner:data team'", "orders_count")]
    #[case(
        "suite:shop and file:shop.toml, file:*/shop.toml",
        "orders_key orders_count lines_count"
    )]
    #[case(
        "kind:unique or kind:row_count and severity:warn",
        "orders_key orders_count"
    )]
    #[case(
        "* and not nothing_of_that_name",
        "orders_key orders_count lines_count"
    )]
    fn a_selection_takes_what_it_says(#[case] text: &str, #[case] expected: &str) {
        let picked = Selection::parse(text).unwrap().pick(gates()).unwrap();
        let ids: Vec<&str> = picked.iter().map(|gate| gate.id.as_str()).collect();
        assert_eq!(ids.join(" "), expected);
    }

    #[test]
    fn every_mistake_is_pointed_at() {
        let mut told = String::new();
        for text in [
            "",
            "kind:uniqe or order_key",
            "tagg:slow",
            "orders_key lines_count",
            "(orders_key",
            "orders_key)",
            "orders_key and",
            "or orders_key",
            "owner:\"data",
            "severity:error",
            "kind:unique and severity:warn",
        ] {
            let found = Selection::parse(text)
                .map_err(Errors::from)
                .and_then(|selection| selection.pick(gates()));
            let errors = found.expect_err(text);
            assert_eq!(errors.exit_code(), 2, "{text}");
            for error in errors.0 {
                told.push_str(&format!("{}\n\n", error.render(false)));
            }
        }
        insta::assert_snapshot!(told);
    }
}
