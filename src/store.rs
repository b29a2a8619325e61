//! What must survive: the journal of jobs, the repositories, the users.
//!
//! The journal is the truth about a job; rows for people are written in the same transaction as the
//! event they follow from. An event is validated by [`Job::apply`] on a copy before it is appended,
//! and believed only after: never the other way.

#[cfg(test)]
mod conformance;
mod errors;
mod memory;
mod rows;
mod secrets;
mod sqlite;
#[cfg(test)]
mod stored_names;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;

use self::errors::*;
pub use self::memory::MemoryStore;
pub use self::rows::*;
pub use self::secrets::SecretKey;
pub use self::sqlite::SqliteStore;
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupName, Delta, IllegalEvent, Job, JobJournal, JobKind, JobRow, JobSpec, JobState, Resource,
    TaskRow, Volume, Work,
};
use crate::names::{
    ClusterName, DatabaseName, JobId, RepositoryId, RepositoryName, RoleName, SnapshotLabel,
    TableName, Timestamp, UserName,
};
use crate::privilege::{Grant, Grantee, Securable};

/// Jobs and their events.
#[async_trait]
pub trait Journal: Debug + Send + Sync {
    /// Admits a job and takes its locks ([`JobSpec::locks`]) in one transaction; they are released
    /// by the append that settles it. Refused with 55006 when another job holds one of them, with
    /// 42710 when that is a backup under the same label, and with 42704 when the repository of a
    /// job of ours is gone.
    async fn admit(&self, spec: &JobSpec, at: Timestamp) -> Result<Job, Error>;

    /// Whether a job would be admitted now; the error of [`Self::admit`] if not.
    async fn check_admission(&self, spec: &JobSpec) -> Result<(), Error>;

    /// Records an attempt that was refused.
    async fn refuse(&self, spec: &JobSpec, at: Timestamp, error: &Error) -> Result<JobId, Error>;

    /// Appends events to a job's journal, all or none. When another writer was faster the error is
    /// 55000 and nothing changed.
    async fn append(&self, delta: &Arc<Delta>) -> Result<(), Error>;

    /// A job as the fold of its events; 42704 if there is none, 55000 if it was refused.
    async fn load(&self, id: JobId) -> Result<Job, Error>;

    /// What a job was asked to do; 42704 if there is none, 55000 if it was refused.
    async fn spec(&self, id: JobId) -> Result<JobSpec, Error>;

    /// Ends a job whose journal does not read: LOST, so that its database can have others.
    async fn bury(&self, id: JobId, why: &Error, at: Timestamp) -> Result<(), Error>;

    /// Every job with something left to do, clean-up included, in order.
    async fn unfinished(&self) -> Result<Vec<JobId>, Error>;

    /// The jobs of a database that are not FINISHED, CANCELLED or otherwise at their end, oldest
    /// first. Exclusive ones are alone.
    async fn unsettled(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
    ) -> Result<Vec<JobId>, Error>;
}

/// What has happened: the rows that people read.
#[async_trait]
pub trait History: Debug + Send + Sync {
    /// Jobs, by id.
    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Error>;

    /// The tasks of these jobs, by job and number.
    async fn tasks(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<TaskRow>, Error>;

    /// The events of these jobs, by job and number.
    async fn events(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<EventRow>, Error>;

    /// What these verifications have come to, by job and backup.
    async fn verifications(
        &self,
        jobs: RangeInclusive<JobId>,
    ) -> Result<Vec<VerificationRow>, Error>;

    /// What they have found, by job and number.
    async fn findings(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<FindingRow>, Error>;

    /// Objects whose bytes a verification has found to be wrong.
    async fn damaged_objects(&self) -> Result<DamagedObjects, Error>;

    /// Jobs with a larger number than this that are over, and of whose journals no copy lies in
    /// their repositories yet; so many at most, by number.
    async fn unmirrored(&self, after: JobId, limit: usize) -> Result<Vec<JobId>, Error>;

    /// Says that a job's copy is there, or will never be.
    async fn set_mirrored(&self, id: JobId) -> Result<(), Error>;

    /// Takes over jobs of which copies lay in a repository, all or none of them, under numbers of
    /// their own; those that are known are left. Answers how many were not. XX001 if one does not
    /// add up. They are over, hold no lock, and are nobody's latest.
    async fn import(&self, from: &RepositoryName, jobs: Vec<JobJournal>) -> Result<u64, Error>;

    /// The largest number of a job, if there is any.
    async fn last_job(&self) -> Result<Option<JobId>, Error>;

    /// When the newest job of this gateway was made, if there is any.
    async fn newest_job(&self) -> Result<Option<Timestamp>, Error>;
}

/// Whichever job.
pub const ALL_JOBS: RangeInclusive<JobId> = JobId(1)..=JobId(i64::MAX);

/// Objects of repositories: cluster, repository, path from the repository's directory on.
pub type DamagedObjects = std::collections::BTreeSet<(String, String, String)>;

/// Repositories, by cluster and name.
#[async_trait]
pub trait Repositories: Debug + Send + Sync {
    /// Adds a repository; 42710 if its cluster has one of that name.
    async fn add_repository(&self, repository: &RepositoryRecord) -> Result<RepositoryId, Error>;
    /// Replaces what is known about a repository, by cluster and name; 42704 if there is none.
    async fn change_repository(&self, repository: &RepositoryRecord) -> Result<(), Error>;
    /// Removes a repository that no unfinished job uses (the clean-up of one that is FINISHED or
    /// CANCELLED needs it no more); 42704 if there is none, 55006 if it is in use.
    async fn remove_repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
    ) -> Result<(), Error>;
    /// Every repository, by cluster and name.
    async fn repositories(&self) -> Result<Vec<RepositoryRecord>, Error>;
    /// One repository, if there is one.
    async fn find_repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
    ) -> Result<Option<RepositoryRecord>, Error> {
        Ok(self
            .repositories()
            .await?
            .into_iter()
            .find(|r| &r.cluster == cluster && &r.name == name))
    }
    /// One repository; 42704 if there is none.
    async fn repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
    ) -> Result<RepositoryRecord, Error> {
        self.find_repository(cluster, name)
            .await?
            .ok_or_else(|| no_repository(name))
    }
}

