-- SHOW PARTITIONS FROM t: $1 database, $2 table
SELECT partition_id AS "PartitionId", partition_name AS "PartitionName", visible_version AS "VisibleVersion",
       starrocks_time(visible_version_at) AS "VisibleVersionTime", 0 AS "VisibleVersionHash", state AS "State",
       partition_key AS "PartitionKey", bounds AS "Range", distribution_key AS "DistributionKey", buckets AS "Buckets",
       replication_num AS "ReplicationNum", 'HDD' AS "StorageMedium", '9999-12-31 23:59:59' AS "CooldownTime",
       cast(NULL AS varchar) AS "LastConsistencyCheckTime", concat(cast(bytes AS varchar), 'B') AS "DataSize",
       'false' AS "IsInMemory", rows AS "RowCount"
FROM system.partitions WHERE db_name = $1 AND table_name = $2 ORDER BY partition_id
