#!/usr/bin/env python3
"""Say the same generated statements over the same rows to Starkeep and to PostgreSQL 15, and compare the answers.

    PGHOST=127.0.0.1 PGPORT=9432 PGUSER=root PGDATABASE=embedded POSTGRES_PORT=5432 tests/differential/run.py [--statements 3000] [--seed 1]

Every cast over every pair of types, operators and functions over edge values, and clauses in combination over tables with NULLs,
duplicates, times around changes of the clock and extreme numbers. Starkeep may refuse what PostgreSQL answers, and tell an error by
another SQLSTATE; it may never answer another value or type, and never end in an internal error. What differs on purpose is in DEVIATIONS,
each with its reason. A difference is printed with the number that makes it again: --seed N --statements 1.
"""
import argparse
import collections
import decimal
import os
import random
import re
import sys

import psycopg

ZONE = "Europe/Berlin"
# name: values of a column, by type. Each is the text of a literal, which both read.
COLUMNS = {
    "i": ("INT", "int", [None, "1", "-7", "2147483647", "-2147483648", "0", "5", "5", "-3", "1"]),
    "b": ("BIGINT", "bigint", ["10", "9223372036854775807", None, "-9223372036854775808", "0", "3", "10", "-4", "7", "2"]),
    "f": ("DOUBLE", "double precision", ["1.5", "-0.0", None, "1e300", "1e-10", "NaN", "Infinity", "2.5", "0.1", "123456789.125"]),
    "n": ("DECIMAL(10, 2)", "numeric(10, 2)", ["2.50", "-99999999.99", None, "99999999.99", "0.00", "0.05", "2.50", "-2.50", "1.25", "10.00"]),
    "s": ("VARCHAR(100)", "text", ["abc", "Hello World", None, "", "12", " 3.5 ", "a%b_c", "true", "2024-01-31", "abc"]),
    "o": ("BOOLEAN", "boolean", ["true", "false", None, "true", "false", None, "true", "true", None, "false"]),
    "d": ("DATE", "date", ["2024-02-29", "1999-12-31", None, "2026-03-29", "2026-10-25", "1970-01-01", "0001-01-01", "9999-12-31", "2024-02-29", "2024-01-31"]),
    "ts": ("DATETIME", "timestamp", ["2024-02-29 12:34:56.789", "1999-12-31 23:59:59.999999", None, "2026-03-29 02:30:00", "2026-10-25 02:30:00",
                                    "1970-01-01 00:00:00", "1901-01-01 00:00:00", "9999-12-31 23:59:59", None, "2024-01-31 08:00:00"]),
}
OTHERS = {
    "u": ("id INT, k INT, s VARCHAR(10), v INT", "id int, k int, s text, v int",
          "(1, 1, 'x', 10), (2, 5, 'y', 20), (3, NULL, 'z', 30), (4, 5, NULL, 40), (5, 99, 'x', NULL)"),
    "w": ("id INT, g VARCHAR(10), v INT, x DOUBLE", "id int, g text, v int, x double precision",
          "(1, 'a', 10, 1), (2, 'b', 10, 2), (3, 'b', 20, 2), (4, 'c', 5, 3), (5, 'c', 5, 5), (6, 'c', NULL, 8), (7, 'd', 7, 13), (8, 'd', 8, 21)"),
}
TYPES = ["smallint", "int", "bigint", "real", "double precision", "numeric", "numeric(10, 2)", "text", "varchar(3)", "boolean", "date",
         "timestamp", "timestamptz", "time", "interval"]
LITERALS = ["1", "-1", "1.5", "0.5", "2.5", "99999999999", "t", "yes", "off", "abc", "2024-02-29", "2023-02-29", "2024-2-3", "20240203",
            "2024-02-29 12:34:56.789", "2024-02-29T12:34:56Z", "2024-02-29 12:34:56+05:30", "2026-03-29 02:30:00", "2026-10-25 02:30", "Jan 5, 2024",
            "01/02/2024", "24:00:00", "12:34", "1 day", "1 mon 2 days", "-00:00:01", "P1Y2M3DT4H", "1.5 days", "epoch", "0001-01-01 BC", "10000-01-01", ""]
