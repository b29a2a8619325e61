//! The store in memory: what the simulation runs on, and the model that the SQLite store is
//! compared with.

mod history;

use std::cmp::Ordering;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::job::{Entry as JournalEntry, FindingKind, JobEvent, Phase};
use crate::names::TaskId;

/// A store that is gone with the process. Clones share their content, so a test can "crash"
/// everything but the store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    jobs: BTreeMap<JobId, Entry>,
    clusters: BTreeMap<ClusterName, ClusterRecord>,
    repositories: BTreeMap<(ClusterName, RepositoryName), RepositoryRecord>,
    repositories_made: i64,
    users: BTreeMap<UserName, UserRecord>,
    roles: BTreeMap<RoleName, RoleRecord>,
    grants: std::collections::BTreeSet<GrantRecord>,
    uploads: Vec<UploadRecord>,
}

#[derive(Debug)]
enum Entry {
    Admitted {
        first: Box<Job>,
        events: Vec<(JobEvent, EventRow)>,
        tasks: BTreeMap<TaskId, TaskRow>,
        now: Box<Job>,
        /// The row of one whose journal does not read.
        buried: Option<Box<JobRow>>,
        /// The repository that it was taken over from.
        imported_from: Option<RepositoryName>,
        /// Whether its copy lies in its repository.
        mirrored: bool,
    },
    Refused(Box<JobRow>),
}

impl Content {
    fn next_id(&self) -> JobId {
        JobId(self.jobs.keys().next_back().map_or(1, |id| id.0 + 1))
    }

    fn check_admission(&self, spec: &JobSpec) -> Result<(), Error> {
        if let Some(repository) = spec.work.repository().filter(|_| spec.external().is_none())
            && !self
                .repositories
                .contains_key(&(spec.cluster.clone(), repository.clone()))
        {
            return Err(no_repository(repository));
        }
        for lock in spec.locks() {
            let holds = |job: &&Job| {
                !job.is_settled() && job.spec.locks().iter().any(|held| held.conflicts(&lock))
            };
            if let Some(holder) = self.admitted().find(holds) {
                return Err(locked(spec, &lock.resource, holder.spec.kind()));
            }
        }
        Ok(())
    }

    /// Those that are not buried.
    fn admitted(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter_map(|entry| match entry {
            Entry::Admitted {
                now, buried: None, ..
            } => Some(&**now),
            Entry::Admitted { .. } | Entry::Refused(_) => None,
        })
    }

    /// What these verifications came to.
    fn results(
        &self,
        jobs: &RangeInclusive<JobId>,
    ) -> impl Iterator<Item = (Vec<VerificationRow>, Vec<FindingRow>)> {
        self.jobs.range(jobs.clone()).filter_map(|(_, entry)| {
            let Entry::Admitted {
                now,
                buried: None,
                imported_from,
                ..
            } = entry
            else {
                return None;
            };
            let (mut backups, findings) = verification_rows(now)?;
            for row in &mut backups {
                row.is_imported = imported_from.is_some();
            }
            Some((backups, findings))
        })
    }
}

/// The rows of a delta's events, with them.
fn event_rows(delta: &Delta) -> Result<Vec<(JobEvent, EventRow)>, Error> {
    let row = |(seq, entry): (u64, &JournalEntry)| {
        let row = EventRow {
            job_id: delta.job.id,
            seq,
            at: entry.at,
            from_state: entry.from.to_string(),
            to_state: entry.to.to_string(),
            event: serde_json::to_string(&entry.event)
                .map_err(|e| Error::internal(e.to_string()))?,
        };
        Ok((entry.event.clone(), row))
    };
    (delta.expected.0 + 1..)
        .zip(&delta.entries)
        .map(row)
        .collect()
}

#[async_trait]
impl Journal for MemoryStore {
    async fn admit(&self, spec: &JobSpec, at: Timestamp) -> Result<Job, Error> {
        let mut content = self.0.lock();
        content.check_admission(spec)?;
        let job = Job::new(content.next_id(), spec.clone(), at);
        let first = Box::new(job.clone());
        let entry = Entry::Admitted {
            now: first.clone(),
            first,
            events: Vec::new(),
            tasks: BTreeMap::new(),
            buried: None,
            imported_from: None,
            mirrored: false,
        };
        content.jobs.insert(job.id, entry);
        Ok(job)
    }

    async fn check_admission(&self, spec: &JobSpec) -> Result<(), Error> {
        self.0.lock().check_admission(spec)
    }

    async fn refuse(&self, spec: &JobSpec, at: Timestamp, error: &Error) -> Result<JobId, Error> {
        let mut content = self.0.lock();
        let id = content.next_id();
        content.jobs.insert(
            id,
            Entry::Refused(Box::new(JobRow::refused(spec, id, at, error))),
        );
        Ok(id)
    }

    async fn append(&self, delta: &Arc<Delta>) -> Result<(), Error> {
        let mut content = self.0.lock();
        let job = &delta.job;
        match content.jobs.get_mut(&job.id) {
            Some(Entry::Admitted {
                events, tasks, now, ..
            }) if now.version == delta.expected => {
                events.extend(event_rows(delta)?);
                tasks.extend(delta.tasks.iter().map(|row| (row.task_id, row.clone())));
                **now = job.clone();
                Ok(())
            }
            Some(Entry::Admitted { .. }) => Err(lost_race(job.id)),
            _ => Err(no_job(job.id)),
        }
    }

