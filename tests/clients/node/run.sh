#!/usr/bin/env bash
# Drivers of JavaScript against the server of PGHOST and PGPORT; what they need goes into STARKEEP_WORK.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work="$STARKEEP_WORK/node"
mkdir -p "$work"
command -v npm > /dev/null || { [ "$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq install -y nodejs npm; } > "$work/apt.log" 2>&1
cp "$here/package.json" "$here"/*.mjs "$work/"
npm install --silent --no-audit --no-fund --no-package-lock --prefix "$work"
failed=0
for program in pg_client postgres_client; do
    timeout 120 node "$work/$program.mjs" || failed=1
done
exit $failed
