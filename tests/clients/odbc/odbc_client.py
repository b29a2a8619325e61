"""psqlODBC through pyodbc, with and without cursors of the server. PGHOST, PGPORT, PGUSER and PGDATABASE say where."""

import datetime
import decimal
import glob
import os
import sys
import traceback

import pyodbc

DRIVER = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")[0]
MINE = "DELETE FROM market.events WHERE kind = 'odbc'"
ADD = "INSERT INTO market.events (at, kind, n) VALUES (?, ?, ?)"
NOON = datetime.datetime(2024, 3, 1, 12)
FIRST = (1, "ann", decimal.Decimal("10.5000"), datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2), True, 1.5, "first")


def connect(autocommit=True, **options):
    where = {
        "Driver": DRIVER, "Server": os.environ["PGHOST"], "Port": os.environ["PGPORT"], "Uid": os.environ["PGUSER"],
        "Database": os.environ["PGDATABASE"], "BoolsAsChar": 0, **options,
    }
    return pyodbc.connect(";".join(f"{key}={value}" for key, value in where.items()), autocommit=autocommit, timeout=10)


def is_starkeep(connection):
    return "Starkeep" in one(connection, "SELECT version()")


def one(connection, query, *parameters):
    return connection.execute(query, *parameters).fetchone()[0]


def column(connection, query, *parameters):
    return [row[0] for row in connection.execute(query, *parameters).fetchall()]


def picked(rows, *names):
    return [tuple(getattr(row, name) for name in names) for row in rows]


def same(actual, expected):
    assert actual == expected, f"expected {expected!r}, but it is {actual!r}"


def fails(state, action):
    try:
        action()
    except pyodbc.Error as error:
        same(error.args[0], state)
        return str(error)
    raise AssertionError(f"no {state}")


def selects(options):
    connection = connect(**options)
    cursor = connection.cursor()
    rows = cursor.execute("SELECT * FROM market.orders ORDER BY id").fetchall()
    same([tuple(row) for row in (rows[0], rows[2])], [FIRST, (3, "cy", None, None, None, None, 0.1, "o'clock")])
    types = [int, str, decimal.Decimal, datetime.datetime, datetime.date, bool, float, str]
    same([(d[0], d[1]) for d in cursor.description], list(zip("id customer amount placed day paid weight note".split(), types)))
    same([cursor.description[1][3], cursor.description[2][4:6]], [20, (18, 4)])

    cursor.execute("SELECT n::int AS n FROM generate_series(1, 100) AS g(n)")
    same(sum(row.n for row in cursor), 5050)
    cursor.execute("SELECT id FROM market.orders ORDER BY id")
    same([cursor.fetchone().id, [r.id for r in cursor.fetchmany(1)], [r.id for r in cursor.fetchall()], cursor.fetchone()], [1, [2], [3], None])
    # One left half read, another beside it.
    left, beside = connection.cursor(), connection.cursor()
    left.execute("SELECT id FROM market.orders ORDER BY id")
    same(left.fetchone().id, 1)
    same(beside.execute("SELECT count(*) AS n FROM market.lines").fetchone().n, 3)
    same([row.id for row in left], [2, 3])
    left.execute("SELECT n::int AS n FROM generate_series(1, 100) AS g(n)").fetchone()
    left.close()
    same(connection.execute("SELECT id FROM market.orders WHERE false").fetchall(), [])
    cursor.execute("SELECT 1::int AS a; SELECT 2::int AS b")
    same([cursor.fetchone().a, cursor.nextset(), cursor.fetchone().b], [1, True, 2])
    connection.close()


