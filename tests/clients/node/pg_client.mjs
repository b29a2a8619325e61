// node-postgres with its cursors, streams and pool. PGHOST, PGPORT, PGUSER and PGDATABASE say where.
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";

const OF_NODE = "DELETE FROM market.events WHERE kind = 'node-pg'";
// The driver reads times without a zone as local ones.
const FIRST = {
  id: "1", customer: "ann", amount: "10.5000", placed: new Date(2024, 0, 2, 3, 4, 5), day: new Date(2024, 0, 2),
  paid: true, weight: 1.5, note: "first",
};
const THIRD = { id: "3", customer: "cy", amount: null, placed: null, day: null, paid: null, weight: 0.1, note: "o'clock" };

async function simple(client) {
  const { rows, rowCount, command, fields } = await client.query("SELECT * FROM market.orders ORDER BY id");
  assert.deepEqual([rows[0], rows[2]], [FIRST, THIRD]);
  assert.deepEqual([rowCount, command], [3, "SELECT"]);
  assert.deepEqual(fields.map((f) => f.name), Object.keys(FIRST));
  assert.deepEqual(fields.map((f) => f.dataTypeID), [20, 1043, 1700, 1114, 1082, 16, 701, 25]);
  assert.equal(fields[1].dataTypeModifier, 20 + 4);
  assert.equal(fields[2].dataTypeModifier, (18 << 16 | 4) + 4);

  const several = await client.query("SELECT 1::int AS a; SELECT 'x' AS b");
  assert.deepEqual(several.map((r) => r.rows), [[{ a: 1 }], [{ b: "x" }]]);
  assert.deepEqual((await client.query("")).rows, []);
  const arrays = await client.query({ text: "SELECT id, paid FROM market.orders ORDER BY id", rowMode: "array" });
  assert.deepEqual(arrays.rows, [["1", true], ["2", false], ["3", null]]);
}

async function parameters(client) {
  const orders = (where, ...values) =>
    client.query(`SELECT id FROM market.orders WHERE ${where} ORDER BY id`, values).then((r) => r.rows.map((row) => row.id));
  assert.deepEqual(await orders("id = $1", 2), ["2"]);
  assert.deepEqual(await orders("id = $1", 2n), ["2"]);
  assert.deepEqual(await orders("customer = $1 OR note = $2", "bob", "o'clock"), ["2", "3"]);
  assert.deepEqual(await orders("amount > $1", "10.5001"), ["2"]);
  assert.deepEqual(await orders("placed = $1", FIRST.placed), ["1"]);
  assert.deepEqual(await orders("day >= $1", "2024-01-03"), ["2"]);
  assert.deepEqual(await orders("paid = $1", false), ["2"]);
  assert.deepEqual(await orders("weight < $1", 1.25), ["3"]);
  assert.deepEqual(await orders("id = $1", null), []);
  assert.deepEqual(await orders("id = ANY($1)", [1, 3]), ["1", "3"]);
  assert.deepEqual(await orders("customer = ANY($1)", ["ann", "it's, \"quoted\""]), ["1"]);
  assert.deepEqual(await orders("NOT id = ANY($1::bigint[])", [2]), ["1", "3"]);

  const one = async (type, value) => (await client.query(`SELECT $1::${type} AS v`, [value])).rows[0].v;
  assert.equal(await one("smallint", 7), 7);
  assert.equal(await one("int", -7), -7);
  assert.equal(await one("bigint", "9223372036854775807"), "9223372036854775807");
  assert.equal(await one("numeric(38, 10)", "1234567890123456789.0123456789"), "1234567890123456789.0123456789");
  assert.equal(await one("real", 1.5), 1.5);
  assert.equal(await one("double precision", 0.1), 0.1);
  assert.equal(await one("text", "déjà\n🐘"), "déjà\n🐘");
  assert.equal(await one("boolean", true), true);
  assert.equal(await one("int", null), null);
  assert.deepEqual(await one("date", "2024-02-29"), new Date(2024, 1, 29));
  assert.deepEqual(await one("timestamp", "2024-02-29 01:02:03.456"), new Date(2024, 1, 29, 1, 2, 3, 456));
  assert.deepEqual(await one("timestamptz", "2024-02-29T01:02:03+02:00"), new Date("2024-02-28T23:02:03Z"));
  assert.deepEqual(await one("bytea", Buffer.from([0, 1, 255])), Buffer.from([0, 1, 255]));
  assert.deepEqual(await one("int[]", [1, null, 3]), [1, null, 3]);
  assert.deepEqual(await one("text[]", ["a", null, 'b"c,{d}']), ["a", null, 'b"c,{d}']);

  // Without weight: the driver reads binary doubles wrongly.
  const binary = await client.query({ text: "SELECT id, customer, paid FROM market.orders WHERE id = $1", values: [1], binary: true });
  assert.deepEqual(binary.rows, [{ id: "1", customer: "ann", paid: true }]);
}

