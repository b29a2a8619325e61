//! The frontends that were written by hand (tests/fake_fe) say what the real ones said: each
//! statement of the recordings is said to them, and their answers are held beside. Where they differ
//! for a reason, [`EXCEPTIONS`] has it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;

use crate::fake_fe::{Column, FeSession, Model, Reply};
use crate::transcripts::{RECORDINGS, Recorded, recording};

/// What begins so is what the gateway says, or makes what it speaks of.
const SAID: &[&str] = &[
    "ALTER TABLE ",
    "BACKUP ",
    "CANCEL ",
    "CREATE ",
    "DROP REPOSITORY ",
    "DROP SNAPSHOT ",
    "DROP TABLE ",
    "DROP VIEW ",
    "KILL QUERY 999999",
    "RECOVER ",
    "RESTORE ",
    "SELECT CONNECTION_ID()",
    "SELECT CURRENT_VERSION()",
    "SHOW BACKENDS",
    "SHOW BACKUP",
    "SHOW BROKER",
    "SHOW CREATE MATERIALIZED VIEW ",
    "SHOW CREATE TABLE ",
    "SHOW CREATE VIEW ",
    "SHOW DATABASES",
    "SHOW FRONTENDS",
    "SHOW FULL TABLES",
    "SHOW PARTITIONS ",
    "SHOW REPOSITORIES",
    "SHOW RESTORE",
    "SHOW SNAPSHOT",
    "SHOW TABLET ",
    "USE ",
];

/// Where a hand-written answer differs: a part of the statement, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("(orders o)", "a syntax error here too, and in other words"),
    ("CREATE FUNCTION", "functions are not here"),
    (
        "BACKUP DATABASE shop SNAPSHOT shop.x",
        "our grammar refuses it in its own words",
    ),
    (
        "RESTORE SNAPSHOT shop.first FROM vault DATABASE shop",
        "our grammar refuses it in its own words",
    ),
    (
        "EXTERNAL CATALOGS DATABASE",
        "our grammar refuses it in its own words",
    ),
    (
        "EXTERNAL CATALOGS (cat1)",
        "our grammar refuses it in its own words",
    ),
    (
        "RESTORE SNAPSHOT first FROM vault PROPERTIES",
        "the gateway names the database",
    ),
    (
        "'foo'='bar','baz'='1'",
        "in which order unknown properties are told",
    ),
    (
        "information_schema.",
        "what a backup says of it; the gateway refuses it itself",
    ),
    (
        "SHOW RESTORE FROM shop WHERE",
        "the gateway asks without a condition",
    ),
    ("WHERE SNAPSHOT !=", "the gateway asks by = and IN"),
    ("WHERE SNAPSHOT LIKE", "the gateway asks by = and IN"),
    ("WHERE SNAPSHOT NOT IN", "the gateway asks by = and IN"),
    ("RECOVER PARTITION", "nothing is in its recycle bin"),
    ("FROM shop.dyn", "partitions by an expression"),
    ("WHERE PartitionName", "the gateway asks for all of them"),
    ("SHOW DATABASES", "a real one has databases of its own"),
    ("brkbad", "the words of a broker"),
];

/// The same by lines of a recording.
const UNLIKE: &[(&str, std::ops::RangeInclusive<usize>, &str)] = &[
    (
        "3.2.1",
        214..=214,
        "PARTITION without parentheses meant something else; the gateway has them",
    ),
    (
        "3.2.1",
        691..=691,
        "an upload that fails from the first file on has left nothing",
    ),
    (
        "3.2.1",
        705..=705,
        "a cancel that storage holds up is seen in Status first",
    ),
    ("3.2.1", 712..=712, "and its job ends here"),
    (
        "3.2.1",
        757..=767,
        "what was backed up while nothing was recorded",
    ),
    (
        "3.2.1",
        769..=775,
        "the words of an object store that is away",
    ),
    (
        "3.5.0",
        774..=774,
        "what was restored while nothing was recorded",
    ),
    (
        "3.5.0",
        777..=777,
        "external catalogs' jobs while nothing was recorded",
    ),
    (
        "3.5.0",
        780..=780,
        "external catalogs' jobs while nothing was recorded",
    ),
    (
        "3.5.0",
        783..=783,
        "external catalogs' jobs while nothing was recorded",
    ),
    (
        "3.5.0",
        789..=790,
        "external catalogs' jobs while nothing was recorded",
    ),
    (
        "3.5.0",
        800..=801,
        "external catalogs' jobs while nothing was recorded",
    ),
    (
        "3.5.0",
        811..=812,
        "external catalogs' jobs while nothing was recorded",
    ),
];

