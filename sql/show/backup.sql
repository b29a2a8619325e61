-- SHOW BACKUP [FROM db]: the latest of each database that has had its turn; $1 database or NULL
SELECT job_id AS "JobId", snapshot_name AS "SnapshotName", db_name AS "DbName", state AS "State", backup_objs AS "BackupObjs",
       starrocks_time(create_time) AS "CreateTime", starrocks_time(snapshot_finished_time) AS "SnapshotFinishedTime",
       starrocks_time(upload_finished_time) AS "UploadFinishedTime", starrocks_time(finished_time) AS "FinishedTime",
       unfinished_tasks AS "UnfinishedTasks", progress AS "Progress", task_err_msg AS "TaskErrMsg", status AS "Status",
       timeout AS "Timeout"
FROM system.backup_jobs
WHERE latest AND ($1 IS NULL OR db_name = $1)
ORDER BY db_name
