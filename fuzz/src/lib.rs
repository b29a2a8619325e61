//! Inputs with structure: bytes choose what is said, how often and how deep.
//!
//! Random bytes rarely get past the first word. These make statements that begin well, repeat, nest
//! and use every token, and manifests that differ from a good one in a few places.

use serde_json::{Value, json};

/// The longest input that is made, bytes: more is refused by its length alone.
const LONGEST: usize = 200 << 10;

/// What decides.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// Mostly few, sometimes very many.
    fn times(&mut self) -> usize {
        let byte = usize::from(self.byte());
        match byte % 8 {
            0..5 => byte % 5 + 1,
            5 => byte,
            6 => byte * 40,
            _ => byte * 400,
        }
    }
}

const TOKENS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "WITH",
    "RECURSIVE",
    "AS",
    "UNION ALL",
    "EXCEPT",
    "INTERSECT",
    "JOIN",
    "LEFT JOIN",
    "CROSS JOIN",
    "LATERAL",
    "ON",
    "USING",
    "AND",
    "OR",
    "NOT",
    "IN",
    "BETWEEN",
    "LIKE",
    "ILIKE",
    "SIMILAR TO",
    "ESCAPE",
    "IS NULL",
    "IS DISTINCT FROM",
    "ISNULL",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST(",
    "::int",
    "::text[]",
    "::numeric(38, 10)",
    "COLLATE \"C\"",
    "AT TIME ZONE 'UTC'",
    "INTERVAL",
    "INTERVAL '1 day'",
    "EXISTS",
    "ANY",
    "ALL",
    "ARRAY[",
    "ROW(",
    "OVER (",
    "PARTITION BY",
    "ROWS BETWEEN",
    "PRECEDING",
    "FOLLOWING",
    "FILTER (WHERE",
    "WITHIN GROUP (",
    "DISTINCT",
    "VALUES",
    "CUBE(",
    "ROLLUP(",
    "GROUPING SETS (",
    "EXTRACT(year FROM",
    "POSITION(",
    "SUBSTRING(",
    "TRIM(",
    "OVERLAY(",
    "BACKUP",
    "SNAPSHOT",
    "RESTORE",
    "REPOSITORY",
    "TO r",
    "FROM r",
    "PROPERTIES (",
    "SHOW",
    "CREATE",
    "TABLE",
    "VIEW",
    "DATABASE",
    "DROP",
    "CANCEL",
    "JOB",
    "FORCE",
    "PARTITION",
    "TABLES",
    "EXTERNAL CATALOG",
    "BROKER",
    "LOCATION",
    "ARRAY<",
    "MAP<",
    "STRUCT<",
    "DECLARE c CURSOR FOR",
    "PREPARE p AS",
    "EXPLAIN",
    "EXPLAIN (FORMAT JSON)",
    "COPY t FROM STDIN",
    "FETCH 1 FROM c",
    "GRANT",
    "REVOKE",
    "SET x =",
    "BEGIN",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    ",",
    ";",
    ".",
    "*",
    "+",
    "-",
    "/",
    "%",
    "^",
    "||",
    "->",
    "->>",
    "#>",
    "@>",
    "<@",
    "&&",
    "~",
    "!~*",
    "=",
    "<>",
    "!=",
    "<=",
    ">=",
    ":=",
    "=>",
    "::",
    ":",
    "?",
    "$1",
    "$$",
    "$tag$",
    "`",
    "\"",
    "'",
    "E'\\x",
    "U&\"",
    "B'01'",
    "X'ff'",
    "N'a'",
    "--",
    "/*",
    "*/",
    "\n",
    "\u{3000}",
    "\0",
    "a",
    "t",
    "d.t",
    "pg_class",
    "system.jobs",
    "\"A\"",
    "`a`",
    "'x'",
    "''",
    "1",
    "0",
    "1e2",
    "1e400",
    "1e-400",
    ".5",
    "5.",
    "0x7f",
    "0b1",
    "1_000",
    "99999999999999999999999999999999999999999",
    "-9223372036854775808",
    "9223372036854775807",
    "'NaN'",
    "'infinity'",
    "NULL",
    "true",
    "DEFAULT",
    "CURRENT_TIMESTAMP",
];

