//! What two real frontends answered (tests/transcripts/): main of December 2023, which is between
//! 3.2 and 3.3, and main of June 2025, which is between 3.5 and 4.0. A frontend that has nothing
//! but these answers stands before the gateway here; the one that was written by hand after them is
//! in tests/fake_fe.
//!
//! A recording is a line a statement, in the order in which they were said. Its first line has the
//! columns of all answers, which the others name by number.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use starkeep::statement::parse_one;
use tokio::net::TcpListener;

use crate::fake_fe::{Column, Connection, PASSWORD, Reply};
use crate::support::{TestServer, connect, fails, rows, run, until, value};

pub const RECORDINGS: [(&str, &str); 2] = [
    ("3.2.1", include_str!("transcripts/december-2023.jsonl")),
    ("3.5.0", include_str!("transcripts/june-2025.jsonl")),
];

/// A statement with its answer.
pub struct Recorded {
    pub statement: String,
    pub user: String,
    /// What was the matter with the cluster, if something was.
    pub scene: Option<String>,
    pub reply: Reply,
}

#[derive(Deserialize)]
struct Schemas {
    schemas: Vec<Vec<Column>>,
}

#[derive(Deserialize)]
struct Line {
    statement: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    columns: Option<usize>,
    #[serde(default)]
    rows: Vec<Vec<Option<String>>>,
    /// Code, SQLSTATE, message.
    #[serde(default)]
    error: Option<(u16, String, String)>,
    #[serde(default)]
    affected: u64,
    #[serde(default)]
    note: Option<String>,
}

/// A recording; its nth line is at n - 1.
pub fn recording(text: &str) -> Vec<Recorded> {
    let mut lines = text.lines();
    let schemas: Schemas = serde_json::from_str(lines.next().expect("columns")).expect("reads");
    let read = |text: &str| {
        let line: Line = serde_json::from_str(text).expect("reads");
        let reply = match (line.error, line.columns) {
            (Some((code, sqlstate, message)), _) => Reply::Error {
                code,
                sqlstate,
                message,
            },
            (None, Some(n)) => Reply::Rows {
                columns: schemas.schemas[n].clone(),
                rows: line.rows,
            },
            (None, None) => Reply::Ok {
                affected: line.affected,
            },
        };
        Recorded {
            statement: line.statement,
            user: line.user.unwrap_or_else(|| "root".to_owned()),
            scene: line.note,
            reply,
        }
    };
    lines.map(read).collect()
}

/// A statement as it is looked up: in one case.
fn normalised(statement: &str) -> String {
    unquoted(statement).to_lowercase()
}

/// Without quotes around names, with one blank where there are any, and none beside what separates
/// words anyway.
fn unquoted(statement: &str) -> String {
    let text = statement.replace('`', "").replace('"', "'");
    let mut out = String::new();
    for word in text.trim_end_matches(';').split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    for separator in ["=", ",", "(", ")"] {
        out = out
            .replace(&format!(" {separator}"), separator)
            .replace(&format!("{separator} "), separator);
    }
    out
}

/// Whether a statement changes something, so that what is shown after it differs.
fn has_effect(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default();
    !["SHOW", "SELECT", "DESC", "SET", "USE", "KILL", "ADMIN"]
        .contains(&first.to_ascii_uppercase().as_str())
}

/// A query of information_schema: its table, its columns, and the values that it wants of some.
struct OfSchema {
    table: String,
    columns: Vec<String>,
    wanted: Vec<(String, String)>,
}

fn of_schema(statement: &str) -> Option<OfSchema> {
    let key = normalised(statement);
    let (columns, rest) = key.strip_prefix("select ")?.split_once(" from ")?;
    let (table, filters) = rest.split_once(" where ").unwrap_or((rest, ""));
    let table = table.strip_prefix("information_schema.")?;
    let wanted = filters.split(" and ").filter_map(|filter| {
        let (column, value) = filter.split_once('=')?;
        Some((column.to_owned(), value.trim_matches('\'').to_owned()))
    });
    Some(OfSchema {
        table: table.to_owned(),
        columns: columns.split(',').map(str::to_owned).collect(),
        wanted: wanted.collect(),
    })
}