/// An upload in parts that was begun in a repository and has not been seen to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    pub job_id: JobId,
    pub repository: RepositoryId,
    /// The object, within the object store.
    pub path: String,
    /// The object store's name for the upload.
    pub upload_id: String,
}

/// Uploads under way, and those that a kill or an outage has left.
#[async_trait]
pub trait Uploads: Debug + Send + Sync {
    async fn note_upload(&self, upload: &UploadRecord) -> Result<(), Error>;
    /// Crosses one out; what is not there is fine.
    async fn forget_upload(&self, upload: &UploadRecord) -> Result<(), Error>;
    /// All of them, by repository and path.
    async fn uploads(&self) -> Result<Vec<UploadRecord>, Error>;
}

/// Clusters that statements have created.
#[async_trait]
pub trait ClusterRegistry: Debug + Send + Sync {
    /// All of them, by name.
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, Error>;
    /// Adds a cluster; 42710 if the name is taken.
    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), Error>;
    /// Puts one record in the place of another; 42704 if there is no such cluster, 55000 if it is
    /// not as it was read.
    async fn change_cluster(
        &self,
        before: &ClusterRecord,
        after: &ClusterRecord,
    ) -> Result<(), Error>;
    /// Removes a cluster, with the repositories and grants that were recorded for it; 42704 if
    /// there is none, 55006 if a job of its is unfinished. Its jobs stay in the history.
    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), Error>;
}

/// Users, roles and grants.
#[async_trait]
pub trait Users: Debug + Send + Sync {
    /// Adds a user; 42710 if the name is taken.
    async fn add_user(&self, user: &UserRecord) -> Result<(), Error>;
    /// Changes what a user's password is checked against, and nothing else; 42704 if there is none.
    async fn set_password(&self, name: &UserName, verifier: &PasswordVerifier)
    -> Result<(), Error>;
    /// Changes whether a user is an administrator, and nothing else; 42704 if there is none.
    async fn set_admin(&self, name: &UserName, admin: bool) -> Result<(), Error>;
    /// Removes a user; 42704 if there is none.
    async fn remove_user(&self, name: &UserName) -> Result<(), Error>;
    /// Every user, by name.
    async fn users(&self) -> Result<Vec<UserRecord>, Error>;
    /// Every role, by name.
    async fn roles(&self) -> Result<Vec<RoleRecord>, Error>;
    /// Adds a role; 42710 if the name is taken.
    async fn add_role(&self, role: &RoleRecord) -> Result<(), Error>;
    /// Removes a role with all that it holds and all that hold it; 42704 if there is none.
    async fn remove_role(&self, name: &RoleName) -> Result<(), Error>;
    /// Every grant, by holder.
    async fn grants(&self) -> Result<Vec<GrantRecord>, Error>;
    /// Adds grants, all or none; those that are there are left. 42704 if a user or role that they
    /// name is not there.
    async fn add_grants(&self, grants: &[GrantRecord]) -> Result<(), Error>;
    /// Takes grants back, all or none; 42704 if one is not there.
    async fn remove_grants(&self, grants: &[GrantRecord]) -> Result<(), Error>;
    /// Takes back everything that is granted on an object which is gone: a database with all that
    /// is in it, or one table or view.
    async fn forget_object(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
        table: Option<&TableName>,
    ) -> Result<(), Error>;

