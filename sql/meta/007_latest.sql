-- SHOW BACKUP asks for the latest job of a database that has had its turn, however many there were. Refused attempts never had a phase.
ALTER TABLE jobs ADD COLUMN phase TEXT NOT NULL DEFAULT '';
UPDATE jobs SET phase = coalesce(CASE WHEN json_valid(coalesce(course, row)) THEN coalesce(course, row) ->> '$.state' END, '');
CREATE INDEX jobs_latest ON jobs (cluster, kind, db_name, job_id) WHERE phase <> '' AND phase <> 'QUEUED';