impl OfSchema {
    /// This query's answer out of that of another which was about as much or more.
    fn out_of(&self, recorded: &Recorded) -> Option<Reply> {
        let other = of_schema(&recorded.statement)?;
        let Reply::Rows { columns, rows } = &recorded.reply else {
            return (other.table == self.table).then(|| recorded.reply.clone());
        };
        let has_less = other.wanted.iter().any(|w| !self.wanted.contains(w));
        if other.table != self.table || has_less {
            return None;
        }
        let at = |name: &String| columns.iter().position(|c| c.name.to_lowercase() == *name);
        let chosen: Vec<usize> = self.columns.iter().map(at).collect::<Option<_>>()?;
        let wanted: Vec<(usize, &String)> = self
            .wanted
            .iter()
            .map(|(column, value)| Some((at(column)?, value)))
            .collect::<Option<_>>()?;
        let fits = |row: &&Vec<Option<String>>| {
            wanted.iter().all(|(i, value)| {
                row[*i].as_ref().map(|v| v.to_lowercase()).as_ref() == Some(value)
            })
        };
        Some(Reply::Rows {
            columns: chosen.iter().map(|i| columns[*i].clone()).collect(),
            rows: rows
                .iter()
                .filter(fits)
                .map(|row| chosen.iter().map(|i| row[*i].clone()).collect())
                .collect(),
        })
    }
}

/// SHOW BACKUP, SHOW RESTORE or SHOW SNAPSHOT: what it begins with, and the database or label that
/// it is about, if it is about one.
fn listing(key: &str) -> Option<(String, Option<String>)> {
    for show in ["show backup", "show restore"] {
        if let Some(rest) = key.strip_prefix(show) {
            let only = rest.strip_prefix(" from ").map(str::to_owned);
            return (rest.is_empty() || only.is_some()).then(|| (show.to_owned(), only));
        }
    }
    let rest = key.strip_prefix("show snapshot on ")?;
    let (repository, label) = match rest.split_once(" where snapshot in('") {
        Some((repository, label)) => (repository, Some(label.trim_end_matches("')"))),
        None => (rest, None),
    };
    let is_plain = !repository.contains(' ');
    is_plain.then(|| {
        (
            format!("show snapshot on {repository}"),
            label.map(str::to_owned),
        )
    })
}

/// The rows of a listing that are about one thing.
fn about(reply: Reply, only: &str) -> Reply {
    let Reply::Rows { columns, rows } = reply else {
        return reply;
    };
    let of = |name: &str| columns.iter().position(|c| c.name == name);
    let at = of("DbName").or(of("Snapshot")).expect("a listing");
    let fits = |row: &Vec<Option<String>>| {
        row[at].as_ref().map(|v| v.to_lowercase()).as_deref() == Some(only)
    };
    let rows = rows.into_iter().filter(fits).collect();
    Reply::Rows { columns, rows }
}

fn emptied(reply: &Reply) -> Reply {
    match reply {
        Reply::Rows { columns, .. } => Reply::Rows {
            columns: columns.clone(),
            rows: Vec::new(),
        },
        other => other.clone(),
    }
}

/// Answers as a real frontend did at some moment of its recording.
pub struct Playback {
    lines: Vec<Recorded>,
    /// The line that was said last.
    at: usize,
    /// Whether something was changed since it was put here: only then do listings move on.
    moves: bool,
    /// Statements that nobody has said to the real one.
    unknown: BTreeSet<String>,
}

impl Playback {
    fn answer(&mut self, statement: &str) -> Reply {
        let key = normalised(statement);
        let found = match listing(&key) {
            _ if has_effect(statement) => self.change(statement),
            Some((show, only)) => self.list(&show, only.as_deref()),
            None => self.read(&key, statement),
        };
        found.unwrap_or_else(|| {
            self.unknown.insert(key);
            Reply::error(
                1064,
                "this was never said to the frontend that was recorded",
            )
        })
    }

