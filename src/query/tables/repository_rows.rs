//! The rows of `system.repositories`, `system.snapshots` and `system.snapshot_files`, whoever keeps
//! what they tell of, and how storage is asked for them.

use std::time::Duration;

use super::super::system::{Sources, system_row};
use crate::error::{Error, ErrorKind};

/// How many manifests are read at a time.
pub(super) const READS: usize = 8;
/// How long a repository may take to answer a ping.
const PING: Duration = Duration::from_secs(3);

system_row! {
    pub RepositoriesRow in "repositories" {
        repository_id: Int,
        repository: Text,
        location: Text,
        broker: Text,
        read_only: Bool,
        format: Text,
        created_at: Time,
        error: Text,
        checked_at: Time,
        cluster: Text,
    }
}

system_row! {
    pub SnapshotsRow in "snapshots" {
        repository: Text,
        snapshot: Text,
        backup_timestamp: Text,
        db_name: Text,
        status: Text,
        kind: Text,
        base_snapshot: Text,
        tables: Int,
        partitions: Int,
        files: Int,
        rows: Int,
        bytes_total: Int,
        bytes_unique: Int,
        created_at: Time,
        finished_at: Time,
        ttl: Text,
        expire_at: Time,
        last_verified_at: Time,
        last_verified_level: Text,
        last_verified_ok: Bool,
        details: Text,
        cluster_id: Text,
        views: Int,
        cluster: Text,
    }
}

system_row! {
    pub SnapshotFilesRow in "snapshot_files" {
        repository: Text,
        snapshot: Text,
        backup_timestamp: Text,
        db_name: Text,
        table_name: Text,
        partition_name: Text,
        tablet_id: Int,
        path: Text,
        bytes: Int,
        rows: Int,
        checksum: Text,
        status: Text,
        table_id: Int,
        partition_id: Int,
        cluster: Text,
    }
}

/// What storage answers, if it does so in time.
pub(super) async fn in_time<T>(
    sources: &Sources,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        answer = answer => answer,
        () = sources.env.clock.sleep(PING) => {
            Err(Error::new(ErrorKind::Storage, format!("no answer within {} seconds", PING.as_secs())))
        }
    }
}
