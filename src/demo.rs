//! `starkeep demo`: a temporary server, an ordinary PostgreSQL client, and `sql/demo.sql` played
//! step by step.
//!
//! The script is SQL with directives in comments: `@say` prints, `@wait kind db` watches a job to
//! its end, `@remember name` keeps the next answer, `@same name` demands that the next answer
//! equals it. The demo succeeds only if all of it held.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::server::Server;
use crate::settings::{Backends, Settings};
use crate::statement::Properties;

const SCRIPT: &str = include_str!("../sql/demo.sql");
/// How often the progress of a job is shown.
const REFRESH: Duration = Duration::from_millis(250);
/// The widest table where the environment does not say how wide the terminal is, characters.
const WIDTH: usize = 100;

#[derive(Debug)]
pub struct Demo {
    server: Server,
    dir: TempDir,
    repository: String,
    properties: Vec<(String, String)>,
    env: Env,
}

/// One step of the script.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Say(String),
    Wait { kind: String, database: String },
    Remember(String, String),
    Same(String, String),
    Run(String),
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::WrongState, message)
}

fn client_error(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(e) => failed(format!("{} ({})", e.message(), e.code().code())),
        None => failed(error.to_string()),
    }
}

/// Cuts the script into steps: statements end with a semicolon at the end of a line.
fn steps(script: &str) -> Vec<Step> {
    let (mut steps, mut statement, mut prefix) = (Vec::new(), String::new(), None);
    for line in script.lines() {
        if let Some(directive) = line.strip_prefix("-- @") {
            let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
            match word {
                "say" => steps.push(Step::Say(rest.to_owned())),
                "wait" => {
                    let (kind, database) = rest.split_once(' ').unwrap_or((rest, ""));
                    steps.push(Step::Wait {
                        kind: kind.to_owned(),
                        database: database.to_owned(),
                    });
                }
                other => prefix = Some((other == "same", rest.to_owned())),
            }
        } else if !(line.starts_with("--") || line.trim().is_empty() && statement.is_empty()) {
            statement.push_str(line);
            statement.push('\n');
            if line.ends_with(';') {
                let text = std::mem::take(&mut statement);
                steps.push(match prefix.take() {
                    Some((true, name)) => Step::Same(name, text),
                    Some((false, name)) => Step::Remember(name, text),
                    None => Step::Run(text),
                });
            }
        }
    }
    steps
}

impl Demo {
    /// Starts a server in a temporary directory; the repository is there too, unless another place
    /// is named, which the properties reach.
    pub async fn start(
        repository: Option<String>,
        properties: Vec<(String, String)>,
        env: Env,
    ) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("starkeep-demo-")
            .tempdir()
            .map_err(|e| Error::io("create a directory in", std::env::temp_dir(), e))?;
        let settings = Settings {
            data_dir: dir.path().join("data"),
            listen: ([127, 0, 0, 1], 0).into(),
            http: ([127, 0, 0, 1], 0).into(),
            backends: Backends::Count(3),
            ..Settings::default()
        };
        let repository =
            repository.unwrap_or_else(|| dir.path().join("repository").display().to_string());
        let server = Server::start(&settings, env.clone()).await?;
        Ok(Self {
            server,
            dir,
            repository,
            properties,
            env,
        })
    }

    /// The command that connects to the server.
    pub fn psql_line(&self) -> String {
        format!(
            "psql -h 127.0.0.1 -p {} -U root shop",
            self.server.addr().port()
        )
    }

    /// Stops the server and removes its directory.
    pub async fn stop(self) {
        self.server.stop().await;
        drop(self.dir);
    }

    /// Plays the script. The error says which step did not hold.
    pub async fn play(&self) -> Result<(), Error> {
        let config = format!(
            "host=127.0.0.1 port={} user=root application_name=starkeep-demo",
            self.server.addr().port()
        );
        let (client, mut connection) = tokio_postgres::connect(&config, NoTls)
            .await
            .map_err(|e| client_error(&e))?;
        let notices: JoinHandle<()> = tokio::spawn(async move {
            while let Some(message) =
                futures::future::poll_fn(|cx| connection.poll_message(cx)).await
            {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        println!("{}:  {}", notice.severity(), notice.message())
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        });
        println!(
            "Starkeep on {}, repository in {}",
            self.server.addr(),
            self.repository
        );
        let mut remembered: HashMap<String, Vec<Vec<Option<String>>>> = HashMap::new();
        for step in steps(SCRIPT) {
            match step {
                Step::Say(text) => println!("\n== {text}"),
                Step::Wait { kind, database } => self.watch(&client, &kind, &database).await?,
                Step::Run(statement) => drop(self.run(&client, &statement).await?),
                Step::Remember(name, statement) => {
                    drop(remembered.insert(name, self.run(&client, &statement).await?))
                }
                Step::Same(name, statement) => {
                    let now = self.run(&client, &statement).await?;
                    let before = remembered
                        .get(&name)
                        .ok_or_else(|| failed(format!("nothing was remembered as {name}")))?;
                    if &now != before {
                        return Err(failed(format!(
                            "{name} is not what it was before: {before:?} became {now:?}"
                        )));
                    }
                    println!("   the same as before: {name}");
                }
            }
        }
        drop(client);
        let _ = notices.await;
        println!("\nEvery step held.");
        Ok(())
    }

    /// Shows the progress of a job until it has ended, and demands that it succeeded.
    async fn watch(&self, client: &Client, kind: &str, database: &str) -> Result<(), Error> {
        let query = format!(
            "SELECT state, status, tasks_done, tasks_total, bytes_done, bytes_total, fraction_completed, error_message
             FROM system.jobs WHERE kind = '{kind}' AND db_name = '{database}' ORDER BY job_id DESC LIMIT 1"
        );
        let is_terminal = std::io::stdout().is_terminal();
        let mut shown = String::new();
        loop {
            let row = client
                .query_one(query.as_str(), &[])
                .await
                .map_err(|e| client_error(&e))?;
            let (state, status): (Option<String>, String) = (row.get(0), row.get(1));
            let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
            let line = format!(
                "   {kind} {:<15} {:>3.0} %  {:>6.1} of {:.1} MiB  {} of {} tasks",
                state.unwrap_or_default(),
                row.get::<_, f64>(6) * 100.0,
                mib(row.get(4)),
                mib(row.get(5)),
                row.get::<_, i64>(2),
                row.get::<_, i64>(3),
            );
            let is_over = !matches!(status.as_str(), "queued" | "running");
            if is_terminal {
                // One line that moves.
                print!("\r{line:<width$}", width = shown.len());
                if is_over {
                    println!();
                }
                let _ = std::io::stdout().flush();
            } else if line != shown {
                println!("{line}");
            }
            shown = line;
            match status.as_str() {
                "succeeded" => return Ok(()),
                _ if !is_over => self.env.clock.sleep(REFRESH).await,
                other => {
                    return Err(failed(format!(
                        "the {kind} {other}: {}",
                        row.get::<_, Option<String>>(7).unwrap_or_default()
                    )));
                }
            }
        }
    }
}

