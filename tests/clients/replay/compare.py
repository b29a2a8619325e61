#!/usr/bin/env python3
"""Replay the catalog statements of real clients on Starkeep and on PostgreSQL 15, and compare the answers row by row.

    PGHOST=127.0.0.1 PGPORT=5433 PGUSER=root PGDATABASE=embedded POSTGRES_PORT=5432 compare.py [--file psql.sql] [--name part] [--verbose]

Starkeep is found by the PG* variables, PostgreSQL at 127.0.0.1:POSTGRES_PORT (user root, database postgres). Both hold the
tables of tests/clients/starkeep.sql and tests/clients/postgres.sql.

A file holds the statements of one client, each ended by a line `--;` and headed by

    -- name: what the client was asked for
    -- compare: exact | market | names | types | shape | runs
    -- differs: [refused SQLSTATE: ]reason

exact: column names, column types and rows; market: the same, but only the rows that speak of the schema market; shape: column
names and types; names: column names; types: column types; runs: only that it runs. In the text {{oid:market.orders}},
{{namespace:market}}, {{constraint:market.orders_pkey}}, {{database}} and {{user}} are replaced by what
they are on each server, and {{version}} by PostgreSQL's major version as the server reports it.

differs says that Starkeep is known to answer otherwise, and why; with refused, that it fails with this SQLSTATE while PostgreSQL
answers. Such a statement fails when it does not differ any more, or not in this way.
"""
import argparse
import collections
import os
import pathlib
import re
import select
import sys
import time
import typing

import psycopg
from psycopg import pq

HERE = pathlib.Path(__file__).resolve().parent
# The objects that both servers have to have; a missing one is a failure, not something to leave out.
COMMON_SCHEMA = "market"
FIRST_USER_OID = 16384
LEVELS = ("exact", "market", "names", "types", "shape", "runs")
DIRECTIVE = re.compile(r"-- (name|compare|differs): (.*\S)\s*$")
REFUSED = re.compile(r"refused ([0-9A-Z]{5}): (.+)")
ABSENT = "0"

OID, OIDVECTOR, OID_ARRAY = 26, 30, 1028
REG_TYPES = {24, 2202, 2203, 2204, 2205, 2206, 4096, 4089}
OID_TYPES = {OID, OIDVECTOR, OID_ARRAY} | REG_TYPES
NUMBER_TYPES = {20, 21, 23, 25, 1043, 1700}
OID_COLUMN = re.compile(r"(^|_)(oid|.*oid|.*relid|.*relfilenode|parent_?id)$", re.I)
# A row about an object of one server only is left out when one of these columns names it. In other columns a reference to what
# PostgreSQL keeps beside a table counts as none.
KEY_COLUMNS = {"oid", "attrelid", "indexrelid", "indrelid", "objid", "objoid", "conrelid", "table_oid", "array_oid", "relid", "typrelid"}
# Bare names are names only here: elsewhere "v" is the kind of a relation, not a view of that name.
NAME_COLUMN = re.compile(r"(name|schema|schem|nspname|table|relation|database|index|constraint|_cat)$", re.I)
# What depends on the server's history, size, clock or owner.
IGNORED_COLUMNS = re.compile(
    r"^(reltuples|relpages|relallvisible|relfilenode|relfrozenxid|relminmxid|datfrozenxid|datminmxid|xmin|datlastsysoid|oid_hash"
    r"|size|total_?size|pages|cardinality|n_live_tup|n_dead_tup|n_tup_\w+|seq_\w+|idx_\w+|heap_blks_\w+"
    r"|\w*owner\w*|datdba|usesysid|rolname"
    r"|pid|backend_start|xact_start|query_start|state_change|now|current_timestamp|client_addr|client_port|server_addr|server_port"
    r"|version|server_version|server_version_num|pg_backend_pid|pg_postmaster_start_time|stats_reset)$", re.I)
DATABASE_COLUMN = re.compile(r"(catalog|_cat$|database|datname|^db$)", re.I)
OWNER_IN_ACL = re.compile(r"[\w\"]*=([a-zA-Z*]+)/[\w\"]+")


class Lost(Exception):
    """The connection broke or the answer did not come in time."""


class Result:
    def __init__(self, status, names=(), types=(), rows=(), error=None):
        self.status, self.names, self.types, self.rows, self.error = status, tuple(names), tuple(types), rows, error


