-- SHOW BROKER. The embedded cluster keeps brokers for StarRocks' syntax and never calls one, so whether it lives is not known.
SELECT name AS "Name", host AS "IP", port AS "Port", alive AS "Alive", cast(NULL AS varchar) AS "LastStartTime",
       cast(NULL AS varchar) AS "LastUpdateTime", error AS "ErrMsg"
FROM system.brokers ORDER BY name, host, port
