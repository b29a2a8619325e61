//! `VERIFY`, `PRUNE`, `IMPORT HISTORY`, `WAIT FOR JOB`, `PAUSE`, `RESUME` and `ALTER JOB`:
//! Starkeep's own statements about jobs.

use super::ast::{JobControl, Prune, Statement, Verify, WaitForJob};
use super::parser::Parser;
use super::properties::take_pace;
use crate::error::{Error, ErrorKind};
use crate::job::{Pace, SAMPLE_ALL, VerifyLevel};
use crate::names::{JobId, Ttl};

/// A share such as `10%` or `0.5%`, of ten thousand.
fn share(text: &str) -> Option<u32> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 2 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let hundredths: u32 = format!("{whole}{fraction:0<2}").parse().ok()?;
    Some(hundredths).filter(|share| (1..=SAMPLE_ALL).contains(share))
}

impl Parser<'_> {
    /// A statement of this file, if one comes next.
    pub(super) fn job_statement(&mut self) -> Result<Option<Statement>, Error> {
        if self.eat("WAIT FOR JOB") {
            return self.wait_for_job().map(Statement::WaitForJob).map(Some);
        }
        if self.eat("PAUSE JOB") {
            let (id, control) = (self.job_number()?, JobControl::Pause);
            return Ok(Some(Statement::ControlJob { id, control }));
        }
        if self.eat("RESUME JOB") {
            let (id, control) = (self.job_number()?, JobControl::Resume);
            return Ok(Some(Statement::ControlJob { id, control }));
        }
        if self.eat("ALTER JOB") {
            let id = self.job_number()?;
            self.expect("SET")?;
            let control = self.job_settings()?;
            return Ok(Some(Statement::ControlJob { id, control }));
        }
        if self.eat("PRUNE REPOSITORY") {
            return self.prune().map(Statement::Prune).map(Some);
        }
        if self.eat("IMPORT HISTORY FROM REPOSITORY") {
            let repository = self.repository("Repository is empty")?;
            return Ok(Some(Statement::ImportHistory(repository)));
        }
        if self.eat("VERIFY REPOSITORY") {
            let repository = self.repository("Repository is empty")?;
            return self.verify(repository, None).map(Some);
        }
        if self.eat("VERIFY SNAPSHOT") {
            let label = self.named("a snapshot label")?;
            self.expect("ON")?;
            let repository = self.repository("Repository is empty")?;
            return self.verify(repository, Some(label)).map(Some);
        }
        Ok(None)
    }

    pub(super) fn job_number(&mut self) -> Result<JobId, Error> {
        let fault = self.unexpected("a job's number");
        i64::try_from(self.number("a job's number")?)
            .map(JobId)
            .map_err(|_| fault)
    }

    fn job_settings(&mut self) -> Result<JobControl, Error> {
        let at = self.offset();
        let mut settings = self.property_list()?;
        let pace = take_pace(&mut settings.0).map_err(|e| e.at(at))?;
        if let Some(unknown) = settings.0.keys().next() {
            let message = format!("Unknown job properties: [{unknown}]");
            return Err(Error::new(ErrorKind::InvalidParameter, message)
                .hint("\"max_bytes_per_second\" can be changed.")
                .at(at));
        }
        let pace = pace.ok_or_else(|| self.unexpected("\"max_bytes_per_second\""))?;
        Ok(JobControl::Pace(pace))
    }

    fn wait_for_job(&mut self) -> Result<WaitForJob, Error> {
        let id = self.job_number()?;
        let timeout_seconds = if self.eat("TIMEOUT") {
            Some(self.number("a number of seconds")?)
        } else {
            None
        };
        Ok(WaitForJob {
            id,
            timeout_seconds,
        })
    }

    fn prune(&mut self) -> Result<Prune, Error> {
        let repository = self.repository("Repository is empty")?;
        let dry_run = self.eat("DRY RUN");
        let at = self.offset();
        let mut properties = self.properties()?;
        let mut duration = |name: &str| match properties.0.remove(name) {
            None => Ok(None),
            Some(text) => Ttl::parse(&text).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidParameter,
                    format!("\"{name}\" is \"{text}\""),
                )
                .hint("It is a duration such as \"1 DAY\" or \"12 HOUR\".")
                .at(at)
            }),
        };
        let (grace, wait) = (duration("grace")?, duration("wait")?);
        if let Some(unknown) = properties.0.keys().next() {
            let message = format!("Unknown prune job properties: [{unknown}]");
            return Err(Error::new(ErrorKind::InvalidParameter, message).at(at));
        }
        Ok(Prune {
            repository,
            dry_run,
            grace,
            wait,
        })
    }

    fn verify(
        &mut self,
        repository: crate::names::RepositoryName,
        label: Option<crate::names::SnapshotLabel>,
    ) -> Result<Statement, Error> {
        let mut level = VerifyLevel::Checksum;
        if self.eat("LEVEL") {
            level = if self.eat("FILES") {
                VerifyLevel::Files
            } else if self.eat("CHECKSUM") {
                VerifyLevel::Checksum
            } else if self.eat("RESTORE") {
                VerifyLevel::Restore
            } else {
                return Err(self.unexpected("FILES, CHECKSUM or RESTORE"));
            };
        }
        let at = self.offset();
        let mut properties = self.properties()?;
        let sample = match properties.0.remove("sample") {
            None => SAMPLE_ALL,
            Some(text) => share(&text).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidParameter,
                    format!("\"sample\" is \"{text}\""),
                )
                .hint("It is a share from \"0.01%\" to \"100%\".")
                .at(at)
            })?,
        };
        let pace = take_pace(&mut properties.0).map_err(|e| e.at(at))?;
        if let Some(unknown) = properties.0.keys().next() {
            let message = format!("Unknown verify job properties: [{unknown}]");
            return Err(Error::new(ErrorKind::InvalidParameter, message).at(at));
        }
        if level == VerifyLevel::Files && sample != SAMPLE_ALL {
            let message = "\"sample\" is for LEVEL CHECKSUM: at FILES no file is read";
            return Err(Error::new(ErrorKind::InvalidParameter, message).at(at));
        }
        Ok(Statement::Verify(Verify {
            repository,
            label,
            level,
            sample,
            max_bytes_per_second: pace.and_then(Pace::bytes_per_second),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (text, expected) in [
            ("10%", Some(1000)),
            (" 0.5 %", Some(50)),
            ("100%", Some(10_000)),
            ("0.01%", Some(1)),
            ("0%", None),
            ("101%", None),
            ("10", None),
            ("1.234%", None),
            ("-1%", None),
            ("%", None),
        ] {
            assert_eq!(share(text), expected, "{text}");
        }
    }
}
