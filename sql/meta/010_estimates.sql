-- EXPLAIN BACKUP and EXPLAIN RESTORE ask for the last jobs of a repository that went well, however many jobs there were.
CREATE INDEX jobs_by_repository ON jobs (cluster, repository, kind, status, job_id);
