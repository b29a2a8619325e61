//! The checks of a statement that starts a job: one list, for those that are carried out and for
//! those that are explained.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::job::{BackupRequest, RestoreRequest, Target};
use crate::names::SnapshotLabel;
use crate::repository::{Manifest, Repository};

/// Checks in their order. A statement that is carried out ends with the first that fails; of one
/// that is explained every one is told.
#[derive(Debug)]
pub(super) struct Checks {
    tells_all: bool,
    failed: Vec<Error>,
}

impl Checks {
    pub fn first() -> Self {
        Self {
            tells_all: false,
            failed: Vec::new(),
        }
    }

    pub fn every() -> Self {
        Self {
            tells_all: true,
            failed: Vec::new(),
        }
    }

    /// What a check came to; nothing if it failed and the others are to be told, too.
    pub fn take<T>(&mut self, checked: Result<T, Error>) -> Result<Option<T>, Error> {
        match checked {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.fail(error).map(|()| None),
        }
    }

    pub fn fail(&mut self, error: Error) -> Result<(), Error> {
        if !self.tells_all {
            return Err(error);
        }
        self.failed.push(error);
        Ok(())
    }

    /// Those that failed, in their order.
    pub fn failed(self) -> Vec<Error> {
        self.failed
    }

    /// What the checks of a statement that is carried out have left: one that fails ends them.
    pub fn passed<T>(checked: Option<T>) -> Result<T, Error> {
        checked.ok_or_else(|| Error::internal("a check that failed did not end the statement"))
    }
}

/// A BACKUP that may go on.
#[derive(Debug)]
pub(super) struct BackupChecked {
    pub request: BackupRequest,
    pub timeout_seconds: Option<u64>,
    pub max_bytes_per_second: Option<u64>,
    pub repository: Arc<Repository>,
}

/// A RESTORE whose backup was found. What it takes out of it is checked next.
#[derive(Debug)]
pub(super) struct RestoreChecked {
    pub target: Target,
    /// Without objects.
    pub request: RestoreRequest,
    pub manifest: Manifest,
    pub timeout_seconds: Option<u64>,
    pub max_bytes_per_second: Option<u64>,
}

/// Refuses a label that is in use.
pub(super) async fn check_is_new(
    repository: &Repository,
    label: &SnapshotLabel,
    is_incremental: bool,
) -> Result<(), Error> {
    if repository.snapshot(label).await?.backups.is_empty() {
        return Ok(());
    }
    let error = if is_incremental {
        let message = "Currently does not support incremental backup";
        Error::new(ErrorKind::Unsupported, message)
    } else {
        let message = format!("Snapshot with name '{label}' already exist in repository");
        Error::new(ErrorKind::DuplicateObject, message)
    };
    Err(error.hint("Choose another label; SHOW SNAPSHOT lists those in use."))
}
