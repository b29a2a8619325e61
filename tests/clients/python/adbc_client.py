"""ADBC: results as binary COPY into Arrow, ingest as binary COPY, types looked up in the catalog at connect."""

import datetime
import decimal

import adbc_driver_postgresql.dbapi
import pyarrow
from adbc_driver_postgresql import StatementOptions


def reads(cursor):
    query = "SELECT id, customer, amount, placed, day, paid, weight, note FROM market.orders ORDER BY id"
    for copy in ("true", "false"):
        cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: copy})
        cursor.execute(query)
        orders = cursor.fetch_arrow_table()
        assert orders.num_rows == 3
        assert [field.type for field in orders.schema if field.name != "amount"] == [
            pyarrow.int64(), pyarrow.string(), pyarrow.timestamp("us"), pyarrow.date32(), pyarrow.bool_(),
            pyarrow.float64(), pyarrow.string()], orders.schema
        assert orders["id"].to_pylist() == [1, 2, 3] and orders["paid"].to_pylist() == [True, False, None]
        # Numerics come as text: Arrow has no decimal of any precision.
        amounts = [None if amount is None else decimal.Decimal(amount) for amount in plain(orders["amount"])]
        assert amounts == [decimal.Decimal("10.5"), decimal.Decimal("20.25"), None]
        assert orders["placed"].to_pylist()[0] == datetime.datetime(2024, 1, 2, 3, 4, 5)
        assert orders["day"].to_pylist() == [datetime.date(2024, 1, 2), datetime.date(2024, 1, 3), None]
        assert orders["weight"].to_pylist() == [1.5, None, 0.1]
        assert orders["note"].to_pylist() == ["first", None, "o'clock"]
    cursor.adbc_statement.set_options(**{StatementOptions.USE_COPY.value: "true"})
    cursor.execute("SELECT n FROM generate_series(1, 100000) AS s(n)")
    assert sum(batch.num_rows for batch in cursor.fetch_record_batch()) == 100000
    cursor.execute("SELECT id FROM market.orders WHERE id < 0")
    assert cursor.fetchall() == []
    assert cursor.adbc_execute_schema(query).names[:2] == ["id", "customer"]


def plain(column):
    return [value for chunk in column.chunks for value in getattr(chunk, "storage", chunk).to_pylist()]


def parameters(cursor):
    cursor.execute("SELECT customer FROM market.orders WHERE id = $1 AND placed > $2",
                   (2, datetime.datetime(2024, 1, 1)))
    assert cursor.fetchall() == [("bob",)]
    asked = cursor.adbc_prepare("SELECT id FROM market.orders WHERE customer = $1 AND id < $2")
    assert [field.type for field in asked] == [pyarrow.string(), pyarrow.int64()], asked
    cursor.execute("SELECT id FROM market.orders WHERE customer = $1 AND id < $2", ("ann", 5))
    assert cursor.fetchall() == [(1,)]


def ingests(cursor):
    cursor.execute("DELETE FROM market.events WHERE kind = 'adbc'")
    at = datetime.datetime(2024, 5, 1, 2, 3, 4)
    rows = pyarrow.table({
        "at": pyarrow.array([at, at, at], pyarrow.timestamp("us")), "kind": ["adbc"] * 3,
        "n": pyarrow.array([1, 2, None], pyarrow.int32()),
    })
    assert cursor.adbc_ingest("events", rows, mode="append", db_schema_name="market") == 3
    cursor.execute("SELECT at, n FROM market.events WHERE kind = 'adbc' ORDER BY n NULLS LAST")
    assert cursor.fetchall() == [(at, 1), (at, 2), (at, None)]
    cursor.executemany("INSERT INTO market.events (at, kind, n) VALUES ($1, $2, $3)",
                       [(at, "adbc", 3), (at, "adbc", 4)])
    cursor.execute("SELECT count(*) FROM market.events WHERE kind = 'adbc'")
    assert cursor.fetchone() == (5,)
    cursor.execute("DELETE FROM market.events WHERE kind = 'adbc'")


def metadata(connection):
    orders = connection.adbc_get_table_schema("orders", db_schema_filter="market")
    assert orders.names == ["id", "customer", "amount", "placed", "day", "paid", "weight", "note"]
    assert orders.field("id").type == pyarrow.int64() and orders.field("placed").type == pyarrow.timestamp("us")
    try:
        connection.adbc_get_table_schema("nothing", db_schema_filter="market")
        raise AssertionError("no error")
    except adbc_driver_postgresql.dbapi.Error:
        connection.rollback()
    catalogs = connection.adbc_get_objects(depth="all", db_schema_filter="market").read_all().to_pylist()
    (catalog,) = [catalog for catalog in catalogs if catalog["catalog_db_schemas"]]
    assert catalog["catalog_name"] == connection.adbc_current_catalog
    (schema,) = catalog["catalog_db_schemas"]
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert {"events", "lines", "orders", "paid_orders"} <= set(tables)
    assert (tables["orders"]["table_type"], tables["paid_orders"]["table_type"]) == ("table", "view")
    columns = [(column["column_name"], column["ordinal_position"]) for column in tables["lines"]["table_columns"]]
    assert columns == [("order_id", 1), ("line", 2), ("what", 3)]
    (key,) = [c for c in tables["lines"]["table_constraints"] if c["constraint_type"] == "PRIMARY KEY"]
    assert key["constraint_column_names"] == ["order_id", "line"]
    assert {"table", "view"} <= set(connection.adbc_get_table_types())
    assert connection.adbc_get_info()["vendor_name"] == "PostgreSQL"


def errors(connection, cursor):
    for sqlstate, sql in [("42P01", "SELECT * FROM market.nothing"), ("42703", "SELECT nope FROM market.orders"),
                          ("42601", "SELEC 1")]:
        try:
            cursor.execute(sql)
            cursor.fetchall()
            raise AssertionError("no error")
        except adbc_driver_postgresql.dbapi.Error as raised:
            assert raised.sqlstate == sqlstate, raised
        connection.rollback()


def main():
    with adbc_driver_postgresql.dbapi.connect("postgresql://") as connection:  # the rest is libpq's PGHOST, PGPORT, ...
        with connection.cursor() as cursor:
            reads(cursor)
            parameters(cursor)
            connection.commit()
            errors(connection, cursor)
        metadata(connection)
    with adbc_driver_postgresql.dbapi.connect("postgresql://", autocommit=True) as connection:
        with connection.cursor() as cursor:
            ingests(cursor)
    print("adbc passed")


if __name__ == "__main__":
    main()
