-- SHOW DATABASES
SELECT db_name AS "Database" FROM system.databases
UNION ALL SELECT 'system' UNION ALL SELECT 'information_schema'
ORDER BY 1
