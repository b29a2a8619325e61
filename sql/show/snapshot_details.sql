-- SHOW SNAPSHOT ON r WHERE SNAPSHOT … AND TIMESTAMP …: one row a backup; $1 repository, $2 label and $3 timestamp if just one of
-- each is asked for. That one is a row even if it is not there, as in StarRocks.
WITH found AS (
    SELECT snapshot, backup_timestamp, db_name, details, status, cluster_id, finished_at, ttl, expire_at
    FROM system.snapshots
    WHERE cluster = current_database() AND repository = $1 AND backup_timestamp IS NOT NULL
          AND ($2 IS NULL OR snapshot = $2) AND ($3 IS NULL OR backup_timestamp = $3)
)
SELECT snapshot AS "Snapshot", backup_timestamp AS "Timestamp", db_name AS "Database", details AS "Details",
       CASE WHEN status LIKE 'ERROR: %' THEN substr(status, 8) ELSE status END AS "Status",
       cluster_id AS "ClusterId", starrocks_time(finished_at) AS "FinishTime", ttl AS "TTL",
       starrocks_time(expire_at) AS "ExpireTime"
FROM found
UNION ALL
SELECT $2, $3, NULL, NULL, concat('Failed to get info: File does not exist: __info_', $3), NULL, NULL, NULL, NULL
WHERE $2 IS NOT NULL AND (SELECT count(*) FROM found) = 0
ORDER BY 1, 2
