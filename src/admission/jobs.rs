//! Statements about jobs: VERIFY, PRUNE, and waiting for one.

use std::time::Duration;

use super::Caller;
use super::checks::Checks;
use crate::error::{Error, ErrorKind};
use crate::job::{ControlEvent, PruneRequest, Speaker, VerifyLevel, VerifyRequest, Work};
use crate::names::{JobId, Timestamp};
use crate::privilege::{Privilege, Securable};
use crate::repository::{GRACE_SECONDS_MIN, PRUNE_WAIT};
use crate::statement::{JobControl, Prune, Verify, WaitForJob};

/// What was written within the last day may be of a backup that is under way elsewhere.
const GRACE_SECONDS: u64 = 24 * 3600;

impl Caller {
    pub(super) async fn check_verify(
        &self,
        verify: &Verify,
        checks: &mut Checks,
    ) -> Result<Option<VerifyRequest>, Error> {
        let required = self.require(Privilege::Repository, Securable::System).await;
        let is_allowed = checks.take(required)?;
        if self.cluster.managed().is_err() {
            let message = "VERIFY of a repository that a StarRocks cluster writes";
            let foreign = Error::unsupported(message).hint("Its format has no checksums of its files; system.snapshot_files shows what is missing.");
            checks.fail(foreign)?;
            return Ok(None);
        }
        let is_allowed = match verify.level {
            VerifyLevel::Restore => {
                let required = self
                    .require(Privilege::CreateDatabase, Securable::Catalog)
                    .await;
                is_allowed.and(checks.take(required)?)
            }
            VerifyLevel::Files | VerifyLevel::Checksum => is_allowed,
        };
        Ok(is_allowed.map(|()| VerifyRequest {
            repository: verify.repository.clone(),
            label: verify.label.clone(),
            level: verify.level,
            sample: verify.sample,
        }))
    }

    pub(super) async fn verify(&mut self, verify: &Verify) -> Result<String, Error> {
        let checked = self.check_verify(verify, &mut Checks::first()).await?;
        let work = Work::Verify(Checks::passed(checked)?);
        let mut spec = self.spec(None, work, &verify.to_string());
        spec.max_bytes_per_second = verify.max_bytes_per_second;
        let id = self.gateway.runner.submit(spec).await?;
        self.notice(format!(
            "job {id} submitted; its result will be in system.verifications and system.repository_findings"
        ));
        Ok("VERIFY".into())
    }

    pub(super) async fn check_prune(
        &self,
        prune: &Prune,
        checks: &mut Checks,
    ) -> Result<Option<PruneRequest>, Error> {
        let required = self.require(Privilege::Repository, Securable::System).await;
        let is_allowed = checks.take(required)?;
        if self.cluster.managed().is_err() {
            let message = "PRUNE of a repository that a StarRocks cluster writes";
            let foreign = Error::unsupported(message).hint(
                "In its format each snapshot has files of its own: they go with the snapshot.",
            );
            checks.fail(foreign)?;
            return Ok(None);
        }
        let (store, name) = (&self.gateway.store, &prune.repository);
        let known = checks.take(store.repository(self.cluster.name(), name).await)?;
        if known.as_ref().is_some_and(|record| record.read_only) {
            let message = format!("Repository {name} is read only");
            checks.fail(Error::new(ErrorKind::WrongState, message))?;
        }
        let grace_seconds = match prune.grace {
            None => GRACE_SECONDS,
            Some(grace) => {
                let end = grace.after(Timestamp(0)).map_or(i64::MAX, |end| end.0);
                u64::try_from(end / 1000).unwrap_or(u64::MAX)
            }
        };
        if grace_seconds < GRACE_SECONDS_MIN {
            let message = format!("\"grace\" is shorter than {GRACE_SECONDS_MIN} seconds");
            checks.fail(Error::new(ErrorKind::InvalidParameter, message))?;
        }
        Ok(is_allowed.and(known).map(|_| PruneRequest {
            repository: name.clone(),
            grace_seconds,
            wait_seconds: PRUNE_WAIT.as_secs(),
            dry_run: prune.dry_run,
        }))
    }

    pub(super) async fn prune(&mut self, prune: &Prune) -> Result<String, Error> {
        let checked = self.check_prune(prune, &mut Checks::first()).await?;
        let work = Work::Prune(Checks::passed(checked)?);
        let id = self
            .gateway
            .runner
            .submit(self.spec(None, work, &prune.to_string()))
            .await?;
        self.notice(format!(
            "job {id} submitted; system.pruned_objects says what it is about"
        ));
        Ok("PRUNE".into())
    }

    /// PAUSE, RESUME and ALTER JOB; whoever may cancel a job may do this.
    pub(super) async fn control_job(
        &mut self,
        id: JobId,
        control: JobControl,
    ) -> Result<String, Error> {
        self.check_may_cancel(id).await?;
        let by = Speaker::User(self.user.to_string());
        let (event, tag, done) = match control {
            JobControl::Pause => (
                ControlEvent::Paused { by },
                "PAUSE JOB",
                "paused; RESUME JOB lets it go on",
            ),
            JobControl::Resume => (ControlEvent::Resumed { by }, "RESUME JOB", "resumed"),
            JobControl::Pace(pace) => (ControlEvent::Paced { pace, by }, "ALTER JOB", "altered"),
        };
        self.gateway.runner.control(id, event).await?;
        self.notice(format!("job {id} {done}"));
        Ok(tag.into())
    }

    /// Returns when a job has ended: with an error, if it ended badly.
    pub(super) async fn wait_for_job(&mut self, wait: &WaitForJob) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let WaitForJob {
            id,
            timeout_seconds,
        } = *wait;
        let gateway = self.gateway.clone();
        let time_over = async {
            match timeout_seconds {
                Some(seconds) => gateway.env.clock.sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = gateway.runner.ended(id) => ended.map_err(|e| of_job(id, e))?,
            () = time_over => return Err(not_ended(id, timeout_seconds.unwrap_or_default())),
        }
        Ok("WAIT".into())
    }
}

/// The job's own error; what is wrong with the question stays as it is.
fn of_job(id: JobId, error: Error) -> Error {
    if matches!(error.kind, ErrorKind::UndefinedObject | ErrorKind::Shutdown) {
        return error;
    }
    error.prefixed(&format!("job {id} did not succeed"))
}

fn not_ended(id: JobId, seconds: u64) -> Error {
    Error::new(
        ErrorKind::Cancelled,
        format!("job {id} has not ended within {seconds} seconds"),
    )
    .hint("It goes on; CANCEL JOB ends it.")
}