    /// What a user holds, through roles too; nothing of one who is not there.
    async fn holdings(&self, name: &UserName) -> Result<Holdings, Error>;

    /// One user, if there is one.
    async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, Error> {
        Ok(self.users().await?.into_iter().find(|u| &u.name == name))
    }
}

/// What one user holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Whether the user is an administrator.
    pub admin: bool,
    /// The user's own grants, and those of every role that they lead to.
    pub grants: Vec<GrantRecord>,
}

/// Everything that must survive, in one place.
pub trait Store: Journal + History + Repositories + Uploads + ClusterRegistry + Users {}
impl<T: Journal + History + Repositories + Uploads + ClusterRegistry + Users> Store for T {}

/// A cluster as it was created. Its properties hold secrets, so it has no Debug of its own fields.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its name: the PostgreSQL database.
    pub name: ClusterName,
    pub created_at: Timestamp,
    /// What it is and how it is reached.
    pub properties: BTreeMap<String, String>,
}

impl Debug for ClusterRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterRecord")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A repository as it was created. Its properties hold secrets, so it has no Debug of its own
/// fields.
#[derive(Clone, PartialEq, Eq)]
pub struct RepositoryRecord {
    pub cluster: ClusterName,
    /// Its id; 0 until it is added.
    pub id: RepositoryId,
    pub name: RepositoryName,
    /// A URL or an absolute path.
    pub location: String,
    /// The broker's name, for show.
    pub broker: Option<String>,
    /// Whether BACKUP into it is forbidden.
    pub read_only: bool,
    /// When it was first created, perhaps by another gateway.
    pub created_at: Timestamp,
    /// Storage properties, in clear; the store encrypts them.
    pub properties: BTreeMap<String, String>,
}

impl Debug for RepositoryRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepositoryRecord")
            .field("name", &self.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// A user of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub name: UserName,
    /// What a password is checked against; without one the user comes from loopback only.
    pub verifier: Option<PasswordVerifier>,
    /// Whether the user may do everything.
    pub admin: bool,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRecord {
    pub name: RoleName,
    pub created_at: Timestamp,
}

/// Something granted to somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantRecord {
    /// Who holds it.
    pub grantee: Grantee,
    /// What is held.
    pub grant: Grant,
    /// In which cluster; `None` for roles and SYSTEM, which are the gateway's.
    pub cluster: Option<ClusterName>,
}

impl GrantRecord {
    /// Whether it is granted on this table or view, or, without one, on this database or something
    /// in it.
    pub fn is_about(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
        table: Option<&TableName>,
    ) -> bool {
        let Grant::Privilege(_, on) = &self.grant else {
            return false;
        };
        let is_on_it = match (on, table) {
            (Securable::Table(Some(d), t), Some(table)) => d == database && t == table,
            (
                Securable::Table(Some(d), _)
                | Securable::Database(Some(d))
                | Securable::AllTablesIn(d),
                None,
            ) => d == database,
            _ => false,
        };
        self.cluster.as_ref() == Some(cluster) && is_on_it
    }
}

/// A SCRAM-SHA-256 verifier: enough to check a password, not enough to know it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordVerifier {
    /// Random bytes.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// `SHA256(HMAC(SaltedPassword, "Client Key"))`
    pub stored_key: Vec<u8>,
    /// `HMAC(SaltedPassword, "Server Key")`
    pub server_key: Vec<u8>,
}

impl Debug for PasswordVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordVerifier(…)")
    }
}

pub(crate) fn no_repository(name: &RepositoryName) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("Repository {name} does not exist"),
    )
    .hint("See SHOW REPOSITORIES.")
}

/// Refuses roles that would hold themselves.
fn refuse_cycle(all: &[GrantRecord], new: &GrantRecord) -> Result<(), Error> {
    let (Grantee::Role(holder), Grant::Role(held)) = (&new.grantee, &new.grant) else {
        return Ok(());
    };
    let (mut reached, mut next) = (vec![held.clone()], 0);
    while next < reached.len() {
        let role = Grantee::Role(reached[next].clone());
        let more = all
            .iter()
            .filter(|g| g.grantee == role)
            .filter_map(|g| match &g.grant {
                Grant::Role(name) => Some(name.clone()),
                Grant::Privilege(..) => None,
            });
        reached.extend(
            more.filter(|name| !reached.contains(name))
                .collect::<Vec<_>>(),
        );
        next += 1;
    }
    if reached.contains(holder) {
        return Err(Error::new(
            ErrorKind::InvalidGrant,
            format!("role \"{holder}\" would hold itself through role \"{held}\""),
        ));
    }
    Ok(())
}