class Server:
    def __init__(self, title, **where):
        self.title, self.where, self.connection = title, where, None
        self.connect()
        self.read_objects()

    def connect(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = psycopg.connect(autocommit=True, connect_timeout=10, application_name="replay", **self.where)

    def run(self, text, extended=False, timeout=60):
        """All the results of one message: the simple protocol's, or the extended one's with unnamed statement and portal."""
        wire = self.connection.pgconn
        end = time.monotonic() + timeout
        try:
            if extended:
                wire.send_query_params(text.encode(), None)
            else:
                wire.send_query(text.encode())
            results = []
            while True:
                while wire.flush() or wire.is_busy():
                    left = end - time.monotonic()
                    if left <= 0:
                        raise Lost(f"no answer within {timeout} s")
                    select.select([wire.socket], [], [], left)
                    wire.consume_input()
                answer = wire.get_result()
                if answer is None:
                    return results
                results.append(self.read(wire, answer))
        except psycopg.OperationalError as error:
            raise Lost(f"connection lost: {str(error).strip()}") from error

    def read(self, wire, answer):
        status = pq.ExecStatus(answer.status)
        if status == pq.ExecStatus.FATAL_ERROR:
            state = (answer.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            if wire.status == pq.ConnStatus.BAD:
                raise Lost(f"connection lost: {answer.error_message.decode(errors='replace').strip()}")
            message = (answer.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or answer.error_message).decode(errors="replace")
            return Result(status.name, error=f"{state} {message.strip()}")
        if status == pq.ExecStatus.COPY_OUT:
            size = 0
            while (copied := wire.get_copy_data(0))[0] > 0:
                size += copied[0]
            return Result(status.name, rows=[(f"{size} bytes copied",)])
        columns = range(answer.nfields)
        names = [answer.fname(column).decode() for column in columns]
        types = [answer.ftype(column) for column in columns]
        rows = []
        for row in range(answer.ntuples):
            cells = (answer.get_value(row, column) for column in columns)
            rows.append(tuple(None if cell is None else cell.decode(errors="replace") for cell in cells))
        return Result(status.name, names, types, rows)

    def rows(self, text):
        """What a statement of ours answers; nothing when the server cannot run it (the replay then tells)."""
        try:
            result = self.run(text)[-1]
        except Lost:
            self.connect()
            return []
        if result.error:
            print(f"note: {self.title} cannot run {text!r}: {result.error}", file=sys.stderr)
        return result.rows

    def read_objects(self):
        self.database, self.user = self.connection.info.dbname, self.connection.info.user
        self.version = self.connection.info.server_version // 10000
        self.kinds = collections.defaultdict(dict)
        self.schemas = self.kinds["schema"] = dict(self.rows("SELECT oid, nspname FROM pg_catalog.pg_namespace"))
        for oid, schema, name in self.rows("SELECT oid, relnamespace, relname FROM pg_catalog.pg_class"):
            self.kinds["relation"][oid] = f"{self.schemas.get(schema)}.{name}"
        for oid, schema, name in self.rows("SELECT oid, typnamespace, typname FROM pg_catalog.pg_type"):
            self.kinds["type"][oid] = f"{self.schemas.get(schema)}.{name}"
        for oid, schema, name in self.rows("SELECT oid, connamespace, conname FROM pg_catalog.pg_constraint"):
            self.kinds["constraint"][oid] = f"{self.schemas.get(schema)}.{name}"
        for oid, relation, number in self.rows("SELECT oid, adrelid, adnum FROM pg_catalog.pg_attrdef"):
            self.kinds["default"][oid] = f"{self.kinds['relation'].get(relation)}.{number}"
        for oid, relation, name in self.rows("SELECT oid, ev_class, rulename FROM pg_catalog.pg_rewrite"):
            self.kinds["rule"][oid] = f"{self.kinds['relation'].get(relation)}.{name}"
        shared = (("database", "pg_database", "datname"), ("role", "pg_roles", "rolname"), ("tablespace", "pg_tablespace", "spcname"))
        for kind, catalog, name in shared:
            self.kinds[kind] = dict(self.rows(f"SELECT oid, {name} FROM pg_catalog.{catalog}"))
        self.labels = {}
        for kind, objects in self.kinds.items():
            for oid, name in objects.items():
                if int(oid) >= FIRST_USER_OID:
                    self.labels.setdefault(oid, f"{kind} {name}")
        # Databases differ by nature: one label for the connected one.
        for oid, name in self.kinds["database"].items():
            if name == self.database and int(oid) >= FIRST_USER_OID:
                self.labels[oid] = "database"

    def substitute(self, text):
        """The statement with this server's own oids and names; KeyError when an object is missing."""
        def value(match):
            kind, _, name = match[1].partition(":")
            if kind in ("database", "user", "version"):
                return str(getattr(self, kind))
            objects = self.kinds[{"oid": "relation", "namespace": "schema"}.get(kind, kind)]
            for oid, known in objects.items():
                if known == name:
                    return oid
            raise KeyError(match[1])
        return re.sub(r"\{\{([^}]+)\}\}", value, text)

    def type_names(self, result):
        return [self.labels.get(str(kind), kind) for kind in result.types]

    def names(self):
        """Every name by which a row may speak of an object, with the kind: bare and qualified."""
        found = set()
        for kind, objects in self.kinds.items():
            if kind in ("rule", "default", "role"):
                continue
            for name in objects.values():
                if kind == "database" and name == self.database:
                    continue
                found.add(name)
                if "." in name:
                    found.add(name.split(".", 1)[1])
        return found


def auxiliary(label):
    """What PostgreSQL keeps beside a table: its row type, its toast table."""
    return label.startswith("type ") or " pg_toast." in label


class Normaliser:
    """Makes rows of two servers comparable."""

    def __init__(self, server, other):
        self.server = server
        labels, others = set(server.labels.values()), set(other.labels.values())
        prefix = re.compile(rf"^(relation|constraint|default|schema) {COMMON_SCHEMA}(\.|$)")
        self.alone = {label for label in labels - others if not prefix.match(label)}
        common = {name for name in server.names() if name == COMMON_SCHEMA or name.startswith(COMMON_SCHEMA + ".")}
        common |= {name.split(".", 1)[1] for name in common if "." in name}
        self.alone_names = server.names() - other.names() - common - {server.database}
        self.database_is_schema = server.database in other.schemas.values() or server.database in server.schemas.values()

    def oid(self, column, text):
        label = self.server.labels.get(text)
        if label is None:
            return f"<unknown object {text}>" if int(text) >= FIRST_USER_OID else text, False
        if label in self.alone:
            if column.lower() in KEY_COLUMNS or not auxiliary(label):
                return label, True
            return ABSENT, False
        return f"<{label}>", False

    def cell(self, column, kind, text):
        """The comparable cell, and whether its row speaks of an object of this server only."""
        if IGNORED_COLUMNS.match(column):
            return "~", self.names_alone(column, text)
        if text is None:
            return None, False
        if kind in OID_TYPES or (kind in NUMBER_TYPES and OID_COLUMN.search(column)):
            if re.fullmatch(r"\d+", text):
                return self.oid(column, text)
            if kind in (OIDVECTOR, OID_ARRAY):
                return re.sub(r"\d{5,}", lambda match: self.oid(column, match[0])[0], text), False
        if self.names_alone(column, text):
            return text, True
        if text == self.server.database and (not self.database_is_schema or DATABASE_COLUMN.search(column)):
            return "<database>", False
        if text == self.server.user:
            return "<user>", False
        if re.match(r"PostgreSQL \d", text) or re.fullmatch(r"1[45]\.\d+.*|1[45]0\d\d\d", text):
            return "<version>", False
        return OWNER_IN_ACL.sub(r"<user>=\1/<user>", text), False

    def names_alone(self, column, text):
        if text is None or text.replace('"', "") not in self.alone_names:
            return False
        return "." in text or NAME_COLUMN.search(column) is not None

    def rows(self, result):
        counted = collections.Counter()
        for row in result.rows:
            # What COPY answers has no columns.
            described = zip(result.names or [""] * len(row), result.types or [0] * len(row), row)
            cells = [self.cell(name, kind, text) for name, kind, text in described]
            if not any(alone for _, alone in cells):
                counted[tuple(text for text, _ in cells)] += 1
        return counted


class Statement:
    def __init__(self, name, level, differs, text):
        self.name, self.level, self.text = name, level, text
        refused = REFUSED.fullmatch(differs or "")
        # Why it is expected to differ, if it is, and the SQLSTATE with which it is to be refused, if that is how.
        self.differs, self.refused = (refused[2], refused[1]) if refused else (differs, None)


def read(path):
    statements = []
    for block in re.split(r"^--;[ \t]*$", path.read_text(), flags=re.M):
        said, body, heading = {}, [], True
        for line in block.strip("\n").splitlines():
            directive = DIRECTIVE.match(line) if heading else None
            if directive is not None:
                said[directive[1]] = directive[2]
                continue
            heading = heading and (not line.strip() or line.startswith("-- "))
            # Remarks above the name belong to the file, not to the statement.
            if "name" in said:
                body.append(line)
        if "name" not in said:
            if any(line.strip() and not line.startswith("--") for line in block.splitlines()):
                sys.exit(f"{path.name}: a statement without a name: {block.strip()[:80]}")
            continue
        statement = Statement(said["name"], said.get("compare", "exact"), said.get("differs"), "\n".join(body).strip())
        if statement.level not in LEVELS:
            sys.exit(f"{path.name}: {statement.name}: no comparison is called {statement.level}")
        malformed = statement.differs and not statement.refused and (statement.differs.startswith("refused") or statement.level == "runs")
        if malformed:
            sys.exit(f"{path.name}: {statement.name}: it cannot differ thus: {statement.differs}")
        statements.append(statement)
    twice = [name for name, times in collections.Counter(statement.name for statement in statements).items() if times > 1]
    if twice:
        sys.exit(f"{path.name}: names used twice: {', '.join(twice)}")
    return statements


def short(row, length=400):
    text = "(nothing)" if row is None else "(" + ", ".join("NULL" if cell is None else cell for cell in row) + ")"
    text = text.replace("\n", "\\n")
    return text if len(text) <= length else text[:length] + "…"


class Difference(typing.NamedTuple):
    """Why the answers are not alike, with the first differing row of each side if it is the rows."""
    reason: str
    rows: tuple | None = None
    # The SQLSTATE, when Starkeep refuses what PostgreSQL answers.
    refused: str | None = None
    # Both answered, so that there was something to compare.
    compared: bool = False

    def expected_by(self, statement):
        if statement.refused:
            return self.refused == statement.refused
        return statement.differs is not None and self.compared

    def __str__(self):
        if self.rows is None:
            return self.reason
        return f"{self.reason} | Starkeep {short(self.rows[0])} | PostgreSQL {short(self.rows[1])}"


class Replay:
    def __init__(self, starkeep, postgres):
        self.starkeep, self.postgres = starkeep, postgres
        self.ours, self.theirs = Normaliser(starkeep, postgres), Normaliser(postgres, starkeep)

    def answer(self, server, statement, extended):
        """The results, and the Difference that it is to have none."""
        try:
            text = server.substitute(statement.text)
        except KeyError as missing:
            return None, Difference(f"there is no {missing.args[0]} on {server.title}")
        try:
            results = server.run(text, extended)
        except Lost as lost:
            server.connect()
            return None, Difference(f"{server.title}: {lost}")
        error = next((result.error for result in results if result.error), None)
        if server.connection.pgconn.transaction_status == pq.TransactionStatus.INERROR:
            server.run("ROLLBACK")
        if error is None:
            return results, None
        refused = error.split(" ", 1)[0] if server is self.starkeep else None
        return results, Difference(f"{server.title} fails: {error}", refused=refused)

    def difference(self, statement, extended):
        """How the answers differ; None when they are alike."""
        theirs, failure = self.answer(self.postgres, statement, False)
        if failure:
            return failure
        extended = extended and len(theirs) == 1 and theirs[0].status != "COPY_OUT"
        ours, failure = self.answer(self.starkeep, statement, extended)
        if failure:
            return failure
        if statement.level == "runs":
            return None
        if len(ours) != len(theirs):
            return Difference(f"{len(ours)} results, PostgreSQL gives {len(theirs)}", compared=True)
        for place, (our, their) in enumerate(zip(ours, theirs), 1):
            where = f"result {place}: " if len(theirs) > 1 else ""
            differs = self.result_differs(statement.level, our, their)
            if differs:
                return Difference(where + differs[0], differs[1], compared=True)
        return None

    def result_differs(self, level, our, their):
        if our.status != their.status:
            return f"{our.status}, PostgreSQL {their.status}", None
        if len(our.names) != len(their.names):
            missing = ", ".join(name for name in their.names if name not in our.names) or "none"
            extra = ", ".join(name for name in our.names if name not in their.names) or "none"
            return f"{len(our.names)} columns, PostgreSQL {len(their.names)}; missing: {missing}; too many: {extra}", None
        if level in ("exact", "market", "names", "shape") and our.names != their.names:
            return "column names: " + differences(our.names, their.names), None
        if level in ("exact", "market", "types", "shape") and self.starkeep.type_names(our) != self.postgres.type_names(their):
            named = [[f"{name}:{kind}" for name, kind in zip(result.names, result.types)] for result in (our, their)]
            return "column types: " + differences(*named), None
        if level not in ("exact", "market"):
            return None
        mine, real = self.ours.rows(our), self.theirs.rows(their)
        if level == "market":
            mine, real = of_common_schema(mine), of_common_schema(real)
            if not real:
                return "a statement compared by its market rows has none on PostgreSQL", None
        if mine == real:
            return None
        extra, lacking = ordered(mine - real), ordered(real - mine)
        reason = f"rows: {mine.total()}, PostgreSQL {real.total()}; {len(extra)} too many, {len(lacking)} missing"
        if len(extra) == len(lacking):
            pairs = [(row, nearest(row, lacking)) for row in extra]
            columns = {name: None for pair in pairs for name, one, other in zip(our.names, *pair) if one != other}
            reason += f"; columns {', '.join(columns)}"
        return reason, (extra[0] if extra else None, nearest(extra[0], lacking) if extra else lacking[0])


def of_common_schema(counted):
    speaks = re.compile(rf'"?{COMMON_SCHEMA}"?(\.|$)|<\w+ {COMMON_SCHEMA}(\.|>)')
    return collections.Counter({row: times for row, times in counted.items() if any(cell and speaks.match(cell) for cell in row)})


def ordered(counted):
    return sorted(counted.elements(), key=lambda row: tuple((cell is None, cell or "") for cell in row))


def nearest(row, rows):
    return max(rows, key=lambda other: sum(a == b for a, b in zip(row, other)), default=None)


def differences(ours, theirs):
    pairs = [f"{our} instead of {their}" for our, their in zip(ours, theirs) if our != their]
    return ", ".join(pairs[:8]) + (f", and {len(pairs) - 8} more" if len(pairs) > 8 else "")


def main():
    parser = argparse.ArgumentParser(description="Compare Starkeep's answers to clients' catalog statements with PostgreSQL's.")
    parser.add_argument("--file", action="append", help="only this file (psql.sql); may be repeated")
    parser.add_argument("--name", help="only statements whose name has this part")
    parser.add_argument("--verbose", action="store_true",
                        help="print the text of failing statements, the statements that pass or differ, and what is left out")
    parser.add_argument("--extended", action="store_true", help="send single statements to Starkeep in the extended protocol")
    options = parser.parse_args()

    postgres = Server("PostgreSQL", host="127.0.0.1", port=os.environ["POSTGRES_PORT"], user="root", dbname="postgres")
    starkeep = Server("Starkeep", host=os.environ.get("PGHOST", "127.0.0.1"), port=os.environ["PGPORT"],
                      user=os.environ.get("PGUSER", "root"), dbname=os.environ.get("PGDATABASE", "embedded"))
    replay = Replay(starkeep, postgres)
    if options.verbose:
        for side in (replay.ours, replay.theirs):
            print(f"only {side.server.title} has: {', '.join(sorted(side.alone_names)[:200])}")

    paths = sorted(HERE.glob("*.sql"))
    if options.file:
        paths = [path for path in paths if path.name in options.file or path.stem in options.file]
        if not paths:
            sys.exit(f"no such file: {', '.join(options.file)}")
    summary, counted = [], collections.Counter()
    for path in paths:
        # Statements of a file may build on each other (BEGIN, DECLARE, FETCH), those of two files may not.
        starkeep.connect()
        postgres.connect()
        here = collections.Counter()
        for statement in read(path):
            if options.name and options.name not in statement.name:
                continue
            verdict, message = judge(statement, replay.difference(statement, options.extended))
            here[verdict] += 1
            if verdict == "failed" or options.verbose:
                print(f"{path.name}: {statement.name}: {message}")
            if verdict == "failed" and options.verbose:
                print("    " + statement.text.replace("\n", "\n    "))
        if here:
            summary.append(f"{path.stem}: {told(here)}")
        counted += here
        sys.stdout.flush()
    if not counted:
        sys.exit(f"no statement has a name with {options.name}")
    print("\n".join(summary))
    print(told(counted))
    print(f"{counted.total() - counted['failed']} passed, {counted['failed']} failed")
    sys.exit(1 if counted["failed"] else 0)


def judge(statement, difference):
    """alike, documented or failed, and what there is to say about it."""
    if difference is None:
        if statement.differs:
            return "failed", f"does not differ any more, although it is said to: {statement.differs}"
        return "alike", "alike"
    if difference.expected_by(statement):
        return "documented", f"differs as documented ({statement.differs}): {difference}"
    if statement.differs:
        how = f"is to be refused with {statement.refused}" if statement.refused else "is to answer otherwise"
        return "failed", f"{difference}; it {how}: {statement.differs}"
    return "failed", str(difference)


def told(counted):
    text = f"{counted.total()} compared, {counted['alike']} alike"
    if counted["documented"]:
        text += f", {counted['documented']} differ as documented"
    return text + (f", {counted['failed']} failed" if counted["failed"] else "")


if __name__ == "__main__":
    main()