NUMBERS = ["i", "b", "f", "n", "1", "2", "-3", "1.5", "0.1", "i::numeric", "f::real"]
TEXTS = ["s", "'abc'", "'Hello World'", "s || 'x'"]
TIMES = ["d", "ts", "ts::timestamptz", "TIMESTAMP '2024-03-31 10:11:12.5'", "DATE '2024-12-30'", "TIMESTAMPTZ '2026-03-29 00:30+00'"]
INTERVALS = ["INTERVAL '1 day'", "INTERVAL '1 mon 2 days 03:04:05'", "INTERVAL '-36 hours'", "INTERVAL '1.5 years'"]
PARTS = ["second", "minute", "hour", "day", "week", "month", "quarter", "year", "decade", "century", "millennium"]
PATTERNS = ["YYYY-MM-DD HH24:MI:SS", "FMMonth DDth, YYYY", "Dy, DD Mon YY HH12:MI am", "IYYY-IW-ID", "DDD D J Q", "SSSS MS US", "CC RM W WW"]
NUMBER_PATTERNS = ["999999.99", "FM999,999,999.00", "000.0", "S9999", "9999MI", "9.9", "99999PR", "FM9999999999.99"]

DOCUMENTS = ['{"a": {"b":  [10, "x", null]}, "n": null, "f": 1.50}', '[1, [2, 3], {"a":"v"}]', '"a\\"b"', "null", "-1.5e-3", '{"b":1,"a":2,"b":3,"aa":[]}', "[]", " [true ,false] ",
             '{"": 1, "a": "\\u00e9\\n"}', "{", "{a:1}", "", "01", '"\\ud800"', '"\\u0000"', "[1,]", "1e5", "12345678901234567890.10"]

# What is another value on purpose: a pattern of the statement, and why.
DEVIATIONS = [
    (r"\b(stddev|variance|var_pop|var_samp|stddev_pop|power|sqrt|ln|log|exp)\(|\^", "double precision, where PostgreSQL has NUMERIC for whole numbers and NUMERIC"),
    (r"trunc\(|round\(", "a NUMERIC keeps the scale of its column"),
    (r"sign\(f", "the sign of NaN is NaN, where PostgreSQL has 0"),
    (r"jsonb (->|->>|#>|#>>) |jsonb_extract", "a jsonb that is no object and no array is its own element 0 and -1 there"),
    (r" / ", "a quotient of NUMERIC has 16 digits after the point"),
    (r"timestamptz [+-] INTERVAL '1.5 years'", "the rules for summer time end in 2100"),
]


