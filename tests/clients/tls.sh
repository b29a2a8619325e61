#!/usr/bin/env bash
# libpq under TLS: tests/clients/tls.sh <path to starkeep>. Passwords bound to the channel, clear text turned away, a reload.
set -euo pipefail
binary=$(realpath "$1")
work=$(mktemp -d "$STARKEEP_WORK/tls.XXXXXX")
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key.pem" -out "$work/cert.pem" -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost 2> "$work/openssl.log"
"$binary" --data-dir "$work/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --tls-cert "$work/cert.pem" --tls-key "$work/key.pem" \
    --tls-required > "$work/ready" 2> "$work/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    grep -q ready "$work/ready" && break
    kill -0 "$server" || { cat "$work/log"; exit 1; }
    sleep 0.1
done
port=$(sed -n 's|.*root@127.0.0.1:\([0-9]*\)/.*|\1|p' "$work/ready")
export PGHOST=localhost PGHOSTADDR=127.0.0.1 PGPORT="$port" PGDATABASE=embedded
psql -X -q "user=root sslmode=require" -c "CREATE USER ana IDENTIFIED BY 'secret'"
bound="user=ana password=secret sslmode=verify-full sslrootcert=$work/cert.pem channel_binding=require"
[ "$(psql -X -At "$bound" -c 'SELECT current_user')" = ana ]
{ psql -X "user=root sslmode=disable" -c 'SELECT 1' 2>&1 || true; } | grep 'this server takes encrypted connections only' > /dev/null
{ psql -X "user=ana password=wrong sslmode=require" -c 'SELECT 1' 2>&1 || true; } | grep 'password authentication failed' > /dev/null
kill -HUP "$server"
[ "$(psql -X -At "$bound" -c 'SELECT 1')" = 1 ]
echo "TLS passed"
