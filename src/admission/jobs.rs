//! Statements about jobs: VERIFY, PRUNE, and waiting for one.

use std::time::Duration;

use super::Caller;
use crate::error::{Error, ErrorKind};
use crate::job::{PruneRequest, VerifyRequest, Work};
use crate::names::{JobId, Timestamp};
use crate::privilege::{Privilege, Securable};
use crate::repository::{GRACE_SECONDS_MIN, PRUNE_WAIT};
use crate::statement::{Prune, Verify, WaitForJob};

/// What was written within the last day may be of a backup that is under way elsewhere.
const GRACE_SECONDS: u64 = 24 * 3600;

impl Caller {
    pub(super) async fn verify(&mut self, verify: &Verify) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        if self.cluster.managed().is_err() {
            return Err(Error::unsupported("VERIFY of a repository that a StarRocks cluster writes")
                .hint("Its format has no checksums of its files; system.snapshot_files shows what is missing."));
        }
        let work = Work::Verify(VerifyRequest {
            repository: verify.repository.clone(),
            label: verify.label.clone(),
            level: verify.level,
            sample: verify.sample,
        });
        let spec = self.spec(None, work, &verify.to_string());
        let id = self.gateway.runner.submit(spec).await?;
        self.notice(format!(
            "job {id} submitted; its result will be in system.verifications and system.repository_findings"
        ));
        Ok("VERIFY".into())
    }

    pub(super) async fn prune(&mut self, prune: &Prune) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        if self.cluster.managed().is_err() {
            return Err(Error::unsupported(
                "PRUNE of a repository that a StarRocks cluster writes",
            )
            .hint("In its format each snapshot has files of its own: they go with the snapshot."));
        }
        let (store, name) = (&self.gateway.store, &prune.repository);
        if store.repository(self.cluster.name(), name).await?.read_only {
            let message = format!("Repository {name} is read only");
            return Err(Error::new(ErrorKind::WrongState, message));
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
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        let work = Work::Prune(PruneRequest {
            repository: name.clone(),
            grace_seconds,
            wait_seconds: PRUNE_WAIT.as_secs(),
            dry_run: prune.dry_run,
        });
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
