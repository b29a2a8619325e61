-- SHOW SNAPSHOT ON r: one row a label; $1 repository. Of a label with several backups, each on a line of its own, empty where
-- it is not known.
SELECT snapshot AS "Snapshot",
       array_to_string(array_agg(coalesce(backup_timestamp, CASE WHEN status LIKE 'Invalid: %' THEN status ELSE '' END)
                                 ORDER BY backup_timestamp), chr(10)) AS "Timestamp",
       max(CASE WHEN status LIKE 'Invalid: %' THEN 'OK' ELSE status END) AS "Status",
       CASE WHEN count(cluster_id) > 0 THEN array_to_string(array_agg(cluster_id ORDER BY backup_timestamp), chr(10), '') END
           AS "ClusterId",
       CASE WHEN count(finished_at) > 0
            THEN array_to_string(array_agg(starrocks_time(finished_at) ORDER BY backup_timestamp), chr(10), '') END AS "FinishTime",
       CASE WHEN count(ttl) > 0 THEN array_to_string(array_agg(ttl ORDER BY backup_timestamp), chr(10), '') END AS "TTL",
       CASE WHEN count(expire_at) > 0
            THEN array_to_string(array_agg(starrocks_time(expire_at) ORDER BY backup_timestamp), chr(10), '') END AS "ExpireTime"
FROM system.snapshots
WHERE cluster = current_database() AND repository = $1
GROUP BY snapshot ORDER BY snapshot
