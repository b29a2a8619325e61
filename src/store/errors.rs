//! Why the store refuses, in the words that users see.

use super::*;

pub(super) fn database_busy() -> Error {
    Error::new(
        ErrorKind::ObjectInUse,
        "Can only run one backup or restore job of a database at same time",
    )
    .hint("Wait until SHOW BACKUP and SHOW RESTORE show it FINISHED or CANCELLED, or CANCEL it.")
}

/// Why a job cannot have a lock that a job of this kind holds.
pub(super) fn locked(spec: &JobSpec, resource: &Resource, holder: JobKind) -> Error {
    match (resource, spec.kind(), holder) {
        (Resource::Database(..), ..) => database_busy(),
        (Resource::Snapshot(.., label), _, JobKind::DropSnapshot) => being_dropped(label.as_str()),
        (Resource::Snapshot(.., label), JobKind::Backup, _) => label_busy(label.as_str()),
        (Resource::Snapshot(.., label), kind, holder) => in_use(label.as_str(), kind, holder),
        (Resource::Repository(..), ..) => repository_busy(),
        (Resource::Leftovers(_, name), ..) => being_pruned(name),
    }
}

pub(super) fn label_busy(label: &str) -> Error {
    Error::new(
        ErrorKind::DuplicateObject,
        format!("Snapshot with name '{label}' already exist in repository"),
    )
    .detail("Another backup is writing it.")
    .hint("Choose another label.")
}

pub(super) fn repository_exists(name: &RepositoryName) -> Error {
    Error::new(
        ErrorKind::DuplicateObject,
        format!("Failed to create repository: repository with same name already exist: {name}"),
    )
    .hint("DROP REPOSITORY removes the name only; what is stored stays.")
}

pub(super) fn repository_busy() -> Error {
    Error::new(
        ErrorKind::ObjectInUse,
        "Backup or restore job is running on this repository. Can not drop it",
    )
    .hint("Wait for the job, or CANCEL it.")
}

pub(super) fn no_such_repository() -> Error {
    Error::new(ErrorKind::UndefinedObject, "Repository does not exist")
        .hint("See SHOW REPOSITORIES.")
}

pub(super) fn no_cluster(name: &ClusterName) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("cluster \"{name}\" does not exist"),
    )
    .hint("See SHOW CLUSTERS.")
}

pub(super) fn changed_meanwhile(what: &str) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!("{what} was changed by somebody else at the same moment"),
    )
    .hint("Look at it, and try again.")
}

pub(super) fn cluster_exists(name: &ClusterName) -> Error {
    Error::new(
        ErrorKind::DuplicateObject,
        format!("cluster \"{name}\" already exists"),
    )
}

pub(super) fn cluster_busy(name: &ClusterName) -> Error {
    Error::new(ErrorKind::ObjectInUse, format!("cluster \"{name}\" has unfinished jobs"))
        .hint("Wait until they are over, or CANCEL them; see system.jobs. DROP CLUSTER … FORCE gives them up.")
}

pub(super) fn no_user(name: &UserName) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("user \"{name}\" does not exist"),
    )
}

pub(super) fn user_exists(name: &UserName) -> Error {
    Error::new(
        ErrorKind::DuplicateObject,
        format!("user \"{name}\" already exists"),
    )
}

pub(super) fn no_role(name: &RoleName) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("role \"{name}\" does not exist"),
    )
    .hint("See SHOW ROLES.")
}

pub(super) fn role_exists(name: &RoleName) -> Error {
    Error::new(
        ErrorKind::DuplicateObject,
        format!("role \"{name}\" already exists"),
    )
}

pub(super) fn no_grant(grant: &GrantRecord) -> Error {
    let what = grant.grant.statement(&grant.grantee);
    Error::new(
        ErrorKind::UndefinedObject,
        format!(
            "there is no such grant: {}",
            what.trim_start_matches("GRANT ")
        ),
    )
    .hint(format!("See SHOW GRANTS FOR {}.", grant.grantee))
}

pub(super) fn in_use(label: &str, kind: JobKind, holder: JobKind) -> Error {
    let what = if kind == JobKind::DropSnapshot {
        "drop"
    } else {
        "read"
    };
    let doing = match holder {
        JobKind::Backup => "a backup is writing it",
        JobKind::Restore => "a restore is reading it",
        JobKind::DropSnapshot => "it is being dropped",
        JobKind::Verify => "it is being verified",
        JobKind::Prune => "its repository is being pruned",
    };
    Error::new(
        ErrorKind::ObjectInUse,
        format!("Can not {what} snapshot {label}: {doing}"),
    )
    .hint("Wait until the job is FINISHED, or CANCEL it.")
}

pub(super) fn being_dropped(label: &str) -> Error {
    Error::new(
        ErrorKind::ObjectInUse,
        format!("snapshot {label} is being dropped"),
    )
    .hint("Try again in a moment.")
}

pub(super) fn no_job(id: JobId) -> Error {
    Error::new(
        ErrorKind::UndefinedObject,
        format!("job {id} does not exist"),
    )
}

/// Of what was recorded, but never was a job.
pub(super) fn was_refused(id: JobId) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!("job {id} was refused: it never began"),
    )
    .hint("Its error_message in system.jobs says why.")
}

pub(super) fn does_not_add_up(id: JobId, e: &IllegalEvent) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!("the journal of job {id} does not add up: {e}"),
    )
    .source(e.clone())
}

pub(super) fn lost_race(id: JobId) -> Error {
    Error::new(ErrorKind::WrongState, format!("job {id} has moved on"))
        .detail("another writer appended to its journal first")
}

fn being_pruned(name: &RepositoryName) -> Error {
    Error::new(
        ErrorKind::ObjectInUse,
        format!("repository {name} is being pruned already"),
    )
    .hint("WAIT FOR JOB waits for it; CANCEL JOB ends it.")
}
