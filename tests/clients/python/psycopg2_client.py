"""psycopg2: the simple protocol, with values written into the text."""

import datetime
import decimal
import io
import struct
import threading
import time

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errors

COLUMNS = [("id", 20), ("customer", 1043), ("amount", 1700), ("placed", 1114), ("day", 1082), ("paid", 16),
           ("weight", 701), ("note", 25)]
ORDERS = [
    (1, "ann", decimal.Decimal("10.5000"), datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2), True,
     1.5, "first"),
    (2, "bob", decimal.Decimal("20.2500"), datetime.datetime(2024, 1, 3), datetime.date(2024, 1, 3), False, None,
     None),
    (3, "cy", None, None, None, None, 0.1, "o'clock"),
]


def fails(error, cursor, sql):
    try:
        cursor.execute(sql)
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}: {sql}")


def rows_and_description(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM market.orders ORDER BY id")
        assert [(column.name, column.type_code) for column in cursor.description] == COLUMNS, cursor.description
        amount = cursor.description[2]
        assert (amount.precision, amount.scale) == (18, 4), amount
        assert cursor.description[0].internal_size == 8
        assert cursor.rowcount == 3 and cursor.statusmessage == "SELECT 3"
        assert cursor.fetchall() == ORDERS
    connection.commit()
    assert connection.encoding == "UTF8" and connection.server_version >= 140000
    assert connection.get_parameter_status("standard_conforming_strings") == "on"


def parameters(connection):
    utc = datetime.timezone.utc
    values = [
        None, True, 7, -7, 2**40, 1.5, decimal.Decimal("123456789.123456789"), "", "it's \\ \"quoted\" 中",
        datetime.date(2024, 2, 29), datetime.datetime(2024, 1, 2, 3, 4, 5, 678901),
        datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=utc), datetime.time(3, 4, 5),
        datetime.timedelta(days=1, seconds=2), [1, 2, 3], ["a", "b,c", 'd"e', None],
    ]
    with connection.cursor() as cursor:
        for value in values:
            cursor.execute("SELECT %s AS value", (value,))
            assert cursor.fetchone() == (value,), value
        cursor.execute("SELECT %s AS value", (b"\x00\xff'\\",))
        assert bytes(cursor.fetchone()[0]) == b"\x00\xff'\\"
        cursor.execute("SELECT id FROM market.orders WHERE id = ANY(%s) ORDER BY id", ([1, 3, 99],))
        assert cursor.fetchall() == [(1,), (3,)]
        cursor.execute("SELECT id FROM market.orders WHERE id IN %s AND customer <> %s", ((1, 2), "ann"))
        assert cursor.fetchall() == [(2,)]
        cursor.execute(
            "SELECT id FROM market.orders WHERE placed >= %(since)s AND day < %(day)s AND amount > %(amount)s",
            {"since": ORDERS[0][3], "day": ORDERS[1][4], "amount": decimal.Decimal("10.4999")})
        assert cursor.fetchall() == [(1,)]
    connection.commit()


def named_cursors(connection):
    many = "SELECT n FROM generate_series(1, 2500) AS s(n) ORDER BY n"
    with connection.cursor("forth") as cursor:
        cursor.itersize = 1000
        cursor.execute(many)
        assert [n for (n,) in cursor] == list(range(1, 2501))
    with connection.cursor("described") as cursor:
        cursor.execute("SELECT amount, customer FROM market.orders ORDER BY id")
        assert cursor.fetchmany(2) == [(ORDERS[0][2], "ann"), (ORDERS[1][2], "bob")]
        assert (cursor.description[0].name, cursor.description[0].precision, cursor.description[0].scale) == \
            ("amount", 18, 4)
    with connection.cursor("back", scrollable=True) as cursor:
        cursor.execute(many)
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
        cursor.scroll(-2)
        assert cursor.fetchone() == (2,)
        cursor.scroll(2500, mode="absolute")
        assert cursor.fetchone() is None
        cursor.scroll(-2)
        assert cursor.fetchone() == (2500,)
        cursor.scroll(0, mode="absolute")
        assert cursor.fetchone() == (1,)
    connection.commit()
    with connection.cursor("kept", withhold=True) as cursor:
        cursor.execute(many)
        assert cursor.fetchone() == (1,)
        connection.commit()
        assert cursor.fetchmany(2) == [(2,), (3,)]
    connection.commit()
    with connection.cursor() as cursor:
        cursor.execute("DECLARE lost CURSOR FOR SELECT 1")
        connection.commit()
        assert fails(errors.InvalidCursorName, cursor, "FETCH 1 FROM lost").pgcode == "34000"
    connection.rollback()


