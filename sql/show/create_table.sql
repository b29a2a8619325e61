-- SHOW CREATE TABLE t: $1 database, $2 table
SELECT table_name AS "Table", ddl AS "Create Table" FROM system.tables WHERE db_name = $1 AND table_name = $2
