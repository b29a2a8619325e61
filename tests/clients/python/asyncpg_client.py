"""asyncpg: the extended protocol only, every value binary, types asked for by oid."""

import asyncio
import datetime
import decimal
import io
import time

import asyncpg

ORDERS = [
    (1, "ann", decimal.Decimal("10.5000"), datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2), True,
     1.5, "first"),
    (2, "bob", decimal.Decimal("20.2500"), datetime.datetime(2024, 1, 3), datetime.date(2024, 1, 3), False, None,
     None),
    (3, "cy", None, None, None, None, 0.1, "o'clock"),
]
TYPES = ["int8", "varchar", "numeric", "timestamp", "date", "bool", "float8", "text"]
MANY = "SELECT n FROM generate_series(1, 500) AS s(n) ORDER BY n"


async def fails(error, awaitable):
    try:
        await awaitable
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}")


async def parameters(connection):
    rows = await connection.fetch("SELECT * FROM market.orders ORDER BY id")
    assert [tuple(row) for row in rows] == ORDERS
    assert rows[0]["amount"] == decimal.Decimal("10.5000") and list(rows[0].keys())[:2] == ["id", "customer"]
    utc = datetime.timezone.utc
    for kind, value in [
        ("boolean", True), ("smallint", -7), ("integer", 70000), ("bigint", 2**40), ("real", 0.5),
        ("double precision", 0.1), ("numeric", decimal.Decimal("-123456789012345678901.000123")), ("text", "中"),
        ("varchar", "short"), ("date", datetime.date(2024, 2, 29)), ("time", datetime.time(3, 4, 5)),
        ("timestamp", datetime.datetime(1999, 12, 31, 23, 59, 59, 999999)),
        ("timestamptz", datetime.datetime(2024, 1, 2, tzinfo=utc)), ("bytea", b"\x00\xff"),
        ("interval", datetime.timedelta(days=1, seconds=2)), ("bigint[]", [1, None, 3]), ("text[]", ["a", 'b,"c']),
    ]:
        assert await connection.fetchval(f"SELECT $1::{kind} AS value", value) == value, kind
        assert await connection.fetchval(f"SELECT $1::{kind} AS value", None) is None, kind
    rows = await connection.fetch("SELECT id FROM market.orders WHERE id = ANY($1::bigint[]) ORDER BY id", [1, 3, 99])
    assert [row["id"] for row in rows] == [1, 3]
    rows = await connection.fetch("SELECT id FROM market.orders ORDER BY id LIMIT $1 OFFSET $2", 1, 2)
    assert [row["id"] for row in rows] == [3]
    row = await connection.fetchrow("SELECT id FROM market.orders WHERE placed >= $1 AND amount < $2 AND note = $3",
                                    ORDERS[0][3], decimal.Decimal("10.6"), "first")
    assert row["id"] == 1
    assert await connection.fetchval("SELECT count(*) FROM market.orders WHERE $1 = customer AND paid = $2",
                                     "ann", True) == 1
    await fails(asyncpg.DataError, connection.fetch("SELECT id FROM market.orders WHERE id = $1", "one"))


async def prepared(connection):
    statement = await connection.prepare(
        "SELECT * FROM market.orders WHERE id = $1 AND customer = $2 AND amount = $3 AND placed = $4 AND day = $5"
        " AND paid = $6 AND weight = $7 AND note = $8")
    assert [(a.name, a.type.name) for a in statement.get_attributes()] == \
        list(zip(["id", "customer", "amount", "placed", "day", "paid", "weight", "note"], TYPES))
    asked = [parameter.name for parameter in statement.get_parameters()]
    asked[1] = "varchar" if asked[1] == "text" else asked[1]  # PostgreSQL compares varchar as text
    assert asked == TYPES, asked
    assert tuple(await statement.fetchrow(*ORDERS[0])) == ORDERS[0]
    assert await statement.fetch(*ORDERS[1]) == [] and statement.get_statusmsg() == "SELECT 0"
    statement = await connection.prepare("SELECT $1::numeric + 1 AS n")
    assert [await statement.fetchval(n) for n in range(20)] == [n + 1 for n in range(20)]
    assert await statement.fetchmany([(1,), (2,)]) == [(2,), (3,)]


async def cursors(connection):
    async with connection.transaction():
        assert [row["n"] async for row in connection.cursor(MANY, prefetch=7)] == list(range(1, 501))
        cursor = await connection.cursor("SELECT id FROM market.orders WHERE id >= $1 ORDER BY id", 1)
        assert (await cursor.fetchrow())["id"] == 1
        # The portal stays open while something else runs.
        assert await connection.fetchval("SELECT count(*) FROM market.lines") == 3
        assert [row["id"] for row in await cursor.fetch(5)] == [2, 3]
        assert await cursor.fetchrow() is None
        cursor = await connection.cursor(MANY)
        assert await cursor.forward(10) == 10
        assert (await cursor.fetchrow())["n"] == 11
    await fails(asyncpg.NoActiveSQLTransactionError, outside(connection))


async def outside(connection):
    async for _ in connection.cursor(MANY):
        pass


