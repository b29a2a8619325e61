"""psycopg 3: the extended protocol, values beside the text, pipelines, binary rows and binary COPY."""

import datetime
import decimal
import threading
import time

import psycopg
from psycopg import errors
from psycopg.types import TypeInfo

ORDERS = [
    (1, "ann", decimal.Decimal("10.5000"), datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2), True,
     1.5, "first"),
    (2, "bob", decimal.Decimal("20.2500"), datetime.datetime(2024, 1, 3), datetime.date(2024, 1, 3), False, None,
     None),
    (3, "cy", None, None, None, None, 0.1, "o'clock"),
]
TYPES = ["int8", "varchar", "numeric", "timestamp", "date", "bool", "float8", "text"]
MANY = "SELECT n FROM generate_series(1, 2500) AS s(n) ORDER BY n"


def fails(error, run):
    try:
        run()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}")


def rows(connection):
    for binary in (False, True):
        cursor = connection.cursor(binary=binary).execute("SELECT * FROM market.orders ORDER BY id")
        assert cursor.fetchall() == ORDERS, binary
        assert [connection.adapters.types[column.type_code].name for column in cursor.description] == TYPES
        amount = cursor.description[2]
        assert (amount.precision, amount.scale) == (18, 4)
        assert cursor.description[1].display_size == 20
        for place, column in enumerate(column.name for column in cursor.description):
            one = connection.execute(f"SELECT {column} FROM market.orders WHERE id = %s", (1,), binary=binary)
            assert one.fetchone() == (ORDERS[0][place],), column


def parameters(connection):
    utc = datetime.timezone.utc
    for value, kind in [
        (True, "bool"), (7, "int2"), (70000, "int4"), (2**40, "int8"), (1.5, "float8"), ("中", "text"),
        (decimal.Decimal("-0.000123"), "numeric"), (decimal.Decimal("12345678901234567890.5"), "numeric"),
        (datetime.date(2024, 2, 29), "date"), (datetime.time(3, 4, 5), "time"),
        (datetime.datetime(1999, 12, 31, 23, 59, 59, 999999), "timestamp"),
        (datetime.datetime(2024, 1, 2, tzinfo=utc), "timestamptz"), (b"\x00\xff", "bytea"),
        (datetime.timedelta(days=1, seconds=2), "interval"), ([1, None, 3], "int8[]"), (["a", 'b,"c'], "text[]"),
    ]:
        for binary in (False, True):
            for placeholder in ("%s", "%b", "%t"):
                row = connection.execute(f"SELECT {placeholder}::{kind} AS value", (value,), binary=binary).fetchone()
                assert row == (value,), (value, placeholder, binary, row)
            assert connection.execute(f"SELECT %s::{kind} AS value", (None,), binary=binary).fetchone() == (None,)
    rows = connection.execute("SELECT id FROM market.orders WHERE id = ANY(%s) ORDER BY id", ([1, 3, 99],)).fetchall()
    assert rows == [(1,), (3,)]
    rows = connection.execute("SELECT id FROM market.orders WHERE customer = ANY(%s)", (["bob", "x"],)).fetchall()
    assert rows == [(2,)]
    rows = connection.execute(
        "SELECT id FROM market.orders WHERE placed >= %s AND amount < %s AND note = %s AND paid = %s",
        (ORDERS[0][3], decimal.Decimal("10.6"), "first", True)).fetchall()
    assert rows == [(1,)]
    rows = connection.execute("SELECT id FROM market.orders ORDER BY id LIMIT %s OFFSET %s", (1, 2)).fetchall()
    assert rows == [(3,)]


def other_cursors(connection):
    client = psycopg.ClientCursor(connection)
    assert client.mogrify("SELECT %s", ("it's",)) == "SELECT 'it''s'"
    client.execute("SELECT id FROM market.orders WHERE customer = %s AND day = %s", ("ann", ORDERS[0][4]))
    assert client.fetchall() == [(1,)]
    client.execute("SELECT 1; SELECT 2")
    assert client.fetchall() == [(1,)] and client.nextset() and client.fetchall() == [(2,)] and not client.nextset()
    raw = psycopg.RawCursor(connection)
    assert raw.execute("SELECT note FROM market.orders WHERE id = $1", (3,)).fetchone() == ("o'clock",)
    fails(errors.SyntaxError, lambda: connection.execute("SELECT %s::int; SELECT 2", (1,)))


