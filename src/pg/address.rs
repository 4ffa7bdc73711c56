//! Where a database is, and which of that is secret.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgErrorPosition};

use crate::error::{Error, ErrorKind, Result};

/// Where a database is and how to log in.
///
/// `Display` and `Debug` never show the password.
#[derive(Clone)]
pub struct Address {
    options: PgConnectOptions,
    /// Texts that must not be printed: the password as typed, decoded and encoded.
    secrets: Vec<String>,
}

/// The parameters after `?` that are understood. Anything else is refused, because a misspelt
/// `sslmode` that is silently ignored is a session without TLS.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

impl Address {
    /// Reads a `postgres://` URL; what it leaves out comes from the libpq environment
    /// (`PGHOST`, `PGPASSWORD`, …) and the password file.
    pub fn parse(url: &str) -> Result<Self> {
        let url = url.trim();
        let Some(rest) = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
        else {
            return Err(
                Error::usage("the database URL does not start with `postgres://`")
                    .help("write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
            );
        };
        check_encoding(rest)?;
        if let Some((_, query)) = rest.split_once('?') {
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let name = pair.split('=').next().unwrap_or_default();
                let base = name.split('[').next().unwrap_or_default();
                if !PARAMETERS.contains(&base) {
                    let error = Error::usage(format!(
                        "the database URL has an unknown parameter `{name}`"
                    ));
                    return Err(
                        match crate::error::nearest(base, PARAMETERS.iter().copied()) {
                            Some(near) => error.help(format!("did you mean `{near}`?")),
                            None => error.help(format!(
                                "known are {}",
                                crate::error::one_of(PARAMETERS.iter().copied())
                            )),
                        },
                    );
                }
            }
        }
        // The parser's own message may quote the URL, so it is not passed on.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            Error::usage("the database URL cannot be read").help(
                "write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE; \
                 percent-encode `@` as %40, `:` as %3A, `/` as %2F and `%` as %25 in the password",
            )
        })?;
        let mut address = Self::from_options(options);
        if let Some(typed) = typed_password(rest) {
            address.keep_secret(typed);
        }
        Ok(address)
    }

    /// An address from connection options that were built in code.
    pub fn from_options(options: PgConnectOptions) -> Self {
        let mut address = Self {
            secrets: Vec::new(),
            options,
        };
        let url = address.options.to_url_lossy();
        if let Some(password) = url.password() {
            address.keep_secret(password);
        }
        address
    }

    fn keep_secret(&mut self, text: &str) {
        let decoded = percent_decode_str(text).decode_utf8_lossy().into_owned();
        let encoded = utf8_percent_encode(&decoded, NON_ALPHANUMERIC).to_string();
        for secret in [text.to_owned(), decoded, encoded] {
            if !secret.is_empty() && !self.secrets.contains(&secret) {
                self.secrets.push(secret);
            }
        }
        // Longest first, so that no part of a longer form survives.
        self.secrets
            .sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// What sqlx needs to connect.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// The same server and login, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self {
            options: self.options.clone().database(database),
            secrets: self.secrets.clone(),
        }
    }

    /// The database's name; Postgres takes the user's name where none is given.
    pub fn database(&self) -> &str {
        self.options
            .get_database()
            .unwrap_or_else(|| self.options.get_username())
    }

    /// The whole URL, password included: only for handing to a program that must connect.
    pub fn to_secret_url(&self) -> String {
        let mut url = self.options.to_url_lossy();
        // A setting of the client library, which libpq and others refuse.
        let known: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != "statement-cache-capacity")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(known);
        url.to_string()
    }

    /// What any client finds its way by: `DATABASE_URL` and the variables of libpq.
    ///
    /// There is always a password, because some clients insist on one; it is not masked.
    pub fn environment(&self) -> [(&'static str, std::ffi::OsString); 6] {
        let host = match self.options.get_socket() {
            Some(socket) => socket.as_os_str().to_owned(),
            None => self.options.get_host().into(),
        };
        let url = self.options.to_url_lossy();
        let password = url.password().map_or_else(
            || "postern".to_owned(),
            |password| {
                percent_decode_str(password)
                    .decode_utf8_lossy()
                    .into_owned()
            },
        );
        [
            ("DATABASE_URL", self.to_secret_url().into()),
            ("PGHOST", host),
            ("PGPORT", self.options.get_port().to_string().into()),
            ("PGUSER", self.options.get_username().into()),
            ("PGDATABASE", self.database().into()),
            ("PGPASSWORD", password.into()),
        ]
    }

    /// `text` without this address's secrets and without the password of any database URL or
    /// `password=` setting in it.
    ///
    /// A password shorter than four characters, or equal to the user, host or database, is not
    /// searched for by itself: every such word of the text would go.
    pub fn mask(&self, text: &str) -> String {
        let mut masked = mask(text);
        let plain = [
            self.options.get_username(),
            self.options.get_host(),
            self.database(),
        ];
        for secret in &self.secrets {
            if secret.chars().count() >= 4 && !plain.contains(&secret.as_str()) {
                masked = masked.replace(secret.as_str(), MASK);
            }
        }
        masked
    }

    /// A sentence for an error that sqlx gave while talking to this database.
    ///
    /// Keeps Postgres' SQLSTATE, message, detail and hint; says in plain words what sqlx calls an
    /// I/O error.
    pub fn error(&self, error: &sqlx::Error) -> Error {
        describe(error, self).masked(|text| self.mask(text))
    }
}

