"""SQLAlchemy with psycopg2 and with psycopg: what the inspector says, reflection, transactions."""

import datetime
import decimal

import sqlalchemy
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.types import NullType


def inspects(engine):
    inspector = sqlalchemy.inspect(engine)
    assert "market" in inspector.get_schema_names()
    assert {"events", "lines", "orders"} <= set(inspector.get_table_names(schema="market"))
    assert "paid_orders" not in inspector.get_table_names(schema="market")
    assert inspector.get_view_names(schema="market") == ["paid_orders"]
    assert inspector.default_schema_name
    inspector.get_table_names()
    assert inspector.has_table("orders", schema="market") and inspector.has_table("paid_orders", schema="market")
    assert not inspector.has_table("nothing", schema="market") and not inspector.has_table("orders", schema="nowhere")

    columns = {column["name"]: column for column in inspector.get_columns("orders", schema="market")}
    assert {name: (str(column["type"]), column["nullable"]) for name, column in columns.items()} == {
        "id": ("BIGINT", False), "customer": ("VARCHAR(20)", False), "amount": ("NUMERIC(18, 4)", True),
        "placed": ("TIMESTAMP", True), "day": ("DATE", True), "paid": ("BOOLEAN", True),
        "weight": ("DOUBLE PRECISION", True), "note": ("TEXT", True),
    }
    assert list(columns)[:3] == ["id", "customer", "amount"]
    assert columns["customer"]["comment"] == "who ordered" and columns["id"]["comment"] is None
    assert columns["amount"]["default"].lstrip("'").startswith("0") and columns["id"]["default"] is None
    view = inspector.get_columns("paid_orders", schema="market")
    assert [(column["name"], str(column["type"])) for column in view] == \
        [("id", "BIGINT"), ("customer", "VARCHAR(20)"), ("amount", "NUMERIC(18, 4)")]

    assert inspector.get_pk_constraint("orders", schema="market")["constrained_columns"] == ["id"]
    assert inspector.get_pk_constraint("lines", schema="market")["constrained_columns"] == ["order_id", "line"]
    assert inspector.get_pk_constraint("events", schema="market")["constrained_columns"] == []
    for table in ("orders", "lines", "events"):
        assert inspector.get_indexes(table, schema="market") == []
        assert inspector.get_unique_constraints(table, schema="market") == []
        assert inspector.get_foreign_keys(table, schema="market") == []
        assert inspector.get_check_constraints(table, schema="market") == []
    assert inspector.get_table_comment("orders", schema="market") == {"text": "what was ordered"}
    assert inspector.get_table_comment("lines", schema="market") == {"text": None}
    definition = inspector.get_view_definition("paid_orders", schema="market")
    assert "customer" in definition and "orders" in definition and definition.lstrip().upper().startswith("SELECT")
    for ask in (inspector.get_columns, inspector.get_pk_constraint, inspector.get_table_comment):
        try:
            ask("nothing", schema="market")
            raise AssertionError("no error")
        except sqlalchemy.exc.NoSuchTableError:
            pass


def reflects(engine):
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine, schema="market", views=True)
    assert {"market.orders", "market.lines", "market.events", "market.paid_orders"} <= set(metadata.tables)
    orders, lines, events = (metadata.tables[f"market.{name}"] for name in ("orders", "lines", "events"))
    assert lines.primary_key.columns.keys() == ["order_id", "line"] and orders.comment == "what was ordered"
    with engine.connect() as connection:
        rows = connection.execute(
            select(orders.c.id, orders.c.amount, orders.c.placed).where(
                orders.c.id.in_([1, 2, 99]), orders.c.placed >= datetime.datetime(2024, 1, 2),
                orders.c.amount < decimal.Decimal("15"), orders.c.customer.like("a%"), orders.c.paid.is_(True),
            ).order_by(orders.c.id.desc()).limit(5).offset(0)).all()
        assert rows == [(1, decimal.Decimal("10.5000"), datetime.datetime(2024, 1, 2, 3, 4, 5))]
        rows = connection.execute(
            select(orders.c.customer, func.count().label("lines"), func.max(lines.c.what).label("last"))
            .select_from(orders.outerjoin(lines, orders.c.id == lines.c.order_id))
            .group_by(orders.c.customer).order_by(orders.c.customer)).all()
        assert rows == [("ann", 2, "pear"), ("bob", 1, "plum"), ("cy", 1, None)]
        many = connection.execution_options(yield_per=100).execute(
            text("SELECT n FROM generate_series(1, 1000) AS s(n) ORDER BY n"))
        assert many.scalars().all() == list(range(1, 1001))

    kind = "sqlalchemy"
    values = [{"at": datetime.datetime(2024, 5, 1), "kind": kind, "n": n} for n in (1, 2, None)]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(delete(events).where(events.c.kind == kind))
        connection.execute(insert(events), values)
        connection.execute(insert(events).values(at=func.current_timestamp(), kind=kind, n=4))
        found = connection.execute(select(events.c.n).where(events.c.kind == kind).order_by(events.c.n.nulls_last()))
        assert found.scalars().all() == [1, 2, 4, None]
        assert connection.execute(delete(events).where(events.c.kind == kind)).rowcount == 4


def transacts(engine):
    with engine.begin() as connection:
        try:
            with connection.begin_nested():
                connection.execute(text("SELECT nope FROM market.orders"))
            raise AssertionError("no error")
        except sqlalchemy.exc.ProgrammingError as raised:
            assert (getattr(raised.orig, "pgcode", None) or raised.orig.sqlstate) == "42703"
        with connection.begin_nested():
            assert connection.scalar(text("SELECT count(*) FROM market.orders WHERE id = :id"), {"id": 2}) == 1
        assert connection.scalar(text("SELECT count(*) FROM market.lines")) == 3
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"):
        with engine.connect().execution_options(isolation_level=level) as connection:
            assert connection.scalar(text("SELECT count(*) FROM market.lines")) == 3
            if level == "REPEATABLE READ":
                assert connection.get_isolation_level() == level
                assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT id / 0 FROM market.orders"))
        raise AssertionError("no error")
    except sqlalchemy.exc.DataError:
        pass


def starkeep(engine):
    inspector = sqlalchemy.inspect(engine)
    names = inspector.get_table_names(schema="system") + inspector.get_view_names(schema="system")
    assert {"jobs", "repositories", "snapshots", "sessions", "settings"} <= set(names), names
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine, schema="system", views=True)
    for name in names:
        table = sqlalchemy.Table(name, sqlalchemy.MetaData(), schema="system", autoload_with=engine)
        assert table.columns.keys() == metadata.tables[f"system.{name}"].columns.keys()
        unknown = [column.name for column in table.columns if isinstance(column.type, NullType)]
        assert not unknown, (name, unknown)
        with engine.connect() as connection:
            connection.execute(select(table).limit(3)).all()


def main():
    for driver in ("psycopg2", "psycopg"):
        engine = sqlalchemy.create_engine(f"postgresql+{driver}://")  # the rest is libpq's PGHOST, PGPORT, ...
        with engine.connect() as connection:
            IS_STARKEEP = "Starkeep" in connection.scalar(text("SELECT version()"))
            assert engine.dialect.server_version_info >= (14,)
        inspects(engine)
        reflects(engine)
        transacts(engine)
        if IS_STARKEEP:
            starkeep(engine)
        engine.dispose()
    print("sqlalchemy passed")


if __name__ == "__main__":
    main()
