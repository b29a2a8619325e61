//! A real StarRocks cluster, reached through its frontends over the MySQL protocol.
//!
//! It does its jobs itself. We send each statement once, in the words of its version, and look at
//! its slots; what it refuses comes back in its own words. Its tables are read where they are:
//! whole queries go to the frontend where the result is the same.

mod catalog;
mod client;
mod contents;
mod native;
mod options;
mod print_plan;
mod print_statement;
mod push_down;
mod remote_table;
mod scan;
mod slots;
mod table;
mod types;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, TableProvider};
use datafusion::logical_expr::LogicalPlan;
use parking_lot::RwLock;

use self::catalog::{CatalogView, Names, Object};
use self::client::{Client, Leader, lacks_backends};
pub use self::options::{Options, kind_of};
use self::print_statement::Printer;
use self::remote_table::StarRocksTable;
use super::{
    Answer, BackedUp, Cluster, ClusterKind, ClusterRole, Condition, DatabaseChange,
    ExternalCluster, ExternalDetails, ExternalRepository, ExternalSnapshot, Health, NativeTable,
    Polling, Record, Scope, SeenSlot, SendError, TableChange,
};
use crate::env::Env;
use crate::error::{Error, ErrorKind, from_datafusion};
use crate::job::TableContents;
use crate::names::{ClusterName, DatabaseName, PartitionName, TableName, Timestamp};
use crate::statement::{ObjectKind, ObjectRef, Qualified, Statement};

/// How long the rows of a table may be counted, or moved.
pub(super) const COUNT_TIME: Duration = Duration::from_secs(3600);
/// How long a failure to ask for the names stands, in milliseconds.
const FAILED_MS: i64 = 500;

#[derive(Debug)]
pub struct StarRocksCluster {
    name: ClusterName,
    client: Arc<Client>,
    env: Env,
    names: RwLock<Arc<Names>>,
    /// Why they could not be asked for last, and when that was.
    failed: RwLock<Option<(Timestamp, Error)>>,
    refreshing: tokio::sync::Mutex<()>,
    /// How often names were to be forgotten: what is asked for meanwhile is old already.
    forgotten: AtomicU64,
}

