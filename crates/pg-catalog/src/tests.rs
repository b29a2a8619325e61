//! What the evaluator answers and refuses, without a server.

use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tokio_util::sync::CancellationToken;

use super::context::{Allowance, Context};
use super::expr::Env;
use super::value_text::show;
use super::{BuiltinRelations, CatalogSnapshot, Catalogs, ServerFacts};
use starkeep_error::Error;

/// The rows of a query as texts, its columns by `|`, its rows by `/`.
fn ask(catalogs: &Catalogs, text: &str) -> Result<String, Error> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, text).expect(text);
    let Some(sql::Statement::Query(query)) = statements.pop() else {
        panic!("{text} is no query")
    };
    let (plan, _) = catalogs.plan(&query, &[])?;
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let memory = MemoryConsumer::new("test").register(&pool);
    let allowance = Allowance {
        stop: CancellationToken::new(),
        value_bytes_max: 1 << 20,
        memory,
    };
    let context = Context::new(catalogs.0.clone(), Vec::new(), allowance);
    let rows = (plan.run)(&Env::top(&context))?;
    let row = |row: &super::value::Row| {
        let shown = row
            .iter()
            .zip(&plan.columns)
            .map(|(value, (_, ty))| show(value, ty, &catalogs.0.directory));
        shown.collect::<Vec<_>>().join("|")
    };
    Ok(rows.iter().map(row).collect::<Vec<_>>().join("/"))
}

fn catalogs() -> Catalogs {
    let builtin = Arc::new(BuiltinRelations::load().expect("the catalogs"));
    Catalogs(Arc::new(CatalogSnapshot::new(
        ServerFacts::default(),
        builtin,
    )))
}

/// Each answer, or SQLSTATE, is PostgreSQL 15's; `0A000` is what PostgreSQL answers and the
/// evaluator does not.
fn check(cases: &[(&str, &str)]) {
    let catalogs = catalogs();
    let seen: Vec<(&str, String)> = cases
        .iter()
        .map(|(text, _)| {
            (
                *text,
                ask(&catalogs, text).unwrap_or_else(|error| error.kind.sqlstate().to_owned()),
            )
        })
        .collect();
    let wanted: Vec<(&str, String)> = cases
        .iter()
        .map(|(text, answer)| (*text, (*answer).to_owned()))
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn unsupported_clauses_are_refused() {
    check(&[
        ("SELECT oid FROM pg_am FOR UPDATE", "0A000"),
        ("SELECT oid INTO t FROM pg_am", "0A000"),
        ("SELECT oid FROM pg_am TABLESAMPLE SYSTEM (10)", "0A000"),
        ("SELECT amname FROM pg_am GROUP BY ROLLUP (amname)", "0A000"),
        ("SELECT amname FROM pg_am GROUP BY CUBE (amname)", "0A000"),
        (
            "SELECT amname FROM pg_am GROUP BY GROUPING SETS ((amname), ())",
            "0A000",
        ),
        (
            "SELECT amname FROM pg_am ORDER BY amname FETCH FIRST 1 ROW WITH TIES",
            "0A000",
        ),
        (
            "SELECT count(*) OVER (w) FROM pg_am WINDOW w AS (PARTITION BY amtype)",
            "0A000",
        ),
        (
            "SELECT count(*) OVER w FROM pg_am WINDOW w AS (PARTITION BY amtype)",
            "0A000",
        ),
        (
            "SELECT count(*) OVER (PARTITION BY amtype ROWS 1 PRECEDING) FROM pg_am",
            "0A000",
        ),
        (
            "SELECT lower(amname) FILTER (WHERE true) FROM pg_am",
            "42809",
        ),
        ("SELECT length(DISTINCT amname) FROM pg_am", "42809"),
        ("SELECT lower(amname) OVER () FROM pg_am", "42809"),
        ("SELECT other.lower(amname) FROM pg_am", "42883"),
        ("SELECT amname::varchar(3) FROM pg_am", "0A000"),
        ("SELECT amname COLLATE \"de-x-icu\" FROM pg_am", "42704"),
        ("SELECT now() AT TIME ZONE amname FROM pg_am", "0A000"),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 3) SELECT n FROM t",
            "0A000",
        ),
    ]);
}

