//! DROP SNAPSHOT on a StarRocks cluster: by the cluster from 4.2 on, in the bucket before.

use super::Caller;
use super::starrocks::send;
use crate::error::{Error, ErrorKind};
use crate::job::{DropRequest, DroppedBackups, Work};
use crate::privilege::{Privilege, Securable};
use crate::statement::{DropSnapshot, Statement};

impl Caller {
    pub(super) async fn external_drop_snapshot(
        &mut self,
        drop: &DropSnapshot,
    ) -> Result<String, Error> {
        self.require(Privilege::Repository, Securable::System)
            .await?;
        let external = self.external()?;
        let chains = self.chains(&drop.repository);
        chains.check_unneeded(external, &drop.label).await?;
        if chains.is_unchanged(external, &drop.label).await? {
            // The cluster has never heard of it.
            self.submit_drop(drop).await?;
            return Ok("DROP SNAPSHOT".into());
        }
        match external
            .render(&Statement::DropSnapshot(drop.clone()))
            .await
        {
            Ok(sql) => send(external, &sql).await?,
            // Before 4.2 nobody but whoever reaches the bucket can delete one.
            Err(e) if e.kind == ErrorKind::Unsupported => self.drop_stored_snapshot(drop).await?,
            Err(e) => return Err(e),
        }
        Ok("DROP SNAPSHOT".into())
    }

    async fn drop_stored_snapshot(&mut self, drop: &DropSnapshot) -> Result<(), Error> {
        self.stored_repository(&drop.repository).await?;
        self.submit_drop(drop).await
    }

    async fn submit_drop(&mut self, drop: &DropSnapshot) -> Result<(), Error> {
        let backups = DroppedBackups::All {
            cluster_id: String::new(),
            force: drop.force,
        };
        let work = Work::DropSnapshot(DropRequest {
            repository: drop.repository.clone(),
            label: drop.label.clone(),
            backups,
        });
        let spec = self.spec(None, work, &drop.to_string());
        self.gateway.runner.drop_snapshot(spec).await
    }
}