async function prepared(client) {
  for (const [id, customer] of [[1, "ann"], [2, "bob"], [4, undefined]]) {
    const { rows } = await client.query({ name: "customer of", text: "SELECT customer FROM market.orders WHERE id = $1", values: [id] });
    assert.equal(rows[0]?.customer, customer);
  }
}

async function cursors(client) {
  const cursor = client.query(new Cursor("SELECT id FROM market.orders WHERE id < $1 ORDER BY id", [10]));
  assert.deepEqual(await cursor.read(2), [{ id: "1" }, { id: "2" }]);
  assert.deepEqual(await cursor.read(2), [{ id: "3" }]);
  assert.deepEqual(await cursor.read(2), []);
  const early = client.query(new Cursor("SELECT id FROM market.orders ORDER BY id"));
  assert.equal((await early.read(1)).length, 1);
  await early.close();

  const seen = [];
  for await (const row of client.query(new QueryStream("SELECT n::int AS n FROM generate_series(1, 1000) AS g(n) WHERE n <= $1", [1000], { batchSize: 7 }))) {
    seen.push(row.n);
  }
  assert.deepEqual(seen.sort((a, b) => a - b), Array.from({ length: 1000 }, (_, i) => i + 1));
  for await (const row of client.query(new QueryStream("SELECT id FROM market.orders ORDER BY id", [], { batchSize: 1 }))) {
    assert.equal(row.id, "1");
    break;
  }
  await assert.rejects(async () => {
    for await (const _ of client.query(new QueryStream("SELECT nope FROM market.orders"))) assert.fail("a row");
  }, { code: "42703" });
  assert.equal((await client.query("SELECT 1::int AS one")).rows[0].one, 1);
}

async function copies(client) {
  const table = await text(client.query(copyTo("COPY market.orders TO STDOUT")));
  assert.deepEqual(table.split("\n").sort(), [
    "",
    "1\tann\t10.5000\t2024-01-02 03:04:05\t2024-01-02\tt\t1.5\tfirst",
    "2\tbob\t20.2500\t2024-01-03 00:00:00\t2024-01-03\tf\t\\N\t\\N",
    "3\tcy\t\\N\t\\N\t\\N\t\\N\t0.1\to'clock",
  ]);
  const csv = await text(client.query(copyTo("COPY (SELECT id, note FROM market.orders ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)")));
  assert.equal(csv, "id,note\n1,first\n2,\n3,o'clock\n");

  const into = client.query(copyFrom("COPY market.events (at, kind, n) FROM STDIN"));
  await pipeline(Readable.from(Array.from({ length: 100 }, (_, i) => `2024-03-01 00:00:00\tnode-pg\t${i}\n`)), into);
  assert.equal(into.rowCount, 100);
  const csvInto = client.query(copyFrom("COPY market.events FROM STDIN WITH (FORMAT csv)"));
  await pipeline(Readable.from(["2024-03-01 00:00:00,node-pg,\n2024-03-01 ", "00:00:01,node-pg,100\n"]), csvInto);
  const { rows } = await client.query("SELECT count(*) AS all, count(n) AS set, sum(n) AS sum FROM market.events WHERE kind = $1", ["node-pg"]);
  assert.deepEqual(rows, [{ all: "102", set: "101", sum: "5050" }]);

  await assert.rejects(
    pipeline(Readable.from(["2024-03-01 00:00:00\tnode-pg\tnot a number\n"]), client.query(copyFrom("COPY market.events FROM STDIN"))),
    { code: "22P02" });
  assert.equal((await client.query(OF_NODE)).rowCount, 102);
}

