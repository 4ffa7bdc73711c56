//! The flags about failures that are accepted for now.

use std::path::PathBuf;

use clap::Args;
use jiff::civil::Date;

use crate::error::{Error, Errors, nearest};
use crate::gate::baseline::{Baseline, day};
use crate::report::Report;
use crate::report::baseline::{Grounds, update};
use crate::source::SourceFile;

use super::settings::{RunSettings, Settings};

const FILE: &str = "postern.baseline.toml";

#[derive(Debug, Args)]
pub(super) struct BaselineArguments {
    /// Failures that are accepted for now: a gate that fails with no more rows than its [[accept]]
    /// says is told and does not block. [default: `baseline` of the target or of postern.toml, else
    /// postern.baseline.toml beside it, where there is one]
    #[arg(long, value_name = "FILE", env = "POSTERN_BASELINE")]
    baseline: Option<PathBuf>,
    /// Brings the baseline up to this run: numbers fall to what offends now, gates that pass are taken
    /// out; with --reason and --owner, failures that are new are taken up.
    #[arg(long)]
    update_baseline: bool,
    /// A gate whose number may rise and whose reason, owner and last day are written anew. May be
    /// repeated.
    #[arg(long, value_name = "GATE", requires_all = ["update_baseline", "reason"])]
    accept: Vec<String>,
    /// Why failures that are taken up are accepted.
    #[arg(long, value_name = "TEXT", requires_all = ["update_baseline", "owner"])]
    reason: Option<String>,
    /// Who answers for failures that are taken up.
    #[arg(long, value_name = "NAME", requires_all = ["update_baseline", "reason"])]
    owner: Option<String>,
    /// The last day on which failures that are taken up are accepted, such as 2026-12-31. [default:
    /// no last day]
    #[arg(long, value_name = "DAY", requires_all = ["update_baseline", "reason"], value_parser = last_day)]
    until: Option<Date>,
}

fn last_day(text: &str) -> Result<Date, String> {
    day(text).ok_or_else(|| "expected a day such as 2026-12-31".to_owned())
}

/// The baseline of a run and the file that it stands in.
pub(super) struct Accepted {
    pub(super) baseline: Baseline,
    file: SourceFile,
}

impl BaselineArguments {
    /// Reads the baseline; one that is named must be there, unless it is about to be written.
    pub(super) fn load(&self, settings: &Settings, run: &RunSettings) -> Result<Accepted, Errors> {
        let mut errors = Vec::new();
        for (flag, text) in [("--reason", &self.reason), ("--owner", &self.owner)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                errors.push(Error::usage(format!("`{flag}` is empty")));
            }
        }
        let named = self.baseline.as_ref().or(run.baseline.as_ref());
        let path = named.map_or_else(|| settings.path(FILE), PathBuf::clone);
        let may_lack = named.is_none() || self.update_baseline;
        let file = if may_lack && !path.exists() {
            let text = "".into();
            Ok(SourceFile { path, text })
        } else {
            SourceFile::load(path)
        };
        let accepted = file.map_err(Errors::from).and_then(|file| {
            let baseline = Baseline::parse(&file)?;
            Ok(Accepted { baseline, file })
        });
        match accepted {
            Ok(accepted) if errors.is_empty() => Ok(accepted),
            Ok(_) => Err(Errors(errors)),
            Err(found) => {
                errors.extend(found.0);
                Err(Errors(errors))
            }
        }
    }

    /// Names of gates, in the file and in flags, that no definition has.
    pub(super) fn check(&self, accepted: &Accepted, gates: &[String]) -> Result<(), Errors> {
        let mut errors = accepted.baseline.check(gates).err().unwrap_or_default();
        for name in self.accept.iter().filter(|name| !gates.contains(name)) {
            let error = Error::usage(format!("there is no gate `{name}` to accept"));
            let near = nearest(name, gates.iter().map(String::as_str));
            errors.0.push(match near {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error,
            });
        }
        errors.into_result()
    }

    /// Writes the baseline where that was asked for; what holds from then on.
    ///
    /// The report is one that no baseline was applied to.
    pub(super) fn updated(&self, accepted: Accepted, report: &Report) -> Result<Baseline, Errors> {
        let Accepted { baseline, file } = accepted;
        if !self.update_baseline {
            return Ok(baseline);
        }
        let grounds = self.reason.as_ref().zip(self.owner.as_ref());
        let grounds = grounds.map(|(reason, owner)| Grounds {
            reason: reason.clone(),
            owner: owner.clone(),
            until: self.until,
        });
        let updated = update(
            &file.text,
            &baseline,
            report,
            grounds.as_ref(),
            &self.accept,
        )?;
        for change in &updated.changes {
            super::remark(&format!("{}: {change}", file.path.display()));
        }
        for remark in &updated.remarks {
            super::remark(remark);
        }
        if updated.changes.is_empty() {
            return Ok(baseline);
        }
        std::fs::write(&file.path, &updated.text)
            .map_err(|error| Error::io("write", &file.path, &error))?;
        let text = updated.text.into();
        Baseline::parse(&SourceFile { text, ..file })
    }
}
