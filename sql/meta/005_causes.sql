-- Why a job was cancelled is stored by name; 0.1.0 told it from the beginning of the message.
UPDATE job_events SET event = json_set(event, '$.backup.cancelled.failure.cause', 'user')
WHERE CASE WHEN json_valid(event) THEN json_extract(event, '$.backup.cancelled.failure.message') LIKE 'user cancelled%' END;
UPDATE job_events SET event = json_set(event, '$.restore.cancelled.failure.cause', 'user')
WHERE CASE WHEN json_valid(event) THEN json_extract(event, '$.restore.cancelled.failure.message') LIKE 'user cancelled%' END;
UPDATE job_events SET event = json_set(event, '$.remote.cancelled.failure.cause', 'user')
WHERE CASE WHEN json_valid(event) THEN json_extract(event, '$.remote.cancelled.failure.message') LIKE 'user cancelled%' END;
UPDATE job_events SET event = json_set(event, '$.backup.cancelled.failure.cause', 'timeout')
WHERE CASE WHEN json_valid(event) THEN json_extract(event, '$.backup.cancelled.failure.code') = 'Timeout' END;
UPDATE job_events SET event = json_set(event, '$.restore.cancelled.failure.cause', 'timeout')
WHERE CASE WHEN json_valid(event) THEN json_extract(event, '$.restore.cancelled.failure.code') = 'Timeout' END;
