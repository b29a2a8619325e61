//! Statements about jobs: VERIFY, PRUNE, and waiting for one.

use std::time::Duration;

use super::Caller;
use super::checks::Checks;
use crate::error::{Error, ErrorKind};
use crate::job::{ControlEvent, PruneRequest, Speaker, VerifyLevel, VerifyRequest, Work};
use crate::names::{JobId, RepositoryName, Timestamp, Ttl};
use crate::privilege::{Privilege, Securable};
use crate::repository::{
    GRACE_SECONDS_MIN, Location, PRUNE_WAIT, STORED_QUIET_SECONDS, StarRocksRepository,
    is_same_place,
};
use crate::statement::{JobControl, Prune, Verify, WaitForJob};

/// What was written within the last day may be of a backup that is under way elsewhere.
const GRACE_SECONDS: u64 = 24 * 3600;
/// A mark that is half a day old is not believed any more by whoever deletes.
const WAIT_SECONDS_MAX: u64 = 6 * 3600;

impl Caller {
    pub(super) async fn check_verify(
        &self,
        verify: &Verify,
        checks: &mut Checks,
    ) -> Result<Option<VerifyRequest>, Error> {
        let required = self.require(Privilege::Repository, Securable::System).await;
        let is_allowed = checks.take(required)?;
        if self.cluster.managed().is_err() {
            if verify.level == VerifyLevel::Restore && self.cluster.external().is_none() {
                let message =
                    "VERIFY … LEVEL RESTORE of a repository whose StarRocks cluster is not known";
                let hint =
                    "LEVEL CHECKSUM reads every file and holds it against the MD5 of its name.";
                checks.fail(Error::unsupported(message).hint(hint))?;
                return Ok(None);
            }
            let known = self.stored_repository(&verify.repository).await;
            if checks.take(known.map(drop))?.is_none() {
                return Ok(None);
            }
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

    /// The repository that a StarRocks cluster writes, as it can be read from here. 42704, too, if
    /// it is not known how it is reached.
    pub(super) async fn stored_repository(
        &self,
        name: &RepositoryName,
    ) -> Result<StarRocksRepository, Error> {
        let store = &self.gateway.store;
        let record = store.repository(self.cluster.name(), name).await?;
        let location = Location {
            url: record.location,
            properties: record.properties,
        };
        if location.properties.is_empty() && !location.is_local() {
            let message = format!("how repository \"{name}\" is reached is not known here");
            return Err(Error::new(ErrorKind::UndefinedObject, message)
                .hint("ALTER REPOSITORY … SET PROPERTIES (…) gives it."));
        }
        self.check_place(name, &location.url).await?;
        self.gateway.open.open_starrocks(name, &location)
    }

    /// Refuses a repository that the cluster has in another place: somebody may have made it anew. A
    /// cluster that does not answer is not needed.
    pub(super) async fn check_place(
        &self,
        name: &RepositoryName,
        location: &str,
    ) -> Result<(), Error> {
        if let Some(external) = self.cluster.external()
            && let Ok(known) = external.repositories().await
            && let Some(there) = known.iter().find(|r| r.name == name.as_str())
            && !is_same_place(&there.location, location)
        {
            let message = format!(
                "repository \"{name}\" is at {} by now, and was at {location} when it was created here",
                there.location
            );
            return Err(Error::new(ErrorKind::WrongState, message)
                .hint("DROP REPOSITORY, and create it again from here."));
        }
        Ok(())
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
        let is_ours = self.cluster.managed().is_ok();
        if !is_ours && self.cluster.external().is_none() {
            let message = "PRUNE of a repository whose StarRocks cluster is not known";
            let unknown = Error::unsupported(message)
                .hint("Only its cluster tells whether a backup is under way.");
            checks.fail(unknown)?;
            return Ok(None);
        }
        let (store, name) = (&self.gateway.store, &prune.repository);
        let known = checks.take(store.repository(self.cluster.name(), name).await)?;
        if known.as_ref().is_some_and(|record| record.read_only) {
            let message = format!("Repository {name} is read only");
            checks.fail(Error::new(ErrorKind::WrongState, message))?;
        }
        if !is_ours && known.is_some() {
            checks.take(self.stored_repository(name).await)?;
        }
        let seconds = |duration: Option<Ttl>, default: u64| {
            duration.map_or(default, |duration| {
                let end = duration.after(Timestamp(0)).map_or(i64::MAX, |end| end.0);
                u64::try_from(end / 1000).unwrap_or(u64::MAX)
            })
        };
        let grace_seconds = seconds(prune.grace, GRACE_SECONDS);
        let grace_min = match is_ours {
            true => GRACE_SECONDS_MIN,
            false => STORED_QUIET_SECONDS,
        };
        if grace_seconds < grace_min {
            let message = format!("\"grace\" is shorter than {grace_min} seconds");
            checks.fail(Error::new(ErrorKind::InvalidParameter, message))?;
        }
        // What a StarRocks cluster would not heed is neither announced nor waited for.
        let wait_default = if is_ours { PRUNE_WAIT.as_secs() } else { 0 };
        let wait_seconds = seconds(prune.wait, wait_default);
        if !is_ours && prune.wait.is_some() {
            let message = "\"wait\" in a repository that a StarRocks cluster writes";
            checks.fail(Error::unsupported(message))?;
        }
        if wait_seconds > WAIT_SECONDS_MAX {
            let message = "\"wait\" is longer than 6 hours";
            checks.fail(Error::new(ErrorKind::InvalidParameter, message))?;
        }
        Ok(is_allowed.and(known).map(|_| PruneRequest {
            repository: name.clone(),
            grace_seconds,
            wait_seconds,
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
