"""pg8000, a driver in pure Python: its DB-API and its native interface, all values as text."""

import datetime
import decimal
import io
import os

import pg8000.dbapi
import pg8000.native

TO = {"host": os.environ["PGHOST"], "port": int(os.environ["PGPORT"]), "user": os.environ["PGUSER"],
      "database": os.environ["PGDATABASE"]}
ORDERS = [
    (1, "ann", decimal.Decimal("10.5000"), datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2), True,
     1.5, "first"),
    (2, "bob", decimal.Decimal("20.2500"), datetime.datetime(2024, 1, 3), datetime.date(2024, 1, 3), False, None,
     None),
    (3, "cy", None, None, None, None, 0.1, "o'clock"),
]
OIDS = [20, 1043, 1700, 1114, 1082, 16, 701, 25]


def fails(sqlstate, run, *arguments):
    try:
        run(*arguments)
    except pg8000.native.DatabaseError as raised:
        assert raised.args[0]["C"] == sqlstate, raised
        return raised.args[0]
    raise AssertionError(f"no {sqlstate}")


def values():
    return [
        ("boolean", True), ("smallint", -7), ("integer", 70000), ("bigint", 2**40), ("double precision", 0.1),
        ("numeric", decimal.Decimal("-123456789012345678901.000123")), ("text", "it's \\ \"quoted\" 中"),
        ("date", datetime.date(2024, 2, 29)), ("time", datetime.time(3, 4, 5)),
        ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 999999)),
        ("timestamptz", datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)), ("bytea", b"\x00\xff"),
        ("interval", datetime.timedelta(days=1, seconds=2)), ("bigint[]", [1, None, 3]), ("text[]", ["a", 'b,"c']),
    ]


def dbapi():
    connection = pg8000.dbapi.connect(**TO)
    cursor = connection.cursor()
    cursor.execute("SELECT * FROM market.orders ORDER BY id")
    assert [column[1] for column in cursor.description] == OIDS and cursor.rowcount == 3
    assert [tuple(row) for row in cursor.fetchall()] == ORDERS
    for kind, value in values():
        cursor.execute(f"SELECT CAST(%s AS {kind}) AS value", (value,))
        assert cursor.fetchone()[0] == value, kind
        cursor.execute(f"SELECT CAST(%s AS {kind}) AS value", (None,))
        assert cursor.fetchone()[0] is None
    cursor.execute("SELECT id FROM market.orders WHERE placed >= %s AND amount < %s AND customer = %s",
                   (ORDERS[0][3], decimal.Decimal("10.6"), "ann"))
    assert [row[0] for row in cursor.fetchall()] == [1]
    cursor.execute("SELECT id FROM market.orders WHERE id = ANY(%s) ORDER BY id LIMIT %s", ([3, 1], 5))
    assert [row[0] for row in cursor.fetchall()] == [1, 3]
    fails("42P01", cursor.execute, "SELECT * FROM market.nothing")
    fails("25P02", cursor.execute, "SELECT 1")
    connection.rollback()
    for sqlstate, sql in [("42703", "SELECT nope FROM market.orders"), ("42601", "SELEC 1"),
                          ("22012", "SELECT id / 0 FROM market.orders"), ("22P02", "SELECT CAST('many' AS int)")]:
        fails(sqlstate, cursor.execute, sql)
        connection.rollback()

    connection.autocommit = True
    cursor.execute("DELETE FROM market.events WHERE kind = 'pg8000'")
    at = datetime.datetime(2024, 5, 1)
    cursor.executemany("INSERT INTO market.events (at, kind, n) VALUES (%s, %s, %s)",
                       [(at, "pg8000", 1), (at, "pg8000", None)])
    cursor.execute("COPY market.events FROM STDIN WITH (FORMAT csv)", stream=io.BytesIO(b"2024-05-01,pg8000,2\n"))
    out = io.BytesIO()
    cursor.execute("COPY (SELECT at, n FROM market.events WHERE kind = 'pg8000' ORDER BY n NULLS LAST) TO STDOUT",
                   stream=out)
    assert out.getvalue() == b"2024-05-01 00:00:00\t1\n2024-05-01 00:00:00\t2\n2024-05-01 00:00:00\t\\N\n"
    cursor.execute("DELETE FROM market.events WHERE kind = 'pg8000'")
    assert cursor.rowcount == 3
    connection.close()


def native():
    with pg8000.native.Connection(application_name="pg8000", **TO) as connection:
        rows = connection.run("SELECT * FROM market.orders WHERE id = :id OR customer = :who ORDER BY id", id=1,
                              who="bob")
        assert [tuple(row) for row in rows] == ORDERS[:2]
        assert [column["type_oid"] for column in connection.columns] == OIDS and connection.row_count == 2
        assert connection.columns[2]["type_modifier"] == (18 << 16) + 4 + 4  # numeric(18,4)
        for kind, value in values():
            assert connection.run(f"SELECT CAST(:v AS {kind}) AS value", v=value) == [[value]], kind
        statement = connection.prepare("SELECT customer, CAST(:n AS int) + 1 AS n FROM market.orders WHERE id = :id")
        assert [statement.run(id=id, n=id * 10) for id in (1, 2, 9)] == [[["ann", 11]], [["bob", 21]], []]
        statement.close()
        # Without parameters the text goes as one simple query, whatever it holds.
        assert connection.run("SELECT 1 AS n; SELECT 2 AS n") == [[1], [2]]

        connection.run("START TRANSACTION")
        connection.run("SAVEPOINT here")
        place = fails("42703", connection.run, "SELECT nope FROM market.orders")
        assert place["S"] == "ERROR" and place["P"] == "8" and 'column "nope" does not exist' in place["M"]
        connection.run("ROLLBACK TO here")
        assert connection.run("SELECT count(*) FROM market.lines") == [[3]]
        connection.run("COMMIT")
        connection.run("COMMIT")
        assert connection.notices[-1][b"M"] == b"there is no transaction in progress"
        assert dict(connection.parameter_statuses)["server_encoding"] == "UTF8"


def main():
    dbapi()
    native()
    print("pg8000 passed")


if __name__ == "__main__":
    main()
