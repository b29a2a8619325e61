//! IMPORT HISTORY: jobs of which copies lie in a repository.

use futures::{StreamExt, TryStreamExt, stream};

use super::Caller;
use crate::error::{Error, ErrorKind};
use crate::job::{JobJournal, JobRow};
use crate::names::{ClusterName, JobId, RepositoryName, Timestamp};
use crate::repository::{ListedCopy, Location, Repository};

/// Copies that are read side by side.
const READS: usize = 8;
/// Jobs, and bytes of their copies, of one transaction.
const BATCH_JOBS: usize = 64;
const BATCH_BYTES_MAX: u64 = 32 << 20;
/// The last millisecond of 9999.
const TIME_MAX: Timestamp = Timestamp(253_402_300_799_999);

/// Copies that make one transaction.
fn batches(copies: Vec<ListedCopy>) -> Vec<Vec<ListedCopy>> {
    let mut batches: Vec<Vec<ListedCopy>> = Vec::new();
    let mut bytes = 0;
    for copy in copies {
        bytes += copy.bytes;
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_JOBS && bytes <= BATCH_BYTES_MAX => batch.push(copy),
            _ => {
                bytes = copy.bytes;
                batches.push(vec![copy]);
            }
        }
    }
    batches
}

/// From 1970 to 9999: what has a text that is read again.
fn is_possible(at: &Timestamp) -> bool {
    (0..=TIME_MAX.0).contains(&at.0)
}

/// A copy as a job of this cluster and repository, looked through before anything believes it.
async fn read(
    repository: &Repository,
    cluster: &ClusterName,
    copy: &ListedCopy,
) -> Result<JobJournal, Error> {
    let body = repository.read_history(copy).await?;
    let (cluster, name, uid) = (cluster.clone(), repository.name().clone(), copy.uid.clone());
    // What it says is nobody's promise: it may lead anywhere, a panic too.
    let checked = tokio::task::spawn_blocking(move || {
        let mut journal = JobJournal::decode(&body)?;
        let wrong = |what: &str| Error::new(ErrorKind::Corrupted, what.to_owned());
        if journal.spec.uid != uid {
            return Err(wrong("the copy is of another job"));
        }
        if journal.spec.external().is_some() || journal.spec.work.repository().is_none() {
            return Err(wrong("the copy is of no job of a repository"));
        }
        let mut times = journal.events.iter().map(|(at, _)| at);
        if !is_possible(&journal.created_at) || !times.all(is_possible) {
            return Err(wrong("the copy has a time that cannot be"));
        }
        journal.spec.cluster = cluster;
        journal.spec.work.set_repository(name);
        let delta = journal
            .replay(JobId(0))
            .map_err(|e| wrong(&e.to_string()))?;
        if !delta.job.is_over() {
            return Err(wrong("the copy is of a job that is not over"));
        }
        // What does not read again would be in everybody's way.
        let row = serde_json::to_string(&JobRow::of(&delta.job));
        let row = row.and_then(|text| serde_json::from_str::<JobRow>(&text));
        row.map_err(|e| wrong(&e.to_string()))?;
        Ok(journal)
    });
    checked
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Corrupted, "the copy does not add up")))
}

/// Whether an error is of one copy, and the others may read.
fn is_of_content(error: &Error) -> bool {
    use ErrorKind::{Corrupted, LimitExceeded, MissingFile, Unsupported};
    matches!(
        error.kind,
        Corrupted | LimitExceeded | MissingFile | Unsupported
    )
}

impl Caller {
    /// Takes jobs of other gateways, or of one that is gone, into the history.
    pub(super) async fn import_history(&mut self, name: &RepositoryName) -> Result<String, Error> {
        self.require_admin().await?;
        if self.cluster.managed().is_err() {
            return Err(Error::unsupported(
                "IMPORT HISTORY of a repository that a StarRocks cluster writes",
            ));
        }
        let cluster = self.cluster.name().clone();
        let record = self.gateway.store.repository(&cluster, name).await?;
        let location = Location {
            url: record.location,
            properties: record.properties,
        };
        let repository = self.gateway.open.open(name, &location)?;
        let copies = repository.history().await?;
        let all = copies.len() as u64;
        let (mut imported, mut unread, mut first) = (0, 0, None);
        for batch in batches(copies) {
            let read = |copy: ListedCopy| {
                let (repository, cluster) = (&repository, &cluster);
                async move {
                    match read(repository, cluster, &copy).await {
                        Ok(journal) => Ok(Ok(journal)),
                        Err(e) if is_of_content(&e) => Ok(Err((copy.uid, e))),
                        Err(e) => Err(e),
                    }
                }
            };
            let read: Vec<_> = stream::iter(batch)
                .map(read)
                .buffered(READS)
                .try_collect()
                .await?;
            let mut journals = Vec::new();
            for copy in read {
                match copy {
                    Ok(journal) => journals.push(journal),
                    Err(why) => {
                        unread += 1;
                        first.get_or_insert(why);
                    }
                }
            }
            imported += self.gateway.store.import(name, journals).await?;
        }
        if let Some((uid, e)) = first {
            let message =
                format!("{unread} of {all} copies were left out; the first is {uid}: {e}");
            self.warning("01000", message);
        }
        let known = all - imported - unread;
        self.notice(format!("{imported} jobs imported; {known} were known"));
        Ok("IMPORT HISTORY".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::JobUid;

    #[test]
    fn batches_are_small_in_jobs_and_bytes() {
        let copy = |bytes| ListedCopy {
            uid: JobUid::new("u").expect("valid"),
            written_at: Timestamp(0),
            bytes,
        };
        let sizes = |copies: Vec<u64>| {
            let batches = batches(copies.into_iter().map(copy).collect());
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(vec![1; 130]), [64, 64, 2]);
        assert_eq!(
            sizes(vec![20 << 20, 12 << 20, 1, 40 << 20, 1]),
            [2, 1, 1, 1]
        );
        assert_eq!(sizes(vec![]), [0; 0]);
    }
}
