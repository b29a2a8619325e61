#!/usr/bin/env python3
"""Ask Starkeep and PostgreSQL 15 the same generated queries of the catalogs, and compare the answers.

    PGHOST=127.0.0.1 PGPORT=5433 PGUSER=root PGDATABASE=embedded POSTGRES_PORT=5432 differential.py [--statements 2000] [--seed 1]

Every query is about rows that each PostgreSQL 15 has. Starkeep may refuse what PostgreSQL answers (REFUSALS below) and may tell an error by
another SQLSTATE; it may never answer other rows, or rows where PostgreSQL tells an error. Rows are compared
in their order where the query orders them wholly. A difference is printed with the number that makes it again: --seed N --statements 1.
"""
import argparse
import collections
import os
import random
import sys

import psycopg

# Relations, and columns of theirs by kind. All rows that are compared have numbers below those of initdb's own objects.
RELATIONS = {
    "pg_type": {"int": ["oid", "typlen", "typelem", "typtypmod", "typarray"], "text": ["typname", "typtype", "typcategory", "typdefault"],
                "bool": ["typbyval", "typispreferred"], "array": []},
    "pg_operator": {"int": ["oid", "oprleft", "oprright", "oprresult", "oprcom"], "text": ["oprname", "oprkind"],
                    "bool": ["oprcanmerge", "oprcanhash"], "array": []},
    "pg_cast": {"int": ["oid", "castsource", "casttarget", "castfunc"], "text": ["castcontext", "castmethod"], "bool": [], "array": []},
    "pg_am": {"int": ["oid"], "text": ["amname", "amtype"], "bool": [], "array": []},
    "pg_opclass": {"int": ["oid", "opcmethod", "opcintype", "opcfamily"], "text": ["opcname"], "bool": ["opcdefault"], "array": []},
    "pg_proc": {"int": ["oid", "pronargs", "prorettype", "prolang"], "text": ["proname", "prokind", "provolatile"],
                "bool": ["proisstrict", "proretset"], "array": ["proargtypes"]},
    "pg_amop": {"int": ["oid", "amopfamily", "amopstrategy", "amoplefttype"], "text": ["amoppurpose"], "bool": [], "array": []},
}
# What Starkeep says about a query that it does not carry out, or only with more memory than it may take.
REFUSALS = ("0A000", "42883", "53200", "54000")
# The largest ones are only joined by a number, or PostgreSQL itself takes long.
LARGE = {"pg_proc", "pg_amop"}


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = 0

    def pick(self, *choices):
        choice = self.random.choice(choices)
        return choice() if callable(choice) else choice

    def name(self):
        self.names += 1
        return f"n{self.names}"

    def source(self):
        relation = self.random.choice(list(RELATIONS))
        alias = self.name()
        columns = {kind: [f"{alias}.{c}" for c in columns] for kind, columns in RELATIONS[relation].items()}
        return relation, alias, columns

    # Expressions, by kind.

    def int(self, scope, depth):
        if depth <= 0 or self.random.random() < 0.35:
            columns = [f"{c}::int8" for c in scope["int"]]
            return self.pick(*columns, lambda: str(self.random.choice([0, 1, 2, 7, 23, 100, 2147483647])))
        a, b = (lambda: self.int(scope, depth - 1)), (lambda: self.int(scope, depth - 1))
        return self.pick(
            # Which rows an error is told for depends on the plan, so nothing here leaves its range or divides by nothing.
            lambda: f"({a()}::int8 % 10007 {self.random.choice('+-*')} {b()}::int8 % 10007)",
            lambda: f"(({a()}::int8 % 1009)::int4 {self.random.choice('+-*')} ({b()}::int8 % 1009)::int4)",
            lambda: f"({a()}::int8 {self.random.choice('/%')} {self.random.choice([1, 2, 7, -3])})",
            lambda: f"length({self.text(scope, depth - 1)})",
            lambda: f"coalesce({a()}::int8, {b()}::int8)",
            lambda: f"nullif({a()}::int8, {b()}::int8)",
            lambda: f"greatest({a()}::int8, {b()}::int8)",
            lambda: f"abs({a()}::int8)",
            lambda: f"CASE WHEN {self.bool(scope, depth - 1)} THEN {a()}::int8 ELSE {b()}::int8 END",
            lambda: f"position('a' in {self.text(scope, depth - 1)})",
            lambda: f"(SELECT count(*) FROM pg_am a WHERE {self.bool(self.with_am(scope), depth - 1)})",
            lambda: f"coalesce(array_length({self.array(scope)}, 1), 0)",
        )

    def with_am(self, scope):
        inner = {kind: list(columns) for kind, columns in scope.items()}
        inner["int"].append("a.oid")
        inner["text"].append("a.amname")
        return inner

    def array(self, scope):
        return self.pick(*(scope["array"] or ["ARRAY[1, 2, 3]"]), "ARRAY[23, 25]", "'{}'::int[]")

    def text(self, scope, depth):
        if depth <= 0 or self.random.random() < 0.35:
            return self.pick(*(f"{c}::text" for c in scope["text"] or ["'x'"]), "'int4'", "'a'", "''", "NULL::text")
        a = lambda: self.text(scope, depth - 1)
        return self.pick(
            lambda: f"({a()} || {a()})",
            lambda: f"upper({a()})",
            lambda: f"substr({a()}, 2, 3)",
            lambda: f"left({a()}, 2)",
            lambda: f"replace({a()}, 'a', 'zz')",
            lambda: f"coalesce({a()}, {a()})",
            lambda: f"({self.int(scope, depth - 1)})::text",
            lambda: f"CASE WHEN {self.bool(scope, depth - 1)} THEN {a()} END",
            lambda: f"split_part({a()}, 't', 1)",
            lambda: f"trim({a()})",
            lambda: f"lpad({a()}, 5, '*')",
        )

    def bool(self, scope, depth):
        if depth <= 0:
            return self.pick(*(scope["bool"] or ["true"]), lambda: f"{self.int(scope, 0)} > {self.int(scope, 0)}", "false")
        i, t, b = (lambda: self.int(scope, depth - 1)), (lambda: self.text(scope, depth - 1)), (lambda: self.bool(scope, depth - 1))
        return self.pick(
            lambda: f"{i()} {self.random.choice(['=', '<>', '<', '<=', '>', '>='])} {i()}",
            lambda: f"{t()} {self.random.choice(['=', '<>', '<', '>='])} {t()}",
            lambda: f"({b()} AND {b()})",
            lambda: f"({b()} OR {b()})",
            lambda: f"(NOT {b()})",
            lambda: f"{t()} LIKE 'i%'",
            lambda: f"{t()} ~ '^[a-i]'",
            lambda: f"{i()} BETWEEN {i()} AND {i()}",
            lambda: f"{i()} {self.random.choice(['', 'NOT '])}IN (1, 23, {i()})",
            lambda: f"{i()} IN (SELECT a.oid::int8 FROM pg_am a WHERE {self.bool(self.with_am(scope), depth - 1)})",
            lambda: f"EXISTS (SELECT 1 FROM pg_am a WHERE {self.bool(self.with_am(scope), depth - 1)})",
            lambda: f"{i()} = ANY ({self.array(scope)})",
            lambda: f"{t()} IS {self.random.choice(['', 'NOT '])}NULL",
            lambda: f"{i()} IS DISTINCT FROM {i()}",
            lambda: f"({b()}) IS {self.random.choice(['TRUE', 'NOT TRUE', 'FALSE'])}",
        )

    def some(self, scope, depth):
        return self.pick(lambda: self.int(scope, depth), lambda: self.text(scope, depth), lambda: self.bool(scope, depth))

    # Queries.

    def source_list(self):
        relation, alias, scope = self.source()
        text, conditions = f"{relation} {alias}", [f"{alias}.oid < 10000"]
        scope = {kind: list(columns) for kind, columns in scope.items()}
        for _ in range(self.random.choice([0, 0, 1, 1, 2])):
            other, second, columns = self.source()
            left, right = self.random.choice(scope["int"]), self.random.choice(columns["int"])
            join = self.random.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LATERAL"])
            if join == "LATERAL":
                text += f" CROSS JOIN LATERAL (SELECT {right} AS oid FROM {other} {second} WHERE {right} = {left} AND {second}.oid < 10000) {second}x"
                scope["int"].append(f"{second}x.oid")
                continue
            text += f" {join} (SELECT * FROM {other} WHERE oid < 10000) {second} ON {left} = {right}"
            if relation not in LARGE and other not in LARGE and self.random.random() < 0.3:
                text += f" AND {self.bool({k: scope[k] + columns[k] for k in scope}, 1)}"
            for kind in scope:
                scope[kind] += columns[kind]
            if join in ("RIGHT JOIN", "FULL JOIN"):
                conditions = [f"({c} OR {alias}.oid IS NULL)" for c in conditions]
        if self.random.random() < 0.7:
            conditions.append(self.bool(scope, 2))
        return f"{text} WHERE {' AND '.join(conditions)}", scope

    def select(self, width):
        source, scope = self.source_list()
        if self.random.random() < 0.35:
            return self.grouped(source, scope, width)
        items = [self.some(scope, 2) for _ in range(width)]
        if self.random.random() < 0.1:
            items[-1] = f"row_number() OVER (PARTITION BY {scope['int'][-1]} ORDER BY {', '.join(scope['int'])})"
        distinct = self.random.choice(["", "", "DISTINCT "])
        return f"SELECT {distinct}{', '.join(items)} FROM {source}"

    def grouped(self, source, scope, width):
        keys = [self.some(scope, 1) for _ in range(self.random.choice([0, 1, 1, 2]))]
        aggregate = lambda: self.pick(
            "count(*)",
            lambda: f"count({self.random.choice(['', 'DISTINCT '])}{self.some(scope, 1)})",
            lambda: f"sum(({self.int(scope, 1)}::int8 % 1009)::int4)",
            lambda: f"min({self.text(scope, 1)})",
            lambda: f"max({self.int(scope, 1)}::int8)",
            lambda: f"bool_or({self.bool(scope, 1)})",
            lambda: f"count(*) FILTER (WHERE {self.bool(scope, 1)})",
            lambda: f"string_agg({self.text(scope, 0)}, ',' ORDER BY {self.text(scope, 0)}, {scope['int'][0]}, {scope['int'][-1]})",
        )
        # A bare column beside groups is an error now and then, and has to be one on both servers.
        items = [self.pick(*(keys or ["1"]), aggregate, aggregate, lambda: self.some(scope, 0) if self.random.random() < 0.1 else "2")
                 for _ in range(width)]
        text = f"SELECT {', '.join(items)} FROM {source}"
        if keys:
            text += f" GROUP BY {', '.join(keys)}"
        if self.random.random() < 0.3:
            text += f" HAVING count(*) > {self.random.choice([0, 1, 2])}"
        return text

    def query(self):
        width = self.random.choice([1, 2, 3])
        text = self.select(width)
        if self.random.random() < 0.2:
            relation, alias, scope = self.source()
            kind = lambda: self.random.choice(["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"])
            column = self.random.choice(scope["int"])
            one = f"SELECT {column}::int8 FROM {relation} {alias} WHERE {alias}.oid < 10000"
            two = f"SELECT {self.int(scope, 1)}::int8 FROM {relation} {alias} WHERE {alias}.oid < 10000"
            text, width = f"{one} {kind()} {two} {kind()} SELECT a.oid::int8 FROM pg_am a", 1
        elif self.random.random() < 0.15:
            text = f"WITH w AS ({text}) SELECT * FROM w {self.random.choice(['', 'UNION ALL SELECT * FROM w'])}"
        elif self.random.random() < 0.05:
            text, width = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n, n * n FROM r", 2
        is_ordered = self.random.random() < 0.5
        if is_ordered:
            keys = [f"{i + 1}{self.random.choice(['', ' DESC', ' NULLS FIRST'])}" for i in range(width)]
            text += f" ORDER BY {', '.join(keys)}"
            text += self.random.choice(["", " LIMIT 5", " OFFSET 3", " LIMIT 4 OFFSET 2", " FETCH FIRST 3 ROWS ONLY", " FETCH FIRST ROW ONLY"])
        return text, is_ordered


