"""How DuckDB's postgres extension reads: a catalog in one message, then tables as binary COPY.

The extension itself is downloaded by DuckDB from its own site, so what it sends is said here by hand, over libpq.
"""

import datetime
import decimal
import re
import struct

import psycopg
from psycopg.pq import ExecStatus

# Bare catalog names, a branch of untyped NULLs in UNION ALL, ORDER BY over output names: as the extension asks.
SCHEMAS = "SELECT oid, nspname FROM pg_namespace ORDER BY oid;"
TABLES = """
SELECT pg_namespace.oid AS namespace_id, relname, relpages, attname, pg_type.typname type_name,
       atttypmod type_modifier, pg_attribute.attndims ndim, attnum, pg_attribute.attnotnull AS notnull,
       NULL constraint_id, NULL constraint_type, NULL constraint_key, of_type.nspname AS type_schema,
       of_column.description AS column_comment, of_table.description AS table_comment
FROM pg_class
JOIN pg_namespace ON relnamespace = pg_namespace.oid
JOIN pg_attribute ON pg_class.oid=pg_attribute.attrelid
JOIN pg_type ON atttypid=pg_type.oid
JOIN pg_namespace of_type ON pg_type.typnamespace = of_type.oid
LEFT JOIN pg_description of_column ON of_column.objoid=pg_class.oid AND of_column.objsubid=pg_attribute.attnum
LEFT JOIN pg_description of_table ON of_table.objoid=pg_class.oid AND of_table.objsubid=0
WHERE attnum > 0 AND relkind IN ('r', 'v', 'm', 'f', 'p')
UNION ALL
SELECT pg_namespace.oid AS namespace_id, relname, NULL relpages, NULL attname, NULL type_name, NULL type_modifier,
       NULL ndim, NULL attnum, NULL AS notnull, pg_constraint.oid AS constraint_id, contype AS constraint_type,
       conkey AS constraint_key, NULL AS type_schema, NULL AS column_comment, NULL AS table_comment
FROM pg_class
JOIN pg_namespace ON relnamespace = pg_namespace.oid
JOIN pg_constraint ON (pg_class.oid=pg_constraint.conrelid)
WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND contype IN ('p', 'u')
ORDER BY namespace_id, relname, attnum, constraint_id;
"""
ENUMS = """
SELECT n.oid, enumtypid, typname, enumlabel
FROM pg_enum e JOIN pg_type t ON e.enumtypid = t.oid JOIN pg_namespace AS n ON (typnamespace=n.oid)
ORDER BY n.oid, enumtypid, enumsortorder;
"""
COMPOSITES = """
SELECT n.oid, t.typrelid AS id, t.typname as type, pg_attribute.attname, part.typname, of_part.nspname AS part_schema
FROM pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
JOIN pg_class ON pg_class.oid = t.typrelid
JOIN pg_attribute ON attrelid=t.typrelid
JOIN pg_type part ON (pg_attribute.atttypid=part.oid)
JOIN pg_catalog.pg_namespace of_part ON of_part.oid = part.typnamespace
WHERE pg_class.relkind IN ('c', 'r', 'v', 'm', 'f', 'p') AND t.typtype='c'
  AND pg_attribute.attnum > 0 AND NOT pg_attribute.attisdropped
ORDER BY n.oid, t.oid, attrelid, attnum;
"""
INDEXES = """
SELECT pg_namespace.oid, tablename, indexname
FROM pg_indexes JOIN pg_namespace ON (schemaname=nspname)
ORDER BY pg_namespace.oid;
"""


def texts(result):
    assert result.status == ExecStatus.TUPLES_OK, result.error_message
    rows = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [tuple(None if value is None else value.decode() for value in row) for row in rows]


def run(connection, sql):
    """The rows of every result of one message, as text, the way PQsendQuery and PQgetResult give them."""
    connection.pgconn.send_query(sql.encode())
    results = []
    while result := connection.pgconn.get_result():
        if result.status != ExecStatus.COMMAND_OK:
            results.append(texts(result))
    return results


def loads_the_catalog(connection):
    schemas, tables, enums, composites, indexes = run(connection, SCHEMAS + TABLES + ENUMS + COMPOSITES + INDEXES)
    places = {oid: place for place, (oid, _) in enumerate(schemas)}
    for rows in (tables, enums, composites, indexes):
        # It cuts each result into schemas by walking both in order, so the order is part of the contract.
        walked = [places[row[0]] for row in rows]
        assert walked == sorted(walked)
    (market,) = [oid for oid, name in schemas if name == "market"]
    ours = [row for row in tables if row[0] == market]
    names = [row[1] for row in ours]
    assert names == sorted(names) and {"events", "lines", "orders", "paid_orders"} <= set(names)

    orders = [row for row in ours if row[1] == "orders"]
    assert [(row[3], row[4], row[5], row[7], row[8]) for row in orders if row[3]] == [
        ("id", "int8", "-1", "1", "t"), ("customer", "varchar", "24", "2", "t"),
        ("amount", "numeric", str((18 << 16) + 4 + 4), "3", "f"), ("placed", "timestamp", "-1", "4", "f"),
        ("day", "date", "-1", "5", "f"), ("paid", "bool", "-1", "6", "f"), ("weight", "float8", "-1", "7", "f"),
        ("note", "text", "-1", "8", "f"),
    ]
    assert orders[1][6] == "0" and orders[1][12] == "pg_catalog"
    assert orders[1][13] == "who ordered" and {row[14] for row in orders if row[3]} == {"what was ordered"}
    assert orders[-1][3] is None and orders[-1][10:12] == ("p", "{1}")  # constraints after columns: NULLS LAST
    assert [row[10:12] for row in ours if row[1] == "lines" and row[3] is None] == [("p", "{1,2}")]
    assert not [row for row in enums if row[0] == market]
    assert {"orders", "lines"} <= {row[1] for row in indexes if row[0] == market}
    return int(orders[0][2])