    /// A statement that changes something: the recording goes on to where it was said.
    fn change(&mut self, statement: &str) -> Option<Reply> {
        // What means the same is the same: properties may come in another order.
        let parsed = parse_one(statement).ok();
        let said = |line: &Recorded| {
            unquoted(&line.statement) == unquoted(statement)
                || (parsed.is_some() && parse_one(&line.statement).ok() == parsed)
        };
        // What was refused since the last change could have been said at any time after it.
        let is_change =
            |line: &Recorded| has_effect(&line.statement) && matches!(line.reply, Reply::Ok { .. });
        let since = self.lines[..self.at].iter().rposition(is_change);
        let from = since.map_or(0, |n| n + 1);
        let n = from + self.lines[from..].iter().position(said)?;
        if is_change(&self.lines[n]) {
            (self.at, self.moves) = (n + 1, true);
        }
        Some(self.lines[n].reply.clone())
    }

    /// A listing moves on as it was asked for again and again, up to the next change.
    fn list(&mut self, show: &str, only: Option<&str>) -> Option<Reply> {
        let fits = |line: &Recorded| {
            let of = listing(&normalised(&line.statement));
            line.user == "root"
                && of.is_some_and(|(s, o)| {
                    s == show && (o.is_none() || only.is_none_or(|w| o.as_deref() == Some(w)))
                })
        };
        let (past, future) = self.lines.split_at(self.at);
        let changes =
            |line: &Recorded| has_effect(&line.statement) && matches!(line.reply, Reply::Ok { .. });
        let reach = match self.moves {
            true => future.iter().position(changes).unwrap_or(future.len()),
            false => 0,
        };
        let reply = if let Some(n) = future[..reach].iter().position(fits) {
            self.at += n + 1;
            self.lines[self.at - 1].reply.clone()
        } else if let Some(line) = past.iter().rev().find(|l| fits(l)) {
            line.reply.clone()
        } else {
            // Before it was asked for the first time there was nothing.
            emptied(&future.iter().find(|l| fits(l))?.reply)
        };
        Some(match only {
            Some(only) => about(reply, only),
            None => reply,
        })
    }

    fn read(&self, key: &str, statement: &str) -> Option<Reply> {
        let (past, future) = self.lines.split_at(self.at);
        // What was answered nearest to this moment.
        let mut near: Vec<&Recorded> = Vec::new();
        let (mut before, mut after) = (past.iter().rev(), future.iter());
        for _ in 0..self.lines.len() {
            near.extend(before.next().into_iter().chain(after.next()));
        }
        // The other user is the one that docs/operations.md makes for the gateway.
        near.retain(|line| ["root", "keeper"].contains(&line.user.as_str()));
        // Of the same scene first, then of times when nothing was the matter.
        let scene = past.last().and_then(|line| line.scene.as_ref());
        near.retain(|line| line.scene.is_none() || line.scene.as_ref() == scene);
        near.sort_by_key(|line| line.scene.as_ref() != scene);
        if let Some(line) = near.iter().find(|l| normalised(&l.statement) == key) {
            return Some(line.reply.clone());
        }
        let query = of_schema(statement)?;
        near.into_iter().find_map(|line| query.out_of(line))
    }
}