def parameters(options):
    connection = connect(**options)
    cases = [
        ("id = ?", 1), ("customer = ?", "ann"), ("amount = ?", decimal.Decimal("10.5")), ("placed = ?", FIRST[3]), ("day = ?", FIRST[4]),
        ("paid = ?", True), ("weight = ?", 1.5), ("note = ?", "first"), ("id < ?", decimal.Decimal(2)), ("customer LIKE ?", "a%"),
    ]
    for condition, value in cases:
        same(column(connection, f"SELECT id FROM market.orders WHERE {condition}", value), [1])
    same(column(connection, "SELECT id FROM market.orders WHERE id = ?", None), [])
    same(column(connection, "SELECT id FROM market.orders WHERE note = ? AND id IN (?, ?)", "o'clock", 1, 3), [3])
    cursor = connection.cursor()
    for key in (1, 2, 3, 4):
        row = cursor.execute("SELECT customer FROM market.orders WHERE id = ?", key).fetchone()
        same(row and row.customer, {1: "ann", 2: "bob", 3: "cy"}.get(key))

    casts = [
        ("smallint", -7), ("int", 2**31 - 1), ("bigint", -(2**63)), ("real", 1.5), ("double precision", 0.1), ("boolean", False),
        ("numeric(28, 10)", decimal.Decimal("123456789012345678.0123456789")), ("text", "é🐘\n"), ("date", datetime.date(1969, 12, 31)),
        ("timestamp", datetime.datetime(2024, 2, 29, 1, 2, 3, 456789)), ("bytea", b"\0\1\xff"), ("int", None),
    ]
    for name, value in casts:
        same(one(connection, f"SELECT CAST(? AS {name}) AS v", value), value)
    connection.close()


def catalog(options):
    connection = connect(**options)
    cursor = connection.cursor()
    same(
        sorted(picked(cursor.tables(schema="market"), "table_schem", "table_name", "table_type")),
        [("market", "events", "TABLE"), ("market", "lines", "TABLE"), ("market", "orders", "TABLE"), ("market", "paid_orders", "VIEW")],
    )
    same(picked(cursor.tables(schema="mark%", table="or%", tableType="TABLE"), "table_name"), [("orders",)])
    same(picked(cursor.tables(schema="market", table="paid\\_%", tableType="VIEW"), "table_name"), [("paid_orders",)])
    same(cursor.tables(schema="market", table="nope").fetchall(), [])
    assert ("pg_class",) in picked(cursor.tables(schema="pg_catalog", tableType="SYSTEM TABLE"), "table_name")
    assert (os.environ["PGDATABASE"],) in picked(cursor.tables(catalog="%", schema="", table=""), "table_cat")
    assert ("market",) in picked(cursor.tables(catalog="", schema="%", table=""), "table_schem")

    facts = "column_name data_type type_name column_size decimal_digits nullable column_def ordinal_position".split()
    same(
        picked(cursor.columns(schema="market", table="orders"), *facts),
        [
            ("id", pyodbc.SQL_BIGINT, "int8", 19, 0, 0, None, 1),
            ("customer", pyodbc.SQL_WVARCHAR, "varchar", 20, None, 0, None, 2),
            ("amount", pyodbc.SQL_NUMERIC, "numeric", 18, 4, 1, "0", 3),
            ("placed", pyodbc.SQL_TYPE_TIMESTAMP, "timestamp", 26, 6, 1, None, 4),
            ("day", pyodbc.SQL_TYPE_DATE, "date", 10, None, 1, None, 5),
            ("paid", pyodbc.SQL_BIT, "bool", 1, 0, 1, None, 6),
            ("weight", pyodbc.SQL_FLOAT, "float8", 17, 0, 1, None, 7),
            ("note", pyodbc.SQL_WLONGVARCHAR, "text", 8190, None, 1, None, 8),
        ],
    )
    same(picked(cursor.columns(schema="market", column="am%"), "table_name"), [("orders",), ("paid_orders",)])
    same(picked(cursor.primaryKeys("lines", schema="market"), "column_name", "key_seq", "pk_name"), [("order_id", 1, "lines_pkey"), ("line", 2, "lines_pkey")])
    same(cursor.primaryKeys("events", schema="market").fetchall(), [])
    indexes = [row for row in cursor.statistics("lines", schema="market") if row.index_name]
    same(picked(indexes, "index_name", "non_unique", "ordinal_position", "column_name"), [("lines_pkey", 0, 1, "order_id"), ("lines_pkey", 0, 2, "line")])
    same(cursor.foreignKeys(table="orders", schema="market").fetchall(), [])
    same(cursor.foreignKeys(foreignTable="lines", foreignSchema="market").fetchall(), [])
    same(cursor.procedures(schema="market").fetchall(), [])
    types = {row.type_name for row in cursor.getTypeInfo()}
    assert {"int8", "varchar", "numeric", "timestamptz", "date", "float8", "text"} <= types, types
    same([row.type_name for row in cursor.getTypeInfo(pyodbc.SQL_BIGINT)], ["int8"])

    same(connection.getinfo(pyodbc.SQL_DBMS_NAME), "PostgreSQL")
    assert int(connection.getinfo(pyodbc.SQL_DBMS_VER).split(".")[0]) >= 14
    same(connection.getinfo(pyodbc.SQL_DATABASE_NAME), os.environ["PGDATABASE"])
    connection.close()


