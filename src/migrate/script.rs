//! An SQL file, split into its statements.
//!
//! The rules are `psql`'s: a statement ends at a `;` outside parentheses, quotes, comments and the
//! `BEGIN ATOMIC … END` body of an SQL function. Knows nothing of connections.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use squawk_lexer::{LiteralKind, Token, TokenKind, tokenize};

use crate::error::{Error, ErrorKind, Errors, Excerpt, line_column};
use crate::sql::AuthorSql;

/// An SQL file and the statements in it.
#[derive(Clone, Debug)]
pub struct Script {
    file: PathBuf,
    text: Arc<str>,
    statements: Vec<Statement>,
    comments: Vec<Comment>,
}

/// One statement of a [`Script`], without the comments around it and without its `;`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Bytes of the script's text.
    pub span: Range<usize>,
    /// Line in the file, from 1.
    pub line: u32,
    /// The first words, in lower case: enough to know the command.
    words: Vec<String>,
}

/// A `--` comment.
#[derive(Clone, Debug)]
pub(crate) struct Comment {
    pub(crate) span: Range<usize>,
    /// Whether it stands before the first statement.
    pub(crate) is_leading: bool,
}

/// How many words of a statement are kept.
const WORDS: usize = 6;

impl Statement {
    fn starts_with(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(a, b)| a == b)
    }

    /// The first word in upper case, for progress lines: `CREATE`, `INSERT`.
    pub fn command(&self) -> String {
        self.words
            .first()
            .map_or_else(String::new, |word| word.to_uppercase())
    }

    /// Whether it begins, ends or prepares a transaction; savepoints do not count.
    pub fn is_transaction_control(&self) -> bool {
        match self.words.first().map(String::as_str) {
            Some("begin" | "commit" | "end" | "abort") => true,
            Some("start" | "prepare") => self.words.get(1).is_some_and(|w| w == "transaction"),
            Some("rollback") => !self.words.iter().any(|word| word == "to"),
            _ => false,
        }
    }
}

/// The `.sql` files directly in a folder, by name; hidden files are left out.
pub(crate) fn sql_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let cannot = |error: &std::io::Error| Error::io("read", folder, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| cannot(&error))? {
        let path = entry.map_err(|error| cannot(&error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_sql = name.to_ascii_lowercase().ends_with(".sql");
        if is_sql && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Script {
    /// Reads every `.sql` file of a folder, in the order of their names; all mistakes are reported
    /// together.
    pub fn discover(folder: &Path) -> Result<Vec<Self>, Errors> {
        let mut errors = Errors::default();
        let mut scripts = Vec::new();
        for file in sql_files(folder)? {
            match Self::read(&file) {
                Ok(script) => scripts.push(script),
                Err(more) => errors.0.extend(more.0),
            }
        }
        errors.into_result().map(|()| scripts)
    }

    /// Reads and splits a file. All mistakes found in it are reported together.
    pub fn read(file: &Path) -> Result<Self, Errors> {
        let bytes = std::fs::read(file).map_err(|error| Error::io("read", file, &error))?;
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(file, &text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..at]
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count()
                    + 1;
                Err(definition(format!(
                    "`{}` is not UTF-8: line {line} holds the byte 0x{:02X}",
                    file.display(),
                    error.as_bytes()[at]
                ))
                .help("save the file as UTF-8")
                .into())
            }
        }
    }

    /// Splits a text. A byte order mark at its start is dropped; line ends are kept as they are.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Errors> {
        let text: Arc<str> = text.strip_prefix(squawk_lexer::BOM).unwrap_or(text).into();
        let mut splitter = Splitter::new(file, Arc::clone(&text));
        splitter.run();
        let Splitter {
            statements,
            comments,
            errors,
            ..
        } = splitter;
        errors.into_result()?;
        Ok(Self {
            file: file.to_owned(),
            text,
            statements,
            comments,
        })
    }

    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole text, without a byte order mark.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The statements in order.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// The text of a statement of this script, to be run as it is.
    pub fn sql(&self, statement: &Statement) -> AuthorSql {
        AuthorSql::new(&self.text[statement.span.clone()])
    }

    /// Points at a stretch of the file.
    pub fn excerpt(&self, span: Range<usize>, label: impl Into<String>) -> Excerpt {
        Excerpt {
            file: self.file.clone(),
            text: Arc::clone(&self.text),
            span,
            label: label.into(),
        }
    }

    /// Where to point in a statement that failed, and what to say there.
    ///
    /// `position` counts characters of the statement from 1, as Postgres does. Without one, the
    /// statement's first line is shown.
    pub(crate) fn place(
        &self,
        statement: &Statement,
        position: Option<usize>,
    ) -> (Range<usize>, &'static str) {
        let text = &self.text[statement.span.clone()];
        let start = statement.span.start;
        match position.and_then(|position| text.char_indices().nth(position.checked_sub(1)?)) {
            Some((offset, _)) => {
                let rest = &text[offset..];
                let word = rest
                    .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$')))
                    .unwrap_or(rest.len());
                let length = word.max(rest.chars().next().map_or(1, char::len_utf8));
                (start + offset..start + offset + length, "")
            }
            // Past the end: the statement ended too early.
            None if position.is_some() => (statement.span.end..statement.span.end, "it ends here"),
            None => {
                let first = text.lines().next().unwrap_or(text);
                (start..start + first.len(), "")
            }
        }
    }

    pub(crate) fn comments(&self) -> &[Comment] {
        &self.comments
    }

    /// The words of a `--` comment, trimmed.
    pub(crate) fn comment_text(&self, comment: &Comment) -> &str {
        self.text[comment.span.clone()]
            .trim_start_matches('-')
            .trim()
    }
}