/// Columns whose values are held beside each other; other values are of the cluster that was
/// recorded.
const COMPARED: &[&str] = &[
    "AllowLoad",
    "BackupObjs",
    "Broker",
    "Database",
    "DbName",
    "IsReadOnly",
    "Label",
    "Location",
    "PartitionName",
    "ReplicationNum",
    "RepoName",
    "RestoreObjs",
    "Snapshot",
    "SnapshotName",
    "State",
    "Status",
    "Table_type",
    "Timeout",
    "Timestamp",
];

/// Columns of which it counts whether there is a value.
const FILLED: &[&str] = &[
    "CreateTime",
    "DownloadFinishedTime",
    "FinishedTime",
    "MetaPreparedTime",
    "SnapshotFinishedTime",
    "UploadFinishedTime",
];

/// Why jobs end that goes by what the hand-written frontends know nothing of: a test says so there.
const NOT_SEEN: &[&str] = &[
    "different schema",
    "different range",
    "conflict range",
    "Only support restore OLAP table",
];

/// How long the time of a snapshot is without its milliseconds.
const SECONDS: usize = 19;

fn replaced(text: &str, pattern: &'static str, by: &str) -> String {
    static PATTERNS: OnceLock<parking_lot::Mutex<BTreeMap<&'static str, Regex>>> = OnceLock::new();
    let mut patterns = PATTERNS.get_or_init(Default::default).lock();
    let pattern = patterns
        .entry(pattern)
        .or_insert_with(|| Regex::new(pattern).expect("a pattern"));
    pattern.replace_all(text, by).into_owned()
}

/// Words without what is of their cluster: times, numbers, where something is in the statement, and
/// what storage has said.
fn words(text: &str) -> String {
    if text.starts_with("Getting syntax error ") {
        return "a syntax error".into();
    }
    let text = replaced(
        text,
        r"(at|from) line \d+, column \d+( to line \d+, column \d+)?",
        "",
    );
    let text = replaced(&text, r"\d{4}(-\d\d){5}(-\d{3})?", "T");
    let text = replaced(&text, r"(?s) msg: [^\]]*$", " msg: …");
    let text = replaced(&text, r"\[[\d,]+\]", "[N]");
    let text = replaced(&text, r"is down\.backend: .*", "is down.");
    replaced(&text, " +", " ").replace("error .", "error.")
}

fn value(column: &Column, value: &Option<String>) -> Option<String> {
    let name = column.name.as_str();
    match value {
        Some(_) if FILLED.contains(&name) => Some("…".into()),
        // In no order.
        Some(text) if name == "RestoreObjs" => {
            let marked = replaced(text, r", ([^\[\]]*( PARTITIONS \[|$))", "\n$1");
            let mut objects: Vec<&str> = marked.split('\n').collect();
            objects.sort_unstable();
            Some(objects.join(", "))
        }
        Some(text) if COMPARED.contains(&name) || name.starts_with("Tables_in_") => {
            Some(words(text))
        }
        Some(_) => Some(String::new()),
        None if FILLED.contains(&name) || COMPARED.contains(&name) => None,
        None => Some(String::new()),
    }
}

/// An answer as it is compared.
fn told(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Ok { .. } => vec!["ok".into()],
        Reply::Error {
            code,
            sqlstate,
            message,
        } => {
            vec![format!("{code}/{sqlstate} {}", words(message))]
        }
        Reply::Rows { columns, rows } => {
            let column = |c: &Column| {
                format!(
                    "{} {} {} {} {}",
                    c.name, c.mysql_type, c.length, c.charset, c.flags
                )
            };
            let mut told: Vec<String> = columns.iter().map(column).collect();
            // Of a backend that is a report.
            let is_backend = columns.iter().any(|c| c.name == "BackendId");
            let is_tablet = columns.iter().any(|c| c.name == "TabletId");
            let row = |row: &Vec<Option<String>>| {
                let values = columns.iter().zip(row).map(|(c, v)| (&c.name, value(c, v)));
                let values = values.filter(|(name, _)| {
                    !(is_backend && ["Status", "Location"].contains(&name.as_str()))
                });
                let known = values.filter(|(_, v)| v.as_deref() != Some(""));
                format!("{:?}", known.collect::<Vec<_>>())
            };
            let is_of_jobs = columns
                .iter()
                .any(|c| COMPARED.contains(&c.name.as_str()) || c.name.starts_with("Tables_in_"));
            if is_of_jobs && !is_tablet {
                let mut rows: Vec<String> = rows.iter().map(row).collect();
                rows.sort();
                told.append(&mut rows);
            }
            told
        }
    }
}

