-- SHOW TABLES [FROM db]: $1 database
SELECT table_name AS "Table" FROM system.tables WHERE db_name = $1 ORDER BY table_name
