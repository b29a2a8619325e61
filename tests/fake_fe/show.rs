//! What a frontend shows, with the columns of its version.

use std::fs;

use super::model::{FeJob, FeSession, Model, Repository, Table, entries, info_file, some};
use super::wire::{Column, Reply};

/// Columns as SHOW has them.
const BROKER: &str = "Name IP Port Alive LastStartTime LastUpdateTime ErrMsg";
const REPOSITORIES: &str = "RepoId RepoName CreateTime IsReadOnly Location Broker ErrMsg";
const BACKUPS: &str = "JobId SnapshotName DbName State BackupObjs CreateTime SnapshotFinishedTime UploadFinishedTime FinishedTime UnfinishedTasks Progress TaskErrMsg Status Timeout";
const RESTORES: &str = "JobId Label Timestamp DbName State AllowLoad ReplicationNum RestoreObjs CreateTime MetaPreparedTime SnapshotFinishedTime DownloadFinishedTime FinishedTime UnfinishedTasks Progress TaskErrMsg Status Timeout";
const FRONTENDS: &str = "Name IP EditLogPort HttpPort QueryPort RpcPort Role ClusterId Join Alive ReplayedJournalId LastHeartbeat IsHelper ErrMsg StartTime Version";
const BACKENDS: &str = "BackendId IP HeartbeatPort BePort HttpPort BrpcPort LastStartTime LastHeartbeat Alive SystemDecommissioned ClusterDecommissioned TabletNum DataUsedCapacity AvailCapacity TotalCapacity UsedPct MaxDiskUsedPct ErrMsg Version Status DataTotalCapacity DataUsedPct CpuCores NumRunningQueries MemUsedPct CpuUsedPct";
const BACKENDS_3_5: &str = "BackendId IP HeartbeatPort BePort HttpPort BrpcPort LastStartTime LastHeartbeat Alive SystemDecommissioned ClusterDecommissioned TabletNum DataUsedCapacity AvailCapacity TotalCapacity UsedPct MaxDiskUsedPct ErrMsg Version Status DataTotalCapacity DataUsedPct CpuCores MemLimit NumRunningQueries MemUsedPct CpuUsedPct DataCacheMetrics Location StatusCode";
const PARTITIONS: &str = "PartitionId PartitionName VisibleVersion VisibleVersionTime VisibleVersionHash State PartitionKey Range DistributionKey Buckets ReplicationNum StorageMedium CooldownTime LastConsistencyCheckTime DataSize IsInMemory RowCount";
const PARTITIONS_3_5: &str = "PartitionId PartitionName VisibleVersion VisibleVersionTime VisibleVersionHash State PartitionKey Range DistributionKey Buckets ReplicationNum StorageMedium CooldownTime LastConsistencyCheckTime DataSize StorageSize IsInMemory RowCount DataVersion VersionEpoch VersionTxnType";
const TABLETS: &str = "TabletId ReplicaId BackendId SchemaHash Version VersionHash LstSuccessVersion LstSuccessVersionHash LstFailedVersion LstFailedVersionHash LstFailedTime DataSize RowCount State LstConsistencyCheckTime CheckVersion CheckVersionHash VersionCount PathHash MetaUrl CompactionStatus";
const TABLETS_3_5: &str = "TabletId ReplicaId BackendId SchemaHash Version VersionHash LstSuccessVersion LstSuccessVersionHash LstFailedVersion LstFailedVersionHash LstFailedTime DataSize RowCount State LstConsistencyCheckTime CheckVersion CheckVersionHash VersionCount PathHash MetaUrl CompactionStatus DiskRootPath IsConsistent Checksum";
const TABLET: &str =
    "DbName TableName PartitionName IndexName DbId TableId PartitionId IndexId IsSync DetailCmd";
const CONDITION: &str = "Where clause should looks like: SNAPSHOT = 'your_snapshot_name' [AND TIMESTAMP = '2018-04-18-19-19-10']";

type Row = Vec<Option<String>>;

fn texts(names: &str) -> Vec<Column> {
    names.split(' ').map(Into::into).collect()
}

