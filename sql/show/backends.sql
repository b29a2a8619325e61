-- SHOW BACKENDS
SELECT backend_id AS "BackendId", path AS "IP", alive AS "Alive", tablets AS "TabletNum", bytes AS "DataUsedCapacity",
       error AS "ErrMsg"
FROM system.backends ORDER BY backend_id
