-- What changes in a job's row while it goes on, as JSON; small, so that an append costs the same whatever the job is about.
ALTER TABLE jobs ADD COLUMN course TEXT;
