//! StarRocks' grammars: `tests/grammar/probes.jsonl` says of each statement which versions read it.
//!
//! What some version reads must not be a syntax error here, whatever else is wrong with it; what
//! none reads must be one, with its place. `STARKEEP_GRAMMAR_PROBES` names another file of the same
//! form to hold the parser against.

use std::path::Path;

use serde::Deserialize;
use starkeep::error::ErrorKind;
use starkeep::statement::parse_all;

#[derive(Deserialize)]
struct Probe {
    sql: String,
    parses_in: Vec<String>,
    /// Read here though by no StarRocks: PostgreSQL's double-quoted names.
    #[serde(default)]
    extension: bool,
}

/// Whether the first double-quoted text stands where a name does: with back-quotes it would be
/// read.
fn is_double_quoted_name(sql: &str) -> bool {
    let Some((before, rest)) = sql.split_once('"') else {
        return false;
    };
    let Some((name, after)) = rest.split_once('"') else {
        return false;
    };
    parse_all(&format!("{before}`{name}`{after}"))
        .into_iter()
        .all(|parsed| parsed.is_ok())
}

/// What is wrong with how a probe is read, if anything is.
fn fault(probe: &Probe) -> Option<String> {
    let syntax_error = parse_all(&probe.sql)
        .into_iter()
        .find_map(|parsed| parsed.err().filter(|e| e.kind == ErrorKind::Syntax));
    let is_read =
        probe.extension || !probe.parses_in.is_empty() || is_double_quoted_name(&probe.sql);
    match (is_read, syntax_error) {
        (true, None) => None,
        (true, Some(e)) => Some(format!(
            "{:?} is read by {:?}, but here: {e}",
            probe.sql, probe.parses_in
        )),
        (false, None) => Some(format!("{:?} is read by no StarRocks, but here", probe.sql)),
        (false, Some(e)) if e.position.is_none_or(|p| p > probe.sql.len()) => {
            Some(format!("{:?}: no place in: {e}", probe.sql))
        }
        (false, Some(_)) => None,
    }
}

fn hold_against(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let probes: Vec<Probe> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let faults: Vec<String> = probes.iter().filter_map(fault).collect();
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        probes.len(),
        faults.join("\n")
    );
    probes.len()
}

#[test]
fn grammar_matches_starrocks_versions() {
    let count =
        hold_against(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grammar/probes.jsonl"));
    assert!(count > 200, "{count} probes");
    if let Some(path) = std::env::var_os("STARKEEP_GRAMMAR_PROBES") {
        println!(
            "{} probes of {}",
            hold_against(Path::new(&path)),
            path.display()
        );
    }
}

#[path = "../fuzz/src/lib.rs"]
mod structure;

fn check_statement(bytes: &[u8]) {
    starkeep::statement::check_round_trip(&structure::statement(bytes));
    starkeep::statement::check_round_trip(&String::from_utf8_lossy(bytes));
}

fn check_messages(bytes: &[u8]) {
    starkeep::wire::check_bytes(bytes);
    starkeep::wire::check_bytes(&structure::messages(bytes));
}

fn check_manifest(bytes: &[u8]) {
    starkeep::repository::check_manifest(&structure::manifest(bytes));
    starkeep::repository::check_manifest(&String::from_utf8_lossy(bytes));
}

/// The corpora of `fuzz/`: nothing in them makes anything panic, and what is read is written and
/// read again.
#[test]
fn the_fuzz_corpora_are_replayed() {
    for name in ["statement", "wire", "manifest"] {
        let check = match name {
            "statement" => check_statement,
            "wire" => check_messages,
            _ => check_manifest,
        };
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the corpus") {
            check(&std::fs::read(entry.expect("an entry").path()).expect("read"));
            count += 1;
        }
        assert!(count > 20, "{count} inputs of {name}");
    }
    starkeep::repository::check_manifest(include_str!("../fuzz/manifest.json"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Inputs with structure, as the fuzzers make them.
    #[test]
    fn structured_inputs_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        check_statement(&bytes);
        check_messages(&bytes);
        check_manifest(&bytes);
    }
}

/// Chains make trees as deep as they are long; what is dropped or printed recursively must not be
/// that deep.
#[test]
fn long_chains_are_refused() {
    for (head, link, tail) in [
        ("SELECT 1", " + 1", ""),
        ("SELECT * FROM t WHERE a = 1", " OR a = 1", ""),
        ("SELECT 1", " UNION ALL SELECT 1", ""),
        ("SELECT 1", "::int", ""),
        ("SHOW BACKUP WHERE JobId = 1", " AND JobId = 1", ""),
        (
            "SHOW SNAPSHOT ON r WHERE SNAPSHOT = 'a'",
            " AND SNAPSHOT = 'a'",
            "",
        ),
        (
            "BACKUP SNAPSHOT d.s TO r ON (t PARTITION (k = 1",
            " + 1",
            "))",
        ),
        ("CREATE VIEW v AS SELECT 1", " * 2", ""),
    ] {
        for (links, is_read) in [(100, true), (100_000, false)] {
            let text = format!("{head}{}{tail}", link.repeat(links));
            let refused = parse_all(&text)
                .into_iter()
                .find_map(Result::err)
                .map(|e| e.kind);
            assert_eq!(refused.is_none(), is_read, "{links} times {link}");
            assert!(
                is_read || refused == Some(ErrorKind::LimitExceeded),
                "{links} times {link}: {refused:?}"
            );
        }
    }
    // Lists are no chains, however long.
    assert!(
        parse_all(&format!(
            "INSERT INTO t VALUES (-1, 1 + 1){}",
            ", (-1, 1 + 1)".repeat(5000)
        ))
        .iter()
        .all(Result::is_ok)
    );
}

/// Garbage that nests is refused; if any of it took more time than its length explains, this would
/// not end. `cargo bench parse` measures it.
#[test]
fn nested_garbage_is_refused_without_exploding() {
    let heads = [
        "BACKUP SNAPSHOT d.s TO r ON (",
        "SHOW BACKUP WHERE ",
        "SELECT ",
        "SHOW SNAPSHOT ON r WHERE ",
        "CREATE VIEW v AS SELECT ",
        "",
    ];
    let bodies = [
        "(",
        "((",
        "[",
        "`",
        "'",
        "\"",
        "/*",
        "(a=(",
        "NOT ",
        "CASE WHEN ",
        "PARTITION (",
        "{",
        "-- \n(",
        "(SELECT ",
    ];
    for head in heads {
        for body in bodies {
            let garbage = format!("{head}{}", body.repeat(((64 << 10) / body.len()) | 1));
            let refused = parse_all(&garbage).into_iter().find_map(Result::err);
            assert!(refused.is_some(), "{head}{body}… is read");
        }
    }
}