def pipelines(connection):
    with connection.pipeline() as pipeline:
        answers = [connection.execute("SELECT %s::int AS n", (n,)) for n in range(10)]
        pipeline.sync()
        assert [answer.fetchone()[0] for answer in answers] == list(range(10))

    # The error comes with whichever call first looks at the answers, and aborts what was sent after it.
    told = []
    try:
        with connection.pipeline() as pipeline:
            connection.execute("SELECT id / 0 FROM market.orders")
            connection.execute("SELECT 2")
            pipeline.sync()
    except (errors.DivisionByZero, errors.PipelineAborted) as error:
        told.append(error)
    assert told
    assert connection.execute("SELECT 3").fetchone() == (3,)


def server_cursors(connection):
    with connection.transaction():
        with connection.cursor("forth") as cursor:
            cursor.itersize = 1000
            assert [n for (n,) in cursor.execute(MANY)] == list(range(1, 2501))
        with connection.cursor("back", scrollable=True) as cursor:
            cursor.execute(MANY)
            assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
            cursor.scroll(-2)
            assert cursor.fetchone() == (2,)
            cursor.scroll(2499, mode="absolute")
            assert cursor.fetchall() == [(2500,)]
        with connection.cursor("of_orders", binary=True) as cursor:
            cursor.execute("SELECT * FROM market.orders WHERE id >= %s ORDER BY id", (2,))
            assert [column.name for column in cursor.description][:3] == ["id", "customer", "amount"]
            assert cursor.description[2].scale == 4
            assert cursor.fetchall() == ORDERS[1:]
    with connection.cursor("kept", withhold=True) as cursor:
        cursor.execute(MANY)
        assert cursor.fetchone() == (1,) and cursor.fetchmany(2) == [(2,), (3,)]
    fails(errors.NoActiveSqlTransaction, lambda: connection.execute("DECLARE c CURSOR FOR SELECT 1"))


def prepared(dsn):
    with psycopg.connect(dsn) as connection:
        connection.prepare_threshold, connection.prepared_max = 2, 3
        for binary in (False, True):
            for n in range(20):
                row = connection.execute("SELECT %s::bigint + 1 AS n", (n,), prepare=True, binary=binary).fetchone()
                assert row == (n + 1,)
        for columns in range(1, 7):  # more statements than are kept: the oldest are given back
            for _ in range(4):
                names = ", ".join(f"{n} AS c{n}" for n in range(columns))
                assert connection.execute(f"SELECT {names}").fetchone() == tuple(range(columns))
        connection.rollback()  # after which psycopg sends DEALLOCATE ALL and prepares anew
        for n in range(5):
            assert connection.execute("SELECT %s::bigint + 1 AS n", (n,), prepare=True).fetchone() == (n + 1,)
        connection.commit()
        connection.execute("PREPARE named (bigint) AS SELECT customer FROM market.orders WHERE id = $1")
        assert connection.execute("EXECUTE named (2)").fetchone() == ("bob",)
        connection.execute("DEALLOCATE named")
        fails(errors.InvalidSqlStatementName, lambda: connection.execute("EXECUTE named (2)"))


def transactions(dsn):
    with psycopg.connect(dsn) as connection:
        with connection.transaction():
            fails(errors.UndefinedTable, lambda: nested(connection, "SELECT * FROM market.nothing"))
            nested(connection, "SELECT 1")
            with connection.transaction(force_rollback=True):
                connection.execute("SELECT 1")
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            assert connection.execute("SELECT count(*) FROM market.lines").fetchone() == (3,)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

        fails(errors.SyntaxError, lambda: connection.execute("SELEC 1"))
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        assert fails(errors.InFailedSqlTransaction, lambda: connection.execute("SELECT 1")).sqlstate == "25P02"
        connection.rollback()
        connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)


def nested(connection, sql):
    with connection.transaction():
        connection.execute(sql)


