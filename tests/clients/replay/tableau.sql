-- Tableau over psqlODBC with UseDeclareFetch=1, and over pgjdbc. From memory and public issues.
-- name: schemas
-- compare: exact
BEGIN;declare "SQL_CUR0x600000000a11" cursor with hold for select nspname from pg_catalog.pg_namespace n where nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') order by nspname;fetch 2048 in "SQL_CUR0x600000000a11"
--;
-- name: schemas, end
-- compare: exact
close "SQL_CUR0x600000000a11";commit
--;
-- name: columns of a connection
-- compare: exact
BEGIN;declare "SQL_CUR0x600000000a12" cursor with hold for SELECT *
FROM "market"."orders" "orders"
LIMIT 0;fetch 2048 in "SQL_CUR0x600000000a12"
--;
-- name: columns of a connection, end
-- compare: exact
close "SQL_CUR0x600000000a12";commit
--;
-- name: cursor in pieces
-- compare: exact
BEGIN;declare "SQL_CUR0x600000000a14" cursor with hold for SELECT "orders"."id" AS "id" FROM "market"."orders" "orders" ORDER BY 1;fetch 2 in "SQL_CUR0x600000000a14"
--;
-- name: cursor in pieces, second
-- compare: exact
fetch 2 in "SQL_CUR0x600000000a14"
--;
-- name: cursor in pieces, end
-- compare: exact
close "SQL_CUR0x600000000a14";commit
--;
-- name: sheet: sum by customer
-- compare: exact
SELECT CAST("orders"."customer" AS TEXT) AS "customer",
  SUM("orders"."amount") AS "sum:amount:ok"
FROM "market"."orders" "orders"
GROUP BY 1
--;
-- name: sheet: by month
-- compare: exact
SELECT DATE_TRUNC( 'MONTH', CAST("orders"."placed" AS TIMESTAMP WITHOUT TIME ZONE) ) AS "tmn:placed:ok",
  COUNT(DISTINCT "orders"."id") AS "ctd:id:ok",
  AVG(CAST("orders"."weight" AS DOUBLE PRECISION)) AS "avg:weight:ok"
FROM "market"."orders" "orders"
GROUP BY 1
--;
-- name: sheet: parts of dates
-- compare: exact
SELECT CAST(TRUNC(EXTRACT(YEAR FROM "orders"."day")) AS INTEGER) AS "yr:day:ok", (CAST(TRUNC(EXTRACT(DOW FROM "orders"."day")) AS INTEGER) + 1) AS "wd:day:ok"
FROM "market"."orders" "orders"
WHERE ("orders"."day" >= DATE '2024-01-01')
GROUP BY 1, 2
--;
-- name: sheet: filter by text
-- compare: exact
SELECT "orders"."note" AS "note" FROM "market"."orders" "orders"
WHERE (STRPOS(CAST(LOWER(CAST(CAST("orders"."note" AS TEXT) AS TEXT)) AS TEXT), CAST('clock' AS TEXT)) > 0) AND ("orders"."customer" IN ('ann', 'cy'))
GROUP BY 1
--;
-- name: sheet: top 2
-- compare: exact
SELECT "t0"."customer" AS "customer", "t0"."amount" AS "amount" FROM (
  SELECT "orders"."customer" AS "customer", SUM("orders"."amount") AS "amount" FROM "market"."orders" "orders" GROUP BY 1
) "t0" INNER JOIN (
  SELECT "orders"."customer" AS "customer", SUM("orders"."amount") AS "rank" FROM "market"."orders" "orders" GROUP BY 1 ORDER BY 2 DESC NULLS LAST, 1 ASC LIMIT 2
) "t1" ON ("t0"."customer" = "t1"."customer")
--;
-- name: relationship
-- compare: exact
SELECT "lines"."what" AS "what", SUM(1) AS "n", MIN("orders"."customer") AS "customer"
FROM "market"."orders" "orders" INNER JOIN "market"."lines" "lines" ON ("orders"."id" = "lines"."order_id")
GROUP BY 1
--;
