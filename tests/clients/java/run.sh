#!/usr/bin/env bash
# The JDBC driver against the server of PGHOST and PGPORT; what it needs goes into STARKEEP_WORK.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work="$STARKEEP_WORK/java"
driver=42.7.4
mkdir -p "$work"
if ! command -v java > /dev/null || ! command -v mvn > /dev/null; then
    [ "$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq install -y default-jdk-headless maven
fi > "$work/apt.log" 2>&1
[ -f "$work/postgresql-$driver.jar" ] || mvn -B -q dependency:copy "-Dartifact=org.postgresql:postgresql:$driver" "-DoutputDirectory=$work"
java -cp "$work/postgresql-$driver.jar" "$here/ClientSuite.java"
