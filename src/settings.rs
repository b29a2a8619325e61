//! Settings: plain data from a file, the environment and the command line, in that order. Every
//! limit has its reason here.

mod rows;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::statement::Bounds;

/// The prefix of environment variables: `STARKEEP_DATA_DIR` is `data_dir`.
const ENV_PREFIX: &str = "STARKEEP_";

/// Everything that can be set. Unknown names are errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The address of the PostgreSQL protocol.
    pub listen: SocketAddr,
    /// The address of metrics and health checks.
    pub http: SocketAddr,
    /// How many backends, or their directories.
    pub backends: Backends,
    /// A file with root's password.
    pub root_password_file: Option<PathBuf>,
    /// The server's certificates, PEM. With them clients may encrypt.
    pub tls_cert: Option<PathBuf>,
    /// The key of the first of them, PEM.
    pub tls_key: Option<PathBuf>,
    /// Who signs the certificates of clients, PEM. With it every client must show one, made out to
    /// its user.
    pub tls_client_ca: Option<PathBuf>,
    /// Whether clients that do not encrypt are turned away.
    pub tls_required: bool,
    /// Whether to listen beyond loopback although root has no password.
    pub insecure: bool,
    /// The key of stored secrets, 64 hex digits; without it a key file in the data directory is
    /// used.
    pub secret_key: Option<Secret>,
    /// How the log is written.
    pub log_format: LogFormat,

    /// Connections at a time: each holds a task and buffers, and the operating system's file
    /// descriptors are finite.
    pub connections_max: usize,
    /// Connections of one address at a time: one client that runs wild must leave room for others.
    pub connections_per_address_max: usize,
    /// Clients that have not logged in yet, at a time; they do not take the places of those that
    /// have.
    pub logins_max: usize,
    /// The same of one address.
    pub logins_per_address_max: usize,
    /// The longest message of a client, bytes: it is held in memory as a whole.
    pub message_bytes_max: usize,
    /// Of `connections_max`, places that only administrators take: whoever must end what went wrong
    /// has to come in.
    pub connections_reserved: usize,
    /// The longest text of one statement, bytes: it is copied while it is read.
    pub statement_bytes_max: usize,
    /// Words and signs of one statement: each takes about a KiB while the statement is planned.
    /// PostgreSQL's 65,535 parameters in one INSERT are some 150,000 of them.
    pub statement_tokens_max: usize,
    /// Levels of brackets, CASEs, types and queries inside one another: each costs stack.
    pub statement_nesting_max: usize,
    /// Operators that one expression chains: its tree is as deep as the chain is long.
    pub statement_operators_max: usize,
    /// Items of one list: each is an expression that is planned.
    pub statement_items_max: usize,
    /// Tables that one statement reads, each as often as it is read: WITH queries that read each
    /// other multiply, and each join carries the columns of all before it.
    pub statement_relations_max: usize,
    /// The longest text, list or other value that an expression makes, bytes. StarRocks' longest
    /// VARCHAR has 1 MiB, its JSON 16.
    pub value_bytes_max: usize,
    /// The longest row of an answer, bytes: it is written into memory as a whole.
    pub row_bytes_max: usize,
    /// Rows that one SCROLL cursor keeps, bytes.
    pub cursor_bytes_max: usize,
    /// From connecting to the first prompt, seconds: a client that never logs in must not hold a
    /// place.
    pub authentication_timeout_seconds: u64,
    /// How long running statements may go on once the server stops, seconds.
    pub drain_timeout_seconds: u64,
    /// Jobs at a time; more wait. Each holds connections to storage.
    pub jobs_running_max: usize,
    /// Tablets of one job that are moved at a time.
    pub upload_concurrency: usize,
    /// Bytes of backup data that go to and from repositories in a second, of all jobs together; 0
    /// is no limit. Repositories and jobs may have lower ones.
    pub max_bytes_per_second: u64,
    /// Bytes of backup data in memory at a time, over all jobs.
    pub bytes_in_flight_max: u64,
    /// Memory of all queries together, bytes; sorts and groupings spill to disk beyond it.
    pub query_memory_bytes_max: usize,
    /// Memory of one query, bytes; 0 means half of all. What one may not take is left to others.
    pub statement_memory_bytes_max: usize,
    /// Where sorts and groupings spill to; `tmp` in the data directory if it is empty. What a
    /// killed server left there is removed at start.
    pub spill_dir: PathBuf,
    /// What all queries together may spill, bytes.
    pub spill_bytes_max: u64,
    /// Parts that a query is cut into; 0 means as many as there are processors.
    pub query_parallelism: usize,
    /// How long a job may take when its statement does not say, seconds; StarRocks' own default is
    /// a day.
    pub job_timeout_seconds: u64,
    /// The cluster of a connection that names none.
    pub default_cluster: String,
    /// Hosts that repositories of others than administrators may be on, as `host`, `*.domain` or
    /// `host:port`. Empty: any, if the statement gives keys of its own.
    pub repository_hosts: Vec<String>,
    /// StarRocks clusters, beside those that CREATE CLUSTER made.
    pub cluster: Vec<ClusterSettings>,
    /// How often expired snapshots are looked for, in seconds: each round lists every repository
    /// that is not read-only.
    pub snapshot_expiry_seconds: u64,
    /// Whether the journals of jobs are copied into their repositories.
    pub history_mirrored: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let bounds = Bounds::default();
        Self {
            data_dir: "starkeep-data".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 9432)),
            http: SocketAddr::from(([127, 0, 0, 1], 9480)),
            backends: Backends::Count(3),
            root_password_file: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_required: false,
            insecure: false,
            secret_key: None,
            log_format: LogFormat::Text,
            connections_max: 256,
            connections_per_address_max: 256,
            logins_max: 128,
            logins_per_address_max: 64,
            message_bytes_max: 64 << 20,
            connections_reserved: 3,
            statement_bytes_max: bounds.bytes_max,
            statement_tokens_max: bounds.tokens_max,
            statement_nesting_max: bounds.nesting_max,
            statement_operators_max: bounds.operators_max,
            statement_items_max: bounds.items_max,
            statement_relations_max: bounds.relations_max,
            value_bytes_max: 16 << 20,
            row_bytes_max: 256 << 20,
            cursor_bytes_max: 256 << 20,
            authentication_timeout_seconds: 30,
            drain_timeout_seconds: 10,
            jobs_running_max: 16,
            upload_concurrency: 4,
            max_bytes_per_second: 0,
            bytes_in_flight_max: 64 << 20,
            query_memory_bytes_max: 1 << 30,
            statement_memory_bytes_max: 0,
            spill_dir: PathBuf::new(),
            spill_bytes_max: 100 << 30,
            query_parallelism: 0,
            job_timeout_seconds: 86_400,
            default_cluster: "embedded".into(),
            repository_hosts: Vec::new(),
            cluster: Vec::new(),
            snapshot_expiry_seconds: 300,
            history_mirrored: true,
        }
    }
}