const MASK: &str = "****";

// What the SQL standard has a client say where no server is left to say it.
pub(super) const CANNOT_CONNECT: &str = "08001";
const CONNECTION_FAILURE: &str = "08006";

/// The password part of `USER:PASSWORD@HOST…`, as typed.
fn typed_password(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let (userinfo, _) = authority.rsplit_once('@')?;
    let (_, password) = userinfo.split_once(':')?;
    Some(password)
}

/// Refuses a URL whose password was not percent-encoded and would be cut at a wrong place.
fn check_encoding(rest: &str) -> Result<()> {
    let unencoded = |what: &str| {
        Error::usage(format!("the database URL holds {what} that is not percent-encoded"))
            .help("in the user and password write `@` as %40, `:` as %3A, `/` as %2F, `?` as %3F, `#` as %23 and `%` as %25, or give the password through PGPASSWORD")
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // `user:pa/ss@host/db`: the authority ends inside the password, and an `@` follows in the path.
    if !authority.contains('@') && authority.contains(':') {
        let path = rest[authority.len()..]
            .split('?')
            .next()
            .unwrap_or_default();
        if path.contains('@')
            || rest[authority.len()..].starts_with(['?', '#']) && rest.contains('@')
        {
            return Err(unencoded("a password with `/`, `?` or `#`"));
        }
    }
    let bytes = rest.as_bytes();
    for (index, _) in rest.match_indices('%') {
        let is_hex = |offset: usize| bytes.get(index + offset).is_some_and(u8::is_ascii_hexdigit);
        if !(is_hex(1) && is_hex(2)) {
            return Err(unencoded("a `%`"));
        }
    }
    Ok(())
}

/// `text` without what stands where a password stands: in any database URL, or after `password=`.
pub fn mask(text: &str) -> String {
    let mut out = mask_urls(text);
    for key in ["password=", "password ="] {
        out = mask_after(&out, key);
    }
    out
}

/// `scheme://user:secret@` becomes `scheme://user:****@`.
fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        let (url, tail) = after.split_at(end_of_url(after));
        match url.rsplit_once('@') {
            Some((userinfo, host)) if userinfo.contains(':') => {
                let user = userinfo.split(':').next().unwrap_or_default();
                out.push_str(user);
                out.push(':');
                out.push_str(MASK);
                out.push('@');
                out.push_str(host);
            }
            _ => out.push_str(url),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Where a URL ends: at a space or a quote, but not at a quote inside a password.
fn end_of_url(text: &str) -> usize {
    let end = |stops: fn(char) -> bool| text.find(stops).unwrap_or(text.len());
    let long = end(char::is_whitespace);
    let short = end(|c| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>'));
    let (inside, beyond) = (&text[..short], &text[short..long]);
    if inside.contains(':') && !inside.contains('@') && beyond.contains('@') {
        long
    } else {
        short
    }
}

/// The word (or quoted text) after each `key` becomes `****`.
fn mask_after(text: &str, key: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find(key) {
        let value = at + found + key.len();
        out.push_str(&text[at..value]);
        let rest = &text[value..];
        let trimmed = rest.trim_start_matches(' ');
        let spaces = rest.len() - trimmed.len();
        let length = match trimmed.chars().next() {
            Some(quote @ ('\'' | '"')) => trimmed[1..]
                .find(quote)
                .map_or(trimmed.len(), |end| end + 2),
            _ => trimmed
                .find(|c: char| {
                    c.is_whitespace() || matches!(c, '&' | '\'' | '"' | '`' | ',' | ')')
                })
                .unwrap_or(trimmed.len()),
        };
        if length > 0 {
            out.push_str(MASK);
        }
        at = value + spaces + length;
    }
    out.push_str(&text[at..]);
    out
}

/// The sentence for an sqlx error, not yet masked.
fn describe(error: &sqlx::Error, address: &Address) -> Error {
    match error {
        sqlx::Error::Database(db) => match db.try_downcast_ref::<PgDatabaseError>() {
            Some(pg) => describe_postgres(pg, address),
            None => Error::new(ErrorKind::Database, db.message().to_owned()),
        },
        sqlx::Error::Io(io) => {
            let kind = match io.kind() {
                std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::BrokenPipe => ErrorKind::ConnectionLost,
                _ => ErrorKind::Connect,
            };
            let message = match kind {
                ErrorKind::ConnectionLost => format!("the connection to {address} was lost: {io}"),
                _ => format!("could not reach {address}: {io}"),
            };
            let sqlstate = match kind {
                ErrorKind::ConnectionLost => CONNECTION_FAILURE,
                _ => CANNOT_CONNECT,
            };
            Error::new(kind, message).with_sqlstate(sqlstate)
        }
        sqlx::Error::Tls(tls) => Error::new(
            ErrorKind::Connect,
            format!("could not agree on TLS with {address}: {tls}"),
        )
        .with_sqlstate(CANNOT_CONNECT),
        sqlx::Error::Configuration(why) => Error::new(
            ErrorKind::Connect,
            format!("could not connect to {address}: {why}"),
        )
        .with_sqlstate(CANNOT_CONNECT),
        other => Error::new(ErrorKind::Database, other.to_string()),
    }
}

fn describe_postgres(pg: &PgDatabaseError, address: &Address) -> Error {
    let code = pg.code();
    let kind = match code {
        // Cancelled by statement_timeout, lock_timeout, idle or transaction timeout.
        "57014" | "55P03" | "25P03" | "25P04" => ErrorKind::Timeout,
        // Terminated, crashed, shut down, or the connection class as a whole.
        "57P01" | "57P02" | "57P05" => ErrorKind::ConnectionLost,
        "57P03" | "53300" | "3D000" => ErrorKind::Connect,
        _ if code.starts_with("08") => ErrorKind::ConnectionLost,
        _ if code.starts_with("28") => ErrorKind::Connect,
        _ => ErrorKind::Database,
    };
    let message = match kind {
        ErrorKind::Connect => format!("{address} refused the session: {}", pg.message()),
        _ => pg.message().to_owned(),
    };
    let mut error = Error::new(kind, message).with_sqlstate(code);
    if let Some(detail) = pg.detail() {
        error = error.note(detail);
    }
    if let Some(context) = pg.r#where() {
        error = error.note(context);
    }
    if let Some(hint) = pg.hint() {
        error = error.help(hint);
    }
    error
}

/// Where in the statement (in characters, from 1) Postgres saw the error.
pub(crate) fn error_position(error: &sqlx::Error) -> Option<usize> {
    let sqlx::Error::Database(db) = error else {
        return None;
    };
    match db.try_downcast_ref::<PgDatabaseError>()?.position()? {
        PgErrorPosition::Original(position) => Some(position),
        PgErrorPosition::Internal { .. } => None,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.options.get_username();
        match self.options.get_socket() {
            Some(socket) => write!(
                f,
                "postgres://{user}@/{}?host={}&port={}",
                self.database(),
                socket.display(),
                self.options.get_port(),
            ),
            None => write!(
                f,
                "postgres://{user}@{}:{}/{}",
                self.options.get_host(),
                self.options.get_port(),
                self.database(),
            ),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PASSWORD: &str = "p@ss:w/rd%1";
    const ENCODED: &str = "p%40ss%3Aw%2Frd%251";

    #[test]
    fn an_encoded_password_is_read_and_never_shown() {
        let url = format!("postgres://ann:{ENCODED}@db.example:6543/shop");
        let address = Address::parse(&url).expect("the URL is right");
        assert_eq!(address.to_string(), "postgres://ann@db.example:6543/shop");
        assert_eq!(
            format!("{address:?}"),
            "Address(postgres://ann@db.example:6543/shop)"
        );
        for form in [PASSWORD, ENCODED, &url] {
            let masked = address.mask(&format!("oops: {form}!"));
            assert!(
                !masked.contains("w/rd") && !masked.contains("w%2Frd"),
                "{masked}"
            );
        }
    }

    #[rstest]
    #[case("postgres://ann:p/ss@host/db", "not percent-encoded")]
    #[case("postgres://ann:p?ss@host/db", "not percent-encoded")]
    #[case("postgres://ann:50%@host/db", "not percent-encoded")]
    #[case("mysql://ann:hunter22@host/db", "does not start with")]
    #[case("postgres://ann:hunter22@host:port/db", "cannot be read")]
    #[case(
        "postgres://ann:hunter22@host/db?sslmod=require",
        "unknown parameter `sslmod`"
    )]
    fn a_wrong_url_is_refused_without_its_password(#[case] url: &str, #[case] expected: &str) {
        let error = Address::parse(url)
            .expect_err("the URL is wrong")
            .render(false);
        assert!(error.contains(expected), "{error}");
        assert!(
            !error.contains("hunter22") && !error.contains("ss@host"),
            "{error}"
        );
    }

    #[rstest]
    #[case("see postgres://a:b@h/d now", "see postgres://a:****@h/d now")]
    #[case("'host=x password=secret user=y'", "'host=x password=**** user=y'")]
    #[case("password = 'a b' x", "password =**** x")]
    #[case(
        "url = \"postgres://a:b'c\\\"d@h/d\" x",
        "url = \"postgres://a:****@h/d\" x"
    )]
    #[case("no secrets at http://x.y/z", "no secrets at http://x.y/z")]
    fn passwords_in_any_text_are_masked(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(mask(text), expected);
    }
}