fn definition(message: String) -> Error {
    Error::new(ErrorKind::Definition, message)
}

/// The tokens of a text with their places; lexing can be taken up at any place.
struct Splitter {
    file: PathBuf,
    text: Arc<str>,
    at: usize,
    statements: Vec<Statement>,
    comments: Vec<Comment>,
    errors: Errors,
    open: Option<Open>,
    /// Whether the token before was an `E'…'`.
    after_escape: bool,
}

/// The statement being read.
#[derive(Default)]
struct Open {
    start: usize,
    end: usize,
    words: Vec<String>,
    parens: usize,
    /// Nested `BEGIN ATOMIC` and, within it, `CASE`.
    blocks: usize,
    /// The word just before: `begin` matters before `atomic`, `from` before `stdin`.
    previous: String,
    copies_from_stdin: Option<Range<usize>>,
}

impl Open {
    /// `CREATE [OR REPLACE] FUNCTION | PROCEDURE`: only their bodies hold `BEGIN ATOMIC`.
    fn is_routine(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        matches!(
            words.as_slice(),
            ["create", "function" | "procedure", ..]
                | ["create", "or", "replace", "function" | "procedure", ..]
        )
    }

    fn word(&mut self, word: &str, span: Range<usize>) {
        if self.words.len() < WORDS && self.parens == 0 {
            self.words.push(word.to_owned());
        }
        if self.parens == 0 {
            if self.is_routine() {
                match word {
                    "atomic" if self.previous == "begin" => self.blocks += 1,
                    "case" if self.blocks > 0 => self.blocks += 1,
                    "end" => self.blocks = self.blocks.saturating_sub(1),
                    _ => {}
                }
            }
            let is_copy = self.words.first().is_some_and(|first| first == "copy");
            if is_copy && word == "stdin" && self.previous == "from" {
                self.copies_from_stdin = Some(span);
            }
        }
        word.clone_into(&mut self.previous);
    }
}

/// What a quote or comment that never ends is called.
fn unterminated(kind: TokenKind) -> Option<&'static str> {
    match kind {
        TokenKind::BlockComment { terminated: false } => Some("comment"),
        TokenKind::QuotedIdent {
            terminated: false, ..
        } => Some("quoted name"),
        TokenKind::Literal {
            kind: LiteralKind::DollarQuotedString { terminated: false },
        } => Some("dollar-quoted text"),
        TokenKind::Literal {
            kind:
                LiteralKind::Str { terminated: false }
                | LiteralKind::NationalStr { terminated: false }
                | LiteralKind::ByteStr { terminated: false }
                | LiteralKind::BitStr { terminated: false }
                | LiteralKind::UnicodeEscStr { terminated: false }
                | LiteralKind::EscStr { terminated: false },
        } => Some("quoted text"),
        _ => None,
    }
}