    async fn load(&self, id: JobId) -> Result<Job, Error> {
        match self.0.lock().jobs.get(&id) {
            Some(Entry::Admitted { first, events, .. }) => {
                let mut job = (**first).clone();
                for (event, row) in events {
                    job.apply(event, row.at)
                        .map_err(|e| does_not_add_up(id, &e))?;
                }
                Ok(job)
            }
            Some(Entry::Refused(_)) => Err(was_refused(id)),
            None => Err(no_job(id)),
        }
    }

    async fn spec(&self, id: JobId) -> Result<JobSpec, Error> {
        match self.0.lock().jobs.get(&id) {
            Some(Entry::Admitted { first, .. }) => Ok((*first.spec).clone()),
            Some(Entry::Refused(_)) => Err(was_refused(id)),
            None => Err(no_job(id)),
        }
    }

    async fn bury(&self, id: JobId, why: &Error, at: Timestamp) -> Result<(), Error> {
        match self.0.lock().jobs.get_mut(&id) {
            Some(Entry::Admitted {
                now,
                buried,
                mirrored,
                ..
            }) => {
                *mirrored = true;
                let row = JobRow::of(now).lost(why.message.clone(), at);
                *buried = Some(Box::new(row));
                Ok(())
            }
            _ => Err(no_job(id)),
        }
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, Error> {
        Ok(self
            .0
            .lock()
            .admitted()
            .filter(|j| !j.is_over())
            .map(|j| j.id)
            .collect())
    }

    async fn unsettled(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
    ) -> Result<Vec<JobId>, Error> {
        let content = self.0.lock();
        let found = content.admitted().filter(|j| {
            !j.is_settled()
                && &j.spec.cluster == cluster
                && j.spec.work.database() == Some(database)
        });
        Ok(found.map(|j| j.id).collect())
    }
}

#[async_trait]
impl Repositories for MemoryStore {
    async fn add_repository(&self, repository: &RepositoryRecord) -> Result<RepositoryId, Error> {
        let mut content = self.0.lock();
        let key = (repository.cluster.clone(), repository.name.clone());
        if content.repositories.contains_key(&key) {
            return Err(repository_exists(&repository.name));
        }
        content.repositories_made += 1;
        let id = RepositoryId(content.repositories_made);
        content.repositories.insert(
            key,
            RepositoryRecord {
                id,
                ..repository.clone()
            },
        );
        Ok(id)
    }

    async fn change_repository(&self, repository: &RepositoryRecord) -> Result<(), Error> {
        let mut content = self.0.lock();
        match content
            .repositories
            .get_mut(&(repository.cluster.clone(), repository.name.clone()))
        {
            Some(known) => {
                *known = RepositoryRecord {
                    id: known.id,
                    ..repository.clone()
                }
            }
            None => return Err(no_such_repository()),
        }
        Ok(())
    }

    async fn remove_repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
    ) -> Result<(), Error> {
        let mut content = self.0.lock();
        let uses = |j: &Job| {
            &j.spec.cluster == cluster && j.spec.work.repository() == Some(name) && !j.is_settled()
        };
        if content.admitted().any(uses) {
            return Err(repository_busy());
        }
        content
            .repositories
            .remove(&(cluster.clone(), name.clone()))
            .map(|_| ())
            .ok_or_else(no_such_repository)
    }

    async fn repositories(&self) -> Result<Vec<RepositoryRecord>, Error> {
        Ok(self.0.lock().repositories.values().cloned().collect())
    }
}

#[async_trait]
impl Uploads for MemoryStore {
    async fn note_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        self.forget_upload(upload).await?;
        self.0.lock().uploads.push(upload.clone());
        Ok(())
    }

    async fn forget_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        let is_other = |known: &UploadRecord| {
            (known.repository, &known.path, &known.upload_id)
                != (upload.repository, &upload.path, &upload.upload_id)
        };
        self.0.lock().uploads.retain(is_other);
        Ok(())
    }

    async fn uploads(&self) -> Result<Vec<UploadRecord>, Error> {
        let mut uploads = self.0.lock().uploads.clone();
        let key = |u: &UploadRecord| (u.repository, u.path.clone(), u.upload_id.clone());
        uploads.sort_by_key(key);
        Ok(uploads)
    }
}