def copy(connection):
    query = "SELECT * FROM market.orders ORDER BY id"
    cursor = connection.cursor()
    for options in ("", " (FORMAT binary)"):
        with cursor.copy(f"COPY ({query}) TO STDOUT{options}") as out:
            out.set_types(TYPES)
            assert list(out.rows()) == ORDERS, options
        assert cursor.rowcount == 3
    with cursor.copy("COPY (SELECT id FROM market.orders WHERE customer = %s) TO STDOUT", ("bob",)) as out:
        assert b"".join(out) == b"2\n"
    fails(errors.DivisionByZero, lambda: copy_all(cursor, "COPY (SELECT id / 0 FROM market.orders) TO STDOUT"))

    connection.execute("DELETE FROM market.events WHERE kind = 'psycopg3'")
    at = datetime.datetime(2024, 5, 1)
    with cursor.copy("COPY market.events (at, kind, n) FROM STDIN (FORMAT binary)") as into:
        into.set_types(["timestamp", "varchar", "int4"])
        into.write_row((at, "psycopg3", 1))
        into.write_row((at, "psycopg3", None))
    assert cursor.rowcount == 2
    with cursor.copy("COPY market.events FROM STDIN") as into:
        into.write_row((at, "psycopg3", 2))
    cursor.execute("SELECT at, n FROM market.events WHERE kind = 'psycopg3' ORDER BY n NULLS LAST")
    assert cursor.fetchall() == [(at, 1), (at, 2), (at, None)]
    fails(ZeroDivisionError, lambda: abandoned_copy(cursor))
    assert connection.execute("SELECT count(*) FROM market.events WHERE kind = 'psycopg3'").fetchone() == (3,)
    assert connection.execute("DELETE FROM market.events WHERE kind = 'psycopg3'").rowcount == 3


def copy_all(cursor, sql):
    with cursor.copy(sql) as out:
        list(out)


def abandoned_copy(cursor):
    with cursor.copy("COPY market.events FROM STDIN") as into:
        into.write_row((datetime.datetime(2024, 5, 1), "psycopg3", 9))
        raise ZeroDivisionError


def streams(connection):
    for binary in (False, True):
        assert [n for (n,) in connection.cursor().stream(MANY, binary=binary)] == list(range(1, 2501))
    if psycopg.pq.__build_version__ >= 170000:
        assert [n for (n,) in connection.cursor().stream(MANY, size=100)] == list(range(1, 2501))
    for (n,) in connection.cursor().stream(MANY):  # left early: psycopg cancels the rest
        assert n == 1
        break
    assert connection.execute("SELECT 1").fetchone() == (1,)


def executemany(connection):
    connection.execute("DELETE FROM market.lines WHERE order_id = 33")
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO market.lines (order_id, line, what) VALUES (%s, %s, %s)",
                       [(33, line, f"line {line}") for line in range(20)])
    assert cursor.rowcount == 20
    rows = connection.execute("SELECT line, what FROM market.lines WHERE order_id = %s ORDER BY line", (33,)).fetchall()
    assert rows == [(line, f"line {line}") for line in range(20)]
    cursor.executemany("SELECT %s::int AS n", [(1,), (2,)], returning=True)
    assert [result.fetchone() for result in cursor.results()] == [(1,), (2,)]
    assert connection.execute("DELETE FROM market.lines WHERE order_id = 33").rowcount == 20


def types(connection):
    numeric = TypeInfo.fetch(connection, "numeric")
    assert (numeric.name, numeric.oid, numeric.array_oid, numeric.delimiter) == ("numeric", 1700, 1231, ",")
    assert TypeInfo.fetch(connection, "bigint").regtype == "bigint"
    assert TypeInfo.fetch(connection, "no_such_type") is None


def cancel(connection):
    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    began = time.monotonic()
    fails(errors.QueryCanceled, lambda: connection.execute("SELECT pg_sleep(10)"))
    timer.join()
    connection.execute("SET statement_timeout = 100")
    raised = fails(errors.QueryCanceled, lambda: connection.execute("SELECT pg_sleep(10)"))
    assert raised.sqlstate == "57014" and "statement timeout" in str(raised)
    connection.execute("RESET statement_timeout")
    assert time.monotonic() - began < 8
    assert connection.execute("SELECT 1").fetchone() == (1,)


def starkeep(connection):
    cursor = connection.cursor(binary=True).execute("SHOW REPOSITORIES")
    assert [column.name for column in cursor.description][:2] == ["RepoId", "RepoName"]
    (pid,) = connection.execute("SELECT pid FROM system.sessions WHERE pid = pg_backend_pid()", binary=True).fetchone()
    assert pid == connection.info.backend_pid


def main():
    dsn = "application_name=psycopg3"
    with psycopg.connect(dsn, autocommit=True) as connection:
        IS_STARKEEP = "Starkeep" in connection.execute("SELECT version()").fetchone()[0]
        rows(connection)
        parameters(connection)
        other_cursors(connection)
        pipelines(connection)
        server_cursors(connection)
        copy(connection)
        streams(connection)
        executemany(connection)
        types(connection)
        cancel(connection)
        if IS_STARKEEP:
            starkeep(connection)
    prepared(dsn)
    transactions(dsn)
    print("psycopg3 passed")


if __name__ == "__main__":
    main()
