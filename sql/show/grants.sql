-- SHOW GRANTS [FOR user]: $1 user
SELECT concat(chr(39), grantee, chr(39), '@', chr(39), '%', chr(39)) AS "UserIdentity",
       CASE WHEN object_kind = 'SYSTEM' OR object_kind IS NULL THEN NULL ELSE 'default_catalog' END AS "Catalog",
       statement AS "Grants"
FROM system.grants
WHERE grantee_kind = 'user' AND grantee = $1 AND (cluster IS NULL OR cluster = current_database())
ORDER BY statement
