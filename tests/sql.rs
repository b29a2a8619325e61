//! `tests/slt/*.slt`: statements, good and bad, through a real client to a server in this process.
//!
//! `${DIR}` in a file stands for the server's directory. An error is matched as `SQLSTATE:
//! message`.

use std::path::Path;

use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{TestServer, connect, describe, job_ends};

struct Db {
    client: Client,
    dir: String,
}

#[derive(Debug)]
struct DbError(String);

impl std::fmt::Display for DbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DbError {}

#[async_trait::async_trait]
impl AsyncDB for Db {
    type Error = DbError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Self::ColumnType>, DbError> {
        // `WAIT db`: until the last job of a database is over; answers its status.
        if let Some(database) = sql.strip_prefix("WAIT ") {
            let status = job_ends(&self.client, database.trim()).await;
            return Ok(DBOutput::Rows {
                types: vec![DefaultColumnType::Text],
                rows: vec![vec![status]],
            });
        }
        let sql = sql.replace("${DIR}", &self.dir);
        let messages = self
            .client
            .simple_query(&sql)
            .await
            .map_err(|e| DbError(describe(&e)))?;
        let (mut types, mut rows, mut count) = (None, Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    types = Some(vec![DefaultColumnType::Text; columns.len()])
                }
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|i| {
                            row.get(i).map_or("NULL".to_owned(), |v| {
                                if v.is_empty() {
                                    "(empty)".into()
                                } else {
                                    v.to_owned()
                                }
                            })
                        })
                        .collect(),
                ),
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        Ok(match types {
            Some(types) => DBOutput::Rows { types, rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn shutdown(&mut self) {}
}

async fn play(file: &Path) {
    let server = TestServer::start().await;
    play_on(&server, "embedded", file).await;
    server.stop().await;
}

async fn play_on(server: &TestServer, cluster: &str, file: &Path) {
    let (addr, dir) = (
        server.server.addr(),
        server.dir.path().display().to_string(),
    );
    let database = format!("dbname={cluster}");
    let mut runner = Runner::new(move || {
        let (dir, database) = (dir.clone(), database.clone());
        async move {
            let client = connect(addr, "root", &database)
                .await
                .map_err(|e| DbError(e.to_string()))?;
            Ok(Db { client, dir })
        }
    });
    if let Err(e) = runner.run_file_async(file).await {
        panic!("{cluster}: {}", e.display(false));
    }
}

/// `tests/slt/shared/*.slt` on the embedded cluster and on StarRocks of three ages.
#[tokio::test(flavor = "multi_thread")]
async fn shared_features_are_the_same_on_every_cluster() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt/shared");
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    assert!(!files.is_empty());
    for file in &files {
        let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), |s| {
            s.backends = starkeep::settings::Backends::Count(1);
        })
        .await;
        let furnish = "CREATE DATABASE shop; USE shop; ALTER SYSTEM ADD BROKER b \"10.0.0.9:8000\";
            CREATE TABLE orders (id BIGINT, day DATE) PARTITION BY RANGE (day)
                (PARTITION p1 VALUES LESS THAN (\"2026-01-03\"), PARTITION p2 VALUES LESS THAN (\"2026-02-01\"))
                PROPERTIES (\"replication_num\" = \"1\");
            CREATE TABLE customers (id INT, name VARCHAR(20)) PROPERTIES (\"replication_num\" = \"1\");
            INSERT INTO customers VALUES (0, 'ana'), (1, 'bob'), (2, 'cem'); INSERT INTO orders VALUES (1, '2026-01-01')";
        crate::support::run(&server.client().await, furnish).await;
        play_on(&server, "embedded", file).await;
        server.stop().await;
        for version in ["2.5.22", "3.3.16", "4.2.0"] {
            let fe = crate::fake_fe::FakeFe::start(
                version,
                1,
                crate::fake_fe::Pace::Every(std::time::Duration::from_millis(5)),
            )
            .await;
            fe.model(|model| {
                model.brokers.push("b".into());
                model.backends = vec![true];
            });
            let server = TestServer::start().await;
            std::fs::create_dir(server.dir.path().join("shared")).expect("made");
            crate::support::run(&server.client().await, &fe.create("prod", "")).await;
            play_on(&server, "prod", file).await;
            server.stop().await;
        }
    }
}

macro_rules! files {
    ($($name:ident),* $(,)?) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                play(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(concat!(stringify!($name), ".slt"))).await;
            }
        )*
    };
}

files!(
    backup_restore,
    databases_and_tables,
    integers_and_arrays,
    job_history,
    json,
    key_models,
    numbers_and_times,
    numbers_and_times_meet,
    partitions,
    postgresql_answers,
    privileges,
    repositories,
    session,
    show,
    snapshots,
    starrocks_spelling,
    types,
    users,
    views,
);

#[test]
fn every_file_is_played() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut found: Vec<String> = std::fs::read_dir(dir)
        .expect("the folder")
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter_map(|name| name.strip_suffix(".slt").map(str::to_owned))
        .collect();
    found.sort();
    assert_eq!(found, LISTED);
}