/// A row of these columns that has values under some of them, and nothing under the others.
fn row_of(names: &str, values: &[(&str, Option<String>)]) -> Row {
    let value = |name: &str| values.iter().find(|(n, _)| *n == name);
    let names = names.split(' ');
    names
        .map(|n| value(n).and_then(|(_, v)| v.clone()))
        .collect()
}

/// The words of a statement: names without their quotes, texts with one at the beginning, and each
/// other sign by itself.
fn words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql.trim_end_matches(';');
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '`' | '\'' | '"' => {
                let end = rest[1..].find(first).map_or(rest.len(), |n| n + 2);
                let text = &rest[1..end - 1];
                words.push(if first == '`' {
                    text.to_owned()
                } else {
                    format!("'{text}")
                });
                end
            }
            c if c.is_alphanumeric() || c == '_' || c == '@' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && !"_@".contains(c));
                let end = end.unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                end
            }
            c => {
                if !c.is_whitespace() {
                    words.push(c.to_string());
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    words
}

/// Which snapshots SHOW SNAPSHOT is asked for.
enum Wanted {
    All,
    /// By `=`, and which of its times.
    One(String, Option<String>),
    /// By IN.
    Some(Vec<String>),
}

impl Model {
    /// Answers a statement; `None` is for the query engine.
    pub fn answer(
        &mut self,
        session: &mut FeSession,
        number: usize,
        ports: &[u16],
        up: &[bool],
        sql: &str,
    ) -> Option<Reply> {
        let words = words(sql);
        let upper: Vec<String> = words.iter().map(|w| w.to_ascii_uppercase()).collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let (first, second) = (*upper.first()?, upper.get(1).copied().unwrap_or_default());
        let changes = [
            "CREATE", "DROP", "BACKUP", "RESTORE", "CANCEL", "RECOVER", "INSERT", "ALTER",
            "TRUNCATE",
        ];
        let forwarded = ["FRONTENDS", "BACKENDS", "BACKUP"];
        let needs_leader = (first == "SHOW" && forwarded.contains(&second))
            || (changes.contains(&first) && !["INSERT", "ALTER", "TRUNCATE"].contains(&first));
        if self.leaderless && needs_leader {
            return Some(self.no_leader());
        }
        let jobs = ["BACKUP", "RESTORE", "REPOSITORIES", "SNAPSHOT"];
        if self.denied && first == "SHOW" && jobs.contains(&second) {
            return Some(self.denial());
        }
        let reply = match upper.as_slice() {
            ["SELECT", ..] => return self.select(&upper, sql),
            ["SET", "TIME_ZONE", ..] => {
                session.offset_hours = 0;
                Reply::done()
            }
            ["USE", _] => {
                let name = words[1].clone();
                if !self.databases.contains_key(&name) {
                    return Some(self.unknown_database_bare(&name));
                }
                session.database = Some(name);
                Reply::done()
            }
            ["KILL", "QUERY", ..] => {
                self.effects.push(sql.to_owned());
                Reply::done()
            }
            ["SHOW", ..] => {
                let mut reply = self.show(session, number, (ports, up), &words, &upper)?;
                // What a follower passes on has lost its lengths.
                if let Reply::Rows { columns, .. } = &mut reply
                    && forwarded.contains(&second)
                    && number != self.leader
                {
                    columns.iter_mut().for_each(|column| column.length = 192);
                }
                reply
            }
            ["DESC", _, ".", _, "ALL"] => self.describe_all(&words[1], &words[3]),
            _ if changes.contains(&first) => self.change(session, sql),
            _ => return None,
        };
        Some(reply)
    }

    /// What a frontend answers of SELECT by itself.
    /// The rows of some partitions of a table, which the query engine does not know.
    fn counted(&self, sql: &str) -> Option<usize> {
        let plain = sql.replace('`', "");
        let (path, names) = plain
            .split_once("count(*) FROM ")?
            .1
            .split_once(" PARTITION (")?;
        let (database, table) = path.split_once('.')?;
        let names = names.trim_end_matches(')').split(", ");
        let names: Vec<String> = names.map(str::to_owned).collect();
        Some(
            self.databases
                .get(database)?
                .tables
                .get(table)?
                .count(&names),
        )
    }

    fn select(&self, upper: &[&str], sql: &str) -> Option<Reply> {
        let of_session = !sql.to_ascii_uppercase().contains("FROM");
        if upper.contains(&"@@VERSION_COMMENT") && self.at_least(3, 4) {
            return Some(Reply::Rows {
                columns: vec![Column::text("@@version_comment", 192)],
                rows: vec![vec![some(self.version_comment())]],
            });
        }
        // From 3.4 on a frontend evaluates constants by itself, but for its backends' version.
        let is_alone = self.at_least(3, 4) && of_session && !upper.contains(&"CURRENT_VERSION");
        if !self.backends.contains(&true) && !is_alone {
            let message = "Backend node not found. Check if any backend node is down.backend: [10.0.0.1 alive: false inBlacklist: false] ";
            return Some(Reply::error(1064, message));
        }
        if let Some(count) = self.counted(sql) {
            return Some(Reply::Rows {
                columns: vec![Column::number("count(*)", "LONGLONG", 20)],
                rows: vec![vec![some(count)]],
            });
        }
        match upper {
            ["SELECT", "CURRENT_VERSION", "(", ")"] => Some(Reply::Rows {
                columns: vec![Column::text("current_version()", 192)],
                rows: vec![vec![some(format!("{} abcdef", self.full_version))]],
            }),
            ["SELECT", "CONNECTION_ID", "(", ")"] => Some(Reply::Rows {
                columns: vec![Column::number("CONNECTION_ID()", "LONGLONG", 20)],
                rows: vec![vec![some(1)]],
            }),
            _ => None,
        }
    }

    fn show(
        &self,
        session: &FeSession,
        number: usize,
        (ports, up): (&[u16], &[bool]),
        words: &[String],
        upper: &[&str],
    ) -> Option<Reply> {
        let name = |at: usize| words.get(at).cloned().unwrap_or_default();
        let reply = match &upper[1..] {
            ["FULL", "TABLES", ..] => self.show_tables(&name(4), true),
            ["TABLES", ..] => self.show_tables(&name(3), false),
            ["VARIABLES", ..] => Reply::Rows {
                columns: ["Variable_name", "Value"]
                    .map(|n| Column::text(n, 60))
                    .to_vec(),
                rows: vec![vec![some("version_comment"), some(self.version_comment())]],
            },
            ["FRONTENDS"] => self.show_frontends(ports, up),
            ["BACKENDS"] => self.show_backends(),
            ["BROKER"] => {
                let row = |name: &String| {
                    let values = [
                        ("Name", some(name)),
                        ("IP", some("10.0.0.9")),
                        ("Port", some(8000)),
                        ("Alive", some(true)),
                        ("ErrMsg", some("")),
                    ];
                    row_of(BROKER, &values)
                };
                Reply::Rows {
                    columns: texts(BROKER),
                    rows: self.brokers.iter().map(row).collect(),
                }
            }
            ["DATABASES"] => {
                let mut rows: Vec<Row> = self.databases.keys().map(|n| vec![some(n)]).collect();
                rows.push(vec![some("information_schema")]);
                Reply::Rows {
                    columns: vec![Column::text("Database", 60)],
                    rows,
                }
            }
            ["REPOSITORIES"] => {
                let row = |(name, r): (&String, &Repository)| {
                    vec![
                        some(r.id),
                        some(name),
                        self.time(session, Some(r.created)),
                        some(r.read_only),
                        some(&r.location),
                        some(r.broker.clone().unwrap_or_default()),
                        None,
                    ]
                };
                Reply::Rows {
                    columns: texts(REPOSITORIES),
                    rows: self.repositories.iter().map(row).collect(),
                }
            }
            ["BACKUP" | "RESTORE"] => self.show_jobs(session, number, upper[1] == "BACKUP", None),
            ["BACKUP" | "RESTORE", "FROM", _] => {
                self.show_jobs(session, number, upper[1] == "BACKUP", Some(name(3)))
            }
            ["SNAPSHOT", "ON", _, condition @ ..] => match self.wanted(condition, &words[4..]) {
                Ok(wanted) => self.show_snapshot(&name(3), &wanted),
                Err(reply) => reply,
            },
            ["PARTITIONS", "FROM", _, ".", _] => self.show_partitions(&name(3), &name(5)),
            ["TABLET", "FROM", _, ".", _, condition @ ..] => self.show_tablets(
                &name(3),
                &name(5),
                condition.contains(&"PARTITION").then(|| name(8)),
            ),
            ["TABLET", id] => self.show_tablet(id.parse().ok()?),
            ["CREATE", "TABLE" | "VIEW" | "MATERIALIZED", ..] => self.show_create(words),
            [
                "BACKUP" | "RESTORE" | "SNAPSHOT" | "REPOSITORIES" | "FRONTENDS" | "CREATE",
                ..,
            ] => self.syntax(),
            _ => return None,
        };
        Some(reply)
    }

    fn version_comment(&self) -> String {
        format!("{}-abcdef", self.full_version)
    }

    fn show_tables(&self, database: &str, is_full: bool) -> Reply {
        let Some(content) = self.databases.get(database) else {
            return self.unknown_database_bare(database);
        };
        let mut columns = vec![Column::text(&format!("Tables_in_{database}"), 60)];
        if is_full {
            columns.push(Column::text("Table_type", 60));
        }
        let row = |(name, table): (&String, &Table)| {
            let is_view = table.is_view || table.is_materialized;
            let kind = if is_view { "VIEW" } else { "BASE TABLE" };
            let mut row = vec![some(name)];
            row.extend(is_full.then(|| some(kind)));
            row
        };
        Reply::Rows {
            columns,
            rows: content.tables.iter().map(row).collect(),
        }
    }

    fn show_frontends(&self, ports: &[u16], up: &[bool]) -> Reply {
        let names = match (self.at_least(2, 5), self.at_least(3, 5)) {
            (false, _) => FRONTENDS.replace(" Role ", " IsMaster "),
            (true, false) => FRONTENDS.to_owned(),
            (true, true) => format!("Id {FRONTENDS}"),
        };
        let row = |i: usize| {
            let leads = i == self.leader;
            let role = if leads { "LEADER" } else { "FOLLOWER" };
            let values = [
                ("Id", some(i + 1)),
                ("Name", some(format!("fe{i}"))),
                ("IP", some("127.0.0.1")),
                ("QueryPort", some(ports[i])),
                ("Role", some(role)),
                ("IsMaster", some(leads)),
                ("Alive", some(up[i])),
                ("ErrMsg", some("")),
                ("StartTime", some("2026-01-01 00:00:00")),
                ("Version", some(self.version_comment())),
            ];
            row_of(&names, &values)
        };
        Reply::Rows {
            columns: texts(&names),
            rows: (0..ports.len()).map(row).collect(),
        }
    }

    fn show_backends(&self) -> Reply {
        let names = if self.at_least(3, 5) {
            BACKENDS_3_5
        } else {
            BACKENDS
        };
        let row = |(i, alive): (usize, &bool)| {
            let values = [
                ("BackendId", some(10_100 + i)),
                ("IP", some("10.0.0.1")),
                ("HeartbeatPort", some(9050)),
                ("Alive", some(alive)),
                ("TabletNum", some(3)),
                ("DataUsedCapacity", some("1.500 KB")),
                ("ErrMsg", some("")),
                ("Version", some(self.version_comment())),
            ];
            row_of(names, &values)
        };
        Reply::Rows {
            columns: texts(names),
            rows: self.backends.iter().enumerate().map(row).collect(),
        }
    }

    /// Connections: number, command, how the statement ended, statement.
    pub fn show_connections<'a>(
        &self,
        connections: impl Iterator<Item = (u32, &'a str, &'a str, &'a str)>,
    ) -> Reply {
        let mut columns = vec![Column::number("Id", "LONGLONG", 20)];
        let texts = ["User", "Host", "Db", "Command", "ConnectionStartTime"];
        columns.extend(texts.map(|n| Column::text(n, 48)));
        columns.push(Column::number("Time", "LONG", 11));
        columns.push(Column::text("State", 192));
        columns.push(Column::text("Info", 98_304));
        columns.push(Column::text("IsPending", 48));
        if self.at_least(3, 5) {
            columns.insert(0, Column::text("ServerName", 192));
            columns.push(Column::text("Warehouse", 60));
        }
        let row = |(id, command, state, sql): (u32, &str, &str, &str)| {
            let value = |column: &Column| match column.name.as_str() {
                "ServerName" => some("fe0"),
                "Id" => some(id),
                "User" => some("keeper"),
                "Host" => some("127.0.0.1:1"),
                "Command" => some(command),
                "ConnectionStartTime" => some("2026-01-01 00:00:00"),
                "Time" => some(0),
                "State" => some(state),
                "Info" => some(sql),
                "IsPending" => some(false),
                "Warehouse" => some("default_warehouse"),
                _ => some(""),
            };
            columns.iter().map(value).collect()
        };
        let rows = connections.map(row).collect();
        Reply::Rows { columns, rows }
    }

    fn show_jobs(
        &self,
        session: &FeSession,
        number: usize,
        backup: bool,
        from: Option<String>,
    ) -> Reply {
        if let Some(name) = &from
            && !self.databases.contains_key(name)
        {
            return self.unknown_database(name);
        }
        let only = match (from, &session.database) {
            (Some(name), _) => Some(name),
            (None, _) if self.at_least(3, 0) => None,
            (None, Some(name)) => Some(name.clone()),
            (None, None) => return Reply::error(1046, "No database selected"),
        };
        let jobs = self.slots.values().filter(|j| {
            j.is_backup == backup
                && (j.database.is_empty() || only.as_ref().is_none_or(|n| *n == j.database))
        });
        // SHOW RESTORE is answered by each frontend itself, and followers know what is logged.
        let is_follower = !backup && number != self.leader;
        let names = if backup { BACKUPS } else { RESTORES };
        let rows = jobs.map(|job| self.job_row(session, names, is_follower, job));
        Reply::Rows {
            columns: texts(names),
            rows: rows.collect(),
        }
    }

    fn job_row(&self, session: &FeSession, names: &str, is_follower: bool, job: &FeJob) -> Row {
        let logged = |state: &'static str| match state {
            "SNAPSHOTING" => "PENDING",
            "DOWNLOADING" => "DOWNLOAD",
            "COMMITTING" => "COMMIT",
            other => other,
        };
        let state = if is_follower {
            logged(job.state)
        } else {
            job.state
        };
        let id = if state == "PENDING" { -1 } else { job.id };
        let time = |at: Option<i64>| self.time(session, at);
        let open = (0..job.open_tasks).map(|i| format!("{}=10004", 11_000 + i));
        let object = |(table, partitions, _): &(String, Vec<String>, Option<String>)| {
            let partitions = partitions.join(", ");
            match (job.is_backup, partitions.is_empty()) {
                (true, true) => format!("[{}.{table}]", job.database),
                (true, false) => format!("[{}.{table}PARTITIONS ({partitions})]", job.database),
                (false, true) => table.clone(),
                (false, false) => format!("{table} PARTITIONS [{partitions}]"),
            }
        };
        let objects = job
            .objects
            .iter()
            .map(object)
            .collect::<Vec<_>>()
            .join(", ");
        let values = [
            ("JobId", some(id)),
            ("SnapshotName", some(&job.label)),
            ("Label", some(&job.label)),
            ("Timestamp", some(&job.timestamp)),
            ("DbName", some(&job.database)),
            ("State", some(state)),
            ("AllowLoad", some("false")),
            ("ReplicationNum", some(&job.replication)),
            ("BackupObjs", some(&objects)),
            ("RestoreObjs", some(&objects)),
            ("CreateTime", time(Some(job.created))),
            ("MetaPreparedTime", time(job.meta_prepared)),
            ("SnapshotFinishedTime", time(job.snapshot_finished)),
            ("UploadFinishedTime", time(job.transfer_finished)),
            ("DownloadFinishedTime", time(job.transfer_finished)),
            ("FinishedTime", time(job.finished)),
            ("UnfinishedTasks", some(open.collect::<Vec<_>>().join(", "))),
            ("Progress", some(&job.progress)),
            ("TaskErrMsg", some("")),
            ("Status", some(&job.status)),
            ("Timeout", some(&job.timeout)),
        ];
        row_of(names, &values)
    }

    /// Reads a condition of SHOW SNAPSHOT, of which `upper` is the words in capitals.
    fn wanted(&self, upper: &[&str], words: &[String]) -> Result<Wanted, Reply> {
        let text = |at: usize| {
            let text = words.get(at).and_then(|w| w.strip_prefix('\''));
            let text = text.filter(|t| !t.is_empty()).map(str::to_owned);
            text.ok_or_else(|| self.analysis(CONDITION))
        };
        match upper {
            [] => Ok(Wanted::All),
            ["WHERE", "SNAPSHOT", "=", _] => Ok(Wanted::One(text(3)?, None)),
            ["WHERE", "SNAPSHOT", "=", _, "AND", "TIMESTAMP", "=", _] => {
                Ok(Wanted::One(text(3)?, Some(text(7)?)))
            }
            ["WHERE", "SNAPSHOT", "IN", "(", .., ")"] => {
                let labels = words.iter().filter_map(|w| w.strip_prefix('\''));
                Ok(Wanted::Some(labels.map(str::to_owned).collect()))
            }
            ["WHERE", ..] => Err(self.analysis(CONDITION)),
            _ => Err(self.syntax()),
        }
    }

    fn show_snapshot(&self, name: &str, wanted: &Wanted) -> Reply {
        if !self.repositories.contains_key(name) {
            return self.analysis_common(&format!("Repository [{name}] does not exist"));
        }
        let mut more: Vec<Column> = Vec::new();
        if self.at_least(4, 2) {
            more = texts("ClusterId FinishTime TTL ExpireTime");
        }
        if let Wanted::One(label, Some(timestamp)) = wanted {
            let mut columns = texts("Snapshot Timestamp Database Details Status");
            columns.append(&mut more);
            let found = self.info_of(name, label, timestamp).map(|path| {
                let text = fs::read(path).expect("reads");
                let info: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
                info["database"].as_str().expect("a text").to_owned()
            });
            let status = match &found {
                Ok(_) => "OK".to_owned(),
                Err(missing) => format!("Failed to get info: {missing}"),
            };
            let database = found.ok();
            let mut row = vec![
                some(label),
                some(timestamp),
                database.clone(),
                database.map(|_| "{}".into()),
                some(status),
            ];
            row.resize(columns.len(), None);
            return Reply::Rows {
                columns,
                rows: vec![row],
            };
        }
        let root = self.root(name);
        let labels = root.as_deref().map(entries).unwrap_or_default();
        let mut labels: Vec<String> = labels
            .into_iter()
            .filter_map(|e| Some(e.strip_prefix("__ss_")?.to_owned()))
            .collect();
        match wanted {
            Wanted::All => {}
            Wanted::Some(wanted) => labels.retain(|label| wanted.contains(label)),
            // It has a row for what is not there.
            Wanted::One(label, _) => labels = vec![label.clone()],
        }
        let mut columns = texts("Snapshot Timestamp Status");
        columns.append(&mut more);
        let row = |label: &String| {
            let directory = root.as_ref().map(|root| root.join(format!("__ss_{label}")));
            let infos: Vec<String> = directory
                .as_deref()
                .map(entries)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|e| Some(e.strip_prefix("__info_")?.rsplit_once('.')?.0.to_owned()))
                .collect();
            let is_empty = infos.is_empty();
            let status = if is_empty { "ERROR: no snapshot" } else { "OK" };
            let mut row = vec![some(label), some(infos.join("\n")), some(status)];
            row.resize(columns.len(), None);
            let newest = infos
                .last()
                .and_then(|time| info_file(directory.as_deref()?, time));
            if let (Some(path), Some(kept)) = (newest, row.get_mut(5)) {
                let text = fs::read(path).expect("reads");
                let info = serde_json::from_slice::<serde_json::Value>(&text);
                let ttl = info
                    .ok()
                    .and_then(|info| Some(info["ttl"].as_str()?.to_owned()));
                *kept = ttl;
            }
            row
        };
        let rows = labels.iter().map(row).collect();
        Reply::Rows { columns, rows }
    }

    /// Where the info file of a snapshot is, or what is said when it is not there.
    pub fn info_of(
        &self,
        repository: &str,
        label: &str,
        timestamp: &str,
    ) -> Result<std::path::PathBuf, String> {
        let of_label = format!("__ss_{label}");
        let root = self.root(repository);
        let dir = root.map(|root| root.join(&of_label)).unwrap_or_default();
        if let Some(path) = info_file(&dir, timestamp) {
            return Ok(path);
        }
        let prefix = format!("__info_{timestamp}");
        let path = format!("{}/{of_label}/{prefix}", self.url(repository));
        // Files are looked for by a pattern, and then one is wanted whose name is that.
        Err(if entries(&dir).iter().any(|e| e.starts_with(&prefix)) {
            format!("File does not exist: {path}")
        } else {
            format!("Expected one file with path: {path}. get: 0")
        })
    }

    fn find(&self, database: &str, table: &str) -> Option<&Table> {
        self.databases.get(database)?.tables.get(table)
    }

    fn not_found(&self, database: &str, table: &str, otherwise: Reply) -> Reply {
        if self.at_least(3, 5) {
            self.analysis(&format!("Table {table} is not found"))
        } else if self.databases.contains_key(database) {
            otherwise
        } else {
            self.unknown_database(database)
        }
    }

    fn show_partitions(&self, database: &str, name: &str) -> Reply {
        let kinds = if self.at_least(3, 5) {
            "OLAP/Paimon"
        } else {
            "OLAP"
        };
        let no_table = format!("Table[{name}] does not exists or is not {kinds} table");
        let table = match self.find(database, name) {
            None => return self.not_found(database, name, self.analysis(&no_table)),
            Some(table) if table.is_view => return self.analysis(&no_table),
            Some(table) => table,
        };
        let mut names = if self.at_least(3, 5) {
            PARTITIONS_3_5
        } else {
            PARTITIONS
        }
        .to_owned();
        if table.has_lists {
            names = names.replace(" Range ", " List ");
        }
        let row = |(i, partition): (usize, &String)| {
            let values = [
                ("PartitionId", some(table.partition_id(i))),
                ("PartitionName", some(partition)),
                ("VisibleVersion", some(table.version(i))),
                (
                    "VisibleVersionTime",
                    some(format!("2026-01-01 00:00:{:02}", table.version(i) % 60)),
                ),
                ("VisibleVersionHash", some(0)),
                ("State", some("NORMAL")),
                ("PartitionKey", some("day")),
                ("Range", some("[types: [DATE]; keys: [..]; )")),
                ("List", some("('a')")),
                ("DistributionKey", some("id")),
                ("Buckets", some(1)),
                ("ReplicationNum", some(table.replicas)),
                ("StorageMedium", some("HDD")),
                ("CooldownTime", some("9999-12-31 15:59:59")),
                ("DataSize", some("1.5KB")),
                ("StorageSize", some("1.5KB")),
                ("IsInMemory", some(false)),
                ("RowCount", some(10)),
                ("DataVersion", some(2)),
                ("VersionEpoch", some(1)),
                ("VersionTxnType", some("TXN_NORMAL")),
            ];
            row_of(&names, &values)
        };
        let rows = table.partitions.iter().enumerate().map(row).collect();
        Reply::Rows {
            columns: texts(&names),
            rows,
        }
    }

    fn show_tablet(&self, id: i64) -> Reply {
        let mut row = row_of(
            TABLET,
            &[("IsSync", some(false)), ("DetailCmd", some("SHOW PROC"))],
        );
        row[4..8].fill(some(-1));
        for (database, content) in &self.databases {
            for (name, table) in &content.tables {
                let at = usize::try_from(id - table.id - 100).ok();
                let Some((i, partition)) = at.and_then(|i| Some((i, table.partitions.get(i)?)))
                else {
                    continue;
                };
                let values = [
                    ("DbName", some(database)),
                    ("TableName", some(name)),
                    ("PartitionName", some(partition)),
                    ("IndexName", some(name)),
                    ("DbId", some(content.id)),
                    ("TableId", some(table.id)),
                    ("PartitionId", some(table.partition_id(i))),
                    ("IndexId", some(table.id + 1)),
                    ("IsSync", some(true)),
                    ("DetailCmd", some("SHOW PROC")),
                ];
                row = row_of(TABLET, &values);
            }
        }
        Reply::Rows {
            columns: texts(TABLET),
            rows: vec![row],
        }
    }

    fn show_tablets(&self, database: &str, name: &str, only: Option<String>) -> Reply {
        let no_olap = format!("Table '{name}' is not a OLAP table");
        let table = match self.find(database, name) {
            None => {
                let otherwise = Reply::error(1064, format!("Unknown table '{name}'"));
                return self.not_found(database, name, otherwise);
            }
            Some(table) if table.is_view && self.at_least(3, 3) => {
                return self.analysis_coded(5503, "42000", &no_olap);
            }
            Some(table) if table.is_view => return Reply::error(1064, no_olap),
            Some(table) => table,
        };
        if let Some(unknown) = only.as_ref().filter(|o| !table.partitions.contains(o)) {
            let message = format!("Unknown partition: {unknown}");
            return match self.at_least(3, 3) {
                true => self.analysis(&message),
                false => Reply::error(1064, message),
            };
        }
        let names = if self.at_least(3, 5) {
            TABLETS_3_5
        } else {
            TABLETS
        };
        let chosen = table
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, p)| only.as_ref().is_none_or(|o| o == *p));
        let row = |(i, _): (usize, &String)| {
            let id = table.partition_id(i) + 90;
            let values = [
                ("TabletId", some(id)),
                ("ReplicaId", some(id + 1)),
                ("BackendId", some(10_100)),
                ("Version", some(2)),
                ("VersionCount", some(3)),
                ("RowCount", some(10)),
                ("DataSize", some("512B")),
                ("State", some("NORMAL")),
            ];
            row_of(names, &values)
        };
        Reply::Rows {
            columns: texts(names),
            rows: chosen.map(row).collect(),
        }
    }

    /// The columns of each of a table's indexes; the double has the first of them alone.
    fn describe_all(&self, database: &str, name: &str) -> Reply {
        let Some(table) = self.find(database, name) else {
            let otherwise = Reply::error(1064, format!("Unknown table '{name}'"));
            return self.not_found(database, name, otherwise);
        };
        let columns = table.columns.iter().enumerate();
        let row = |(i, (column, kind)): (usize, &(String, String))| {
            let index = if i == 0 { name } else { "" };
            vec![some(index), some("DUP_KEYS"), some(column), some(kind)]
        };
        Reply::Rows {
            columns: texts("IndexName IndexKeysType Field Type"),
            rows: columns.map(row).collect(),
        }
    }

    /// SHOW CREATE TABLE | VIEW | MATERIALIZED VIEW `database.name`.
    fn show_create(&self, words: &[String]) -> Reply {
        let [.., database, dot, name] = words else {
            return self.syntax();
        };
        if dot != "." {
            return self.syntax();
        }
        let Some(table) = self.find(database, name) else {
            let otherwise = Reply::error(1064, format!("Unknown table '{name}'"));
            return self.not_found(database, name, otherwise);
        };
        let kind = match (table.is_view, table.is_materialized) {
            (true, _) => "View",
            (false, true) => "Materialized View",
            (false, false) => "Table",
        };
        let lines = table.partitions.iter().enumerate().map(|(i, partition)| {
            let end = if i + 1 == table.partitions.len() {
                ")"
            } else {
                ","
            };
            let start = if i == 0 { "(" } else { "" };
            format!(
                "\n{start}PARTITION {partition} VALUES [(\"{i}\"), (\"{}\")){end}",
                i + 1
            )
        });
        let lines: String = lines.collect();
        let partitions = match table.is_partitioned {
            true => format!("\nPARTITION BY RANGE(`day`){lines}"),
            false => String::new(),
        };
        let text = format!(
            "CREATE {} `{name}` (…){}{partitions}",
            kind.to_uppercase(),
            table.definition
        );
        let mut columns = vec![
            Column::text(kind, 60),
            Column::from(format!("Create {kind}").as_str()),
        ];
        let mut row = vec![some(name), some(text)];
        if table.is_view {
            columns.append(&mut texts("character_set_client collation_connection"));
            row.extend([some("utf8"), some("utf8_general_ci")]);
        }
        Reply::Rows {
            columns,
            rows: vec![row],
        }
    }
}
