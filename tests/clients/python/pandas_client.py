"""pandas over SQLAlchemy: read_sql, read_sql_table, to_sql."""

import datetime

import pandas
import sqlalchemy
from sqlalchemy import text


def reads(connection):
    orders = pandas.read_sql(text("SELECT * FROM market.orders ORDER BY id"), connection)
    assert list(orders.columns) == ["id", "customer", "amount", "placed", "day", "paid", "weight", "note"]
    assert orders["id"].tolist() == [1, 2, 3] and orders["id"].dtype == "int64"
    assert orders["amount"].dtype == "float64" and orders["amount"].sum() == 30.75  # coerce_float
    assert orders["placed"].dtype.kind == "M" and orders["placed"].isna().tolist() == [False, False, True]
    assert orders["weight"].dtype == "float64" and orders["note"].isna().tolist() == [False, True, False]

    some = pandas.read_sql(text("SELECT id, day FROM market.orders WHERE customer = :customer AND placed < :before"),
                           connection, params={"customer": "ann", "before": datetime.datetime(2024, 1, 3)},
                           parse_dates=["day"], index_col="id")
    assert some.index.tolist() == [1] and some["day"].tolist() == [pandas.Timestamp(2024, 1, 2)]
    chunks = list(pandas.read_sql(text("SELECT n FROM generate_series(1, 1000) AS s(n) ORDER BY n"),
                                  connection.execution_options(stream_results=True), chunksize=300))
    assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]
    assert pandas.concat(chunks)["n"].sum() == 500500
    none = pandas.read_sql(text("SELECT id, note FROM market.orders WHERE id < 0"), connection)
    assert none.empty and list(none.columns) == ["id", "note"]


def reads_tables(engine):
    orders = pandas.read_sql_table("orders", engine, schema="market", index_col="id",
                                   columns=["customer", "amount", "placed", "paid"])
    assert sorted(orders.index) == [1, 2, 3] and orders.loc[2, "customer"] == "bob" and orders.loc[1, "amount"] == 10.5
    assert pandas.read_sql_table("paid_orders", engine, schema="market")["customer"].tolist() == ["ann"]
    # A bare query goes through has_table first, which asks for a relation of that name.
    assert pandas.read_sql("SELECT count(*) AS n FROM market.lines", engine)["n"].tolist() == [3]
    try:
        pandas.read_sql_table("nothing", engine, schema="market")
        raise AssertionError("no error")
    except ValueError:
        pass


def appends(engine):
    times = pandas.to_datetime(["2024-05-01 00:00:00", "2024-05-02 03:04:05"])
    frame = pandas.DataFrame({"at": times, "kind": "pandas", "n": pandas.array([1, None], dtype="Int64")})
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM market.events WHERE kind = 'pandas'"))
        for method in (None, "multi"):
            assert frame.to_sql("events", connection, schema="market", if_exists="append", index=False,
                                method=method) == 2
        back = pandas.read_sql(text("SELECT * FROM market.events WHERE kind = 'pandas' ORDER BY at"), connection)
        assert back["at"].tolist() == sorted(frame["at"].tolist() * 2)
        assert back["n"].fillna(0).tolist() == [1, 1, 0, 0]
        connection.execute(text("DELETE FROM market.events WHERE kind = 'pandas'"))


def creates(engine):
    frame = pandas.DataFrame({"id": [1, 2], "name": ["a", "b"], "price": [1.5, None], "good": [True, False],
                              "at": pandas.to_datetime(["2024-05-01", None])})
    with engine.connect() as connection:
        connection.execute(text("DROP TABLE IF EXISTS market.frame"))
        try:
            frame.to_sql("frame", connection, schema="market", index=False)
            try:
                frame.to_sql("frame", connection, schema="market", index=False)
                raise AssertionError("no error")
            except ValueError:
                pass
            frame.to_sql("frame", connection, schema="market", index=False, if_exists="replace")
            frame.to_sql("frame", connection, schema="market", index=False, if_exists="append")
            back = pandas.read_sql(text("SELECT * FROM market.frame ORDER BY id"), connection)
            assert back["id"].tolist() == [1, 1, 2, 2] and back["good"].tolist() == [True, True, False, False]
            assert back["at"].isna().tolist() == back["price"].isna().tolist() == [False, False, True, True]
        finally:
            connection.execute(text("DROP TABLE IF EXISTS market.frame"))


def main():
    for driver in ("psycopg2", "psycopg"):
        engine = sqlalchemy.create_engine(f"postgresql+{driver}://")  # the rest is libpq's PGHOST, PGPORT, ...
        with engine.connect() as connection:
            reads(connection)
        engine.dispose()
    # Autocommit: in Starkeep writes take effect at once, so it is what its users should choose.
    engine = sqlalchemy.create_engine("postgresql+psycopg2://", isolation_level="AUTOCOMMIT")
    reads_tables(engine)
    appends(engine)
    creates(engine)
    engine.dispose()
    print("pandas passed")


if __name__ == "__main__":
    main()