def copied(cursor, sql):
    out = io.BytesIO()
    cursor.copy_expert(sql, out)
    return out.getvalue()


def binary_row(id, note):
    head = struct.pack(">hiq", 2, 8, id)
    return head + (struct.pack(">i", -1) if note is None else struct.pack(">i", len(note)) + note)


def copy_out(connection):
    query = "SELECT id, customer, amount, note FROM market.orders ORDER BY id"
    with connection.cursor() as cursor:
        assert copied(cursor, f"COPY ({query}) TO STDOUT") == \
            b"1\tann\t10.5000\tfirst\n2\tbob\t20.2500\t\\N\n3\tcy\t\\N\to'clock\n"
        assert cursor.rowcount == 3
        assert copied(cursor, f"COPY ({query}) TO STDOUT WITH CSV HEADER") == \
            b"id,customer,amount,note\n1,ann,10.5000,first\n2,bob,20.2500,\n3,cy,,o'clock\n"
        assert copied(cursor, f"COPY ({query}) TO STDOUT (FORMAT csv, DELIMITER ';', NULL '-', FORCE_QUOTE *)") == \
            b'"1";"ann";"10.5000";"first"\n"2";"bob";"20.2500";-\n"3";"cy";-;"o\'clock"\n'
        binary = copied(cursor, "COPY (SELECT id, note FROM market.orders ORDER BY id) TO STDOUT (FORMAT binary)")
        rows = [(1, b"first"), (2, None), (3, b"o'clock")]
        assert binary == b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"".join(binary_row(*row) for row in rows) + b"\xff\xff"
        assert sorted(copied(cursor, "COPY market.lines (what, line) TO STDOUT").splitlines()) == \
            [b"apple\t1", b"pear\t2", b"plum\t1"]
    connection.commit()


def copy_in(connection):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM market.events WHERE kind = 'psycopg2'")
        cursor.copy_expert("COPY market.events FROM STDIN", io.StringIO("2024-05-01 00:00:00\tpsycopg2\t\\N\n"))
        cursor.copy_expert("COPY market.events (n, kind, at) FROM STDIN WITH (FORMAT csv, HEADER)",
                           io.StringIO('n,kind,at\n1,"psycopg2",2024-05-02\n2,psycopg2,2024-05-03 04:05:06\n'))
        assert cursor.rowcount == 2
        connection.commit()
        psycopg2.extras.execute_values(cursor, "INSERT INTO market.events (at, kind, n) VALUES %s",
                                       [(datetime.datetime(2024, 6, day), "psycopg2", day) for day in (3, 4)])
        connection.commit()
        cursor.execute("SELECT at, n FROM market.events WHERE kind = 'psycopg2' ORDER BY n NULLS FIRST")
        at = datetime.datetime
        assert cursor.fetchall() == [(at(2024, 5, 1), None), (at(2024, 5, 2), 1), (at(2024, 5, 3, 4, 5, 6), 2),
                                     (at(2024, 6, 3), 3), (at(2024, 6, 4), 4)]
        connection.commit()
        try:
            cursor.copy_expert("COPY market.events FROM STDIN", io.StringIO("2024-05-01\tpsycopg2\tmany\n"))
            raise AssertionError("no error")
        except errors.InvalidTextRepresentation:
            connection.rollback()
        cursor.execute("DELETE FROM market.events WHERE kind = 'psycopg2'")
        assert cursor.rowcount == 5, cursor.rowcount
    connection.commit()