#[test]
fn grouped_queries_name_only_what_is_grouped() {
    check(&[
        (
            "SELECT amtype, count(*) FROM pg_am GROUP BY amtype ORDER BY 1",
            "i|6/t|1",
        ),
        ("SELECT amname FROM pg_am HAVING count(*) > 0", "42803"),
        ("SELECT count(*), amname FROM pg_am", "42803"),
        ("SELECT count(*) FROM pg_am ORDER BY amname", "42803"),
        ("SELECT amtype, amname FROM pg_am GROUP BY amtype", "42803"),
        ("SELECT * FROM pg_am GROUP BY amtype", "42803"),
        (
            "SELECT (SELECT a.amname) FROM pg_am a GROUP BY a.amtype",
            "42803",
        ),
        (
            "SELECT a.amname, count(*) FROM pg_am a GROUP BY a.oid ORDER BY 1 LIMIT 1",
            "brin|1",
        ),
        (
            "SELECT upper((a.amtype)::text), count(*) FROM pg_am a GROUP BY upper(amtype::text) ORDER BY 1",
            "I|6/T|1",
        ),
        (
            "SELECT amtype AS x, count(*) FROM pg_am GROUP BY x ORDER BY 2",
            "t|1/i|6",
        ),
        (
            "SELECT count(*) FROM pg_am GROUP BY (amtype, amtype) ORDER BY 1",
            "1/6",
        ),
        (
            "SELECT max(length(amname)) FROM pg_am WHERE amname < 'c'",
            "5",
        ),
        (
            "SELECT EXISTS (SELECT 1 FROM pg_am b WHERE b.oid = a.oid), count(*) FROM pg_am a
          GROUP BY EXISTS (SELECT 1 FROM pg_am b WHERE b.oid = a.oid)",
            "t|7",
        ),
        ("SELECT 1 FROM pg_am HAVING true", "1"),
        (
            "SELECT string_agg(DISTINCT amname, ',' ORDER BY amtype) FROM pg_am",
            "42P10",
        ),
    ]);
}

#[test]
fn sets_and_orders_are_postgresqls() {
    check(&[
        ("SELECT 1 UNION ALL SELECT 1 INTERSECT ALL SELECT 1", "1/1"),
        (
            "VALUES (1), (1), (2) INTERSECT ALL VALUES (1), (1), (1)",
            "1/1",
        ),
        ("VALUES (1), (1), (2) EXCEPT ALL VALUES (1)", "1/2"),
        ("VALUES (1), (1), (2) EXCEPT VALUES (3)", "1/2"),
        (
            "SELECT amname FROM pg_am ORDER BY 1 FETCH FIRST ROW ONLY",
            "brin",
        ),
        (
            "SELECT DISTINCT ON (1) amtype, amname FROM pg_am ORDER BY 1, 2",
            "i|brin/t|heap",
        ),
        (
            "SELECT DISTINCT ON (amtype) amname FROM pg_am ORDER BY amname",
            "42P10",
        ),
        ("SELECT DISTINCT amtype FROM pg_am ORDER BY amname", "42P10"),
        (
            "SELECT DISTINCT upper(amtype::text) FROM pg_am ORDER BY upper(amtype::text) DESC",
            "T/I",
        ),
        (
            "SELECT a.oid, b.oid FROM pg_am a, pg_am b ORDER BY oid",
            "42702",
        ),
        (
            "SELECT amname, amname FROM pg_am ORDER BY amname LIMIT 1",
            "brin|brin",
        ),
        ("SELECT amname FROM pg_am ORDER BY 'x'", "42601"),
        ("SELECT * FROM (VALUES (1)) t (a, b)", "42P10"),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION SELECT 1 ORDER BY 1 LIMIT 1) SELECT n FROM t",
            "1",
        ),
    ]);
}

