-- SHOW RESTORE [FROM db]: the latest of each database that has had its turn; $1 database or NULL
SELECT job_id AS "JobId", label AS "Label", timestamp AS "Timestamp", db_name AS "DbName", state AS "State",
       CASE WHEN allow_load THEN 'true' ELSE 'false' END AS "AllowLoad", replication_num AS "ReplicationNum",
       restore_objs AS "RestoreObjs", starrocks_time(create_time) AS "CreateTime",
       starrocks_time(meta_prepared_time) AS "MetaPreparedTime", starrocks_time(snapshot_finished_time) AS "SnapshotFinishedTime",
       starrocks_time(download_finished_time) AS "DownloadFinishedTime", starrocks_time(finished_time) AS "FinishedTime",
       unfinished_tasks AS "UnfinishedTasks", progress AS "Progress", task_err_msg AS "TaskErrMsg", status AS "Status",
       timeout AS "Timeout"
FROM system.restore_jobs
WHERE latest AND ($1 IS NULL OR db_name = $1)
ORDER BY db_name