#[async_trait]
impl ClusterRegistry for MemoryStore {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, Error> {
        Ok(self.0.lock().clusters.values().cloned().collect())
    }

    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), Error> {
        let mut content = self.0.lock();
        if content.clusters.contains_key(&cluster.name) {
            return Err(cluster_exists(&cluster.name));
        }
        content
            .clusters
            .insert(cluster.name.clone(), cluster.clone());
        Ok(())
    }

    async fn change_cluster(
        &self,
        before: &ClusterRecord,
        after: &ClusterRecord,
    ) -> Result<(), Error> {
        let mut content = self.0.lock();
        let known = content
            .clusters
            .get_mut(&before.name)
            .ok_or_else(|| no_cluster(&before.name))?;
        if known.properties != before.properties {
            return Err(changed_meanwhile(&format!("cluster \"{}\"", before.name)));
        }
        known.properties.clone_from(&after.properties);
        Ok(())
    }

    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), Error> {
        let mut content = self.0.lock();
        if content
            .admitted()
            .any(|j| &j.spec.cluster == name && !j.is_settled())
        {
            return Err(cluster_busy(name));
        }
        content
            .clusters
            .remove(name)
            .ok_or_else(|| no_cluster(name))?;
        content
            .repositories
            .retain(|(cluster, _), _| cluster != name);
        content.grants.retain(|g| g.cluster.as_ref() != Some(name));
        Ok(())
    }
}

#[async_trait]
impl Users for MemoryStore {
    async fn holdings(&self, name: &UserName) -> Result<Holdings, Error> {
        let admin = self.user(name).await?.is_some_and(|user| user.admin);
        let all = self.grants().await?;
        let (mut grants, mut holders) = (Vec::new(), vec![Grantee::User(name.clone())]);
        while let Some(holder) = holders.pop() {
            for record in all.iter().filter(|record| record.grantee == holder) {
                if grants.contains(record) {
                    continue;
                }
                grants.push(record.clone());
                if let Grant::Role(role) = &record.grant {
                    holders.push(Grantee::Role(role.clone()));
                }
            }
        }
        grants.sort();
        Ok(Holdings { admin, grants })
    }

    async fn add_user(&self, user: &UserRecord) -> Result<(), Error> {
        let mut content = self.0.lock();
        if content.users.contains_key(&user.name) {
            return Err(user_exists(&user.name));
        }
        content.users.insert(user.name.clone(), user.clone());
        Ok(())
    }

    async fn set_password(
        &self,
        name: &UserName,
        verifier: &PasswordVerifier,
    ) -> Result<(), Error> {
        self.0
            .lock()
            .users
            .get_mut(name)
            .ok_or_else(|| no_user(name))?
            .verifier = Some(verifier.clone());
        Ok(())
    }

    async fn set_admin(&self, name: &UserName, admin: bool) -> Result<(), Error> {
        self.0
            .lock()
            .users
            .get_mut(name)
            .ok_or_else(|| no_user(name))?
            .admin = admin;
        Ok(())
    }

    async fn forget_object(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
        table: Option<&TableName>,
    ) -> Result<(), Error> {
        self.0
            .lock()
            .grants
            .retain(|grant| !grant.is_about(cluster, database, table));
        Ok(())
    }

    async fn remove_user(&self, name: &UserName) -> Result<(), Error> {
        let mut content = self.0.lock();
        content.users.remove(name).ok_or_else(|| no_user(name))?;
        content
            .grants
            .retain(|g| g.grantee != Grantee::User(name.clone()));
        Ok(())
    }

    async fn users(&self) -> Result<Vec<UserRecord>, Error> {
        Ok(self.0.lock().users.values().cloned().collect())
    }

    async fn roles(&self) -> Result<Vec<RoleRecord>, Error> {
        Ok(self.0.lock().roles.values().cloned().collect())
    }

    async fn add_role(&self, role: &RoleRecord) -> Result<(), Error> {
        let mut content = self.0.lock();
        if content.roles.contains_key(&role.name) {
            return Err(role_exists(&role.name));
        }
        content.roles.insert(role.name.clone(), role.clone());
        Ok(())
    }

    async fn remove_role(&self, name: &RoleName) -> Result<(), Error> {
        let mut content = self.0.lock();
        content.roles.remove(name).ok_or_else(|| no_role(name))?;
        content.grants.retain(|g| {
            g.grantee != Grantee::Role(name.clone()) && g.grant != Grant::Role(name.clone())
        });
        Ok(())
    }

    async fn grants(&self) -> Result<Vec<GrantRecord>, Error> {
        Ok(self.0.lock().grants.iter().cloned().collect())
    }

    async fn add_grants(&self, grants: &[GrantRecord]) -> Result<(), Error> {
        let mut content = self.0.lock();
        for new in grants {
            match &new.grantee {
                Grantee::User(name) if !content.users.contains_key(name) => {
                    return Err(no_user(name));
                }
                Grantee::Role(name) if !content.roles.contains_key(name) => {
                    return Err(no_role(name));
                }
                _ => {}
            }
            match &new.grant {
                Grant::Role(name) if !content.roles.contains_key(name) => {
                    return Err(no_role(name));
                }
                _ => refuse_cycle(&content.grants.iter().cloned().collect::<Vec<_>>(), new)?,
            }
        }
        content.grants.extend(grants.iter().cloned());
        Ok(())
    }

    async fn remove_grants(&self, grants: &[GrantRecord]) -> Result<(), Error> {
        let mut content = self.0.lock();
        if let Some(missing) = grants.iter().find(|g| !content.grants.contains(g)) {
            return Err(no_grant(missing));
        }
        content.grants.retain(|g| !grants.contains(g));
        Ok(())
    }
}
