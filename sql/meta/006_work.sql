-- Jobs of any kind: what a job asks for says itself what it is about, and what must not run beside it is rows.
UPDATE jobs SET spec = json_object(
    'uid', spec ->> '$.uid',
    'cluster', spec ->> '$.cluster',
    'requester', CASE
        WHEN spec ->> '$.requested_by' = '' THEN json('"outside"')
        ELSE json_object('user', json_object(
            'name', spec ->> '$.requested_by',
            'client_addr', spec ->> '$.client_addr',
            'application_name', spec ->> '$.application_name'))
    END,
    'statement', spec ->> '$.statement',
    'timeout_seconds', json(spec -> '$.timeout_seconds'),
    'work', CASE
        WHEN json_type(spec, '$.request.remote') IS NOT NULL THEN json_object('remote', json_patch(
            json_object('database', spec ->> '$.database', 'label', spec ->> '$.label', 'repository', spec ->> '$.repository'),
            json(spec -> '$.request.remote')))
        WHEN json_type(spec, '$.request.restore') IS NOT NULL THEN json_object('restore', json_object(
            'target', json_object('database', spec ->> '$.database', 'label', spec ->> '$.label', 'repository', spec ->> '$.repository'),
            'request', spec -> '$.request.restore'))
        ELSE json_object('backup', json_object(
            'target', json_object('database', spec ->> '$.database', 'label', spec ->> '$.label', 'repository', spec ->> '$.repository'),
            'request', spec -> '$.request.backup'))
    END)
-- What does not read is left as it is: its job is found to be lost.
WHERE json_valid(spec);

CREATE TABLE job_locks (
    -- What is locked, as JSON.
    resource  TEXT    NOT NULL,
    job_id    INTEGER NOT NULL REFERENCES jobs (job_id),
    -- 0: others may hold it as well.
    exclusive INTEGER NOT NULL,
    PRIMARY KEY (resource, job_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_locks_by_job ON job_locks (job_id);

INSERT INTO job_locks SELECT json_object('database', json_array(cluster, db_name)), job_id, 1
FROM jobs WHERE settled = 0 AND exclusive = 1;
INSERT INTO job_locks SELECT json_object('snapshot', json_array(cluster, repository, snapshot)), job_id, kind = 'backup'
FROM jobs WHERE settled = 0 AND exclusive = 1;
INSERT INTO job_locks SELECT json_object('repository', json_array(cluster, repository)), job_id, 0
FROM jobs WHERE settled = 0 AND repository <> '';

DROP INDEX jobs_one_per_database;
DROP INDEX jobs_one_per_label;
ALTER TABLE jobs DROP COLUMN exclusive;