def decode(out):
    """The rows of a binary COPY, fields as bytes or None."""
    assert out.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8)), out[:19]
    at, rows = 19, []
    while (count := struct.unpack_from(">h", out, at)[0]) != -1:
        at, row = at + 2, []
        for _ in range(count):
            size = struct.unpack_from(">i", out, at)[0]
            at += 4
            row.append(None if size == -1 else out[at:at + size])
            at += max(size, 0)
        rows.append(row)
    assert at + 2 == len(out)
    return rows


def numeric(field):
    digits, weight, sign, scale = struct.unpack_from(">hhHH", field)
    value = sum(decimal.Decimal(digit) * decimal.Decimal(10000) ** (weight - place)
                for place, digit in enumerate(struct.unpack_from(f">{digits}h", field, 8)))
    return (-value if sign else value), scale


def scan(connection, columns, table, where=""):
    quoted = ", ".join(f'"{column}"' for column in columns)
    sql = f'COPY (SELECT {quoted} FROM "market"."{table}" {where}) TO STDOUT (FORMAT "binary");'
    with connection.cursor().copy(sql) as copy:
        return decode(b"".join(bytes(block) for block in copy))


def reads_tables(connection, version, pages):
    rows = sorted(scan(connection, ["id", "customer"], "orders"))
    assert rows == [[struct.pack(">q", 1), b"ann"], [struct.pack(">q", 2), b"bob"], [struct.pack(">q", 3), b"cy"]]
    if version >= 14 and pages > 0:  # how it splits a table that says it has pages
        assert len(scan(connection, ["id"], "orders", "WHERE ctid BETWEEN '(0,0)'::tid AND '(4294967295,0)'::tid")) == 3

    rows = scan(connection, ["id", "amount", "placed", "day", "paid", "weight", "note"], "orders")
    rows.sort(key=lambda row: row[0])
    epoch = datetime.datetime(2000, 1, 1)
    assert numeric(rows[0][1]) == (decimal.Decimal("10.5"), 4) and numeric(rows[1][1]) == (decimal.Decimal("20.25"), 4)
    placed = datetime.datetime(2024, 1, 2, 3, 4, 5) - epoch
    assert rows[0][2:] == [struct.pack(">q", placed // datetime.timedelta(microseconds=1)),
                           struct.pack(">i", placed.days), b"\x01", struct.pack(">d", 1.5), b"first"]
    assert rows[2][1:5] == [None] * 4 and rows[2][6] == b"o'clock"

    where = "WHERE (\"id\" > 1 AND \"id\" IS NOT NULL) AND \"customer\" = 'bob'"  # a filter pushed down
    assert scan(connection, ["id", "note"], "orders", where) == [[struct.pack(">q", 2), None]]
    assert len(scan(connection, ["id", "customer", "amount"], "paid_orders")) == 1
    with connection.cursor().copy('COPY (SELECT NULL FROM "market"."lines" ) TO STDOUT (FORMAT "binary");') as copy:
        assert decode(b"".join(bytes(block) for block in copy)) == [[None]] * 3  # count(*)


def main():
    with psycopg.connect("", autocommit=True) as connection:
        (((text, vendors),),) = run(
            connection, "SELECT version(), (SELECT COUNT(*) FROM pg_settings WHERE name LIKE 'rds%')")
        version = int(re.match(r"PostgreSQL (\d+)\.", text).group(1))
        assert vendors == "0" and version >= 14
        run(connection, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        pages = loads_the_catalog(connection)
        exported = connection.pgconn.exec_(
            b"SELECT pg_is_in_recovery(), pg_export_snapshot(), (select count(*) from pg_stat_wal_receiver)")
        # It does without a snapshot, and in its transaction, if it gets none; what it gets it uses.
        if exported.status == ExecStatus.TUPLES_OK:
            ((recovering, snapshot, _),) = texts(exported)
            assert recovering == "f" and snapshot
            with psycopg.connect("", autocommit=True) as other:
                run(other, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                run(other, f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                assert len(scan(other, ["order_id"], "lines")) == 3
        else:
            run(connection, "ROLLBACK; BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        reads_tables(connection, version, pages)
        run(connection, "COMMIT")
        assert connection.pgconn.exec_(b"DISCARD ALL").status == ExecStatus.COMMAND_OK
    print("duckdb passed")


if __name__ == "__main__":
    main()
