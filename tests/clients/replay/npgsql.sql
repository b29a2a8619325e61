-- Npgsql: what it asks when a pool opens its first connection, when connections return to the pool, for GetSchema and for
-- GetColumnSchema. Restated with the constructs of PostgresDatabaseInfo, NpgsqlSchema and DbColumnSchemaGenerator, not captured.
-- name: pool: first connection
-- compare: shape
SELECT version();

SELECT nsp.nspname, x.oid, x.typname, x.typtype, x.typnotnull, x.elemtypoid
FROM (
    SELECT y.oid, y.typnamespace, y.typname, y.typtype, y.typrelid, y.typnotnull, y.relkind,
        elem.oid AS elemtypoid, elem.typname AS elemtypname, elemrel.relkind AS elemrelkind,
        CASE WHEN elemrecv.proname='array_recv' THEN 'a' ELSE elem.typtype END AS elemtyptype
    FROM (
        SELECT typ.oid, typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid,
            CASE WHEN recv.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype,
            CASE
                WHEN recv.proname='array_recv' THEN typ.typelem
                WHEN typ.typtype='r' THEN rngsubtype
                WHEN typ.typtype='m' THEN (SELECT rngtypid FROM pg_range WHERE rngmultitypid = typ.oid)
                WHEN typ.typtype='d' THEN typ.typbasetype
            END AS elemtypoid
        FROM pg_type AS typ
        LEFT JOIN pg_class AS rel ON (rel.oid = typ.typrelid)
        LEFT JOIN pg_proc AS recv ON recv.oid = typ.typreceive
        LEFT JOIN pg_range ON (pg_range.rngtypid = typ.oid)
    ) AS y
    LEFT JOIN pg_type AS elem ON elem.oid = elemtypoid
    LEFT JOIN pg_class AS elemrel ON (elemrel.oid = elem.typrelid)
    LEFT JOIN pg_proc AS elemrecv ON elemrecv.oid = elem.typreceive
) AS x
JOIN pg_namespace AS nsp ON (nsp.oid = typnamespace)
WHERE
    typtype IN ('b', 'r', 'm', 'e', 'd') OR -- base, range, multirange, enum, domain
    (typtype = 'c' AND relkind='c') OR
    (typtype = 'p' AND typname IN ('record', 'void', 'unknown')) OR
    (typtype = 'a' AND (
        elemtyptype IN ('b', 'r', 'm', 'e', 'd') OR
        (elemtyptype = 'p' AND elemtypname IN ('record', 'void')) OR
        (elemtyptype = 'c' AND elemrelkind='c')
    ))
ORDER BY CASE
       WHEN typtype IN ('b', 'e', 'p') THEN 0
       WHEN typtype = 'r' THEN 1
       WHEN typtype = 'm' THEN 2
       WHEN typtype = 'c' THEN 3
       WHEN typtype = 'd' AND elemtyptype <> 'a' THEN 4
       WHEN typtype = 'a' THEN 5
       WHEN typtype = 'd' AND elemtyptype = 'a' THEN 6
END;

SELECT typ.oid, att.attname, att.atttypid
FROM pg_type AS typ
JOIN pg_namespace AS nsp ON (nsp.oid = typ.typnamespace)
JOIN pg_class AS rel ON (rel.oid = typ.typrelid)
JOIN pg_attribute AS att ON (att.attrelid = typ.typrelid)
WHERE
  (typ.typtype = 'c' AND rel.relkind='c') AND
  attnum > 0 AND -- not the system columns
  NOT attisdropped
ORDER BY typ.oid, att.attnum;

