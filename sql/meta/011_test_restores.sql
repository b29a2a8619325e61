-- How long restoring a backup took when it was verified that way, milliseconds.
ALTER TABLE verifications ADD COLUMN restore_ms INTEGER;
