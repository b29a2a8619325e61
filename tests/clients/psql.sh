#!/usr/bin/env bash
# psql: statements, several in one message, notices, errors with their place, \copy, \gset, \timing, -1.
set -euo pipefail
psql=(psql -X -q -v ON_ERROR_STOP=1 -At embedded)

"${psql[@]}" <<'SQL'
CREATE DATABASE shop;
USE shop;
CREATE TABLE items (id INT NOT NULL, name STRING) PRIMARY KEY (id);
SQL
printf '1\tpen\n2\tink\n' | "${psql[@]}" -c "\copy shop.items from stdin"
[ "$("${psql[@]}" -c 'SELECT count(*), max(name) FROM shop.items')" = "2|pen" ]
[ "$("${psql[@]}" -c 'SELECT 1; SELECT 2')" = $'1\n2' ]
"${psql[@]}" -c "CREATE REPOSITORY r WITH BROKER ON LOCATION \"$STARKEEP_WORK/repository\""
# Not grep -q, which leaves at the first match: psql would die of what it says after that.
psql -X shop -c 'BACKUP SNAPSHOT monday TO r' 2>&1 | grep 'NOTICE:  job 1 submitted' > /dev/null
until [[ "$("${psql[@]}" -c "SELECT status FROM system.jobs WHERE job_id = 1")" =~ ^(succeeded|failed|cancelled)$ ]]; do :; done
[ "$(psql -X -At shop -c 'SHOW BACKUP' | cut -d'|' -f2-5)" = "monday|shop|FINISHED|[shop.items]" ]
{ psql -X -v VERBOSITY=verbose shop -c 'SELECT nope FROM items' 2>&1 || true; } | grep 'ERROR:  42703: column "nope" does not exist' > /dev/null
{ psql -X shop -c 'BACKUP SNAPSHOT x' 2>&1 || true; } | grep 'LINE 1: BACKUP SNAPSHOT x' > /dev/null
# StarRocks' statements as a DBA types them: filters, both quotes, views, privileges.
[ "$("${psql[@]}" -c "SHOW BACKUP FROM shop WHERE snapshotname = \"monday\" AND State = 'FINISHED' ORDER BY JobId DESC LIMIT 1" | cut -d'|' -f2)" = monday ]
[ "$("${psql[@]}" -c "SHOW SNAPSHOT ON r WHERE SNAPSHOT NOT IN ('tuesday')" | cut -d'|' -f1,3)" = "monday|OK" ]
"${psql[@]}" -c "CREATE VIEW shop.names AS SELECT name FROM shop.items; CREATE ROLE keeper; CREATE USER ana"
"${psql[@]}" -c "GRANT REPOSITORY ON SYSTEM TO ROLE keeper; GRANT keeper TO USER ana"
{ psql -X -U ana shop -c 'BACKUP DATABASE shop SNAPSHOT tuesday TO r ON (ALL TABLES, VIEW names)' 2>&1 || true; } | grep 'the EXPORT privilege(s) on TABLE items' > /dev/null
{ psql -X shop -c 'BACKUP SNAPSHOT tuesday TO r ON (items AS i)' 2>&1 || true; } | grep 'ERROR:  Specifying alias for backup object is forbidden in BACKUP stmt' > /dev/null
"${psql[@]}" -c "DROP SNAPSHOT monday ON r"
[ -z "$("${psql[@]}" -c "SHOW SNAPSHOT ON r")" ]
[ "$(PGOPTIONS='-c timezone=Asia/Tokyo' psql -X -At embedded -c 'SHOW timezone')" = Asia/Tokyo ]
echo "psql passed"
