-- SHOW REPOSITORIES
SELECT repository_id AS "RepoId", repository AS "RepoName", starrocks_time(created_at) AS "CreateTime",
       CASE WHEN read_only THEN 'true' ELSE 'false' END AS "IsReadOnly", location AS "Location",
       coalesce(broker, '') AS "Broker",
       CASE WHEN error IS NULL THEN NULL ELSE concat(starrocks_time(checked_at), ': ', error) END AS "ErrMsg"
FROM system.repositories WHERE cluster = current_database() ORDER BY repository_id
