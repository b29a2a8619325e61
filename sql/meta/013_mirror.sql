-- Whether the copy of a job's journal lies in its repository; which repository a job of another gateway was taken over from; and the id that
-- a job has in every journal.
ALTER TABLE jobs ADD COLUMN mirrored INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN imported TEXT;
ALTER TABLE jobs ADD COLUMN uid TEXT NOT NULL DEFAULT '';
-- Older jobs have none: their repositories may be others by now, under the same names.
UPDATE jobs SET mirrored = 1;
UPDATE jobs SET uid = coalesce(CASE WHEN json_valid(spec) THEN spec ->> '$.uid' END, '');
CREATE INDEX jobs_unmirrored ON jobs (job_id) WHERE mirrored = 0 AND open = 0 AND repository <> '' AND status <> 'refused';
CREATE INDEX jobs_by_uid ON jobs (uid);
