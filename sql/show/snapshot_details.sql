-- SHOW SNAPSHOT ON r WHERE SNAPSHOT = … AND TIMESTAMP = …: $1 repository, $2 labels (one), $3 timestamp.
-- A backup that is not there is a row that says so, as in StarRocks.
WITH found AS (
    SELECT snapshot, backup_timestamp, db_name, details, status
    FROM system.snapshots
    WHERE repository = $1 AND array_has($2, snapshot) AND backup_timestamp = $3
)
SELECT snapshot AS "Snapshot", backup_timestamp AS "Timestamp", db_name AS "Database", details AS "Details", status AS "Status"
FROM found
UNION ALL
SELECT array_element($2, 1), $3, NULL, NULL, concat('Failed to get info: File does not exist: __info_', $3)
WHERE (SELECT count(*) FROM found) = 0
