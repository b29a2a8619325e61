//! Settings as rows of system.settings.

use std::path::PathBuf;

use super::Settings;

impl Settings {
    /// Name, value and meaning of each setting, for `system.settings`. Secrets show as `***`.
    pub fn rows(&self) -> Vec<(String, String, String)> {
        let row =
            |name: &str, value: String, meaning: &str| (name.to_owned(), value, meaning.to_owned());
        let shown = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or(String::new(), |p| p.display().to_string())
        };
        vec![
            row(
                "data_dir",
                self.data_dir.display().to_string(),
                "where everything is kept",
            ),
            row(
                "listen",
                self.listen.to_string(),
                "address of the PostgreSQL protocol",
            ),
            row(
                "http",
                self.http.to_string(),
                "address of metrics and health checks",
            ),
            row(
                "backends",
                format!("{:?}", self.backends),
                "how many backends, or their directories",
            ),
            row(
                "root_password_file",
                shown(&self.root_password_file),
                "file with root's password",
            ),
            row(
                "tls_cert",
                shown(&self.tls_cert),
                "the server's certificates",
            ),
            row("tls_key", shown(&self.tls_key), "file with their key"),
            row(
                "tls_client_ca",
                shown(&self.tls_client_ca),
                "who signs the certificates of clients",
            ),
            row(
                "tls_required",
                self.tls_required.to_string(),
                "turn away clients that do not encrypt",
            ),
            row(
                "default_cluster",
                self.default_cluster.clone(),
                "cluster of a connection that names none",
            ),
            row(
                "cluster",
                self.cluster
                    .iter()
                    .map(|c| c.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
                "clusters of the settings file",
            ),
            row(
                "log_format",
                format!("{:?}", self.log_format).to_ascii_lowercase(),
                "how the log is written",
            ),
            row(
                "secret_key",
                if self.secret_key.is_some() { "***" } else { "" }.into(),
                "key of stored secrets",
            ),
            row(
                "insecure",
                self.insecure.to_string(),
                "listen beyond loopback without a root password",
            ),
            row(
                "connections_max",
                self.connections_max.to_string(),
                "connections at a time",
            ),
            row(
                "connections_per_address_max",
                self.connections_per_address_max.to_string(),
                "connections of one address",
            ),
            row(
                "logins_max",
                self.logins_max.to_string(),
                "clients that are logging in",
            ),
            row(
                "logins_per_address_max",
                self.logins_per_address_max.to_string(),
                "the same of one address",
            ),
            row(
                "message_bytes_max",
                self.message_bytes_max.to_string(),
                "longest message of a client",
            ),
            row(
                "connections_reserved",
                self.connections_reserved.to_string(),
                "places of connections_max for administrators",
            ),
            row(
                "statement_bytes_max",
                self.statement_bytes_max.to_string(),
                "longest statement",
            ),
            row(
                "statement_tokens_max",
                self.statement_tokens_max.to_string(),
                "words and signs of a statement",
            ),
            row(
                "statement_nesting_max",
                self.statement_nesting_max.to_string(),
                "levels of a statement",
            ),
            row(
                "statement_operators_max",
                self.statement_operators_max.to_string(),
                "operators that an expression chains",
            ),
            row(
                "statement_items_max",
                self.statement_items_max.to_string(),
                "items of a list in a statement",
            ),
            row(
                "statement_relations_max",
                self.statement_relations_max.to_string(),
                "tables that a statement reads",
            ),
            row(
                "value_bytes_max",
                self.value_bytes_max.to_string(),
                "longest value that an expression makes",
            ),
            row(
                "row_bytes_max",
                self.row_bytes_max.to_string(),
                "longest row of an answer",
            ),
            row(
                "cursor_bytes_max",
                self.cursor_bytes_max.to_string(),
                "rows that a SCROLL cursor keeps",
            ),
            row(
                "authentication_timeout_seconds",
                self.authentication_timeout_seconds.to_string(),
                "time to log in",
            ),
            row(
                "drain_timeout_seconds",
                self.drain_timeout_seconds.to_string(),
                "time for statements when stopping",
            ),
            row(
                "jobs_running_max",
                self.jobs_running_max.to_string(),
                "jobs at a time",
            ),
            row(
                "upload_concurrency",
                self.upload_concurrency.to_string(),
                "tablets of one job moved at a time",
            ),
            row(
                "max_bytes_per_second",
                self.max_bytes_per_second.to_string(),
                "backup data to and from repositories in a second; 0: no limit",
            ),
            row(
                "bytes_in_flight_max",
                self.bytes_in_flight_max.to_string(),
                "backup data in memory at a time",
            ),
            row(
                "query_memory_bytes_max",
                self.query_memory_bytes_max.to_string(),
                "memory of all queries together",
            ),
            row(
                "statement_memory_bytes_max",
                self.statement_memory().to_string(),
                "memory of one query",
            ),
            row(
                "spill_dir",
                self.spill_directory().display().to_string(),
                "where queries spill to",
            ),
            row(
                "spill_bytes_max",
                self.spill_bytes_max.to_string(),
                "what all queries together may spill",
            ),
            row(
                "repository_hosts",
                self.repository_hosts.join(", "),
                "hosts that others than administrators may name in repositories",
            ),
            row(
                "query_parallelism",
                self.query_parallelism.to_string(),
                "parts of a query (0: processors)",
            ),
            row(
                "job_timeout_seconds",
                self.job_timeout_seconds.to_string(),
                "a job's time when it does not say",
            ),
            row(
                "snapshot_expiry_seconds",
                self.snapshot_expiry_seconds.to_string(),
                "how often expired snapshots are looked for",
            ),
            row(
                "history_mirrored",
                self.history_mirrored.to_string(),
                "whether journals of jobs are copied into their repositories",
            ),
        ]
    }
}
