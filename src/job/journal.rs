//! The journal of one job by itself: what was asked, and what happened. Copies of it lie in
//! repositories (docs/repository-format.md, "History").

use serde::{Deserialize, Serialize};

use super::{Delta, IllegalEvent, Job, JobEvent, JobSpec};
use crate::error::{Error, ErrorKind};
use crate::names::{JobId, Timestamp};

/// What this version writes and reads.
const FORMAT: u32 = 1;

/// Everything that a job is the fold of.
#[derive(Clone, Debug, PartialEq)]
pub struct JobJournal {
    pub spec: JobSpec,
    pub created_at: Timestamp,
    pub events: Vec<(Timestamp, JobEvent)>,
}

#[derive(Serialize, Deserialize)]
struct Stored<S, E> {
    format: u32,
    spec: S,
    created_at: Timestamp,
    events: E,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl JobJournal {
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let stored = Stored {
            format: FORMAT,
            spec: &self.spec,
            created_at: self.created_at,
            events: &self.events,
        };
        serde_json::to_vec(&stored).map_err(|e| Error::internal(e.to_string()))
    }

    /// Reads a copy. XX001 if it is damaged, 0A000 if a later version has written it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |e: serde_json::Error| {
            Error::new(
                ErrorKind::Corrupted,
                format!("the copy of a job's journal is damaged: {e}"),
            )
        };
        let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(Error::unsupported(format!(
                "a copy of a job's journal in format {format}"
            )));
        }
        let stored: Stored<JobSpec, Vec<(Timestamp, JobEvent)>> =
            serde_json::from_slice(bytes).map_err(damaged)?;
        Ok(Self {
            spec: stored.spec,
            created_at: stored.created_at,
            events: stored.events,
        })
    }

    /// The job under a number, with the rows that follow from its events.
    pub fn replay(&self, id: JobId) -> Result<Delta, IllegalEvent> {
        let job = Job::new(id, self.spec.clone(), self.created_at);
        let mut delta = Delta::of(&job);
        for (at, event) in &self.events {
            delta.push(event.clone(), *at)?;
        }
        Ok(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{
        BackupEvent, BackupRequest, CancelCause, End, Failure, Requester, Target, Work,
    };
    use crate::names::JobUid;

    #[test]
    fn a_copy_is_the_same_job_again() {
        let name = |text: &str| text.to_owned();
        let journal = JobJournal {
            spec: JobSpec {
                uid: JobUid::new("u").expect("valid"),
                cluster: name("embedded").try_into().expect("valid"),
                requester: Requester::Expiry,
                statement: "BACKUP".into(),
                timeout_seconds: 1,
                max_bytes_per_second: None,
                work: Work::Backup {
                    target: Target {
                        database: name("d").try_into().expect("valid"),
                        label: name("l").try_into().expect("valid"),
                        repository: name("r").try_into().expect("valid"),
                    },
                    request: BackupRequest {
                        objects: Vec::new(),
                        views: Vec::new(),
                        ttl: None,
                        base: None,
                    },
                },
            },
            created_at: Timestamp(5),
            events: vec![
                (
                    Timestamp(6),
                    JobEvent::Backup(BackupEvent::Cancelled {
                        failure: Failure::user_cancelled(None),
                    }),
                ),
                (Timestamp(7), JobEvent::Backup(BackupEvent::Released)),
            ],
        };
        let bytes = journal.encode().expect("encodes");
        let text = String::from_utf8(bytes.clone()).expect("text");
        assert!(
            text.starts_with("{\"format\":1,\"spec\":{\"uid\":\"u\","),
            "{text}"
        );
        let read = JobJournal::decode(&bytes).expect("reads");
        assert_eq!(read, journal);
        let delta = read.replay(JobId(9)).expect("adds up");
        assert_eq!((delta.job.id, delta.entries.len()), (JobId(9), 2));
        assert_eq!(delta.job.end(), Some(End::Cancelled(CancelCause::User)));
        assert!(delta.job.is_over());

        let twice = JobJournal {
            events: [journal.events.clone(), journal.events.clone()].concat(),
            ..journal
        };
        assert!(twice.replay(JobId(9)).is_err());
        let later = text.replace("\"format\":1", "\"format\":2");
        let error = JobJournal::decode(later.as_bytes()).expect_err("of a later version");
        assert_eq!(error.kind, ErrorKind::Unsupported);
        for damaged in [&bytes[..bytes.len() / 2], b"[]", b""] {
            let error = JobJournal::decode(damaged).expect_err("damaged");
            assert_eq!(error.kind, ErrorKind::Corrupted);
        }
    }
}