/// The hand-written frontend beside a recording.
struct Double {
    model: Model,
    session: FeSession,
    number: usize,
    /// Of snapshots that were recorded, their labels by their times.
    labels: BTreeMap<String, String>,
    _buckets: tempfile::TempDir,
}

/// The rows of an answer, each by the names of its columns.
fn named(reply: &Reply) -> Vec<BTreeMap<&str, &str>> {
    let Reply::Rows { columns, rows } = reply else {
        return Vec::new();
    };
    rows.iter()
        .map(|row| {
            let pairs = columns.iter().zip(row);
            pairs
                .filter_map(|(c, v)| Some((c.name.as_str(), v.as_deref()?)))
                .collect()
        })
        .collect()
}

impl Double {
    fn new(version: &str, lines: &[Recorded]) -> Self {
        let buckets = tempfile::tempdir().expect("a directory");
        let mut model = Model::new(version);
        model.databases.clear();
        model.brokers.clear();
        model.catalogs.clear();
        model.backends = vec![true; 3];
        model.backs_up_materialized_views = false;
        model.buckets = Some(buckets.path().to_owned());
        let mut labels = BTreeMap::new();
        for line in lines {
            for row in named(&line.reply) {
                let label = row.get("Snapshot").or(row.get("Label"));
                let is_there = !row.contains_key("Snapshot") || row.get("Status") == Some(&"OK");
                if let (Some(label), Some(time), true) = (label, row.get("Timestamp"), is_there) {
                    labels.insert((*time).to_owned(), (*label).to_owned());
                }
            }
        }
        labels.remove("");
        Self {
            model,
            session: FeSession {
                database: None,
                offset_hours: 8,
            },
            number: 0,
            labels,
            _buckets: buckets,
        }
    }

    /// The time of a snapshot here, where the recording had another.
    fn translated(&mut self, statement: &str) -> String {
        let mut statement = statement.to_owned();
        for (time, label) in &self.labels {
            let seconds = format!("'{}'", &time[..SECONDS]);
            if !statement.contains(time.as_str()) && !statement.contains(&seconds) {
                continue;
            }
            for name in self.model.repositories.keys() {
                let dir = self
                    .model
                    .root(name)
                    .map(|r| r.join(format!("__ss_{label}")));
                let Some(Ok(entries)) = dir.map(std::fs::read_dir) else {
                    continue;
                };
                for entry in entries {
                    let file = entry
                        .expect("an entry")
                        .file_name()
                        .into_string()
                        .expect("text");
                    if let Some(rest) = file.strip_prefix("__info_") {
                        statement = statement
                            .replace(time.as_str(), &rest[..time.len()])
                            .replace(&seconds, &format!("'{}'", &rest[..SECONDS]));
                    }
                }
            }
        }
        statement
    }

    /// Brings the jobs here to where those of the recording are.
    fn follow(&mut self, recorded: &Reply) {
        for row in named(recorded) {
            let (Some(database), Some(state)) = (row.get("DbName"), row.get("State")) else {
                continue;
            };
            let label = row.get("SnapshotName").or(row.get("Label")).copied();
            for _ in 0..8 {
                let Some(job) = self.model.slots.get(*database) else {
                    break;
                };
                let is_over = ["FINISHED", "CANCELLED"].contains(&job.state);
                if job.state == *state || is_over || Some(job.label.as_str()) != label {
                    break;
                }
                // Definitions of tables are not compared here.
                let status = row.get("Status").copied().unwrap_or_default();
                if NOT_SEEN.iter().any(|cause| status.contains(cause)) {
                    self.model.break_job(database, status);
                    break;
                }
                self.model.tick_job(database);
            }
        }
    }

    /// Brings a job to where it was when it was cancelled.
    fn go_on(&mut self, database: &str, later: &[Recorded]) {
        for _ in 0..8 {
            let Some(job) = self.model.slots.get(database) else {
                return;
            };
            match cancelled_in(database, &job.label, later) {
                Some(state) if job.state != state => self.model.tick_job(database),
                _ => return,
            }
        }
    }

    /// Lets the jobs end that a statement would have found under way.
    fn finish(&mut self) {
        for _ in 0..8 {
            self.model.tick();
        }
    }

    fn say(&mut self, statement: &str) -> Option<Reply> {
        let statement = self.translated(statement);
        let (ports, up) = ([29_030, 29_031], [true, true]);
        let (model, session) = (&mut self.model, &mut self.session);
        model.answer(session, self.number, &ports[..1], &up[..1], &statement)
    }
}