SELECT pg_type.oid, enumlabel
FROM pg_enum
JOIN pg_type ON pg_type.oid=enumtypid
ORDER BY oid, enumsortorder;
--;
-- name: element types of ranges and domains
-- compare: shape
SELECT typ.oid, CASE WHEN typ.typtype='r' THEN rngsubtype WHEN typ.typtype='m' THEN (SELECT rngtypid FROM pg_range WHERE rngmultitypid = typ.oid) WHEN typ.typtype='d' THEN typ.typbasetype END AS elemtypoid
FROM pg_type AS typ LEFT JOIN pg_range ON pg_range.rngtypid = typ.oid WHERE typ.typtype IN ('r', 'm', 'd')
--;
-- name: composites of tables (LoadTableComposites)
-- compare: shape
SELECT typ.oid, att.attname, att.atttypid
FROM pg_type AS typ
JOIN pg_namespace AS nsp ON (nsp.oid = typ.typnamespace)
JOIN pg_class AS rel ON (rel.oid = typ.typrelid)
JOIN pg_attribute AS att ON (att.attrelid = typ.typrelid)
WHERE typ.typtype = 'c' AND nsp.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND attnum > 0 AND NOT attisdropped
ORDER BY typ.oid, att.attnum
--;
-- name: pool: connection returns
-- compare: exact
DISCARD ALL
--;
-- name: pool: connection with prepared statements returns
-- compare: exact
SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP
--;
-- name: GetSchema Schemata
-- compare: exact
SELECT catalog_name, schema_name, schema_owner FROM (
    SELECT current_database() AS catalog_name, nsp.nspname AS schema_name, rol.rolname AS schema_owner
    FROM pg_namespace nsp LEFT JOIN pg_roles rol ON rol.oid = nsp.nspowner
) tmp WHERE schema_name = 'market'
--;
-- name: GetSchema Tables
-- compare: exact
SELECT table_catalog, table_schema, table_name, table_type
FROM information_schema.tables
WHERE table_type IN ('BASE TABLE', 'FOREIGN', 'FOREIGN TABLE') AND table_schema NOT IN ('pg_catalog', 'information_schema')
--;
-- name: GetSchema Columns
-- compare: exact
SELECT table_catalog, table_schema, table_name, column_name, ordinal_position, column_default, is_nullable,
    udt_name::regtype::text AS data_type, character_maximum_length, character_octet_length, numeric_precision, numeric_precision_radix,
    numeric_scale, datetime_precision, character_set_catalog, character_set_schema, character_set_name, collation_catalog
FROM information_schema.columns WHERE table_schema = 'market'
--;
-- name: GetSchema Views
-- compare: exact
-- differs: views are not updatable
SELECT table_catalog, table_schema, table_name, check_option, is_updatable
FROM information_schema.views WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
--;
-- name: GetSchema Indexes
-- compare: exact
SELECT current_database() AS table_catalog, nsp.nspname AS table_schema, tab.relname AS table_name, ind.relname AS index_name, '' AS type_desc
FROM pg_catalog.pg_class ind
    JOIN pg_catalog.pg_index idx ON idx.indexrelid = ind.oid
    JOIN pg_catalog.pg_class tab ON idx.indrelid = tab.oid
    LEFT JOIN pg_catalog.pg_user usr ON usr.usesysid = ind.relowner
    LEFT JOIN pg_catalog.pg_namespace nsp ON nsp.oid = ind.relnamespace
WHERE ind.relkind = 'i' AND nsp.nspname NOT IN ('pg_catalog', 'pg_toast') AND tab.relkind = 'r' AND nsp.nspname = 'market'
--;
-- name: GetSchema IndexColumns
-- compare: exact
SELECT current_database() AS constraint_catalog, tns.nspname AS constraint_schema, con.conname AS constraint_name,
    current_database() AS table_catalog, cns.nspname AS table_schema, tab.relname AS table_name, att.attname AS column_name,
    att.attnum AS ordinal_position, ind.relname AS index_name, ind.relkind = 'i' AS is_index
FROM pg_class tab
    JOIN pg_index idx ON tab.oid = idx.indrelid
    JOIN pg_class ind ON idx.indexrelid = ind.oid
    JOIN pg_attribute att ON tab.oid = att.attrelid
    LEFT JOIN pg_constraint con ON con.conrelid = tab.oid AND con.conindid = ind.oid
    LEFT JOIN pg_namespace tns ON ind.relnamespace = tns.oid
    LEFT JOIN pg_namespace cns ON con.connamespace = cns.oid
WHERE ind.relkind = 'i' AND tns.nspname NOT IN ('pg_catalog', 'pg_toast') AND att.attnum = ANY(idx.indkey) AND tab.relkind = 'r'
--;
-- name: GetSchema Constraints
-- compare: exact
SELECT current_database() AS "CONSTRAINT_CATALOG", con_nsp.nspname AS "CONSTRAINT_SCHEMA", con.conname AS "CONSTRAINT_NAME",
    current_database() AS "TABLE_CATALOG", tab_nsp.nspname AS "TABLE_SCHEMA", tab.relname AS "TABLE_NAME",
    CASE con.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE KEY' WHEN 'f' THEN 'FOREIGN KEY' END AS "CONSTRAINT_TYPE",
    con.condeferrable AS "IS_DEFERRABLE", con.condeferred AS "INITIALLY_DEFERRED"
