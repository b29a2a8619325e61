// postgres.js. PGHOST, PGPORT, PGUSER and PGDATABASE say where.
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";

// The driver sends times without a zone as those of UTC and reads them as local ones.
process.env.TZ = "UTC";
const sql = postgres({ max: 2, connect_timeout: 10 });
const plain = (rows) => Array.from(rows, (row) => ({ ...row }));
const fails = (code, query) => assert.rejects(query, { code });
const answered = (part) => Promise.race([part, delay(20_000, null, { ref: false }).then(() => assert.fail("no answer"))]);
const clean = () => sql`DELETE FROM market.events WHERE kind = 'postgresjs'`;

async function queries() {
  assert.deepEqual(plain(await sql`SELECT * FROM market.orders WHERE id IN ${sql([1, 3])} ORDER BY id`), [
    {
      id: "1", customer: "ann", amount: "10.5000", placed: new Date("2024-01-02T03:04:05Z"), day: new Date("2024-01-02"),
      paid: true, weight: 1.5, note: "first",
    },
    { id: "3", customer: "cy", amount: null, placed: null, day: null, paid: null, weight: 0.1, note: "o'clock" },
  ]);
  const columns = ["id", "customer"];
  const rows = await sql`SELECT ${sql(columns)} FROM ${sql("market.orders")} WHERE id > ${1} ${sql`AND customer <> ${"cy"}`}`;
  assert.deepEqual(plain(rows), [{ id: "2", customer: "bob" }]);
  assert.deepEqual([rows.count, rows.command, rows.columns.map((c) => c.type)], [1, "SELECT", [20, 1043]]);
  assert.deepEqual(Array.from(await sql`SELECT id, paid FROM market.orders ORDER BY id`.values()), [["1", true], ["2", false], ["3", null]]);
  assert.deepEqual((await sql`SELECT paid FROM market.orders WHERE id = 2`.raw()).map(([field]) => field.toString()), ["f"]);
  for (const id of [1, 2, 3]) assert.equal((await sql`SELECT id FROM market.orders WHERE id = ${id}`)[0].id, String(id));

  assert.deepEqual(plain(await sql.unsafe("SELECT customer FROM market.orders WHERE id = $1", [2])), [{ customer: "bob" }]);
  assert.deepEqual((await sql.unsafe("SELECT 1::int AS a; SELECT 2::int AS b")).map(plain), [[{ a: 1 }], [{ b: 2 }]]);
  assert.deepEqual((await sql`SELECT 1::int AS a; SELECT 2::int AS b`.simple()).map(plain), [[{ a: 1 }], [{ b: 2 }]]);
  await sql`SELECT id FROM market.orders ORDER BY id`.forEach((row, result) => assert.equal(result.columns[0].name, "id", row.id));
}

async function parameters() {
  const ids = (rows) => Array.from(rows, (row) => row.id);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE placed = ${"2024-01-02 03:04:05"}`), ["1"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE day = ${new Date("2024-01-03")}::date`), ["2"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE paid = ${true}`), ["1"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE amount = ${"20.25"}`), ["2"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE weight = ${0.1}`), ["3"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE note = ${"o'clock"}`), ["3"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE id = ${null}`), []);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE id = ANY(${[1, 3]}) ORDER BY id`), ["1", "3"]);
  assert.deepEqual(ids(await sql`SELECT id FROM market.orders WHERE customer = ANY(${["ann", "bob"]}) ORDER BY id`), ["1", "2"]);
  assert.deepEqual(plain(await sql`SELECT ${[1, 2]}::int[] AS i, ${["a", 'b"c']}::text[] AS t, ${Buffer.from([0, 255])}::bytea AS b`), [
    { i: [1, 2], t: ["a", 'b"c'], b: Buffer.from([0, 255]) },
  ]);
  assert.equal((await sql`SELECT ${9007199254740993n}::bigint AS n`)[0].n, "9007199254740993");
  assert.equal((await sql`SELECT ${"é🐘"}::text AS t`)[0].t, "é🐘");

  const exact = postgres({ max: 1, types: { bigint: postgres.BigInt }, transform: postgres.camel });
  assert.equal((await exact`SELECT order_id FROM market.lines WHERE line = 2`)[0].orderId, 1n);
  await exact.end();
}