impl Splitter {
    fn new(file: &Path, text: Arc<str>) -> Self {
        Self {
            file: file.to_owned(),
            text,
            at: 0,
            statements: Vec::new(),
            comments: Vec::new(),
            errors: Errors::default(),
            open: None,
            after_escape: false,
        }
    }

    fn run(&mut self) {
        if let Some(at) = self.text.find('\0') {
            let error = definition("the file holds a NUL character".to_owned());
            self.fail(error, at..at + 1, "");
            return;
        }
        let text = Arc::clone(&self.text);
        // Lexing restarts where something that is not SQL was skipped.
        while self.at < text.len() {
            let from = self.at;
            for token in tokenize(&text[from..]) {
                let before = self.at;
                if !self.take(token) {
                    break;
                }
                debug_assert!(self.at >= before, "lexing goes forward");
            }
        }
        self.close();
    }

    fn fail(&mut self, error: Error, span: Range<usize>, label: &str) {
        self.errors.0.push(error.at(Excerpt {
            file: self.file.clone(),
            text: Arc::clone(&self.text),
            span,
            label: label.to_owned(),
        }));
    }

    /// Takes one token; `false` when lexing must start anew at `self.at`.
    fn take(&mut self, token: Token) -> bool {
        let start = self.at;
        let end = start + token.len as usize;
        self.at = end;
        if let Some(what) = unterminated(token.kind) {
            let error = definition(format!("a {what} is never closed"));
            self.fail(error, start..start + 1, "it starts here");
            self.open = None;
            self.at = self.text.len();
            return false;
        }
        match token.kind {
            TokenKind::Whitespace | TokenKind::BlockComment { .. } | TokenKind::Eof => true,
            TokenKind::LineComment => {
                self.comments.push(Comment {
                    span: start..end,
                    is_leading: self.statements.is_empty() && self.open.is_none(),
                });
                true
            }
            TokenKind::Unknown if self.text[start..].starts_with('\\') => {
                self.meta_command(start);
                false
            }
            TokenKind::Semi if self.is_end() => {
                self.after_escape = false;
                self.close();
                self.restart_after_copy()
            }
            kind => {
                // `E'…'` goes on in the next line's `'…'` with backslashes still escaping.
                let is_escape = matches!(
                    kind,
                    TokenKind::Literal {
                        kind: LiteralKind::EscStr { .. }
                    }
                );
                let goes_on = self.after_escape
                    && matches!(
                        kind,
                        TokenKind::Literal {
                            kind: LiteralKind::Str { .. }
                        }
                    );
                if goes_on {
                    return self.escape_continuation(start);
                }
                self.after_escape = is_escape;
                self.part(kind, start..end);
                true
            }
        }
    }

    /// A token that belongs to a statement.
    fn part(&mut self, kind: TokenKind, span: Range<usize>) {
        let text = Arc::clone(&self.text);
        let open = self.open.get_or_insert_with(|| Open {
            start: span.start,
            ..Open::default()
        });
        open.end = span.end;
        match kind {
            TokenKind::OpenParen => open.parens += 1,
            TokenKind::CloseParen => open.parens = open.parens.saturating_sub(1),
            TokenKind::Ident => open.word(&text[span.clone()].to_ascii_lowercase(), span),
            _ => open.previous.clear(),
        }
    }