FROM pg_catalog.pg_constraint con
    INNER JOIN pg_catalog.pg_namespace con_nsp ON con.connamespace = con_nsp.oid
    INNER JOIN pg_catalog.pg_class tab ON con.conrelid = tab.oid
    INNER JOIN pg_catalog.pg_namespace tab_nsp ON tab.relnamespace = tab_nsp.oid
WHERE con.contype IN ('p', 'u', 'f') AND tab_nsp.nspname NOT IN ('pg_catalog', 'information_schema')
--;
-- name: GetSchema ConstraintColumns
-- compare: exact
SELECT current_database() AS constraint_catalog, nsp.nspname AS constraint_schema, con.conname AS constraint_name, con.contype,
    current_database() AS table_catalog, nsp.nspname AS table_schema, tab.relname AS table_name, att.attname AS column_name, att.attnum AS ordinal_number
FROM pg_constraint con
    JOIN pg_namespace nsp ON nsp.oid = con.connamespace
    JOIN pg_class tab ON tab.oid = con.conrelid
    JOIN pg_attribute att ON att.attrelid = tab.oid AND att.attnum = ANY(con.conkey)
WHERE con.contype IN ('f', 'p', 'u') AND nsp.nspname = 'market'
--;
-- name: GetColumnSchema
-- compare: exact
SELECT typ.oid AS typoid, nsp.nspname, rel.relname, att.attname, att.attrelid, att.attnum, att.attnotnull,
    att.attidentity != '' AS isidentity,
    CASE WHEN typ.typtype = 'd' THEN typ.typtypmod ELSE att.atttypmod END AS typmod,
    CASE WHEN att.attgenerated = '' THEN pg_get_expr(def.adbin, def.adrelid) ELSE NULL END AS "default",
    CASE WHEN rel.relkind IN ('r', 'p') OR (rel.relkind IN ('v', 'f') AND pg_column_is_updatable(rel.oid, att.attnum, false)) AND att.attidentity NOT IN ('a') THEN 'true'::boolean ELSE 'false'::boolean END AS is_updatable,
    EXISTS (SELECT * FROM pg_index WHERE pg_index.indrelid = rel.oid AND pg_index.indisprimary AND att.attnum = ANY (indkey)) AS isprimarykey,
    EXISTS (SELECT * FROM pg_index WHERE pg_index.indrelid = rel.oid AND pg_index.indisunique AND pg_index.indnkeyatts = 1 AND att.attnum = pg_index.indkey[0]) AS isunique
FROM pg_attribute AS att
    JOIN pg_type AS typ ON att.atttypid = typ.oid
    JOIN pg_class AS rel ON rel.oid = att.attrelid
    JOIN pg_namespace AS nsp ON nsp.oid = rel.relnamespace
    LEFT OUTER JOIN pg_attrdef AS def ON def.adrelid = rel.oid AND def.adnum = att.attnum
WHERE att.atttypid <> 0 AND rel.relkind IN ('r', 'v', 'm') AND NOT att.attisdropped AND nsp.nspname NOT IN ('pg_catalog', 'information_schema')
  AND att.attnum > 0 AND (rel.oid = {{oid:market.orders}} AND att.attnum IN (1, 2, 3))
ORDER BY att.attnum
--;
-- name: DeriveParameters
-- compare: exact
SELECT CASE WHEN pg_proc.proargnames IS NULL THEN array_cat(array_fill(''::name, ARRAY[pg_proc.pronargs]), array_agg(pg_attribute.attname ORDER BY pg_attribute.attnum)) ELSE pg_proc.proargnames END AS proargnames,
    pg_proc.proargtypes, CASE WHEN pg_proc.proallargtypes IS NULL AND (array_agg(pg_attribute.atttypid))[1] IS NOT NULL THEN array_cat(string_to_array(pg_proc.proargtypes::text, ' ')::oid[], array_agg(pg_attribute.atttypid ORDER BY pg_attribute.attnum)) ELSE pg_proc.proallargtypes END AS proallargtypes,
    pg_proc.proargmodes
FROM pg_proc LEFT JOIN pg_type ON pg_proc.prorettype = pg_type.oid
    LEFT JOIN pg_attribute ON pg_type.typrelid = pg_attribute.attrelid AND pg_attribute.attnum >= 1 AND NOT pg_attribute.attisdropped
WHERE pg_proc.oid = to_regproc('version')
GROUP BY pg_proc.proargnames, pg_proc.proargtypes, pg_proc.proallargtypes, pg_proc.proargmodes, pg_proc.pronargs
--;