#[test]
fn numbers_and_times_do_not_wrap() {
    check(&[
        ("SELECT 2147483647 + 1", "22003"),
        ("SELECT 2147483647::int8 + 1", "2147483648"),
        ("SELECT 32767::int2 + 1::int2", "22003"),
        ("SELECT -((-2147483648)::int4)", "22003"),
        ("SELECT 9223372036854775807 + 1", "22003"),
        (
            "SELECT count(*) FROM generate_series(9223372036854775806, 9223372036854775807)",
            "2",
        ),
        (
            "SELECT count(*) FROM generate_series(-9223372036854775807 - 1, -9223372036854775807)",
            "2",
        ),
        (
            "SELECT '2024-07-01 12:00:00+00'::timestamptz AT TIME ZONE 'Europe/Berlin'",
            "2024-07-01 14:00:00",
        ),
        (
            "SELECT '2024-07-01 12:00:00'::timestamp AT TIME ZONE 'europe/berlin' = '2024-07-01 10:00:00+00'::timestamptz",
            "t",
        ),
        ("SELECT now() AT TIME ZONE 'Europe/Nowhere'", "22023"),
    ]);
}

#[test]
fn types_that_are_only_shown_are_not_reckoned_with() {
    check(&[
        (
            "SELECT now() - '1 day'::interval < now() AND now() - INTERVAL '5 minutes' > now() - '00:10'::interval",
            "t",
        ),
        ("SELECT now()::date", "0A000"),
        ("SELECT '2020-01-01'::date = '2020-01-02'::date", "0A000"),
        ("SELECT now() + '1 month'::interval", "0A000"),
        (
            "SELECT '2024-07-01 12:00:00+00'::timestamptz AT TIME ZONE 'CET'",
            "0A000",
        ),
        ("SELECT upper(oid) FROM pg_am", "42883"),
        ("SELECT oid + 1 FROM pg_am", "42883"),
        (
            "SELECT sum(oid::int8) / 2 FROM pg_am WHERE amname IN ('heap', 'btree')",
            "202.5",
        ),
        ("SELECT round(2.5::float8), round(2.5)", "2|3"),
    ]);
}

#[test]
fn aggregates_take_their_own_rows_and_arguments() {
    check(&[
        ("SELECT max(*) FROM pg_am", "42883"),
        ("SELECT sum() FROM pg_am", "42883"),
        ("SELECT string_agg(amname) FROM pg_am", "42883"),
        ("SELECT count(*), generate_series(1, 2) FROM pg_am", "0A000"),
        (
            "SELECT amtype, unnest(array_agg(amname)) FROM pg_am GROUP BY amtype",
            "0A000",
        ),
        (
            "SELECT generate_series(1, 2) AS n, count(*) FROM pg_am GROUP BY n ORDER BY n",
            "1|7/2|7",
        ),
        ("SELECT (SELECT count(a.oid)) FROM pg_am a", "0A000"),
        (
            "SELECT (SELECT count(*) FROM pg_am b WHERE b.oid = a.oid) FROM pg_am a LIMIT 1",
            "1",
        ),
        (
            "SELECT amtype FROM pg_am GROUP BY amtype HAVING row_number() OVER () = 1",
            "42P20",
        ),
        (
            "SELECT upper(amtype::text), count(*) FROM pg_am GROUP BY pg_catalog.UPPER(amtype::text) ORDER BY 1",
            "I|6/T|1",
        ),
        (
            "SELECT a.amtype AS a, count(*) FROM pg_am a GROUP BY a ORDER BY 1",
            "i|6/t|1",
        ),
        ("SELECT a.oid FROM pg_am a, pg_am b GROUP BY oid", "42702"),
        ("SELECT * FROM other.generate_series(1, 2)", "42883"),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n * 2::int8 FROM t WHERE n < 5) SELECT n FROM t",
            "42804",
        ),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1::int8 UNION ALL SELECT (n * 2)::int4 FROM t WHERE n < 5) SELECT n FROM t",
            "1/2/4/8",
        ),
    ]);
}

#[test]
fn patterns_of_times_are_read_or_refused() {
    check(&[
        (
            "SELECT to_char('2024-07-01 02:03:04.5'::timestamp, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')",
            "2024-07-01T02:03:04.500",
        ),
        (
            "SELECT to_char('2024-07-01 02:03:04+00'::timestamptz, 'Dy HH:MI AM TZ')",
            "Mon 02:03 AM UTC",
        ),
        (
            "SELECT to_char('2024-07-01 02:03:04'::timestamp, 'J')",
            "0A000",
        ),
        (
            "SELECT to_char('2024-07-01 02:03:04'::timestamp, 'Q')",
            "0A000",
        ),
    ]);
}

