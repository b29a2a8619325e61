//! The rules of docs/architecture.md that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, out: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                out.push((path, text));
            }
        }
    }
    let mut out = Vec::new();
    for folder in ["src", "crates"] {
        walk(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut out,
        );
    }
    out.sort();
    out
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A crate of its own is known to the others by a name of theirs.
    if let Ok(below) = path.strip_prefix(root.join("crates")) {
        return match below
            .components()
            .next()
            .and_then(|c| c.as_os_str().to_str())
        {
            Some("pg-catalog") => "catalog".to_owned(),
            Some("pg-semantics") => "semantics".to_owned(),
            _ => "error".to_owned(),
        };
    }
    let below = path.strip_prefix(root.join("src")).expect("below src");
    let first = below
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// A file's text without its tests and comments.
fn code(text: &str) -> String {
    let body = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    body.lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Who may use whom (docs/architecture.md, "Modules").
const ALLOWED: &[(&str, &[&str])] = &[
    ("names", &["error"]),
    ("error", &[]),
    ("env", &["names"]),
    ("settings", &["error", "statement"]),
    ("privilege", &["names", "error"]),
    ("schema", &["names", "error"]),
    ("sqlite", &["error"]),
    (
        "statement",
        &["names", "error", "schema", "privilege", "catalog", "job"],
    ),
    ("job", &["names", "error", "schema"]),
    ("metrics", &["job"]),
    ("progress", &["job", "names"]),
    ("scan_at_once", &[]),
    ("repository", &["names", "error", "env", "job"]),
    (
        "store",
        &[
            "names",
            "error",
            "env",
            "job",
            "schema",
            "sqlite",
            "privilege",
        ],
    ),
    (
        "cluster",
        &[
            "names",
            "error",
            "env",
            "repository",
            "job",
            "schema",
            "statement",
            "sqlite",
            "scan_at_once",
        ],
    ),
    (
        "runner",
        &[
            "names",
            "error",
            "job",
            "store",
            "cluster",
            "repository",
            "metrics",
            "progress",
            "env",
            "statement",
            "chains",
        ],
    ),
    (
        "chains",
        &[
            "names",
            "error",
            "job",
            "store",
            "cluster",
            "repository",
            "statement",
        ],
    ),
    // Crates of their own.
    ("catalog", &["error"]),
    (
        "query",
        &[
            "names",
            "error",
            "env",
            "statement",
            "store",
            "repository",
            "cluster",
            "job",
            "schema",
            "privilege",
            "catalog",
            "progress",
            "scan_at_once",
        ],
    ),
    ("auth", &["env", "store"]),
    (
        "gateway",
        &[
            "names",
            "error",
            "env",
            "statement",
            "query",
            "runner",
            "store",
            "cluster",
            "repository",
            "metrics",
            "privilege",
            "schema",
            "catalog",
            "auth",
        ],
    ),
    (
        "admission",
        &[
            "names",
            "error",
            "env",
            "statement",
            "query",
            "runner",
            "store",
            "cluster",
            "job",
            "repository",
            "privilege",
            "schema",
            "auth",
            "gateway",
            "chains",
        ],
    ),
    (
        "session",
        &[
            "names",
            "error",
            "statement",
            "query",
            "cluster",
            "job",
            "repository",
            "privilege",
            "schema",
            "catalog",
            "gateway",
            "admission",
        ],
    ),
    (
        "wire",
        &[
            "names",
            "error",
            "session",
            "gateway",
            "statement",
            "store",
            "catalog",
        ],
    ),
    ("http", &["error", "metrics"]),
];

#[test]
fn modules_use_only_what_they_may() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(m, uses)| (*m, uses.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for (path, text) in sources()
        .into_iter()
        .filter(|(path, _)| !path.components().any(|c| c.as_os_str() == "crates"))
    {
        let module = module(&path);
        let Some(allowed) = allowed.get(module.as_str()) else {
            assert!(
                ["server", "demo", "main", "lib"].contains(&module.as_str()),
                "module {module} is not in the table"
            );
            continue;
        };
        for piece in code(&text).split("crate::").skip(1) {
            let used: String = piece
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if !used.is_empty() && used != module && !allowed.contains(used.as_str()) {
                wrong.push(format!("{} uses crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_library_is_used_in_few_modules() {
    for (library, users) in [
        ("pgwire::", &["wire"][..]),
        ("axum::", &["http"]),
        ("rusqlite::", &["sqlite", "store", "cluster"]),
        ("mysql_async::", &["cluster"]),
        ("sqlparser::", &["statement", "session", "catalog", "query"]),
        ("tokio_postgres::", &["demo"]),
    ] {
        for (path, text) in sources() {
            let module = module(&path);
            assert!(
                !code(&text).contains(library) || users.contains(&module.as_str()),
                "{} uses {library}",
                path.display()
            );
        }
    }
}

#[test]
fn statement_and_job_do_nothing_but_compute() {
    for (path, text) in sources() {
        if ["statement", "job", "schema", "names"].contains(&module(&path).as_str()) {
            let code = code(&text);
            for impure in [
                "async ",
                "tokio",
                "std::fs",
                "std::env::",
                "SystemTime",
                "Instant",
                "rand",
            ] {
                let found = code
                    .match_indices(impure)
                    .any(|(i, _)| !code[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                assert!(
                    !found || (impure == "rand" && !code.contains("rand::")),
                    "{} contains {impure}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn files_are_short_and_have_headers() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//! "),
            "{} does not begin with what it is",
            path.display()
        );
        let lines = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or(&text)
            .lines()
            .count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
        assert!(
            path.file_name().is_some_and(|n| n != "mod.rs"),
            "{} is a mod.rs",
            path.display()
        );
    }
}

#[test]
fn there_is_no_global_state_and_no_careless_unwrap() {
    for (path, text) in sources() {
        let code = code(&text);
        assert!(!code.contains(".unwrap()"), "{} unwraps", path.display());
        for stateful in ["static mut", "lazy_static!", "thread_local!"] {
            assert!(
                !code.contains(stateful),
                "{} has {stateful}",
                path.display()
            );
        }
        // A field may be filled once; what is static holds nothing that changes. A LazyLock is a
        // constant that takes a while.
        for line in code
            .lines()
            .filter(|line| line.split_whitespace().take(3).any(|word| word == "static"))
        {
            for stateful in ["OnceLock<", "OnceCell<", "Mutex<", "RwLock<", "Atomic"] {
                assert!(!line.contains(stateful), "{} has {line}", path.display());
            }
        }
    }
}

#[test]
fn files_that_docs_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "architecture.md",
        "sql.md",
        "compat.md",
        "repository-format.md",
        "operations.md",
    ] {
        let text = fs::read_to_string(root.join("docs").join(file)).expect(file);
        // Links between the pages must not dangle.
        for link in text.split("](").skip(1).filter_map(|l| l.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(
                    root.join("docs").join(target).exists(),
                    "docs/{file} links to {target}"
                );
            }
        }
    }
}

/// Every file of the tree but what builds leave.
fn tree(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let name = entry.file_name();
        if entry.path().is_dir() {
            if !["target", ".git", "node_modules"].contains(&name.to_string_lossy().as_ref()) {
                tree(&entry.path(), found);
            }
        } else {
            found.push(entry.path().to_string_lossy().into_owned());
        }
    }
}

#[test]
fn files_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    tree(root, &mut all);
    let in_docs = r"`([A-Za-z0-9_][A-Za-z0-9_./-]*\.(?:rs|py|md|sql|jsonl|slt|sh|yml))`";
    let in_comments = r"(?:^|[\s(`])((?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+\.(?:rs|py|md|sql|slt))\b";
    let [in_docs, in_comments] =
        [in_docs, in_comments].map(|pattern| Regex::new(pattern).expect("a pattern"));
    let mut missing = Vec::new();
    for file in all.iter().map(Path::new) {
        let is_page = file.extension().is_some_and(|e| e == "md");
        if !is_page && file.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = fs::read_to_string(file).expect("text");
        for line in text.lines() {
            let pattern = match line.trim_start().starts_with("//") {
                true if !is_page => &in_comments,
                _ if is_page => &in_docs,
                _ => continue,
            };
            for found in pattern.captures_iter(line) {
                let name = format!("/{}", &found[1]);
                if !all.iter().any(|known| known.ends_with(&name)) {
                    missing.push(format!("{}: {}", file.display(), &found[1]));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn docker_compose_is_well_formed() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yml"))
        .expect("the file");
    assert!(!text.contains('\t'), "YAML has no tabs");
    // Every volume and secret that a service names is declared, and every file that is mounted from
    // here is in the tree.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for mounted in text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- ./"))
        .filter_map(|m| m.split(':').next())
    {
        assert!(
            root.join(mounted).exists(),
            "{mounted} is mounted and does not exist"
        );
    }
    for volume in ["starkeep-data", "starrocks-data", "s3-data"] {
        assert!(
            text.contains(&format!("\n  {volume}:\n")),
            "the volume {volume} is not declared"
        );
    }
    for service in ["  starkeep:", "  starrocks:", "  s3:", "  grafana:"] {
        assert!(text.contains(service), "the service {service} is missing");
    }
}