def transactions(connection):
    status = connection.get_transaction_status
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert status() == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
        cursor.execute("SAVEPOINT before")
        assert fails(errors.UndefinedTable, cursor, "SELECT * FROM market.nothing").pgcode == "42P01"
        assert status() == psycopg2.extensions.TRANSACTION_STATUS_INERROR
        assert fails(errors.InFailedSqlTransaction, cursor, "SELECT 1").pgcode == "25P02"
        cursor.execute("ROLLBACK TO SAVEPOINT before")
        cursor.execute("SELECT count(*) FROM market.lines")
        assert cursor.fetchone() == (3,)
        cursor.execute("RELEASE SAVEPOINT before")
        assert fails(errors.InvalidSavepointSpecification, cursor, "ROLLBACK TO before").pgcode == "3B001"
        connection.rollback()
        assert status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE

        for error, sql in [
            (errors.UndefinedColumn, "SELECT nope FROM market.orders"),
            (errors.SyntaxError, "SELEC 1"),
            (errors.DivisionByZero, "SELECT id / 0 FROM market.orders"),
            (errors.InvalidTextRepresentation, "SELECT 'many'::int"),
            (errors.UndefinedFunction, "SELECT no_such_function(1)"),
            (errors.InvalidSchemaName, "CREATE TABLE nowhere.t (id INT)"),
        ]:
            fails(error, cursor, sql)
            connection.rollback()
        raised = fails(errors.UndefinedColumn, cursor, "SELECT nope FROM market.orders")
        assert raised.diag.severity_nonlocalized == "ERROR" and raised.diag.sqlstate == "42703"
        assert 'column "nope" does not exist' in raised.diag.message_primary
        connection.rollback()

        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("repeatable read",)
        connection.rollback()
        connection.set_session(isolation_level="DEFAULT", readonly="DEFAULT")


def notices_and_autocommit(connection):
    connection.autocommit = True
    with connection.cursor() as cursor:
        del connection.notices[:]
        cursor.execute("DROP TABLE IF EXISTS market.nothing")
        assert connection.notices == ['NOTICE:  table "nothing" does not exist, skipping\n'], connection.notices
        cursor.execute("COMMIT")
        assert connection.notices[1] == "WARNING:  there is no transaction in progress\n"
        assert connection.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE
        fails(errors.UndefinedTable, cursor, "SELECT * FROM market.nothing")
        cursor.execute("SELECT 1; SELECT 2")  # of several results psycopg2 keeps the last
        assert cursor.fetchall() == [(2,)]
        cursor.execute("SET search_path TO market, public")
        cursor.execute("SELECT count(*) FROM orders")
        assert cursor.fetchone() == (3,)
        cursor.execute("RESET search_path")
    connection.autocommit = False


def cancel(connection):
    with connection.cursor() as cursor:
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        began = time.monotonic()
        fails(errors.QueryCanceled, cursor, "SELECT pg_sleep(10)")
        assert time.monotonic() - began < 5
        timer.join()
        connection.rollback()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    connection.commit()


def starkeep(connection):
    with connection.cursor() as cursor:
        cursor.execute("SHOW BACKUP FROM market")
        assert [column.name for column in cursor.description][:3] == ["JobId", "SnapshotName", "DbName"]
        cursor.execute("SELECT table_name FROM system.tables WHERE db_name = %s ORDER BY table_name", ("market",))
        assert {("events",), ("lines",), ("orders",)} <= set(cursor.fetchall())
        fails(errors.SyntaxError, cursor, "BACKUP SNAPSHOT")
    connection.rollback()


def main():
    connection = psycopg2.connect("")
    with connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        IS_STARKEEP = "Starkeep" in cursor.fetchone()[0]
    connection.commit()
    rows_and_description(connection)
    parameters(connection)
    named_cursors(connection)
    copy_out(connection)
    copy_in(connection)
    transactions(connection)
    notices_and_autocommit(connection)
    cancel(connection)
    if IS_STARKEEP:
        starkeep(connection)
    connection.close()
    print("psycopg2 passed")


if __name__ == "__main__":
    main()