async function errors(client) {
  const fails = (code, statement, more = {}) => assert.rejects(client.query(statement), { code, ...more });
  await fails("42P01", "SELECT * FROM market.nope", { severity: "ERROR" });
  await fails("42703", "SELECT nope FROM market.orders");
  await fails("42601", "SELECT * FROM market.orders WHERE WHERE", { position: "35" });
  await fails("42601", { text: "SELECT id FRM market.orders WHERE id = $1", values: [1] }, { position: "15" });
  await fails("22P02", { text: "SELECT id FROM market.orders WHERE id = $1", values: ["one"] });
  await fails("22012", "SELECT 1 / 0");

  await client.query("BEGIN");
  assert.equal((await client.query("SELECT count(*) AS n FROM market.orders")).rows[0].n, "3");
  await fails("42P01", "SELECT * FROM market.nope");
  await fails("25P02", "SELECT 1");
  await fails("25P02", { text: "SELECT $1::int", values: [1] });
  assert.equal((await client.query("COMMIT")).command, "ROLLBACK");

  await client.query("BEGIN; SAVEPOINT s");
  await fails("42P01", "SELECT * FROM market.nope");
  await client.query("ROLLBACK TO SAVEPOINT s");
  assert.deepEqual((await client.query("SELECT 1::int AS one")).rows, [{ one: 1 }]);
  assert.equal((await client.query("COMMIT")).command, "COMMIT");
}

async function cancel(client) {
  const pid = (await client.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
  let asleep = true;
  const sleep = assert.rejects(client.query("SELECT pg_sleep(10)"), { code: "57014" }).finally(() => { asleep = false; });
  const other = new pg.Client();
  await other.connect();
  // A signal that comes before the statement has begun does nothing.
  while (asleep) {
    assert.equal((await other.query("SELECT pg_cancel_backend($1) AS sent", [pid])).rows[0].sent, true);
    await delay(50);
  }
  await sleep;
  await other.end();
  assert.equal((await client.query("SELECT 1::int AS one")).rows[0].one, 1);
}

async function pool() {
  const pool = new pg.Pool({ max: 3, statement_timeout: 20_000, application_name: "node pool" });
  const sums = await Promise.all(Array.from({ length: 12 }, (_, i) => pool.query("SELECT ($1::int + 1)::int AS n", [i])));
  assert.deepEqual(sums.map((r) => r.rows[0].n), Array.from({ length: 12 }, (_, i) => i + 1));
  assert.equal(pool.totalCount, 3);
  assert.equal((await pool.query("SHOW application_name")).rows[0].application_name, "node pool");
  await pool.end();
}

const answered = (part) => Promise.race([part, delay(20_000, null, { ref: false }).then(() => assert.fail("no answer"))]);

// All parts run, each with a connection of its own, so that one look shows all that is wrong.
for (const part of [simple, parameters, prepared, cursors, copies, errors, cancel, pool]) {
  const client = new pg.Client();
  await client.connect();
  await client.query(OF_NODE);
  await answered(part(client)).catch((error) => {
    process.exitCode = 1;
    console.error(`in ${part.name}:`, error);
  });
  client.on("error", () => {});
  await client.end();
}
const last = new pg.Client();
await last.connect();
await last.query(OF_NODE);
await last.end();
if (!process.exitCode) console.log("pg passed");
