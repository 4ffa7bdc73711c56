//! The list of renderings: each is a pure function of one [`Report`].

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, nearest, one_of};

use super::{Report, github, json_v1, junit, markdown, openmetrics, sarif, terminal};

/// What a report can be rendered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What a person reads.
    Terminal,
    /// The whole report, version 1.
    Json,
    /// JUnit XML, for CI systems that show test results.
    Junit,
    /// A comment or a summary page.
    Markdown,
    /// Annotations of a GitHub workflow run.
    Github,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// OpenMetrics text, for Prometheus and its like.
    Openmetrics,
}

/// How a rendering for a person looks; the others do not depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether gates that passed are named.
    pub is_verbose: bool,
    /// Whether words are coloured; the text is the same without it.
    pub is_coloured: bool,
}

impl Format {
    /// Every format, in the order of the help.
    pub const ALL: [Self; 7] = [
        Self::Terminal,
        Self::Json,
        Self::Junit,
        Self::Markdown,
        Self::Github,
        Self::Sarif,
        Self::Openmetrics,
    ];

    /// The word a user types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Json => "json",
            Self::Junit => "junit",
            Self::Markdown => "markdown",
            Self::Github => "github",
            Self::Sarif => "sarif",
            Self::Openmetrics => "openmetrics",
        }
    }

    /// How the name of a file in this format ends.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Terminal => "txt",
            Self::Json => "json",
            Self::Junit => "junit.xml",
            Self::Markdown => "md",
            Self::Github => "github.txt",
            Self::Sarif => "sarif",
            Self::Openmetrics => "om",
        }
    }

    /// The report in this format, with a line break at the end.
    pub fn render(self, report: &Report, look: Look) -> String {
        match self {
            Self::Terminal => terminal::render(report, look),
            Self::Json => json_v1::render(report),
            Self::Junit => junit::render(report),
            Self::Markdown => markdown::render(report),
            Self::Github => github::render(report),
            Self::Sarif => sarif::render(report),
            Self::Openmetrics => openmetrics::render(report),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words = || Self::ALL.into_iter().map(Self::as_str);
        if let Some(found) = Self::ALL.into_iter().find(|format| format.as_str() == text) {
            return Ok(found);
        }
        let error = Error::usage(format!("unknown format `{text}`"));
        Err(match nearest(text, words()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!("the formats are {}", one_of(words()))),
        })
    }
}
