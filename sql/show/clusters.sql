-- SHOW CLUSTERS
SELECT cluster AS "Cluster", kind AS "Type", address AS "Address", version AS "Version", leader AS "Leader",
       CASE WHEN reachable THEN 'true' WHEN NOT reachable THEN 'false' END AS "Reachable", condition AS "Condition", jobs_running AS "JobsRunning",
       error AS "ErrMsg"
FROM system.clusters ORDER BY cluster
