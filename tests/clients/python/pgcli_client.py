"""pgcli: what its completer asks for at start, through pgcli's own classes."""

import logging
import os

from pgcli.completion_refresher import CompletionRefresher
from pgcli.pgcompleter import PGCompleter
from pgcli.pgexecute import PGExecute
from pgspecial.main import PGSpecial
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from psycopg import errors

COLUMNS = [("id", "bigint"), ("customer", "character varying"), ("amount", "numeric"),
           ("placed", "timestamp without time zone"), ("day", "date"), ("paid", "boolean"),
           ("weight", "double precision"), ("note", "text")]


def metadata(execute):
    assert {"market", "pg_catalog", "information_schema"} <= set(execute.schemata())
    assert "pg_catalog" in execute.search_path()
    assert {("market", "events"), ("market", "lines"), ("market", "orders")} <= set(execute.tables())
    assert ("market", "paid_orders") in set(execute.views())
    columns = [column for column in execute.table_columns() if column[:2] == ("market", "orders")]
    assert [column[2:4] for column in columns] == COLUMNS
    assert [column[2] for column in columns if column[4]] == ["amount"]  # has_default
    assert columns[2][5].lstrip("'").startswith("0")
    columns = [column[2:4] for column in execute.view_columns() if column[:2] == ("market", "paid_orders")]
    assert columns == COLUMNS[:3]
    assert execute.dbname in execute.databases()
    rows, headers, status = execute.full_databases()
    assert execute.dbname in [row[0] for row in rows] and status.startswith("SELECT")
    assert headers == ["Name", "Owner", "Encoding", "Collate", "Ctype", "Access privileges"]
    assert not [key for key in execute.foreignkeys() if key.parentschema == "market"]
    functions = {function.func_name: function for function in execute.functions()}
    assert functions["version"].return_type == "text" and functions["count"].is_aggregate
    assert not [name for schema, name in execute.datatypes() if schema == "market" and name in ("orders", "_orders")]
    assert isinstance(list(execute.casing()), list)
    assert execute.superuser and execute.server_version and execute.get_timezone()
    definition = execute.view_definition("market.paid_orders")
    assert 'VIEW "market"."paid_orders" AS' in definition and "customer" in definition, definition
    try:
        execute.view_definition("market.nothing")
        raise AssertionError("no error")
    except RuntimeError:
        pass


def run(execute, statements):
    # Each result is read before the next statement runs: they share the connection.
    return [(title, list(rows), *rest) for title, rows, *rest in execute.run(statements)]


def runs(execute):
    statements = "SELECT id, customer FROM market.orders ORDER BY id; SELECT count(*) AS n FROM market.lines"
    (_, rows, headers, status, _, success, _), (_, counted, *_) = run(execute, statements)
    assert rows == [(1, "ann"), (2, "bob"), (3, "cy")] and headers == ["id", "customer"]
    assert status == "SELECT 3" and success and counted == [(3,)]
    # pgcli takes dates and times as text, whatever the server's style.
    ((_, rows, *_),) = run(execute, "SELECT placed, day FROM market.orders WHERE id = 1")
    assert rows == [("2024-01-02 03:04:05", "2024-01-02")]
    try:
        list(execute.run("SELECT nope FROM market.orders"))
        raise AssertionError("no error")
    except errors.UndefinedColumn:
        assert not execute.failed_transaction() and execute.transaction_indicator == ""
    list(execute.run("BEGIN; SELECT 1"))
    assert execute.transaction_indicator == "*"
    list(execute.run("ROLLBACK"))


def backslashes(execute):
    """The commands pgcli answers itself, out of the catalog."""
    def rows(command):
        ((_, cursor, *_),) = execute.run(command, PGSpecial())
        return list(cursor)

    assert {"events", "lines", "orders"} <= {row[1] for row in rows("\\dt market.*")}
    assert [row[1] for row in rows("\\dv market.*")] == ["paid_orders"]
    assert [row[0].strip() for row in rows("\\d market.orders")] == [name for name, _ in COLUMNS]
    assert "market" in [row[0] for row in rows("\\dn")]
    assert execute.dbname in [row[0] for row in rows("\\l")]
    rows("\\du")
    rows("\\df version")


def completes(execute):
    completer = PGCompleter(smart_completion=True)
    for refresher in CompletionRefresher.refreshers.values():
        refresher(completer, execute)

    def words(sql):
        return [word.text for word in completer.get_completions(Document(sql, len(sql)), CompleteEvent())]

    assert {"orders", "lines", "events", "paid_orders"} <= set(words("SELECT * FROM market."))
    assert {name for name, _ in COLUMNS} <= set(words("SELECT * FROM market.orders o WHERE o."))


def main():
    logging.getLogger("pgcli").setLevel(logging.CRITICAL)  # it logs the errors it raises
    execute = PGExecute(database=os.environ["PGDATABASE"], user=os.environ["PGUSER"], host=os.environ["PGHOST"],
                        port=os.environ["PGPORT"])
    metadata(execute)
    runs(execute)
    backslashes(execute)
    completes(execute)
    execute.conn.close()
    print("pgcli passed")


if __name__ == "__main__":
    main()
