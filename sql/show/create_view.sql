-- SHOW CREATE VIEW v: $1 database, $2 view
SELECT view_name AS "View", ddl AS "Create View", 'utf8' AS "character_set_client",
       'utf8_general_ci' AS "collation_connection"
FROM system.views WHERE db_name = $1 AND view_name = $2
