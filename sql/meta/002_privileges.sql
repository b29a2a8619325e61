-- Roles, and who holds what. Grantee and item are privilege::Grantee and privilege::Grant as JSON.

CREATE TABLE roles (
    name       TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
    grantee TEXT NOT NULL,
    item    TEXT NOT NULL,
    -- Empty for roles and SYSTEM, which are the gateway's.
    cluster TEXT NOT NULL,
    PRIMARY KEY (grantee, item, cluster)
) STRICT, WITHOUT ROWID;
