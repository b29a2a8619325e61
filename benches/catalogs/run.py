#!/usr/bin/env python3
"""What psql's \\d t and a client's list of tables cost with many tables.

    pip install 'psycopg[binary]'
    benches/catalogs/run.py --server target/release/starkeep --tables 2000 --views 300

The first time gathers what every table is; after it the gathered facts are kept until a table
changes. Each line shows the first time and the median and slowest of the next ones, beside
SELECT 1 on the same connection. The statements are the ones that psql 15 sends for \\d t.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
import time

import psycopg

NAME = (
    "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c "
    "LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relname OPERATOR(pg_catalog.~) '^(t1000)$' COLLATE pg_catalog.default "
    "AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3"
)
COLUMNS = (
    "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), "
    "(SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d "
    "WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef), a.attnotnull, "
    "(SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t "
    "WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND a.attcollation <> t.typcollation) AS attcollation, "
    "a.attidentity, a.attgenerated FROM pg_catalog.pg_attribute a "
    "WHERE a.attrelid = '{oid}' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)
INDEXES = (
    "SELECT c2.relname, i.indisprimary, i.indisunique, i.indisclustered, i.indisvalid, "
    "pg_catalog.pg_get_indexdef(i.indexrelid, 0, true), "
    "pg_catalog.pg_get_constraintdef(con.oid, true), contype, condeferrable, condeferred, i.indisreplident, c2.reltablespace "
    "FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i "
    "LEFT JOIN pg_catalog.pg_constraint con ON (conrelid = i.indrelid AND conindid = i.indexrelid AND contype IN ('p','u','x')) "
    "WHERE c.oid = '{oid}' AND c.oid = i.indrelid AND i.indexrelid = c2.oid ORDER BY i.indisprimary DESC, c2.relname"
)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", default="target/release/starkeep")
    arguments.add_argument("--tables", type=int, default=2000)
    arguments.add_argument("--views", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=50)
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        command = [arguments.server, "--data-dir", f"{directory}/data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        with open(f"{directory}/log", "w") as log:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            port = int(re.search(r"root@127.0.0.1:(\d+)", server.stdout.readline())[1])
            measure(arguments, port)
        finally:
            server.terminate()
            server.wait()


def measure(arguments, port):
    with psycopg.connect(host="127.0.0.1", port=port, user="root", dbname="embedded", autocommit=True) as connection:
        connection.execute("CREATE DATABASE d")
        connection.execute("SET search_path = d")
        for n in range(arguments.tables):
            connection.execute(
                f"CREATE TABLE d.t{n} (a INT, b VARCHAR(20), c DATETIME) DUPLICATE KEY (a) DISTRIBUTED BY HASH (a) BUCKETS 1"
            )
        for n in range(arguments.views):
            connection.execute(f"CREATE VIEW d.v{n} AS SELECT a, b FROM d.t{n % arguments.tables}")
        oid = str(connection.execute(NAME).fetchone()[0])

        def described():
            for statement in (NAME, COLUMNS.format(oid=oid), INDEXES.format(oid=oid)):
                connection.execute(statement).fetchall()

        def listed():
            connection.execute("SELECT table_schema, table_name, table_type FROM information_schema.tables").fetchall()

        def one():
            connection.execute("SELECT 1").fetchall()

        for name, work in (("\\d t1000", described), ("list of tables", listed), ("SELECT 1", one)):
            # A new table makes what was gathered old.
            connection.execute(f"CREATE TABLE d.new_{name[-1]} (a INT)")
            times = []
            for _ in range(arguments.rounds + 1):
                begun = time.perf_counter()
                work()
                times.append((time.perf_counter() - begun) * 1000)
            first, rest = times[0], times[1:]
            print(f"{name:15} first {first:8.1f} ms, then {statistics.median(rest):8.1f} ms, at most {max(rest):8.1f} ms")


main()
