-- Grafana's PostgreSQL data source: the query builder's statements and what its macros become. Restated, not captured.
-- name: version
-- compare: names
SELECT current_setting('server_version_num')::int/100 as version
--;
-- name: timescale
-- compare: exact
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'
--;
-- name: schemas
-- compare: exact
SELECT schema_name AS "name" FROM information_schema.schemata
WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast', '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information')
ORDER BY schema_name
--;
-- name: tables
-- compare: exact
-- differs: the default schema is system, and its tables are listed
SELECT CASE WHEN quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
            string_to_array(current_setting('search_path'),',') s)
      THEN quote_ident(table_name)
      ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
    END AS "table"
FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog')
ORDER BY 1
--;
-- name: tables, those in the search path first
-- compare: exact
SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) AS "table"
FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')
ORDER BY CASE WHEN quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
            string_to_array(current_setting('search_path'),',') s) THEN 0 ELSE 1 END, 1
--;
-- name: tables of a schema
-- compare: exact
SELECT quote_ident(table_name) AS "table" FROM information_schema.tables WHERE quote_ident(table_schema) = 'market' ORDER BY 1
--;
-- name: columns
-- compare: exact
SELECT quote_ident(column_name) AS "column", data_type AS "type"
FROM information_schema.columns
WHERE CASE WHEN array_length(parse_ident('market.orders'),1) = 2
    THEN quote_ident(table_schema) = (parse_ident('market.orders'))[1] AND quote_ident(table_name) = (parse_ident('market.orders'))[2]
    ELSE quote_ident(table_name) = 'market.orders' AND quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
            string_to_array(current_setting('search_path'),',') s)
  END
--;
-- name: tables with a time column, older builder
-- compare: exact
SELECT quote_ident(table_name) as table_name,
  ( SELECT quote_ident(column_name) as column_name FROM information_schema.columns c
    WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name IN ('timestamptz','timestamp')
    ORDER BY ordinal_position LIMIT 1 ) AS time_column,
  ( SELECT quote_ident(column_name) AS column_name FROM information_schema.columns c
    WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name = 'float8'
    ORDER BY ordinal_position LIMIT 1 ) AS value_column
FROM information_schema.tables t
WHERE t.table_schema IN ('market')
  AND EXISTS ( SELECT 1 FROM information_schema.columns c
    WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name AND udt_name IN ('timestamptz','timestamp') )
--;
-- name: aggregates, older builder
-- compare: shape
SELECT DISTINCT proname FROM pg_aggregate INNER JOIN pg_proc ON pg_aggregate.aggfnoid = pg_proc.oid INNER JOIN pg_type ON pg_type.oid=pg_proc.prorettype
WHERE pronargs=1 AND typname IN ('float8') AND aggkind='n' ORDER BY 1
--;
-- name: time group
-- compare: exact
-- differs: extract answers double precision
SELECT floor(extract(epoch from placed)/3600)*3600 AS "time", count(*) AS "orders", avg(weight) AS "weight"
FROM market.orders WHERE placed >= '2024-01-01T00:00:00Z' AND placed <= '2024-01-31T00:00:00Z' GROUP BY 1 ORDER BY 1
--;
-- name: unix epoch filter
-- compare: exact
SELECT id FROM market.orders WHERE extract(epoch from placed) >= 1704067200 AND extract(epoch from placed) <= 1706659200 ORDER BY id
--;
-- name: variable
-- compare: exact
SELECT DISTINCT customer AS __text, id AS __value FROM market.orders ORDER BY 1 LIMIT 100
--;
