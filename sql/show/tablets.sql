-- SHOW TABLET FROM t [PARTITION (…)]: $1 database, $2 table, $3 partitions (empty: all), $4 whether TEMPORARY (there are none)
SELECT tablet_id AS "TabletId", tablet_id AS "ReplicaId", backend_id AS "BackendId", 0 AS "SchemaHash",
       version AS "Version", 0 AS "VersionHash", version AS "LstSuccessVersion", 0 AS "LstSuccessVersionHash",
       -1 AS "LstFailedVersion", 0 AS "LstFailedVersionHash", cast(NULL AS varchar) AS "LstFailedTime",
       starrocks_size(bytes) AS "DataSize", rows AS "RowCount", 'NORMAL' AS "State",
       cast(NULL AS varchar) AS "LstConsistencyCheckTime", -1 AS "CheckVersion", -1 AS "CheckVersionHash",
       files AS "VersionCount", -1 AS "PathHash", cast(NULL AS varchar) AS "MetaUrl",
       cast(NULL AS varchar) AS "CompactionStatus", path AS "DiskRootPath", 'true' AS "IsConsistent", -1 AS "Checksum"
FROM system.tablets
WHERE db_name = $1 AND table_name = $2 AND (cardinality($3) = 0 OR array_has($3, partition_name)) AND NOT $4
ORDER BY tablet_id, backend_id
