-- SHOW [TEMPORARY] PARTITIONS FROM t: $1 database, $2 table, $3 whether TEMPORARY (there are none)
SELECT partition_id AS "PartitionId", partition_name AS "PartitionName", visible_version AS "VisibleVersion",
       starrocks_time(visible_version_at) AS "VisibleVersionTime", 0 AS "VisibleVersionHash", state AS "State",
       partition_key AS "PartitionKey", bounds AS "Range", distribution_key AS "DistributionKey", buckets AS "Buckets",
       replication_num AS "ReplicationNum", 'HDD' AS "StorageMedium", '9999-12-31 23:59:59' AS "CooldownTime",
       cast(NULL AS varchar) AS "LastConsistencyCheckTime", starrocks_size(bytes) AS "DataSize",
       starrocks_size(bytes) AS "StorageSize", 'false' AS "IsInMemory", rows AS "RowCount",
       visible_version AS "DataVersion", 0 AS "VersionEpoch", 'TXN_NORMAL' AS "VersionTxnType", 'true' AS "TabletBalanced"
FROM system.partitions WHERE db_name = $1 AND table_name = $2 AND NOT $3 ORDER BY partition_id