impl StarRocksCluster {
    /// The cluster that is reached in this way. Nothing is connected to yet.
    pub fn new(name: ClusterName, options: Options, env: Env) -> Self {
        let client = Arc::new(Client::new(name.clone(), options, env.clone()));
        Self {
            name,
            client,
            env,
            names: RwLock::default(),
            failed: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Asks what shows each way in which the cluster may be unwell; the first that does is the
    /// error.
    async fn ail(&self) -> Result<(), Error> {
        self.client.settle_leader().await?;
        if self.client.leader() == Leader::Nobody {
            return Err(Error::new(
                ErrorKind::Connection,
                format!("no frontend of cluster \"{}\" leads", self.name),
            )
            .of_cluster()
            .hint("Frontends elect a leader when more than half of them are alive."));
        }
        // Not every version has this run on a backend, but no other does without a table.
        self.client.query("SELECT current_version()").await?;
        self.client.query("SHOW REPOSITORIES").await?;
        Ok(())
    }

    fn names_are_fresh(&self) -> bool {
        let most =
            i64::try_from(self.client.options().names_max_age.as_millis()).unwrap_or(i64::MAX);
        self.names
            .read()
            .fetched_at
            .is_some_and(|at| self.env.now().0 - at.0 < most)
    }
}

#[async_trait]
impl Cluster for StarRocksCluster {
    fn name(&self) -> &ClusterName {
        &self.name
    }

    fn kind(&self) -> ClusterKind {
        ClusterKind::StarRocks
    }

    fn role(&self) -> ClusterRole<'_> {
        ClusterRole::External(self)
    }

    async fn refresh(&self) -> Result<(), Error> {
        if self.names_are_fresh() {
            return Ok(());
        }
        // One asks for all who wait.
        let _one = self.refreshing.lock().await;
        if self.names_are_fresh() {
            return Ok(());
        }
        // A statement asks more than once, and should not wait as often for whoever is down.
        if let Some((at, error)) = &*self.failed.read()
            && self.env.now().0 - at.0 < FAILED_MS
        {
            return Err(error.clone());
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        match Names::fetch(&self.client, self.env.now()).await {
            Ok(mut names) => {
                *self.failed.write() = None;
                let mut known = self.names.write();
                if self.forgotten.load(Ordering::SeqCst) != forgotten {
                    names.fetched_at = None;
                }
                *known = Arc::new(names);
                Ok(())
            }
            Err(error) => {
                *self.failed.write() = Some((self.env.now(), error.clone()));
                Err(error)
            }
        }
    }

    fn forget_names(&self) {
        // What is known stays until it is asked anew: an unknown name may mean fewer checks.
        let mut names = self.names.write();
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        *names = Arc::new(Names {
            fetched_at: None,
            databases: names.databases.clone(),
        });
    }

    fn catalog(&self) -> Arc<dyn CatalogProvider> {
        Arc::new(CatalogView {
            names: self.names.read().clone(),
            client: self.client.clone(),
        })
    }

    fn names_version(&self) -> Option<u64> {
        // They are known anew with each time that they were asked for.
        self.names
            .read()
            .fetched_at
            .and_then(|at| u64::try_from(at.0).ok())
    }

    fn table_of(&self, provider: &dyn TableProvider) -> Option<Qualified<TableName>> {
        let table = (provider as &dyn Any).downcast_ref::<StarRocksTable>()?;
        let database = DatabaseName::new(table.database.as_str()).ok();
        Some(Qualified {
            database,
            name: TableName::new(table.name.as_str()).ok()?,
        })
    }

    fn push_down(&self, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
        push_down::push_down(&self.client, plan).map_err(from_datafusion)
    }
}

fn qualified(database: &DatabaseName, names: BTreeSet<String>) -> Vec<String> {
    let qualify = |name| format!("{database}.{name}");
    names.into_iter().map(qualify).collect()
}

#[async_trait]
impl ExternalCluster for StarRocksCluster {
    fn polling(&self) -> Polling {
        self.client.options().polling
    }

    fn queues(&self) -> bool {
        self.client.options().queue
    }

    fn address(&self) -> String {
        self.client.address()
    }

    async fn health(&self) -> Health {
        let error = self.ail().await.err();
        Health {
            condition: error
                .as_ref()
                .map_or(Condition::Well, |e| self.condition_of(e)),
            version: self.client.last_version().map(|v| v.to_string()),
            leader: match self.client.leader() {
                Leader::Known(address) => Some(address.to_string()),
                Leader::Nobody | Leader::Unknown => None,
            },
            error,
        }
    }

    fn condition_of(&self, error: &Error) -> Condition {
        match error.kind {
            ErrorKind::InsufficientPrivilege => Condition::Denied,
            _ if lacks_backends(&error.message) => Condition::NoBackends,
            // A frontend has said so, and so it answers.
            ErrorKind::Connection if error.is_of_cluster() => Condition::NoLeader,
            _ => Condition::Unreachable,
        }
    }

    async fn render(&self, statement: &Statement) -> Result<String, Error> {
        let version = self.client.version().await?;
        Printer {
            cluster: &self.name,
            version,
        }
        .print(statement)
    }

    async fn send(&self, sql: &str) -> Result<(), SendError> {
        self.client.send(sql).await.map(drop)
    }

    async fn is_in_flight(&self, sql: &str) -> Result<bool, Error> {
        let answer = self.client.query("SHOW FULL PROCESSLIST").await?;
        // Idle connections are listed too, with what they have said last.
        let found = table::lines(&answer).any(|line| {
            line.text("Command").eq_ignore_ascii_case("Query")
                && line.text("Info").trim() == sql.trim()
        });
        Ok(found)
    }

    async fn slots(&self, databases: &[DatabaseName]) -> Result<Vec<SeenSlot>, Error> {
        self.all_slots(databases).await
    }

    async fn slot(&self, database: &DatabaseName) -> Result<Option<SeenSlot>, Error> {
        self.slot_of(database.as_str()).await
    }

    async fn repositories(&self) -> Result<Vec<ExternalRepository>, Error> {
        self.repositories_there().await
    }

    async fn snapshots(
        &self,
        repository: &str,
        label: Option<&str>,
    ) -> Result<Vec<ExternalSnapshot>, Error> {
        self.snapshots_there(repository, label).await
    }

    async fn details(
        &self,
        repository: &str,
        label: &str,
        timestamp: &str,
    ) -> Result<ExternalDetails, Error> {
        self.details_there(repository, label, timestamp).await
    }

    async fn expected_objects(
        &self,
        database: &DatabaseName,
        said: Option<&[ObjectRef]>,
    ) -> Result<Vec<String>, Error> {
        self.forget_names();
        self.refresh().await?;
        let takes_views = self.client.version().await?.backs_up_views();
        let names = self.names.read().clone();
        let of_kinds = |kinds: &[Object]| {
            let known = names.databases.get(database.as_str());
            known.map_or_else(Vec::new, |known| known.objects(kinds))
        };
        let mut out = BTreeSet::new();
        let whole: &[Object] = if takes_views {
            &[Object::Table, Object::View, Object::MaterializedView]
        } else {
            &[Object::Table, Object::MaterializedView]
        };
        let Some(said) = said else {
            out.extend(of_kinds(whole));
            return Ok(qualified(database, out));
        };
        for object in said {
            match object {
                ObjectRef::Untyped(t) | ObjectRef::Table(t) => {
                    out.insert(t.table.name.to_string());
                }
                ObjectRef::Named { name, .. } => {
                    out.insert(name.name.to_string());
                }
                ObjectRef::All(ObjectKind::Table) => out.extend(of_kinds(&[Object::Table])),
                ObjectRef::All(ObjectKind::View) => out.extend(of_kinds(&[Object::View])),
                ObjectRef::All(ObjectKind::MaterializedView) => {
                    out.extend(of_kinds(&[Object::MaterializedView]));
                }
                ObjectRef::All(_) => {}
            }
        }
        Ok(qualified(database, out))
    }

    async fn backed_up(
        &self,
        database: &DatabaseName,
        said: Option<&[ObjectRef]>,
    ) -> Result<BackedUp, Error> {
        self.taken(database, said).await
    }

    async fn contents(
        &self,
        database: &DatabaseName,
        tables: &[TableName],
    ) -> Result<Vec<TableContents>, Error> {
        self.contents_of(database, tables).await
    }

    fn older_max(&self) -> usize {
        self.client.options().older_max
    }

    async fn backends_alive(&self) -> Result<u16, Error> {
        self.alive().await
    }

    async fn native(&self, table: NativeTable, scope: &Scope) -> Result<Vec<Record>, Error> {
        self.native_rows(table, scope).await
    }

    fn table_change(
        &self,
        database: &DatabaseName,
        change: TableChange<'_>,
    ) -> Result<String, Error> {
        print_statement::table_change(database, change)
    }

    fn database_change(
        &self,
        database: &DatabaseName,
        change: DatabaseChange,
    ) -> Result<String, Error> {
        print_statement::database_change(database, change)
    }

    async fn partition_ids(
        &self,
        database: &DatabaseName,
        table: &str,
    ) -> Result<Option<Vec<i64>>, Error> {
        let sql = format!(
            "SHOW PARTITIONS FROM {}",
            print_statement::path(database, table)?
        );
        let answer = match self.client.query(&sql).await {
            Ok(answer) => answer,
            Err(e) if e.kind == ErrorKind::Connection => return Err(e),
            // Each version says in its own words that there is none.
            Err(e) if self.is_there(database, table).await? => return Err(e),
            Err(_) => return Ok(None),
        };
        let ids = table::lines(&answer).map(|line| {
            let text = line.text("PartitionId");
            text.parse().map_err(|_| {
                let message = format!("SHOW PARTITIONS has an id that is no number: \"{text}\"");
                Error::new(ErrorKind::Remote, message)
            })
        });
        ids.collect::<Result<_, _>>().map(Some)
    }

    async fn count_rows(
        &self,
        database: &DatabaseName,
        table: &str,
        partitions: &[PartitionName],
    ) -> Result<u64, Error> {
        let table = print_statement::path(database, table)?;
        let partitions = print_statement::partitions(partitions)?;
        let seconds = COUNT_TIME.as_secs();
        let sql = format!(
            "SELECT /*+ SET_VAR(query_timeout = {seconds}) */ count(*) FROM {table}{partitions}"
        );
        let answer = self.client.query_within(COUNT_TIME, &sql).await?;
        let count = answer.rows.first().and_then(|row| row.first());
        let count = count.and_then(|count| count.as_ref()?.parse().ok());
        count.ok_or_else(|| {
            let message = format!("the cluster did not count the rows of {table}");
            Error::new(ErrorKind::Remote, message)
        })
    }

    async fn send_long(&self, sql: &str) -> Result<(), SendError> {
        self.client.send_long(COUNT_TIME, sql).await.map(drop)
    }

    async fn cluster_id(&self) -> Result<Option<String>, Error> {
        StarRocksCluster::cluster_id(self).await
    }

    async fn partition_lines(
        &self,
        database: &DatabaseName,
        table: &str,
        names: &[PartitionName],
    ) -> Result<Vec<String>, Error> {
        StarRocksCluster::partition_lines(self, database, table, names).await
    }

    async fn has_dynamic_partitions(
        &self,
        database: &DatabaseName,
        table: &str,
    ) -> Result<bool, Error> {
        StarRocksCluster::has_dynamic_partitions(self, database, table).await
    }

    async fn puts_together(&self) -> Result<bool, Error> {
        Ok(self.client.version().await?.overwrites_partitions())
    }

    async fn ask(&self, database: Option<&DatabaseName>, sql: &str) -> Result<Answer, Error> {
        self.client
            .ask(database.map(DatabaseName::as_str), sql)
            .await
    }
}
