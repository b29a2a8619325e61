-- Dashboards ask for a span of time, newest first.
CREATE INDEX jobs_by_creation ON jobs (created_at, job_id);
-- A start asks what is known to be damaged, however much else was found.
CREATE INDEX findings_by_kind ON findings (kind, cluster, repository, object);
