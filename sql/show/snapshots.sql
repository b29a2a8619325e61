-- SHOW SNAPSHOT ON r [WHERE SNAPSHOT = … | IN (…)]: $1 repository, $2 labels (empty: all)
SELECT snapshot AS "Snapshot", array_to_string(array_agg(backup_timestamp ORDER BY backup_timestamp), chr(10)) AS "Timestamp",
       max(status) AS "Status"
FROM system.snapshots
WHERE repository = $1 AND (cardinality($2) = 0 OR array_has($2, snapshot))
GROUP BY snapshot ORDER BY snapshot
