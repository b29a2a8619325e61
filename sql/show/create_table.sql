-- SHOW CREATE TABLE t: $1 database, $2 table or view
SELECT table_name AS "Table", ddl AS "Create Table" FROM system.tables WHERE db_name = $1 AND table_name = $2
UNION ALL
SELECT view_name, ddl FROM system.views WHERE db_name = $1 AND view_name = $2