impl Demo {
    /// The statement with the repository's place in it; its secrets only in the text that is sent.
    fn filled(&self, statement: &str, show_secrets: bool) -> String {
        let value_of = |key: &str, value: &str| {
            if show_secrets || !Properties::is_secret(key) {
                value.to_owned()
            } else {
                "***".into()
            }
        };
        let pairs: Vec<String> = self
            .properties
            .iter()
            .map(|(k, v)| format!("\"{k}\" = \"{}\"", value_of(k, v)))
            .collect();
        let properties = if pairs.is_empty() {
            String::new()
        } else {
            format!(" PROPERTIES ({})", pairs.join(", "))
        };
        statement
            .replace("${LOCATION}", &self.repository)
            .replace("${PROPERTIES}", &properties)
    }

    /// Runs one statement, prints it with its answer, and returns the answer's rows.
    async fn run(
        &self,
        client: &Client,
        statement: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Error> {
        println!("\n{}", self.filled(statement, false).trim_end());
        let messages = client
            .simple_query(&self.filled(statement, true))
            .await
            .map_err(|e| client_error(&e))?;
        Ok(print_answer(messages))
    }
}

/// Prints an answer, and returns its rows.
fn print_answer(messages: Vec<SimpleQueryMessage>) -> Vec<Vec<Option<String>>> {
    let width = std::env::var("COLUMNS")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(WIDTH);
    let mut columns: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(described) => {
                columns = Some(described.iter().map(|c| c.name().to_owned()).collect());
            }
            SimpleQueryMessage::Row(row) => rows.push(
                (0..row.len())
                    .map(|i| row.get(i).map(str::to_owned))
                    .collect(),
            ),
            SimpleQueryMessage::CommandComplete(count) => match &columns {
                Some(columns) => println!("{}\n({count} rows)", shown(columns, &rows, width)),
                None if count > 0 => println!("{count} rows"),
                None => {}
            },
            _ => {}
        }
    }
    rows
}

/// Rows as a table, or one below the other if that is wider than the terminal.
fn shown(columns: &[String], rows: &[Vec<Option<String>>], width: usize) -> String {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(columns);
    table.add_rows(
        rows.iter()
            .map(|row| row.iter().map(|v| v.clone().unwrap_or_default())),
    );
    let table = table.to_string();
    if table.lines().all(|line| line.chars().count() <= width) {
        return table;
    }
    let name_width = columns.iter().map(|c| c.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let _ = writeln!(out, "-[ row {} ]-", i + 1);
        for (name, value) in columns.iter().zip(row) {
            // A value of several lines stays in its column.
            let value = value
                .as_deref()
                .unwrap_or_default()
                .replace('\n', &format!("\n{:name_width$} | ", ""));
            let _ = writeln!(out, "{name:<name_width$} | {value}");
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_reads_as_steps() {
        let steps = steps(SCRIPT);
        let count = |f: fn(&Step) -> bool| steps.iter().filter(|s| f(s)).count();
        assert!(count(|s| matches!(s, Step::Wait { .. })) >= 2);
        assert!(count(|s| matches!(s, Step::Same(..))) >= 2);
        assert!(
            steps
                .iter()
                .all(|s| !matches!(s, Step::Run(text) if text.trim().is_empty()))
        );
    }

    #[test]
    fn wide_rows_stand_one_below_the_other() {
        let columns = ["id".to_owned(), "objects".to_owned()];
        let rows = [
            vec![Some("1".to_owned()), Some("a\nb".to_owned())],
            vec![Some("2".to_owned()), None],
        ];
        assert!(shown(&columns, &rows, 80).starts_with("| id | objects |"));
        assert_eq!(
            shown(&columns, &rows, 10),
            "-[ row 1 ]-\nid      | 1\nobjects | a\n        | b\n-[ row 2 ]-\nid      | 2\nobjects |"
        );
    }
}