# What has another type on purpose.
OTHER_TYPES = [
    (r"\bntile\(", "ntile is a bigint"),
]
# text, varchar, bpchar and literals without a type are texts to a client.
TEXT, TEXTS_OIDS = 25, (25, 1043, 1042, 705)


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.is_ordered = True

    def one(self, *choices):
        return self.random.choice(choices)

    def statement(self):
        make = self.one(self.cast_of_literal, self.cast_of_column, self.arithmetic, self.comparison, self.time_arithmetic, self.parts, self.formatted,
                        self.number_function, self.text_function, self.conditional, self.aggregate, self.window, self.join, self.subquery, self.union,
                        self.sets, self.lateral, self.arrays, self.rows_of_functions, self.of_times, self.json)
        return make()

    def of_rows(self, expr):
        return f"SELECT id, {expr} FROM t ORDER BY id"

    def cast_of_literal(self):
        return f"SELECT '{self.one(*LITERALS)}'::{self.one(*TYPES)}"

    def cast_of_column(self):
        row = self.random.randint(1, 10)
        return f"SELECT {self.one(*COLUMNS)}::{self.one(*TYPES)} FROM t WHERE id = {row}"

    def number(self):
        return self.one(*NUMBERS)

    def arithmetic(self):
        row = self.random.randint(1, 10)
        return f"SELECT {self.number()} {self.one('+', '-', '*', '/', '%')} {self.number()} FROM t WHERE id = {row}"

    def comparison(self):
        kind = self.one(NUMBERS, TIMES, TEXTS, INTERVALS)
        op = self.one("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM")
        left, right = self.one(*kind), self.one(*kind)
        if self.random.random() < 0.3:
            third = self.one(*kind)
            return self.of_rows(self.one(f"{left} BETWEEN {right} AND {third}", f"{left} IN ({right}, {third}, NULL)", f"{left} NOT IN ({right}, {third})"))
        return self.of_rows(f"{left} {op} {right}")

    def time_arithmetic(self):
        time, interval = self.one(*TIMES), self.one(*INTERVALS)
        return self.of_rows(self.one(
            f"{time} + {interval}", f"{time} - {interval}", f"{time} - {self.one(*TIMES)}", f"{interval} * {self.one('2', '0.5', '1.5', 'i')}",
            f"{interval} / {self.one('2', '3', '0.7')}", f"-{interval}", f"{time} AT TIME ZONE '{self.one('UTC', 'America/New_York', 'Asia/Kolkata')}'",
            f"{interval} + {self.one(*INTERVALS)}", f"d + {self.one('1', '30', '-1')}", "ts + '1 day'", "ts - '2024-01-01'"))

    def parts(self):
        time = self.one(*TIMES)
        part = self.one(*PARTS, "epoch", "dow", "isodow", "doy", "isoyear")
        return self.of_rows(self.one(f"extract({part} FROM {time})", f"date_part('{part}', {time})", f"date_trunc('{self.one(*PARTS)}', {time})",
                                     f"extract({self.one('day', 'hour', 'month', 'second', 'epoch')} FROM {self.one(*INTERVALS)})"))

    def formatted(self):
        return self.of_rows(self.one(f"to_char({self.one(*TIMES)}, '{self.one(*PATTERNS)}')", f"to_char({self.one('i', 'n', '1234.567', '-0.5')}, '{self.one(*NUMBER_PATTERNS)}')",
                                     f"to_date('2024-0{self.random.randint(1, 9)}-15', 'YYYY-MM-DD')", "to_timestamp('03 Feb 2024 04:05 PM', 'DD Mon YYYY HH12:MI AM')"))

    def number_function(self):
        name = self.one("abs", "ceil", "floor", "sign", "round", "exp", "ln", "sqrt")
        return self.of_rows(self.one(f"{name}({self.number()})", f"mod(i, {self.one('2', '3', '-4')})", f"greatest({self.number()}, {self.number()})",
                                     f"least({self.number()}, {self.number()})", f"coalesce({self.number()}, {self.number()})", f"nullif(i, {self.one('1', '5')})"))

    def text_function(self):
        text = self.one(*TEXTS)
        return self.of_rows(self.one(
            f"length({text})", f"upper({text})", f"left({text}, {self.one('2', '-1', '0')})", f"substring({text} FROM 2 FOR 3)", f"replace({text}, 'l', 'L')",
            f"lpad({text}, 5, '*')", f"split_part({text}, ' ', {self.one('1', '2')})", f"position('b' IN {text})", f"trim({text})", f"reverse({text})",
            f"concat({text}, o, 1)", f"concat_ws('-', {text}, NULL, o)", f"{text} LIKE '{self.one('a%', '%b_c', 'Hello%', '_bc')}'", f"{text} ILIKE 'HELLO%'",
            f"{text} SIMILAR TO '{self.one('(a|H)%', '%b%', 'a_c')}'", f"{text} ~ '{self.one('^a', 'b.c', '[0-9]+')}'", f"regexp_replace({text}, '[a-c]+', '<$1>')",
            f"{text} || n", f"{text} || ts", f"translate({text}, 'abc', 'xyz')", f"md5({text})", f"initcap({text})"))

    def conditional(self):
        pairs = self.one(["i", "b"], ["i", "n"], ["n", "f"], ["d", "ts"], ["ts", "ts::timestamptz"], ["s", "'x'"])
        first, second = self.random.sample(pairs, 2)
        return self.of_rows(self.one(f"CASE WHEN o THEN {first} ELSE {second} END", f"coalesce({first}, {second})", f"CASE WHEN id < 5 THEN {first} WHEN o THEN {second} END"))

    def aggregate(self):
        call = self.one("count(*)", "count(v)", "sum(v)", "avg(v)", "min(v)", "max(x)", "sum(x)", "bool_and(v > 5)", "count(DISTINCT v)", "string_agg(g, ',' ORDER BY id)",
                        "array_agg(v ORDER BY id)", "sum(v) FILTER (WHERE x > 2)", "stddev(x)")
        return self.one(f"SELECT g, {call} FROM w GROUP BY g ORDER BY g", f"SELECT {call} FROM w", f"SELECT g, {call} FROM w GROUP BY ROLLUP (g) ORDER BY g",
                        f"SELECT g, {call} FROM w GROUP BY g HAVING count(*) > 1 ORDER BY 1", f"SELECT date_trunc('year', ts), count(*) FROM t GROUP BY 1 ORDER BY 1")

    def window(self):
        call = self.one("sum(v)", "count(*)", "row_number()", "rank()", "dense_rank()", "lag(v)", "lead(v, 1, 0)", "first_value(v)", "last_value(v)", "avg(v)", "max(x)")
        frame = self.one("", " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", " ROWS UNBOUNDED PRECEDING", " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", " GROUPS 1 PRECEDING")
        if call in ("row_number()", "rank()", "dense_rank()", "lag(v)", "lead(v, 1, 0)"):
            frame = ""
        by = self.one("", "PARTITION BY g ")
        return self.one(f"SELECT id, {call} OVER ({by}ORDER BY id{frame}) FROM w ORDER BY id", f"SELECT id, {call} OVER (p ORDER BY id) FROM w WINDOW p AS (PARTITION BY g) ORDER BY id")

    def join(self):
        kind = self.one("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
        on = self.one("x.id = y.k", "x.k = y.id", "x.k = y.k", "x.id = y.id AND y.v > 10", "y.v = x.v AND y.v = 10", "x.id = y.k AND x.v IS NOT NULL")
        left, right = self.one("u", "(SELECT id, id AS k, v FROM w)"), self.one("u", "(SELECT id, v AS k, id AS v FROM w)")
        where = self.one("", " WHERE x.id IS NULL", " WHERE y.id IS NULL OR x.v > 5", " WHERE y.v IS NULL", " WHERE x.k IS NULL")
        return f"SELECT x.id, y.id, x.v, y.v FROM {left} x {kind} {right} y ON {on}{where} ORDER BY {self.one('1, 2, 3, 4', '4, 3, 2, 1')}"

    def subquery(self):
        inner = self.one("SELECT k FROM u", "SELECT k FROM u WHERE k IS NOT NULL", "SELECT v FROM w WHERE v > 100", "SELECT u.k FROM u WHERE u.id = w.id")
        test = self.one(f"v IN ({inner})", f"v NOT IN ({inner})", f"EXISTS (SELECT 1 FROM u WHERE u.k = w.v)", f"NOT EXISTS (SELECT 1 FROM u WHERE u.id = w.id)",
                        f"(v IN ({inner})) IS NULL", f"v = ANY (ARRAY[5, NULL])", "(v, id) = (10, 1)", "(id, v) > (3, NULL)")
        return self.one(f"SELECT id FROM w WHERE {test} ORDER BY id", f"SELECT id, {test} FROM w ORDER BY id", f"SELECT id FROM w WHERE {test} OR id = 1 ORDER BY id",
                        f"SELECT id, CASE WHEN {test} THEN 'y' ELSE 'n' END FROM w ORDER BY id", "SELECT id, (SELECT v FROM u WHERE u.id = w.id) FROM w ORDER BY id",
                        f"SELECT id FROM w WHERE v > (SELECT {self.one('avg', 'min', 'max')}(v) FROM u WHERE u.id <> 3) ORDER BY id")

    def union(self):
        pairs = self.one(("i", "b"), ("n", "f"), ("d", "ts"), ("i", "f"), ("s", "'x'"), ("ts", "ts::timestamptz"))
        op = self.one("UNION", "UNION ALL", "INTERSECT", "EXCEPT")
        return f"SELECT {pairs[0]} FROM t WHERE id < 6 {op} SELECT {pairs[1]} FROM t WHERE id > 3 ORDER BY 1"


    def sets(self):
        op = self.one("INTERSECT ALL", "EXCEPT ALL", "INTERSECT", "EXCEPT")
        left, right = self.one("v", "g", "id % 3", "x::int", "g, v % 2"), None
        right = {"g": "s", "g, v % 2": "s, k % 2"}.get(left, self.one("k", "v", "id % 2", "1"))
        return f"SELECT {left} FROM w {op} SELECT {right} FROM u ORDER BY 1{', 2' if ',' in left else ''}"

    def lateral(self):
        inner = self.one("SELECT k FROM u WHERE u.id = w.id", "SELECT id AS k FROM u WHERE u.v = w.v", "SELECT k FROM u WHERE u.id <= w.id AND k IS NOT NULL")
        limit = self.one(" ORDER BY u.id LIMIT 1", " ORDER BY u.id DESC LIMIT 2", " ORDER BY u.v DESC NULLS LAST, u.id LIMIT 1", "")
        kind = self.one("CROSS JOIN LATERAL ({}) y", "LEFT JOIN LATERAL ({}) y ON true", "JOIN LATERAL ({}) y ON y.k > 1")
        return f"SELECT w.id, y.k FROM w {kind.format(inner + limit)} ORDER BY 1, 2"

    def arrays(self):
        array = self.one("ARRAY[1, 2, NULL, 2]", "ARRAY[id, k]", "ARRAY[k, NULL]", "ARRAY[1, 2, 3]")
        item = self.one("1", "2", "id", "k")
        return f"SELECT id, " + self.one(
            f"{array} || {item}", f"{item} || {array}", f"{array} || NULL", f"{array} || ARRAY[9]", f"array_remove({array}, {item})", f"array_remove({array}, NULL)",
            f"{array} @> ARRAY[{item}]", f"ARRAY[{item}] <@ {array}", f"{array} && ARRAY[{item}, 7]", f"({array})[{item}]", f"({array})[1:{item}]", f"({array})[{item}:]",
            f"cardinality({array})", f"array_length({array}, 1)", f"array_dims({array})", f"array_position({array}, {item})", f"{item} = ANY ({array})",
            f"array_to_string({array}, ',', '*')", f"ARRAY(SELECT v FROM w WHERE w.id = u.id)", f"ARRAY(SELECT g FROM w ORDER BY id)") + " FROM u ORDER BY id"

    def rows_of_functions(self):
        return self.one(
            f"SELECT g, g * 2 FROM generate_series({self.one('1', '-2', '5')}, {self.one('3', '5', '-1')}{self.one('', ', 2', ', -1')}) AS g ORDER BY 1",
            f"SELECT id, generate_series(1, k) FROM u WHERE k < 9 ORDER BY 1, 2", "SELECT id, generate_series(1, 2), generate_series(1, 3) FROM u ORDER BY 1, 3",
            "SELECT q.x, q.n, u.id FROM unnest(ARRAY['b', 'a']) WITH ORDINALITY AS q(x, n), u ORDER BY 3, 2",
            "SELECT id, regexp_split_to_table(s, '[,b]') FROM t ORDER BY 1, 2", "SELECT p, id FROM string_to_table('a,b,,c', ',', '') AS p, u ORDER BY 2, 1",
            f"SELECT v FROM w ORDER BY {self.one('v', 'v DESC', 'v NULLS FIRST')} {self.one('', 'OFFSET 1 ')}FETCH FIRST {self.one('1', '2', '3')} ROWS WITH TIES",
            f"SELECT percentile_disc({self.one('0', '0.25', '0.5', '0.9', '1')}) WITHIN GROUP (ORDER BY {self.one('v', 'id DESC', 'x', 'g')}) FROM w",
            f"SELECT id, v {self.one('', 'NOT ')}BETWEEN SYMMETRIC {self.one('5', '20', 'id')} AND {self.one('10', 'x', 'NULL')} FROM w ORDER BY id",
            "SELECT id FROM w WHERE v NOT IN (SELECT k FROM u WHERE u.id <= w.id) ORDER BY id", "SELECT id FROM w WHERE id NOT IN (SELECT k FROM u WHERE u.v = w.v) ORDER BY id")

    def json(self):
        document, of = self.one(*DOCUMENTS), self.one("json", "jsonb")
        value = f"'{document}'::{of}"
        step, path = self.one("'a'", "'b'", "''", "s", "0", "1", "-1", "i"), self.one("{a}", "{a,b}", "{a,b,1}", "{0,a}", "{-1}", "{}", "{a,NULL}", '{"a",b}', "{a")
        return self.of_rows(self.one(
            f"{value} ->> {step}", f"({value} -> {step})::text", f"{value} -> {step} ->> {self.one('0', chr(39) + 'b' + chr(39))}", f"{value} #>> '{path}'", f"({value} #> '{path}')::text",
            f"{value}::text", f"('{document}'::text::{of})::text", f"{of}_typeof({value})", f"{of}_array_length({value})", f"{of}_extract_path_text({value}, 'a', 'b')",
            f"{of}_extract_path({value}, 'a')::text", f"({value} ->> 'f')::numeric", f"s::{of}::text"))

    def of_times(self):
        times = [time for time in TIMES if time != "d"]
        return self.of_rows(self.one(
            f"age({self.one(*times)}, {self.one(*times)})", f"justify_interval({self.one(*INTERVALS)} * {self.one('7', '-3', '100')})",
            f"justify_days({self.one(*INTERVALS)} * 50)", f"justify_hours({self.one(*INTERVALS)} * 5)", f"make_interval(days => {self.one('i % 100', '3')}, hours => 2)",
            f"make_date({self.one('2024', '-5', '0')}, {self.one('2', '13')}, 29)", f"width_bucket(n, 0, 10, {self.one('5', '3', '0')})", "width_bucket(f, 10, 0, 4)",
            "format('%s|%5s|%-5s|%L|%I', s, i, o, d, 'x')", "format('%2$s %1$s %%', i, s)", "quote_literal(s)", "quote_nullable(n)", "num_nulls(i, b, s)", "to_hex(i)", "~i"))


def alike(ours, theirs):
    """Texts that are the same value: digits that a NUMERIC's scale adds, and the last digits of floats, count as nothing."""
    if ours == theirs:
        return True
    if ours is None or theirs is None:
        return False
    try:
        a, b = decimal.Decimal(ours), decimal.Decimal(theirs)
    except decimal.InvalidOperation:
        return False
    if a.is_nan() or b.is_nan():
        return a.is_nan() and b.is_nan()
    return a == b or not a.is_infinite() and not b.is_infinite() and abs(a - b) <= max(abs(a), abs(b)) * decimal.Decimal("1e-14")


def ask(connection, text):
    try:
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(text)
            result = cursor.pgresult
            cell = lambda i, j: value.decode() if (value := result.get_value(i, j)) is not None else None
            types = [TEXT if (oid := result.ftype(j)) in TEXTS_OIDS else oid for j in range(result.nfields)]
            return types, [[cell(i, j) for j in range(result.nfields)] for i in range(result.ntuples)]
    except psycopg.Error as error:
        return error.sqlstate or "lost connection"


def prepare(starkeep, postgres):
    ours = ", ".join(f"{name} {types[0]}" for name, types in COLUMNS.items())
    theirs = ", ".join(f"{name} {types[1]}" for name, types in COLUMNS.items())
    literal = lambda value: "NULL" if value is None else f"'{value}'"
    rows = zip(*(types[2] for types in COLUMNS.values()))
    values = ", ".join(f"({i}, {', '.join(map(literal, row))})" for i, row in enumerate(rows, 1))
    for statement in ("DROP DATABASE IF EXISTS differential FORCE", "CREATE DATABASE differential", "USE differential", f"CREATE TABLE t (id INT, {ours})"):
        starkeep.execute(statement)
    for statement in ("DROP SCHEMA IF EXISTS differential CASCADE", "CREATE SCHEMA differential", "SET search_path = differential", f"CREATE TABLE t (id int, {theirs})"):
        postgres.execute(statement)
    for name, (our_columns, their_columns, _) in OTHERS.items():
        starkeep.execute(f"CREATE TABLE {name} ({our_columns})")
        postgres.execute(f"CREATE TABLE {name} ({their_columns})")
    for connection in (starkeep, postgres):
        connection.execute(f"INSERT INTO t VALUES {values}")
        for name, (_, _, rows) in OTHERS.items():
            connection.execute(f"INSERT INTO {name} VALUES {rows}")
        connection.execute(f"SET TimeZone = '{ZONE}'")
        connection.execute("SET statement_timeout = '30s'")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--statements", type=int, default=int(os.environ.get("STARKEEP_STATEMENTS", "3000")))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print what is refused, too")
    arguments = parser.parse_args()
    postgres = psycopg.connect(f"host=127.0.0.1 port={os.environ['POSTGRES_PORT']} user=root dbname=postgres", autocommit=True)
    starkeep = psycopg.connect(os.environ.get("STARKEEP_DSN", ""), autocommit=True)
    prepare(starkeep, postgres)
    seen, failures = collections.Counter(), 0
    for seed in range(arguments.seed, arguments.seed + arguments.statements):
        text = Generator(seed).statement()
        theirs, ours = ask(postgres, text), ask(starkeep, text)
        reason = next((reason for pattern, reason in DEVIATIONS if re.search(pattern, text)), None)
        if isinstance(ours, str) and (ours == "XX000" or ours == "lost connection"):
            what = "AN INTERNAL ERROR"
        elif isinstance(ours, str):
            what = "same error" if ours == theirs else "another error" if isinstance(theirs, str) else f"refused: {ours}"
        elif isinstance(theirs, str):
            what = f"an answer where PostgreSQL tells {theirs}"
        else:
            (our_types, ours), (their_types, theirs) = ours, theirs
            same = len(ours) == len(theirs) and all(
                len(a) == len(b) and all(map(alike, a, b)) for a, b in zip(ours, theirs))
            what = "same answer" if same else f"documented: {reason}" if reason else "ANOTHER ANSWER"
            if same and our_types != their_types:
                other = reason or next((other for pattern, other in OTHER_TYPES if re.search(pattern, text)), None)
                what = f"documented: {other}" if other else "ANOTHER TYPE"
                ours, theirs = our_types, their_types
        seen[what] += 1
        if what.isupper():
            failures += 1
        if what.isupper() or arguments.verbose and what.startswith(("refused", "an answer", "another")):
            print(f"--seed {seed}: {what}\n  {text}\n  {str(ours)[:300]}\n  {str(theirs)[:300]}")
    for what, count in sorted(seen.items()):
        print(f"{count:6} {what}")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