/// `3`, `"3"`, or `"/disk1/be,/disk2/be"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Backends {
    /// So many, below the data directory.
    Count(usize),
    /// A count or paths, as text.
    Text(String),
    /// In these directories.
    Paths(Vec<PathBuf>),
}

impl Backends {
    /// The directory of each backend.
    pub fn directories(&self, data_dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let numbered = |n: usize| {
            (1..=n)
                .map(|i| data_dir.join(format!("be{i}")))
                .collect::<Vec<_>>()
        };
        let paths = match self {
            Self::Count(n) => numbered(*n),
            Self::Text(text) => match text.trim().parse::<usize>() {
                Ok(n) => numbered(n),
                Err(_) => text
                    .split(',')
                    .map(str::trim)
                    .filter(|p| !p.is_empty())
                    .map(PathBuf::from)
                    .collect(),
            },
            Self::Paths(paths) => paths.clone(),
        };
        let mut distinct = paths.clone();
        distinct.sort();
        distinct.dedup();
        if paths.is_empty() || paths.len() > 64 || distinct.len() != paths.len() {
            return Err(invalid(
                "backends",
                "give 1 to 64 different directories, or a number",
            ));
        }
        Ok(paths)
    }
}

/// A setting that must not be shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A `[[cluster]]`: its name, and the properties that CREATE CLUSTER takes. Debug shows no value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Its name, and that of the PostgreSQL database.
    pub name: String,
    /// How it is reached.
    #[serde(flatten)]
    pub properties: BTreeMap<String, Scalar>,
}

impl std::fmt::Debug for ClusterSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSettings")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A property as TOML may write it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `5`
    Integer(i64),
    /// `true`
    Boolean(bool),
    /// `"text"`
    Text(String),
}

impl ClusterSettings {
    /// The properties as CREATE CLUSTER has them.
    pub fn texts(&self) -> BTreeMap<String, String> {
        let text = |value: &Scalar| match value {
            Scalar::Integer(n) => n.to_string(),
            Scalar::Boolean(b) => b.to_string(),
            Scalar::Text(t) => t.clone(),
        };
        self.properties
            .iter()
            .map(|(k, v)| (k.clone(), text(v)))
            .collect()
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object a line.
    Json,
}

fn invalid(name: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Configuration, format!("{name}: {why}"))
}