def errors(options):
    connection = connect(autocommit=False, **options)
    connection.execute("SET LOCAL statement_timeout = 9000")
    assert "market.nope" in fails("42P01", lambda: connection.execute("SELECT * FROM market.nope").fetchall())
    # Only the statement that failed is undone (Protocol=7.4-2).
    same(one(connection, "SHOW statement_timeout"), "9s")
    fails("42703", lambda: connection.execute("SELECT nope FROM market.orders WHERE id = ?", 1).fetchall())
    fails("42601", lambda: connection.execute("SELECT * FROM market.orders WHERE WHERE").fetchall())
    fails("22P02", lambda: connection.execute("SELECT CAST('x' AS int)").fetchall())
    same(one(connection, "SELECT count(*) FROM market.orders WHERE id < ?", 3), 2)
    connection.rollback()
    connection.close()

    whole = connect(autocommit=False, **{**options, "Protocol": "7.4-1"})
    whole.execute("SET LOCAL statement_timeout = 9000")
    fails("42P01", lambda: whole.execute("SELECT * FROM market.nope").fetchall())
    same(one(whole, "SHOW statement_timeout"), "0")
    whole.rollback()
    whole.close()


def writes(options):
    connection = connect(autocommit=False, **options)
    cursor = connection.cursor()
    same(cursor.execute(ADD, NOON, "odbc", 1).rowcount, 1)
    cursor.executemany(ADD, [(NOON, "odbc", 2), (NOON, "odbc", None)])
    connection.commit()
    same(tuple(cursor.execute("SELECT count(*) AS a, sum(n) AS b FROM market.events WHERE kind = ?", "odbc").fetchone()), (3, 3))
    connection.commit()
    cursor.execute(ADD, NOON, "odbc", 4)
    connection.rollback()
    # There, writes take effect at once, and ROLLBACK warns of it.
    same(one(connection, "SELECT count(*) FROM market.events WHERE kind = 'odbc'"), 4 if is_starkeep(connection) else 3)
    connection.rollback()

    connection.autocommit = True
    cursor.fast_executemany = True
    cursor.executemany(ADD, [(NOON, "odbc", n) for n in range(10, 20)])
    other = connect(**options)
    same(one(other, "SELECT count(*) FROM market.events WHERE kind = 'odbc' AND n >= 10"), 10)
    other.close()
    same(cursor.execute("DELETE FROM market.events WHERE kind = ? AND n >= ?", "odbc", 10).rowcount, 10)
    fails("42P01", lambda: connection.execute("SELECT * FROM market.nope").fetchall())
    same(one(connection, "SELECT 1"), 1)
    fails("23502", lambda: cursor.execute(ADD, None, "odbc", 1))
    cursor.execute("SET statement_timeout = 200")
    fails("57014", lambda: cursor.execute("SELECT pg_sleep(10)").fetchall())
    cursor.execute("RESET statement_timeout")
    connection.close()


def clean():
    connection = connect()
    connection.execute(MINE)
    connection.close()


WAYS = [
    {"UseDeclareFetch": 0, "Protocol": "7.4-2"},
    {"UseDeclareFetch": 1, "Fetch": 2, "Protocol": "7.4-2"},
    {"UseDeclareFetch": 1, "Fetch": 2, "Protocol": "7.4-2", "UseServerSidePrepare": 0},
]

# All parts run, so that one look shows all that is wrong.
failed = []
clean()
for way in WAYS:
    for part in (selects, parameters, catalog, errors, writes):
        try:
            part(way)
        except Exception:
            failed.append(f"{part.__name__} {way}")
            print(f"in {failed[-1]}:", file=sys.stderr)
            traceback.print_exc()
        finally:
            clean()
if failed:
    sys.exit("failed: " + "; ".join(failed))
print("psqlodbc passed")
