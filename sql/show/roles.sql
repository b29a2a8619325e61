-- SHOW ROLES
SELECT role_name AS "Name", 'false' AS "Builtin", '' AS "Comment" FROM system.roles ORDER BY role_name
