-- SHOW GRANTS FOR ROLE r: $1 role
SELECT grantee AS "RoleName",
       CASE WHEN object_kind = 'SYSTEM' OR object_kind IS NULL THEN NULL ELSE 'default_catalog' END AS "Catalog",
       statement AS "Grants"
FROM system.grants
WHERE grantee_kind = 'role' AND grantee = $1 AND (cluster IS NULL OR cluster = current_database())
ORDER BY statement
