//! `tests/slt/*.slt`: statements, good and bad, through a real client to a server in this process.
//!
//! `${DIR}` in a file stands for the server's directory. An error is matched as `SQLSTATE: message`.

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
            return Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text], rows: vec![vec![status]] });
        }
        let sql = sql.replace("${DIR}", &self.dir);
        let messages = self.client.simple_query(&sql).await.map_err(|e| DbError(describe(&e)))?;
        let (mut types, mut rows, mut count) = (None, Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => types = Some(vec![DefaultColumnType::Text; columns.len()]),
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|i| {
                            row.get(i).map_or("NULL".to_owned(), |v| if v.is_empty() { "(empty)".into() } else { v.to_owned() })
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
    let (addr, dir) = (server.server.addr(), server.dir.path().display().to_string());
    let mut runner = Runner::new(move || {
        let dir = dir.clone();
        async move {
            let client = connect(addr, "root", "").await.map_err(|e| DbError(e.to_string()))?;
            Ok(Db { client, dir })
        }
    });
    if let Err(e) = runner.run_file_async(file).await {
        panic!("{}", e.display(false));
    }
    drop(runner);
    server.stop().await;
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
    key_models,
    partitions,
    privileges,
    repositories,
    session,
    show,
    snapshots,
    types,
    users,
    views,
);

#[test]
fn every_file_is_played() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut found: Vec<String> = std::fs::read_dir(dir)
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().trim_end_matches(".slt").to_owned())
        .collect();
    found.sort();
    assert_eq!(found, LISTED);
}
