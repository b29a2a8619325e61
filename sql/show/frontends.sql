-- SHOW FRONTENDS
SELECT name AS "Name", host AS "IP", CASE WHEN is_leader THEN 'LEADER' ELSE 'FOLLOWER' END AS "Role", alive AS "Alive",
       starrocks_time(started_at) AS "StartTime", version AS "Version"
FROM system.frontends ORDER BY name
