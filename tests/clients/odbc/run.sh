#!/usr/bin/env bash
# psqlODBC through pyodbc against the server of PGHOST and PGPORT; what it needs goes into STARKEEP_WORK.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work="$STARKEEP_WORK/odbc"
mkdir -p "$work"
if ! ls /usr/lib/*/odbc/psqlodbcw.so > /dev/null 2>&1 || ! command -v odbc_config > /dev/null; then
    [ "$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq install -y odbc-postgresql unixodbc unixodbc-dev
fi > "$work/apt.log" 2>&1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyodbc
timeout 240 "$work/venv/bin/python" "$here/odbc_client.py"
