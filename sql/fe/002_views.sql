-- Views: a query under a name. A database has no table and view of the same name.

CREATE TABLE views (
    view_id     INTEGER PRIMARY KEY,
    database_id INTEGER NOT NULL REFERENCES databases (database_id),
    name        TEXT    NOT NULL,
    -- schema::ViewDefinition as JSON
    definition  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    UNIQUE (database_id, name)
) STRICT;
