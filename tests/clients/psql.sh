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
psql -X shop -c 'BACKUP SNAPSHOT monday TO r' 2>&1 | grep -q 'NOTICE:  job 1 submitted'
until [ "$("${psql[@]}" -c "SELECT status FROM system.jobs WHERE job_id = 1")" != running ]; do :; done
[ "$(psql -X -At shop -c 'SHOW BACKUP' | cut -d'|' -f2-5)" = "monday|shop|FINISHED|[shop.items]" ]
{ psql -X -v VERBOSITY=verbose shop -c 'SELECT nope FROM items' 2>&1 || true; } | grep -q 'ERROR:  42703: column "nope" does not exist'
{ psql -X shop -c 'BACKUP SNAPSHOT x' 2>&1 || true; } | grep -q 'LINE 1: BACKUP SNAPSHOT x'
[ "$(PGOPTIONS='-c timezone=Asia/Tokyo' psql -X -At embedded -c 'SHOW timezone')" = Asia/Tokyo ]
echo "psql passed"