/// The state that a job was in when it was cancelled, as what is shown of it later tells.
fn cancelled_in(database: &str, label: &str, later: &[Recorded]) -> Option<&'static str> {
    let rows = later.iter().flat_map(|line| named(&line.reply));
    let mut of_job = rows.filter(|row| {
        let of = row.get("SnapshotName").or(row.get("Label"));
        row.get("DbName") == Some(&database) && of == Some(&label)
    });
    let row = of_job.find(|row| row.get("State") == Some(&"CANCELLED"))?;
    let is_backup = row.contains_key("SnapshotName");
    let states = [
        "PENDING",
        "SNAPSHOTING",
        "DOWNLOAD",
        "DOWNLOADING",
        "COMMIT",
    ];
    let status = *row.get("Status")?;
    let said = states
        .into_iter()
        .find(|s| status.contains(&format!("current state: {s}]")));
    let has_uploaded = is_backup && row.contains_key("SnapshotFinishedTime");
    said.or(has_uploaded.then_some("UPLOADING"))
}

fn is_exception(version: &str, line: usize, statement: &str) -> bool {
    let mut by_line = UNLIKE.iter();
    EXCEPTIONS.iter().any(|(part, _)| statement.contains(part))
        || by_line.any(|(of, lines, _)| *of == version && lines.contains(&line))
}

/// Plays a recording; answers how much was compared, and what differs.
fn differences(version: &str, text: &str) -> (usize, Vec<String>) {
    let lines = recording(text);
    let mut double = Double::new(version, &lines);
    let (mut compared, mut found) = (0, Vec::new());
    let mut denials = std::collections::BTreeSet::new();
    for (i, line) in lines.iter().enumerate() {
        let upper = line.statement.to_uppercase();
        let scene = line.scene.as_deref().unwrap_or_default();
        if let Some(broker) = upper.strip_prefix("ALTER SYSTEM ADD BROKER ") {
            let name = broker.split(' ').next().expect("a name").to_lowercase();
            double.model.brokers.push(name);
        }
        if upper.starts_with("CREATE EXTERNAL CATALOG") {
            double.model.catalogs.push("cat1".into());
            continue;
        }
        if upper.starts_with("CREATE ") {
            double.session.database = None;
        }
        let is_said = SAID.iter().any(|said| upper.starts_with(said));
        if let (
            false,
            Reply::Error {
                code,
                sqlstate,
                message,
            },
        ) = (line.user == "root", &line.reply)
            && message.starts_with("Access denied; you need")
        {
            denials.insert((*code, sqlstate.clone()));
        }
        let of_users = upper.starts_with("CREATE USER") || upper.starts_with("CREATE ROLE");
        if !is_said || line.user != "root" || of_users {
            continue;
        }
        double.model.leaderless = scene.contains("no quorum");
        double.model.backends.fill(scene != "all backends down");
        double.number = usize::from(scene.contains("follower"));
        double.follow(&line.reply);
        let cancelled = upper.starts_with("CANCEL ") && matches!(line.reply, Reply::Ok { .. });
        if cancelled && let Some((_, database)) = line.statement.split_once(" FROM ") {
            double.go_on(database, &lines[i + 1..]);
        }
        if is_exception(version, i + 1, &line.statement) {
            continue;
        }
        let mut reply = double.say(&line.statement);
        let is_busy = |reply: &Option<Reply>| matches!(reply, Some(Reply::Error { message, .. }) if message.contains("Can only run one"));
        if is_busy(&reply) && matches!(line.reply, Reply::Ok { .. }) {
            double.finish();
            reply = double.say(&line.statement);
        }
        compared += 1;
        let (ours, theirs) = (
            reply.as_ref().map(told).unwrap_or_default(),
            told(&line.reply),
        );
        if ours != theirs {
            let without = |some: &[String], others: &[String]| {
                let rest = some.iter().filter(|told| !others.contains(told));
                rest.cloned().collect::<Vec<_>>().join("\n            ")
            };
            found.push(format!(
                "{version} {}: {}\n  recorded  {}\n  double    {}",
                i + 1,
                line.statement,
                without(&theirs, &ours),
                without(&ours, &theirs)
            ));
        }
    }
    // Privileges are one switch here; how a lack of any is told is the same.
    let Reply::Error { code, sqlstate, .. } = double.model.denial() else {
        panic!("no denial");
    };
    assert_eq!(denials, [(code, sqlstate)].into());
    (compared, found)
}

#[test]
fn hand_written_frontends_say_what_real_ones_said() {
    for (version, text) in RECORDINGS {
        let (compared, found) = differences(version, text);
        println!("{version}: {compared} compared");
        assert!(
            found.is_empty(),
            "{} differ:\n{}",
            found.len(),
            found.join("\n")
        );
    }
}
