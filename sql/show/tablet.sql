-- SHOW TABLET id: $1 the id. A tablet that is not there is a row that says so, as in StarRocks. The index has its table's id.
WITH found AS (
    SELECT DISTINCT db_name, table_name, partition_name, db_id, table_id, partition_id FROM system.tablets WHERE tablet_id = $1
)
SELECT db_name AS "DbName", table_name AS "TableName", partition_name AS "PartitionName", table_name AS "IndexName",
       db_id AS "DbId", table_id AS "TableId", partition_id AS "PartitionId", table_id AS "IndexId", 'true' AS "IsSync",
       concat('SHOW PROC ''/dbs/', db_id, '/', table_id, '/partitions/', partition_id, '/', table_id, '/', $1, chr(39), ';') AS "DetailCmd"
FROM found
UNION ALL
SELECT NULL, NULL, NULL, NULL, -1, -1, -1, -1, 'false', concat('SHOW PROC ''/dbs/-1/-1/partitions/-1/-1/', $1, chr(39), ';')
WHERE (SELECT count(*) FROM found) = 0