impl Settings {
    /// Reads the file, lays the environment over it and the command line over that. `environment`
    /// and `arguments` are names with values as text.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        arguments: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|e| {
                invalid(
                    "config",
                    format!("could not read \"{}\": {e}", path.display()),
                )
            })?;
            table = text.parse().map_err(|e: toml::de::Error| {
                let place = e
                    .span()
                    .map_or(String::new(), |s| format!(" at byte {}", s.start));
                invalid(
                    "config",
                    format!(
                        "\"{}\" does not read{place}: {}",
                        path.display(),
                        e.message()
                    ),
                )
            })?;
            Self::of(table.clone(), &format!("\"{}\"", path.display()))?;
        }
        let known = toml::Table::try_from(Self {
            root_password_file: Some("".into()),
            tls_cert: Some("".into()),
            tls_key: Some("".into()),
            tls_client_ca: Some("".into()),
            secret_key: Some(Secret(String::new())),
            ..Self::default()
        })
        .map_err(|e| Error::internal(e.to_string()))?;
        let variables = environment.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase();
            Some((name, value, true))
        });
        for (name, value, is_environment) in
            variables.chain(arguments.into_iter().map(|(n, v)| (n, v, false)))
        {
            let Some(default) = known.get(&name) else {
                // Other programs' variables may share the prefix by accident; a flag cannot.
                if is_environment {
                    tracing::warn!(
                        "the environment variable {ENV_PREFIX}{} names no setting",
                        name.to_ascii_uppercase()
                    );
                    continue;
                }
                return Err(invalid(&name, "there is no such setting"));
            };
            let typed = match default {
                toml::Value::Integer(_) if name != "backends" => {
                    toml::Value::Integer(value.parse().map_err(|_| {
                        invalid(&name, format!("\"{value}\" is not a whole number"))
                    })?)
                }
                toml::Value::Boolean(_) => {
                    toml::Value::Boolean(match value.to_ascii_lowercase().as_str() {
                        "true" | "1" | "on" | "yes" | "" => true,
                        "false" | "0" | "off" | "no" => false,
                        _ => {
                            return Err(invalid(
                                &name,
                                format!("\"{value}\" is not true or false"),
                            ));
                        }
                    })
                }
                _ => toml::Value::String(value),
            };
            let mut one = toml::Table::new();
            one.insert(name.clone(), typed.clone());
            Self::of(one, &name)?;
            table.insert(name, typed);
        }
        Self::of(table, "settings")?.validated()
    }

    fn of(table: toml::Table, place: &str) -> Result<Self, Error> {
        let name = (table.len() == 1)
            .then(|| table.keys().next().cloned())
            .flatten();
        table.try_into().map_err(|e: toml::de::Error| {
            // toml names the key in a line of its own below the message.
            let message = e.message().to_owned();
            let key = e.to_string().lines().find_map(|l| {
                l.strip_prefix("in `")
                    .map(|k| k.trim_end_matches('`').to_owned())
            });
            invalid(
                &key.or(name).unwrap_or_else(|| "config".into()),
                format!("{message} (in {place})"),
            )
        })
    }

    fn validated(self) -> Result<Self, Error> {
        for (name, value, least) in [
            ("connections_max", self.connections_max as u64, 1),
            (
                "connections_per_address_max",
                self.connections_per_address_max as u64,
                1,
            ),
            ("logins_max", self.logins_max as u64, 1),
            (
                "logins_per_address_max",
                self.logins_per_address_max as u64,
                1,
            ),
            ("message_bytes_max", self.message_bytes_max as u64, 1024),
            ("statement_bytes_max", self.statement_bytes_max as u64, 1024),
            (
                "statement_tokens_max",
                self.statement_tokens_max as u64,
                1000,
            ),
            (
                "statement_nesting_max",
                self.statement_nesting_max as u64,
                10,
            ),
            (
                "statement_operators_max",
                self.statement_operators_max as u64,
                10,
            ),
            ("statement_items_max", self.statement_items_max as u64, 100),
            (
                "statement_relations_max",
                self.statement_relations_max as u64,
                10,
            ),
            ("value_bytes_max", self.value_bytes_max as u64, 1 << 20),
            ("row_bytes_max", self.row_bytes_max as u64, 1 << 20),
            ("cursor_bytes_max", self.cursor_bytes_max as u64, 1 << 20),
            ("spill_bytes_max", self.spill_bytes_max, 1 << 20),
            (
                "authentication_timeout_seconds",
                self.authentication_timeout_seconds,
                1,
            ),
            ("jobs_running_max", self.jobs_running_max as u64, 1),
            ("upload_concurrency", self.upload_concurrency as u64, 1),
            ("bytes_in_flight_max", self.bytes_in_flight_max, 8 << 20),
            (
                "query_memory_bytes_max",
                self.query_memory_bytes_max as u64,
                16 << 20,
            ),
            (
                "statement_memory_bytes_max",
                self.statement_memory() as u64,
                8 << 20,
            ),
            ("job_timeout_seconds", self.job_timeout_seconds, 1),
            ("snapshot_expiry_seconds", self.snapshot_expiry_seconds, 1),
        ] {
            if value < least {
                return Err(invalid(name, format!("{value} is less than {least}")));
            }
        }
        // Each level takes stack, of which a thread has 8 MiB.
        for (name, value, most) in [
            ("statement_nesting_max", self.statement_nesting_max, 100),
            (
                "statement_operators_max",
                self.statement_operators_max,
                1000,
            ),
        ] {
            if value > most {
                return Err(invalid(name, format!("{value} is more than {most}")));
            }
        }
        if self.connections_reserved >= self.connections_max {
            return Err(invalid(
                "connections_reserved",
                "it leaves no place of connections_max to others",
            ));
        }
        self.backends.directories(&self.data_dir)?;
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return Err(invalid("tls_key", "it is missing beside tls_cert")),
            (None, Some(_)) => return Err(invalid("tls_cert", "it is missing beside tls_key")),
            (None, None) if self.tls_required => {
                return Err(invalid(
                    "tls_required",
                    "there is no tls_cert to encrypt with",
                ));
            }
            (None, None) if self.tls_client_ca.is_some() => {
                return Err(invalid(
                    "tls_client_ca",
                    "clients show certificates under TLS only: give tls_cert and tls_key",
                ));
            }
            _ => {}
        }
        Ok(self)
    }

    /// Where queries spill to.
    pub fn spill_directory(&self) -> PathBuf {
        if self.spill_dir.as_os_str().is_empty() {
            self.data_dir.join("tmp")
        } else {
            self.spill_dir.clone()
        }
    }

    /// What one query may take, bytes.
    pub fn statement_memory(&self) -> usize {
        match self.statement_memory_bytes_max {
            0 => self.query_memory_bytes_max / 2,
            bytes => bytes,
        }
    }

    /// How large a statement may be.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            bytes_max: self.statement_bytes_max,
            tokens_max: self.statement_tokens_max,
            nesting_max: self.statement_nesting_max,
            operators_max: self.statement_operators_max,
            items_max: self.statement_items_max,
            relations_max: self.statement_relations_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        text: &str,
        environment: &[(&str, &str)],
        arguments: &[(&str, &str)],
    ) -> Result<Settings, Error> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let pairs = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Vec<_>>()
        };
        Settings::load(
            Some(file.path()),
            pairs(environment),
            pairs(arguments).into_iter().collect(),
        )
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
        let settings = load(
            "listen = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:1\"\njobs_running_max = 1\nbackends = [\"/a\", \"/b\"]",
            &[("STARKEEP_HTTP", "127.0.0.1:2"), ("STARKEEP_JOBS_RUNNING_MAX", "2"), ("HOME", "/")],
            &[("jobs_running_max", "3")],
        )
        .expect("good");
        assert_eq!(
            (
                settings.listen.port(),
                settings.http.port(),
                settings.jobs_running_max
            ),
            (1, 2, 3)
        );
        assert_eq!(
            settings
                .backends
                .directories(Path::new("/d"))
                .expect("paths"),
            [PathBuf::from("/a"), "/b".into()]
        );
    }

    #[test]
    fn clusters_are_read_and_their_secrets_do_not_show() {
        let text = "[[cluster]]\nname = \"prod\"\nfe = \"fe1,fe2\"\npassword = \"hush\"\nconnections = 3\nqueue = true";
        let settings = load(text, &[], &[]).expect("good");
        let texts = settings.cluster[0].texts();
        let shown: Vec<_> = texts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            shown,
            ["connections=3", "fe=fe1,fe2", "password=hush", "queue=true"]
        );
        assert!(!format!("{settings:?}{:?}", settings.rows()).contains("hush"));
    }

    #[test]
    fn an_error_names_the_setting() {
        for (text, environment, arguments, name) in [
            ("nonsense = 1", &[][..], &[][..], "nonsense"),
            ("listen = 5", &[], &[], "listen"),
            ("jobs_running_max = ", &[], &[], "config"),
            ("", &[("STARKEEP_LISTEN", "here")], &[], "listen"),
            ("", &[], &[("jobs_running_max", "many")], "jobs_running_max"),
            ("upload_concurrency = 0", &[], &[], "upload_concurrency"),
            ("tls_cert = \"c\"", &[], &[], "tls_key"),
            ("tls_required = true", &[], &[], "tls_required"),
            ("tls_client_ca = \"c\"", &[], &[], "tls_client_ca"),
            ("backends = 0", &[], &[], "backends"),
            ("backends = \"/a,/a\"", &[], &[], "backends"),
        ] {
            let error = load(text, environment, arguments).expect_err(text);
            assert!(error.message.contains(name), "{name}: {error}");
            assert!(!error.message.contains('\n'), "{error}");
        }
    }
}