    fn is_end(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.parens == 0 && open.blocks == 0)
    }

    /// The quoted text at `start`, which continues an `E'…'`.
    fn escape_continuation(&mut self, start: usize) -> bool {
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        loop {
            match bytes.get(at) {
                Some(b'\\') => at += 2,
                Some(b'\'') if bytes.get(at + 1) == Some(&b'\'') => at += 2,
                Some(b'\'') => break,
                Some(_) => at += 1,
                None => {
                    let error = definition("a quoted text is never closed".to_owned());
                    self.fail(error, start..start + 1, "it starts here");
                    self.open = None;
                    self.at = self.text.len();
                    return false;
                }
            }
        }
        self.at = at + 1;
        if let Some(open) = &mut self.open {
            open.end = self.at;
        }
        false
    }

    fn meta_command(&mut self, start: usize) {
        let rest = &self.text[start..];
        let line = rest.lines().next().unwrap_or(rest);
        let word = line.split_whitespace().next().unwrap_or(line);
        let error = definition(format!("`{word}` is a psql command, not SQL"))
            .help("write the SQL itself; Postern sends the file to the server, not to psql");
        let span = start..start + word.len();
        let next = start + line.len();
        self.fail(error, span, "");
        self.open = None;
        self.at = next;
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Some(span) = open.copies_from_stdin {
            let error =
                definition("COPY FROM STDIN needs data that a script cannot carry".to_owned())
                    .help("write INSERT statements, or COPY from a query or a file on the server");
            self.fail(error, span, "");
        }
        let (line, _) = line_column(&self.text, open.start);
        self.statements.push(Statement {
            span: open.start..open.end,
            line,
            words: open.words,
        });
    }

    /// After a refused COPY FROM STDIN its data is skipped, so that it is not read as SQL.
    fn restart_after_copy(&mut self) -> bool {
        let was_copy = self
            .statements
            .last()
            .is_some_and(|statement| statement.starts_with(&["copy"]));
        let end = self.text[self.at..].find("\n\\.");
        match end {
            Some(end) if was_copy => {
                let end = self.at + end + 3;
                self.at = end;
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<Script, Errors> {
        Script::parse(Path::new("a.sql"), text)
    }

    fn texts(text: &str) -> Vec<String> {
        let script = parse(text).expect("it is right");
        script
            .statements()
            .iter()
            .map(|statement| script.text()[statement.span.clone()].to_owned())
            .collect()
    }

    #[rstest]
    #[case::plain("select 1; select 2", &["select 1", "select 2"])]
    #[case::empty_ones(";;select 1;;", &["select 1"])]
    #[case::comments("-- a; b\nselect /* ; /* ; */ ; */ 1 -- c;\n; -- d", &["select /* ; /* ; */ ; */ 1"])]
    #[case::quotes("select ';', \";\", E'\\';', $$;$$, $a$;$$;$a$; select 2", &["select ';', \";\", E'\\';', $$;$$, $a$;$$;$a$", "select 2"])]
    #[case::backslash_is_plain("select '\\'; select 2", &["select '\\'", "select 2"])]
    #[case::escape_goes_on("select E'a'\n'\\';'; select 2", &["select E'a'\n'\\';'", "select 2"])]
    #[case::escape_goes_on_twice("select E'a'\n'b'\n'\\';'; select 2", &["select E'a'\n'b'\n'\\';'", "select 2"])]
    #[case::escape_ended("select E'a';\n'\\'; select 2", &["select E'a'", "'\\'", "select 2"])]
    #[case::rule("create rule r as on insert to t do also (select 1; select 2); select 3", &["create rule r as on insert to t do also (select 1; select 2)", "select 3"])]
    #[case::atomic(
        "create or replace function f() returns int begin atomic select case when true then case when true then 1 end end; select 2; end; select 3",
        &["create or replace function f() returns int begin atomic select case when true then case when true then 1 end end; select 2; end", "select 3"]
    )]
    #[case::atomic_in_parens(
        "create procedure p() begin atomic insert into t values ((case when true then 1 end)); end; select 3",
        &["create procedure p() begin atomic insert into t values ((case when true then 1 end)); end", "select 3"]
    )]
    #[case::begin_alone("begin; select 1; end; select 2", &["begin", "select 1", "end", "select 2"])]
    #[case::case_alone("select case when true then 1 end; select 2", &["select case when true then 1 end", "select 2"])]
    #[case::dollar_in_name("select a$b$c; select 2", &["select a$b$c", "select 2"])]
    #[case::bom_and_crlf("\u{feff}select 1;\r\nselect 2;\r\n", &["select 1", "select 2"])]
    #[case::half_tag("select $ab$ $a$ab$; select 2", &["select $ab$ $a$ab$", "select 2"])]
    #[case::operator("select 1 @> 2; select 3 - -4", &["select 1 @> 2", "select 3 - -4"])]
    fn a_script_is_split_as_psql_would(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(texts(text), expected);
    }

    #[test]
    fn a_statement_knows_its_line() {
        let script = parse("-- one\n\nselect 1;\n\n  select\n 2;").expect("it is right");
        let lines: Vec<u32> = script.statements().iter().map(|s| s.line).collect();
        assert_eq!(lines, [3, 5]);
    }

    #[rstest]
    #[case("select 'a; select 2", "a quoted text is never closed", (1, 8))]
    #[case("select 1;\nselect \"a", "a quoted name is never closed", (2, 8))]
    #[case("select 1; /* a", "a comment is never closed", (1, 11))]
    #[case("do $x$ begin $$ $y$ ", "a dollar-quoted text is never closed", (1, 4))]
    #[case("select 1;\n  \\i other.sql\nselect 2", "`\\i` is a psql command, not SQL", (2, 3))]
    #[case("copy t (a) from stdin with csv;\nit's\n\\.\nselect 1;", "COPY FROM STDIN needs data", (1, 17))]
    #[case("select E'a'\n'\\' ;", "a quoted text is never closed", (2, 1))]
    fn a_mistake_has_its_place(
        #[case] text: &str,
        #[case] expected: &str,
        #[case] place: (u32, u32),
    ) {
        let errors = parse(text).expect_err("it is wrong").0;
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].message().starts_with(expected), "{errors:?}");
        assert_eq!(errors[0].excerpts()[0].line_column(), place);
    }

    #[test]
    fn every_psql_command_is_reported() {
        let errors = parse("\\set x 1\nselect 1;\n\\i a's.sql\n").expect_err("it is wrong");
        assert_eq!(errors.0.len(), 2, "{errors:?}");
    }

    #[rstest]
    #[case("begin", true)]
    #[case("start transaction isolation level serializable", true)]
    #[case("rollback", true)]
    #[case("rollback to savepoint a", false)]
    #[case("rollback transaction to a", false)]
    #[case("savepoint a", false)]
    #[case("prepare transaction 'a'", true)]
    #[case("prepare a as select 1", false)]
    fn transaction_control_is_known(#[case] text: &str, #[case] expected: bool) {
        let script = parse(text).expect("it is right");
        assert_eq!(script.statements()[0].is_transaction_control(), expected);
    }

    #[rstest]
    #[case(Some(8), "ünknown.b")]
    #[case(Some(17), ",")]
    #[case(Some(99), "")]
    #[case(None, "select ünknown.b,")]
    fn the_place_is_the_word_that_postgres_named(
        #[case] position: Option<usize>,
        #[case] expected: &str,
    ) {
        let script = Script::parse(Path::new("x"), "-- ä\nselect ünknown.b,\n c;").unwrap();
        let (span, _) = script.place(&script.statements()[0], position);
        assert_eq!(&script.text()[span], expected);
    }

    /// Pieces that are whole in themselves, whatever stands beside them.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("select 1".to_owned()),
            Just("( ; )".to_owned()),
            Just(
                "create function f() begin atomic select case when a then ';' end; end".to_owned()
            ),
            "'[a-z;$\"-]{0,6}'",
            "\"[a-z;$'-]{1,6}\"",
            "E'(\\\\'|[a-z;]){0,4}'",
            // No `$t$` within: it would end there.
            r"\$t\$[a-su-z;'$-]{0,6}\$t\$",
            r"/\*[a-z;' ]{0,6}\*/",
            "--[a-z;' ]{0,6}\n",
            Just("ü".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn statements_and_what_is_between_them_are_the_file(
            pieces in proptest::collection::vec((piece(), prop_oneof![Just(" "), Just(";"), Just("\r\n")]), 0..12)
        ) {
            let text: String = pieces.iter().map(|(a, b)| format!("{a} {b}")).collect();
            if let Ok(script) = parse(&text) {
                let mut joined = String::new();
                let mut at = 0;
                for statement in script.statements() {
                    let between = &text[at..statement.span.start];
                    joined.push_str(between);
                    joined.push_str(&text[statement.span.clone()]);
                    at = statement.span.end;
                    // A statement that ended within a quote would not be whole on its own.
                    let alone = parse(&text[statement.span.clone()]).expect("a statement stands alone");
                    prop_assert_eq!(alone.statements().len(), 1);
                    // What is between statements holds none.
                    prop_assert_eq!(parse(between).expect("nothing there").statements().len(), 0);
                }
                joined.push_str(&text[at..]);
                prop_assert_eq!(&joined, &text);
            } else {
                prop_assert!(false, "pieces are whole: {}", text);
            }
        }

        #[test]
        fn any_text_is_split_or_refused(text in "[ -~\n\r'\"$;E\\\\/*()-]{0,60}") {
            if let Ok(script) = parse(&text) {
                let mut at = 0;
                for statement in script.statements() {
                    prop_assert!(statement.span.start >= at && statement.span.end > statement.span.start);
                    at = statement.span.end;
                }
            }
        }
    }
}