async function described() {
  const { types, columns, string } = await sql`SELECT id, amount FROM market.orders WHERE id = ${1} AND customer = ${"ann"}`.describe();
  assert.equal(types[0], 20);
  assert.ok([25, 1043].includes(types[1]), `a text's type, not ${types[1]}`);
  assert.deepEqual(columns.map((c) => [c.name, c.type]), [["id", 20], ["amount", 1700]]);
  assert.match(string, /id = \$1/);
}

async function cursors() {
  const batches = [];
  for await (const rows of sql`SELECT id FROM market.orders ORDER BY id`.cursor(2)) batches.push(rows.map((row) => row.id));
  assert.deepEqual(batches, [["1", "2"], ["3"]]);
  let seen = 0;
  await sql`SELECT n FROM generate_series(1, 1000) AS g(n)`.cursor(100, (rows) => {
    seen += rows.length;
    return seen < 300 ? undefined : sql.CLOSE;
  });
  assert.equal(seen, 300);
}

async function transactions() {
  const answer = await sql.begin(async (sql) => {
    await fails("42P01", sql.savepoint((sql) => sql`SELECT * FROM market.nope`));
    const [one, two] = await sql.savepoint("inner_one", (sql) => [sql`SELECT 1::int AS n`, sql`SELECT 2::int AS n`]);
    return one[0].n + two[0].n;
  });
  assert.equal(answer, 3);
  await fails("42703", sql.begin("ISOLATION LEVEL REPEATABLE READ READ ONLY", (sql) => sql`SELECT nope FROM market.orders`));
  // What failed inside is what begin() fails with, even if it was caught.
  await fails("42P01", sql.begin(async (sql) => {
    await fails("42P01", sql`SELECT * FROM market.nope`);
    await fails("25P02", sql`SELECT 1`);
  }));
  const reserved = await sql.reserve();
  await reserved`SET application_name = 'reserved'`;
  assert.equal((await reserved`SHOW application_name`)[0].application_name, "reserved");
  reserved.release();
}

async function writes() {
  const rows = [1, 2, 3].map((n) => ({ at: "2024-03-01 00:00:00", kind: "postgresjs", n }));
  assert.equal((await sql`INSERT INTO market.events ${sql(rows, "at", "kind", "n")}`).count, 3);
  const into = await sql`COPY market.events (at, kind, n) FROM STDIN`.writable();
  await pipeline(Readable.from(["2024-03-01 00:00:00\tpostgresjs\t4\n", "2024-03-01 00:00:00\tpostgresjs\t\\N\n"]), into);
  // The stream ends before the server has said that it has the rows.
  while ((await sql`SELECT count(*)::int AS n FROM market.events WHERE kind = 'postgresjs'`)[0].n < 5) await delay(20);
  const out = await sql`COPY (SELECT n FROM market.events WHERE kind = 'postgresjs' AND n IS NOT NULL ORDER BY n) TO STDOUT`.readable();
  assert.equal(await text(out), "1\n2\n3\n4\n");
  assert.equal((await clean()).count, 5);
}

async function errors() {
  await fails("42P01", sql`SELECT * FROM market.nope`);
  await assert.rejects(sql`SELECT id FRM market.orders WHERE id = ${1}`, { code: "42601", position: "15" });
  await fails("22007", sql`SELECT id FROM market.orders WHERE day = 'yesterdayish'`);
  const sleep = sql`SELECT pg_sleep(10)`.execute();
  setTimeout(() => sleep.cancel(), 300);
  await fails("57014", sleep);
  assert.equal((await sql`SELECT 1::int AS one`)[0].one, 1);
}

await clean();
// All parts run, so that one look shows all that is wrong.
for (const part of [queries, parameters, described, cursors, transactions, writes, errors]) {
  await answered(part()).catch((error) => {
    process.exitCode = 1;
    console.error(`in ${part.name}:`, error);
  });
}
await clean();
await sql.end({ timeout: 5 });
if (!process.exitCode) console.log("postgres.js passed");