const PAIRS: &[(&str, &str)] = &[
    ("(", ")"),
    ("((", "))"),
    ("ARRAY[", "]"),
    ("ARRAY<", ">"),
    ("STRUCT<a ", ">"),
    ("(SELECT ", ")"),
    ("(SELECT * FROM ", ") t"),
    ("CASE WHEN true THEN ", " END"),
    ("CASE ", " WHEN 1 THEN 2 END"),
    ("CAST(", " AS int)"),
    ("coalesce(", ", 1)"),
    ("abs(", ")"),
    ("position(", " IN 'a')"),
    ("(", " BETWEEN 0 AND 1)"),
    ("NOT (", ")"),
    ("- ", ""),
    ("WITH a AS (", ") SELECT 1"),
    ("INTERVAL ", ""),
    ("/* ", " */"),
    ("EXPLAIN ", ""),
    ("", "::int"),
    ("", "[1]"),
    ("", "[]"),
    ("", " IS NULL"),
    ("", " COLLATE \"C\""),
    ("", ".b"),
    ("", " UNION SELECT 1"),
    ("", " JOIN t USING (a)"),
];

const STATEMENTS: &[&[&str]] = &[
    &["SELECT ", ""],
    &["SELECT ", " FROM ", " WHERE ", ""],
    &["SELECT ", " FROM t GROUP BY ", " ORDER BY ", ""],
    &["SELECT sum(a) OVER (", ") FROM t"],
    &["WITH c AS (SELECT ", ") SELECT ", " FROM c"],
    &["INSERT INTO t VALUES (", "), (", ")"],
    &["DELETE FROM t WHERE ", ""],
    &["BACKUP SNAPSHOT d.s TO r ON (", ") PROPERTIES (", ")"],
    &["BACKUP DATABASE d SNAPSHOT s TO r ON (t PARTITION (", "))"],
    &["RESTORE SNAPSHOT d.s FROM r ON (", ") PROPERTIES (", ")"],
    &[
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"",
        "\" PROPERTIES (",
        ")",
    ],
    &[
        "CREATE TABLE t (a ",
        ") PARTITION BY RANGE (a) (",
        ") PROPERTIES (",
        ")",
    ],
    &["CREATE VIEW v AS SELECT ", ""],
    &["SHOW BACKUP WHERE ", " ORDER BY ", " LIMIT ", ""],
    &["SHOW SNAPSHOT ON r WHERE ", ""],
    &["ALTER TABLE t ADD PARTITION ", ""],
    &["COPY (SELECT ", ") TO STDOUT (", ")"],
    &["DECLARE c CURSOR FOR SELECT ", ""],
    &["PREPARE p (", ") AS SELECT ", ""],
    &["", "; ", "; ", ""],
];

fn piece(choices: &mut Choices<'_>, depth: usize, out: &mut String) {
    if out.len() > LONGEST || choices.0.is_empty() {
        return;
    }
    match choices.byte() % 8 {
        0..3 => out.push_str(choices.one_of(TOKENS)),
        3 => {
            let (unit, times) = (choices.one_of(TOKENS), choices.times());
            let times = times.min(LONGEST / (unit.len() + 1));
            for _ in 0..times {
                out.push_str(unit);
                out.push(' ');
            }
        }
        4 | 5 if depth < 6 => {
            let ((open, close), times) = (choices.one_of(PAIRS), choices.times());
            let times = times.min(LONGEST / (open.len() + close.len()).max(1));
            // Now and then it is not closed.
            let closed = if choices.byte().is_multiple_of(8) {
                times / 2
            } else {
                times
            };
            out.push_str(&open.repeat(times));
            piece(choices, depth + 1, out);
            out.push_str(&close.repeat(closed));
        }
        _ if depth < 6 => {
            for i in 0..usize::from(choices.byte() % 5) + 1 {
                if i > 0 {
                    out.push_str(choices.one_of(&[" ", ", ", " AND ", "", " + "]));
                }
                piece(choices, depth + 1, out);
            }
        }
        _ => out.push('1'),
    }
}

/// A text that is almost, or quite, a statement.
pub fn statement(bytes: &[u8]) -> String {
    let mut choices = Choices(bytes);
    let mut out = String::new();
    let parts = choices.one_of(STATEMENTS);
    for (i, part) in parts.iter().enumerate() {
        out.push_str(part);
        if i + 1 < parts.len() {
            piece(&mut choices, 0, &mut out);
        }
    }
    out
}