def ask(connection, text):
    """Rows as texts, or an SQLSTATE."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(text)
            return [tuple(None if v is None else str(v) for v in row) for row in cursor.fetchall()]
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        return error.sqlstate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--statements", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    port = os.environ["POSTGRES_PORT"]
    postgres = psycopg.connect(f"host=127.0.0.1 port={port} user=root dbname=postgres", autocommit=True)
    starkeep = psycopg.connect(os.environ.get("STARKEEP_DSN", ""), autocommit=True)
    postgres.execute("SET statement_timeout = '20s'")
    starkeep.execute("SET statement_timeout = '60s'")
    seen = collections.Counter()
    for seed in range(arguments.seed, arguments.seed + arguments.statements):
        text, is_ordered = Generator(seed).query()
        theirs, ours = ask(postgres, text), ask(starkeep, text)
        if theirs == "57014":
            seen["PostgreSQL took too long"] += 1
        elif isinstance(ours, list) and isinstance(theirs, list):
            same = ours == theirs if is_ordered else sorted(map(repr, ours)) == sorted(map(repr, theirs))
            seen["same rows" if same else "OTHER ROWS"] += 1
            if not same:
                print(f"--seed {seed}: {len(ours)} rows, PostgreSQL has {len(theirs)}\n  {text}\n  {ours[:3]}\n  {theirs[:3]}")
        elif isinstance(ours, str) and isinstance(theirs, str):
            seen["same error" if ours == theirs else f"another error: {ours}, PostgreSQL's is {theirs}"] += 1
        elif ours in REFUSALS:
            seen[f"refused: {ours}"] += 1
        else:
            what = f"AN ERROR OF OUR OWN: {ours}" if isinstance(ours, str) else f"AN ANSWER WHERE POSTGRESQL TELLS {theirs}"
            seen[what] += 1
            print(f"--seed {seed}: {what}\n  {text}")
    for what, count in sorted(seen.items()):
        print(f"{count:6} {what}")
    sys.exit(any(what.isupper() or what.startswith(("AN ", "OTHER")) for what in seen))


if __name__ == "__main__":
    main()
