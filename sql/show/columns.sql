-- DESC t: $1 database, $2 table
SELECT column_name AS "Field", type AS "Type", CASE WHEN nullable THEN 'YES' ELSE 'NO' END AS "Null",
       CASE WHEN is_key THEN 'true' ELSE 'false' END AS "Key", default_value AS "Default", extra AS "Extra"
FROM system.columns WHERE db_name = $1 AND table_name = $2 ORDER BY position
