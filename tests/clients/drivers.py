"""psycopg2, psycopg 3, asyncpg and pg8000 against a running Starkeep (PGHOST, PGPORT)."""

import asyncio
import datetime
import decimal
import os

import asyncpg
import pg8000.native
import psycopg
import psycopg2
import psycopg2.errors

HOST, PORT = os.environ["PGHOST"], int(os.environ["PGPORT"])


def with_psycopg2():
    connection = psycopg2.connect(host=HOST, port=PORT, user="root", dbname="shop")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS p2 (id INT, price DECIMAL(10, 2), day DATE)")
        cursor.execute("INSERT INTO p2 VALUES (%s, %s, %s)", (1, decimal.Decimal("1.50"), datetime.date(2026, 1, 2)))
        cursor.execute("SELECT * FROM p2 WHERE id = %s", (1,))
        assert cursor.fetchall() == [(1, decimal.Decimal("1.50"), datetime.date(2026, 1, 2))]
        cursor.execute("SHOW BACKUP FROM shop")
        assert cursor.description[1].name == "SnapshotName" and cursor.fetchone()[1] == "monday"
        try:
            cursor.execute("SELECT nope FROM p2")
            raise AssertionError("no error")
        except psycopg2.errors.UndefinedColumn:
            pass
        try:
            cursor.execute("SELECT 1")
            raise AssertionError("no error")
        except psycopg2.errors.InFailedSqlTransaction:
            connection.rollback()
        cursor.execute("SELECT 1")
    connection.close()


def with_psycopg():
    with psycopg.connect(host=HOST, port=PORT, user="root", dbname="shop", autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS p3 (id BIGINT, wide DECIMAL(38, 18), name STRING)")
        wide = decimal.Decimal("1.123456789012345678")
        for i in range(10):  # from the sixth run on the statement is prepared by name
            connection.execute("INSERT INTO p3 VALUES (%s, %s, %s)", (i, wide, f"row {i}"))
        for binary in (False, True):
            rows = connection.cursor(binary=binary).execute("SELECT id, wide, name FROM p3 WHERE id = %s", (7,)).fetchall()
            assert rows == [(7, wide, "row 7")], rows
        with connection.cursor().copy("COPY p3 (id, name) FROM STDIN") as copy:
            copy.write_row((100, "copied\twith a tab"))
        assert connection.execute("SELECT name FROM p3 WHERE id = 100").fetchone() == ("copied\twith a tab",)
        with connection.transaction():
            connection.execute("SELECT 1")
        with connection.pipeline():
            answers = [connection.execute("SELECT %s::int", (i,)) for i in range(3)]
        assert [a.fetchone()[0] for a in answers] == [0, 1, 2]


async def with_asyncpg():
    connection = await asyncpg.connect(host=HOST, port=PORT, user="root", database="shop")
    rows = await connection.fetch("SELECT id, name FROM items WHERE id > $1 ORDER BY id", 0)
    assert [tuple(r) for r in rows] == [(1, "pen"), (2, "ink")]
    assert (await connection.fetchrow("SHOW REPOSITORIES"))["RepoName"] == "r"
    try:
        await connection.fetch("SELECT * FROM nope")
        raise AssertionError("no error")
    except asyncpg.UndefinedTableError:
        pass
    try:
        await connection.fetch(
            "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value + b.value = -1", timeout=0.5
        )
        raise AssertionError("no timeout")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


def with_pg8000():
    connection = pg8000.native.Connection("root", host=HOST, port=PORT, database="shop")
    assert connection.run("SELECT name FROM items WHERE id = :id", id=2) == [["ink"]]
    connection.close()


with_psycopg2()
with_psycopg()
asyncio.run(with_asyncpg())
with_pg8000()
print("drivers passed")
