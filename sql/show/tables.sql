-- SHOW TABLES [FROM db]: tables and views; $1 database
SELECT table_name AS "Table" FROM system.tables WHERE db_name = $1
UNION ALL
SELECT view_name FROM system.views WHERE db_name = $1
ORDER BY 1