async def copy(connection):
    out = io.BytesIO()
    tag = await connection.copy_from_query("SELECT id, customer, note FROM market.orders WHERE id > $1 ORDER BY id", 1,
                                           output=out, format="csv", header=True)
    assert tag == "COPY 2" and out.getvalue() == b"id,customer,note\n2,bob,\n3,cy,o'clock\n", out.getvalue()
    out = io.BytesIO()
    await connection.copy_from_table("lines", schema_name="market", columns=["what", "line"], output=out)
    assert sorted(out.getvalue().splitlines()) == [b"apple\t1", b"pear\t2", b"plum\t1"]

    await connection.execute("DELETE FROM market.events WHERE kind = $1", "asyncpg")
    at = datetime.datetime(2024, 5, 1)
    tag = await connection.copy_to_table("events", schema_name="market", columns=["n", "kind", "at"],
                                         format="csv",
                                         source=io.BytesIO(b"1,asyncpg,2024-05-01\n2,asyncpg,2024-05-01\n"))
    assert tag == "COPY 2"
    tag = await connection.copy_records_to_table("events", schema_name="market", columns=["at", "kind", "n"],
                                                 records=[(at, "asyncpg", n) for n in (3, 4, None)])
    assert tag == "COPY 3"
    await connection.executemany("INSERT INTO market.events (at, kind, n) VALUES ($1, $2, $3)",
                                 [(at, "asyncpg", n) for n in (5, 6)])
    rows = await connection.fetch("SELECT at, n FROM market.events WHERE kind = 'asyncpg' ORDER BY n NULLS LAST")
    assert [tuple(row) for row in rows] == [(at, n) for n in (1, 2, 3, 4, 5, 6, None)]
    assert await connection.execute("DELETE FROM market.events WHERE kind = 'asyncpg'") == "DELETE 7"


async def transactions(connection):
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
        raised = await fails(asyncpg.UndefinedTableError, nested(connection, "SELECT * FROM market.nothing"))
        assert raised.sqlstate == "42P01" and raised.position == "15"
        await nested(connection, "SELECT 1")
        assert connection.is_in_transaction()
    transaction = connection.transaction()
    await transaction.start()
    await fails(asyncpg.DivisionByZeroError, connection.fetch("SELECT id / 0 FROM market.orders"))
    await fails(asyncpg.InFailedSQLTransactionError, connection.fetch("SELECT 1"))
    await transaction.rollback()
    for error, sql in [
        (asyncpg.UndefinedColumnError, "SELECT nope FROM market.orders"), (asyncpg.PostgresSyntaxError, "SELEC 1"),
        (asyncpg.UndefinedFunctionError, "SELECT no_such_function(1)"),
        (asyncpg.PostgresSyntaxError, "SELECT $1::int; SELECT 2"),
    ]:
        await fails(error, connection.prepare(sql))
    assert await connection.execute("SELECT 1; SELECT 2") == "SELECT 1"


async def nested(connection, sql):
    async with connection.transaction():
        await connection.execute(sql)


async def timeouts(connection):
    began = time.monotonic()
    await fails(asyncio.TimeoutError, connection.fetch("SELECT pg_sleep(10)", timeout=0.3))
    task = asyncio.create_task(connection.fetch("SELECT pg_sleep(10)"))
    await asyncio.sleep(0.3)
    task.cancel()
    await fails(asyncio.CancelledError, task)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.execute("SET statement_timeout = 100")
    await fails(asyncpg.QueryCanceledError, connection.fetch("SELECT pg_sleep(10)"))
    await connection.execute("RESET statement_timeout")
    assert time.monotonic() - began < 8


async def listeners_and_notices(connection):
    heard = []
    await connection.add_listener("news", heard.append)
    await connection.remove_listener("news", heard.append)
    notices = []
    listener = lambda _, message: notices.append((message.severity, message.sqlstate, message.message))  # noqa: E731
    connection.add_log_listener(listener)
    await connection.execute("COMMIT")
    await connection.fetchval("SELECT 1")
    await asyncio.sleep(0)
    connection.remove_log_listener(listener)
    assert notices == [("WARNING", "25P01", "there is no transaction in progress")], notices


async def pool():
    async with asyncpg.create_pool(min_size=1, max_size=2) as connections:
        async with connections.acquire() as connection:
            (before,) = await connection.fetchrow("SHOW statement_timeout")
            await connection.execute("SET statement_timeout = '7s'")
            assert await connection.fetchval("SHOW statement_timeout") == "7s"
        async with connections.acquire() as connection:  # what was set is gone with the release
            assert await connection.fetchval("SHOW statement_timeout") == before
        many = [connections.fetchval("SELECT $1::int", n) for n in range(20)]
        assert await asyncio.gather(*many) == list(range(20))


async def starkeep(connection):
    assert await connection.fetchval("SELECT count(*) FROM system.jobs WHERE job_id = $1 AND state = $2", -1, "x") == 0
    statement = await connection.prepare("SHOW BACKUP FROM market")
    assert [attribute.name for attribute in statement.get_attributes()][:3] == ["JobId", "SnapshotName", "DbName"]


async def main():
    connection = await asyncpg.connect()
    IS_STARKEEP = "Starkeep" in await connection.fetchval("SELECT version()")
    assert connection.get_server_version().major >= 14
    await parameters(connection)
    await prepared(connection)
    await cursors(connection)
    await copy(connection)
    await transactions(connection)
    await timeouts(connection)
    await listeners_and_notices(connection)
    if IS_STARKEEP:
        await starkeep(connection)
    await connection.close()
    await pool()
    print("asyncpg passed")


if __name__ == "__main__":
    asyncio.run(main())
