//! Statements about jobs of any cluster: VERIFY, and waiting for one.

use std::time::Duration;

use super::Caller;
use crate::error::{Error, ErrorKind};
use crate::job::{VerifyRequest, Work};
use crate::names::JobId;
use crate::privilege::{Privilege, Securable};
use crate::statement::{Verify, WaitForJob};

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