#[test]
fn functions_take_every_argument_as_postgresql_does() {
    check(&[
        (
            "SELECT split_part('a,b,c', ',', -1) FROM pg_am LIMIT 1",
            "c",
        ),
        ("SELECT split_part('a,b,c', ',', -4) FROM pg_am LIMIT 1", ""),
        ("SELECT split_part('abc', '', 1) FROM pg_am LIMIT 1", "abc"),
        ("SELECT split_part('abc', '', 2) FROM pg_am LIMIT 1", ""),
        ("SELECT split_part('aaaa', 'aa', -1) FROM pg_am LIMIT 1", ""),
        (
            "SELECT split_part('a,b', ',', 0) FROM pg_am LIMIT 1",
            "22023",
        ),
        (
            "SELECT string_to_array('a,b', NULL) FROM pg_am LIMIT 1",
            "{a,\",\",b}",
        ),
        (
            "SELECT string_to_array('a,b', '') FROM pg_am LIMIT 1",
            "{\"a,b\"}",
        ),
        ("SELECT string_to_array('', ',') FROM pg_am LIMIT 1", "{}"),
        (
            "SELECT string_to_array('a,b', ',', 'b') FROM pg_am LIMIT 1",
            "{a,NULL}",
        ),
        ("SELECT s FROM string_to_table('a', '') AS s", "a"),
        ("SELECT s FROM string_to_table('é!', NULL) AS s", "é/!"),
        (
            "SELECT array_length(ARRAY[1, 2], 2), array_upper(ARRAY[1, 2], 1) FROM pg_am LIMIT 1",
            "|2",
        ),
        ("SELECT abs((-32768)::int2) FROM pg_am LIMIT 1", "22003"),
        ("SELECT abs(-2.5), abs(-3) FROM pg_am LIMIT 1", "2.5|3"),
        ("SELECT abs(amname) FROM pg_am LIMIT 1", "42883"),
        ("SELECT mod(7, -3), mod(-7, 3) FROM pg_am LIMIT 1", "1|-1"),
        ("SELECT round(155, -1) FROM pg_am LIMIT 1", "160"),
        (
            "SELECT pg_size_pretty(20480::numeric), pg_size_pretty(20480::bigint) FROM pg_am LIMIT 1",
            "20 kB|20 kB",
        ),
        ("SELECT left('abc', 'x') FROM pg_am LIMIT 1", "22P02"),
        ("SELECT left('abc', '2') FROM pg_am LIMIT 1", "ab"),
        ("SELECT -amname FROM pg_am LIMIT 1", "42883"),
        (
            "SELECT regexp_replace('aXx', 'x', 'y', 'gi') FROM pg_am LIMIT 1",
            "ayy",
        ),
        (
            "SELECT regexp_replace('a', 'x', 'y', 'k') FROM pg_am LIMIT 1",
            "22023",
        ),
        (
            "SELECT regexp_replace('a', 'x', 'y', 'n') FROM pg_am LIMIT 1",
            "0A000",
        ),
        (
            "SELECT regexp_match('a', 'x', 'g') FROM pg_am LIMIT 1",
            "22023",
        ),
        ("SELECT regexp_split_to_table('a1b', '[0-9]')", "0A000"),
        (
            "SELECT * FROM generate_series('2026-01-01'::timestamp, '2026-01-02'::timestamp, '1 day'::interval)",
            "0A000",
        ),
        (
            "SELECT extract(year FROM DATE '2026-01-01') FROM pg_am LIMIT 1",
            "0A000",
        ),
        (
            "SELECT '20260102 3:04 PM'::timestamp, timestamptz '2026-01-02 03:04+02' FROM pg_am LIMIT 1",
            "2026-01-02 15:04:00|2026-01-02 01:04:00+00",
        ),
        ("SELECT '2026-13-01'::timestamp FROM pg_am LIMIT 1", "22008"),
    ]);
}