/// The frontend that has nothing but a recording.
pub struct TranscriptFe {
    pub playback: Arc<Mutex<Playback>>,
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TranscriptFe {
    pub async fn start(recorded: &str, at: usize) -> Self {
        let playback = Arc::new(Mutex::new(Playback {
            lines: recording(recorded),
            at,
            moves: false,
            unknown: BTreeSet::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = playback.clone();
        let task = tokio::spawn(async move {
            for id in 1.. {
                let Ok((socket, _)) = listener.accept().await else {
                    return;
                };
                let playback = shared.clone();
                tokio::spawn(async move {
                    let accepted = Connection::accept(socket, id, PASSWORD, None).await;
                    let Some(mut connection) = accepted else {
                        return;
                    };
                    while let Some(statement) = connection.statement().await {
                        let reply = playback.lock().answer(&statement);
                        if !connection.reply(&reply).await {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            playback,
            address,
            task,
        }
    }

    pub fn go_to(&self, line: usize) {
        let mut playback = self.playback.lock();
        (playback.at, playback.moves) = (line, false);
    }

    pub fn unknown(&self) -> Vec<String> {
        self.playback.lock().unknown.iter().cloned().collect()
    }
}

impl Drop for TranscriptFe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Fixture {
    server: TestServer,
    fe: TranscriptFe,
    client: tokio_postgres::Client,
}

/// The gateway before a recorded frontend as it was at this line.
async fn fixture(recorded: &str, at: usize) -> Fixture {
    let fe = TranscriptFe::start(recorded, at).await;
    let server = TestServer::start().await;
    let create = format!(
        "CREATE CLUSTER prod PROPERTIES (\"fe\" = \"{}\", \"user\" = \"root\", \"password\" = \"{PASSWORD}\",
         \"poll_fast_ms\" = \"20\", \"poll_slow_ms\" = \"20\", \"poll_idle_ms\" = \"20\",
         \"names_max_age_ms\" = \"0\", \"connect_timeout_seconds\" = \"2\")",
        fe.address
    );
    run(&server.client().await, &create).await;
    let client = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    Fixture { server, fe, client }
}

/// The line of a recording after which a statement comes, as a number for [`fixture`].
fn before(recorded: &str, statement: &str) -> usize {
    let lines = recording(recorded);
    let at = lines
        .iter()
        .position(|l| l.statement.starts_with(statement));
    at.unwrap_or_else(|| panic!("{statement} was never said"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_backup_goes_through_its_phases() {
    for (version, recorded) in RECORDINGS {
        let first = "BACKUP SNAPSHOT shop.first TO vault ON (orders, items)";
        let w = fixture(recorded, before(recorded, first)).await;
        let known = "SELECT version FROM system.clusters WHERE cluster = 'prod'";
        assert_eq!(value(&w.client, known).await, version);
        run(&w.client, first).await;
        until(&w.client, "SELECT status FROM system.jobs", "succeeded").await;
        let phases = rows(
            &w.client,
            "SELECT DISTINCT to_state FROM system.job_events WHERE to_state <> 'QUEUED' ORDER BY 1",
        )
        .await;
        let phases: Vec<_> = phases.iter().filter_map(|r| r[0].as_deref()).collect();
        assert_eq!(
            phases,
            [
                "FINISHED",
                "PENDING",
                "SAVE_META",
                "SNAPSHOTING",
                "UPLOADING",
                "UPLOAD_INFO",
                "UPLOAD_SNAPSHOT"
            ],
            "{version}"
        );
        // What a backup takes is noted as far as a frontend tells it, and these were not recorded.
        let mut unknown = w.fe.unknown();
        unknown.retain(|sql| !sql.starts_with("desc ") && !sql.starts_with("show create table "));
        assert_eq!(unknown, [] as [&str; 0], "{version}");
        w.server.stop().await;
    }
}

/// Refusals that do not come back as they were recorded, and why.
const NOT_AS_RECORDED: [(&str, &str); 6] = [
    (
        "'type'='incremental'",
        "what has changed is found out here, and sent as a full backup of that",
    ),
    (
        "ON (other.t)",
        "a database inside ON is left out, as StarRocks takes no notice of it",
    ),
    (
        "ON (orders.p1)",
        "a database inside ON is left out, as StarRocks takes no notice of it",
    ),
    (
        "ON (v.orders AS o)",
        "a database inside ON is left out, as StarRocks takes no notice of it",
    ),
    (
        "ON (TABLE orders)",
        "printed for the version, which knows no kinds of objects",
    ),
    (
        "RESTORE SNAPSHOT first FROM vault PROP",
        "sent with the session's database, which the real session had not",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn recorded_refusals_have_their_words_and_a_code() {
    let place = r" (at|from) line \d+, column \d+( to line \d+, column \d+)?";
    let place = regex::Regex::new(place).expect("a pattern");
    for (version, recorded) in RECORDINGS {
        let w = fixture(recorded, 0).await;
        let (mut in_their_words, mut here_already) = (0, 0);
        for (at, line) in recording(recorded).iter().enumerate() {
            let Reply::Error { message, .. } = &line.reply else {
                continue;
            };
            let about_jobs = [
                "BACKUP ",
                "RESTORE ",
                "CANCEL ",
                "CREATE REP",
                "CREATE READ",
                "DROP REP",
                "RECOVER ",
            ];
            let says = |words: &str| line.statement.starts_with(words);
            // What became of a statement that could not be passed on, nobody knows.
            if message.starts_with("java.net.") {
                continue;
            }
            let is_known = NOT_AS_RECORDED
                .iter()
                .any(|(part, _)| line.statement.contains(part));
            if line.user != "root" || !about_jobs.iter().any(|words| says(words)) || is_known {
                continue;
            }
            w.fe.go_to(at);
            let context = format!("{version}, line {}: {}", at + 1, line.statement);
            let (code, told) = fails(&w.client, &line.statement).await;
            assert_ne!(code, "HV000", "{context}: {told} {:?}", w.fe.unknown());
            // Where it is comes as the error's position.
            if told == place.replace(message, "") {
                in_their_words += 1;
            } else {
                // Refused before anything was sent.
                here_already += 1;
                let kinds = [
                    "0A000", "42601", "42602", "42000", "42704", "22023", "3F000", "55000",
                ];
                assert!(kinds.contains(&code.as_str()), "{context}: {code} {told}");
            }
        }
        assert!(
            in_their_words > 60 && here_already < 40,
            "{in_their_words} {here_already}"
        );
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_objects_are_shown() {
    for (version, recorded) in RECORDINGS {
        let lines = recording(recorded);
        // With every table made, and every backend alive.
        let w = fixture(
            recorded,
            before(recorded, "SELECT * FROM information_schema.schemata"),
        )
        .await;
        let count = |table: &str| format!("SELECT count(*) FROM system.{table}");
        let all = lines.iter().find(|l| {
            l.statement
                .starts_with("SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE")
        });
        let Some(Reply::Rows { rows: tables, .. }) = all.map(|l| &l.reply) else {
            panic!("tables were asked for");
        };
        let views = tables
            .iter()
            .filter(|row| row[2].as_deref() == Some("VIEW") && row[3].is_none());
        let stored = tables.len() - views.count();
        assert_eq!(value(&w.client, &count("tables")).await, stored.to_string());
        assert_eq!(
            value(&w.client, &count("backends WHERE alive")).await,
            "3",
            "{version}"
        );
        assert_eq!(
            value(&w.client, &count("frontends WHERE is_leader")).await,
            "1",
            "{version}"
        );
        // What SHOW SNAPSHOT says of a label that is not there is no snapshot.
        let absent = "SELECT count(*) FROM system.snapshots WHERE repository = 'vault' AND snapshot = 'nope'";
        assert_eq!(value(&w.client, absent).await, "0", "{version}");
        let first =
            "SELECT status FROM system.snapshots WHERE repository = 'vault' AND snapshot = 'first'";
        assert_eq!(value(&w.client, first).await, "OK", "{version}");
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_trouble_is_named() {
    let condition =
        "SELECT concat_ws(' ', version, condition) FROM system.clusters WHERE cluster = 'prod'";
    for (version, recorded) in RECORDINGS {
        let w = fixture(
            recorded,
            before(recorded, "SELECT * FROM information_schema.schemata"),
        )
        .await;
        assert_eq!(value(&w.client, condition).await, format!("{version} well"));
        w.server.stop().await;
        // All backends down; the same frontend met for the first time in this state.
        let down = recording(recorded).iter().position(|l| {
            matches!(&l.reply, Reply::Error { message, .. } if message.starts_with("Backend node not found"))
        });
        let down = down.expect("backends were down");
        let w = fixture(recorded, down + 1).await;
        assert_eq!(
            value(&w.client, condition).await,
            format!("{version} no_backends")
        );
        w.server.stop().await;
    }
    // A follower alone.
    let (version, recorded) = RECORDINGS[1];
    let w = fixture(recorded, recording(recorded).len() - 20).await;
    assert_eq!(
        value(&w.client, condition).await,
        format!("{version} no_leader")
    );
    w.server.stop().await;
}
