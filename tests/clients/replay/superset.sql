-- Superset over SQLAlchemy and psycopg2: what its engine spec adds to the reflection of sqlalchemy.sql. From its db_engine_specs.
-- name: search path of a schema
-- compare: runs
set search_path = 'market'
--;
-- name: search path back
-- compare: runs
set search_path = "$user", public
--;
-- name: tables
-- compare: exact
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'market' AND c.relkind in ('r', 'p')
--;
-- name: views
-- compare: exact
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'market' AND c.relkind IN ('v', 'm')
--;
-- name: query cost
-- compare: runs
EXPLAIN SELECT * FROM market.orders
--;
-- name: virtual data set: columns
-- compare: shape
SELECT * FROM (SELECT * FROM market.orders) AS virtual_table LIMIT 1
--;
-- name: chart: by month
-- compare: exact
SELECT DATE_TRUNC('month', placed) AS placed, COUNT(*) AS count, SUM(amount) AS "SUM(amount)"
FROM market.orders
WHERE placed >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') AND placed < TO_TIMESTAMP('2024-02-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY DATE_TRUNC('month', placed) ORDER BY count DESC LIMIT 10000
--;
-- name: chart: top series
-- compare: exact
SELECT customer AS customer, SUM(amount) AS "SUM(amount)" FROM market.orders JOIN (
  SELECT customer AS customer__, SUM(amount) AS mme_inner__ FROM market.orders GROUP BY customer ORDER BY mme_inner__ DESC LIMIT 5
) AS anon_1 ON customer = customer__ GROUP BY customer ORDER BY "SUM(amount)" DESC LIMIT 50000
--;
-- name: filter values of a virtual data set
-- compare: exact
SELECT note AS note FROM (
SELECT note, id FROM market.orders WHERE id IN (1, 3)
) AS virtual_table GROUP BY note LIMIT 10000
--;
-- name: row count
-- compare: exact
SELECT COUNT(*) AS rowcount FROM (SELECT id FROM market.orders LIMIT 50000) AS rowcount_qry
--;