/// Messages of a client: each with a kind, a length that is mostly right, and a body of texts,
/// numbers and bytes.
pub fn messages(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices(bytes);
    let mut out = Vec::new();
    while !choices.0.is_empty() && out.len() < LONGEST {
        let mut body = Vec::new();
        for _ in 0..choices.byte() % 6 {
            match choices.byte() % 6 {
                0 => body.extend_from_slice(choices.one_of(TOKENS).as_bytes()),
                1 => body.push(0),
                2 => body.extend_from_slice(
                    &choices
                        .one_of(&[0i16, 1, -1, i16::MAX, i16::MIN])
                        .to_be_bytes(),
                ),
                3 => body.extend_from_slice(
                    &choices
                        .one_of(&[0i32, 1, -1, 4, 196_608, 80_877_103, i32::MAX, i32::MIN])
                        .to_be_bytes(),
                ),
                4 => {
                    let (byte, times) = (choices.byte(), choices.times());
                    body.extend(std::iter::repeat_n(byte, times));
                }
                _ => body.extend_from_slice(&[choices.byte(), choices.byte(), choices.byte()]),
            }
        }
        out.push(choices.one_of(b"QPBDECSHdcfpXF\0\x01"));
        let length = match choices.byte() % 8 {
            0 => choices.one_of(&[0i32, 3, -1, i32::MAX, i32::MIN, 1 << 16]),
            _ => i32::try_from(body.len() + 4).unwrap_or(i32::MAX),
        };
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&body);
    }
    out
}

const HASH: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

fn hostile_value(choices: &mut Choices<'_>) -> Value {
    let texts = [
        "",
        "../x",
        "/",
        "\0",
        "a/b",
        "é",
        "\u{202e}",
        ".",
        "..",
        HASH,
        "-1",
        "9999-99-99-99-99-99-999",
        "7 DAY",
        "max",
    ];
    let numbers = [
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.5),
        json!(4_294_967_296u64),
    ];
    match choices.byte() % 8 {
        0 => Value::Null,
        1 => json!(choices.byte().is_multiple_of(2)),
        2 => numbers[usize::from(choices.byte()) % numbers.len()].clone(),
        3 => json!(choices.one_of(&texts)),
        4 => json!(choices.one_of(TOKENS).repeat(choices.times().min(2000))),
        5 => json!([]),
        6 => json!({}),
        _ => {
            let mut value = Value::Null;
            for _ in 0..choices.times().min(400) {
                value = json!([value]);
            }
            value
        }
    }
}

/// Walks down to some place and changes what is there.
fn change(value: &mut Value, choices: &mut Choices<'_>) {
    let stays = choices.byte().is_multiple_of(5);
    match value {
        Value::Object(fields) if !stays && !fields.is_empty() => {
            let at = usize::from(choices.byte()) % fields.len();
            let name = fields.keys().nth(at).cloned().unwrap_or_default();
            match choices.byte() % 10 {
                0 => drop(fields.remove(&name)),
                1 => {
                    let copy = fields[&name].clone();
                    fields.insert(
                        choices
                            .one_of(&["x", "name", "sha256", "buckets", "range", "list"])
                            .to_owned(),
                        copy,
                    );
                }
                _ => {
                    if let Some(inner) = fields.get_mut(&name) {
                        change(inner, choices);
                    }
                }
            }
        }
        Value::Array(items) if !stays && !items.is_empty() => {
            let at = usize::from(choices.byte()) % items.len();
            match choices.byte() % 8 {
                0 => drop(items.remove(at)),
                1 => {
                    let copy = items[at].clone();
                    items.extend(std::iter::repeat_n(copy, choices.times().min(500)));
                }
                _ => change(&mut items[at], choices),
            }
        }
        other => *other = hostile_value(choices),
    }
}

/// A manifest that differs from a good one in a few places.
pub fn manifest(bytes: &[u8]) -> String {
    let mut choices = Choices(bytes);
    let mut manifest: Value =
        serde_json::from_str(include_str!("../manifest.json")).unwrap_or_default();
    for _ in 0..choices.byte() % 4 {
        change(&mut manifest, &mut choices);
    }
    manifest.to_string()
}
