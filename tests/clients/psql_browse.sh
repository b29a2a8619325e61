#!/usr/bin/env bash
# psql's own commands: what they print about the tables of starkeep.sql.
set -euo pipefail
psql=(psql -X -q -At embedded)
says() { # says <command> <text that must be printed> [options of psql]
    local out
    out=$(psql -X -q -P border=0 -P fieldsep='|' "${@:3}" embedded -c "$1" 2>&1) || { echo "$1 failed: $out"; exit 1; }
    case "$out" in *ERROR*) echo "$1 printed: $out"; exit 1 ;; esac
    grep -qF -- "$2" <<< "$out" || { echo "$1 does not print \"$2\" but: $out"; exit 1; }
}
says '\l' 'embedded|root|UTF8' -At
says '\dn' 'market|root' -At
says '\dt market.*' 'market|orders|table|root' -At
says '\dv market.*' 'market|paid_orders|view|root' -At
says '\d' 'system|jobs|table|root' -At
says '\d market.orders' 'amount|numeric(18,4)|||0' -At
says '\d market.orders' '"orders_pkey" PRIMARY KEY, btree (id)'
says '\d+ market.orders' 'who ordered'
says '\d+ market.paid_orders' 'SELECT id, customer, amount FROM market.orders WHERE paid'
says '\du' 'root|Superuser' -At
says '\df pg_catalog.now' 'timestamp with time zone' -At
says '\dp market.orders' 'market|orders|table' -At
says '\di market.*' 'market|orders_pkey|index|root|orders' -At
says '\dT int4' 'integer' -At
says '\sv market.paid_orders' 'CREATE OR REPLACE VIEW market.paid_orders'
# \gdesc: a description without an execution; \watch: the same again; \copy both ways.
[ "$("${psql[@]}" <<< 'SELECT id, customer, amount FROM market.orders \gdesc')" = $'id|bigint\ncustomer|character varying(20)\namount|numeric(18,4)' ]
[ "$(timeout 2 "${psql[@]}" <<< 'SELECT 1 \watch 0.2' | grep -c '^1$')" -ge 2 ]
"${psql[@]}" -c "\\copy (SELECT id, customer FROM market.orders ORDER BY id) to '$STARKEEP_WORK/orders.csv' csv header"
[ "$(head -2 "$STARKEEP_WORK/orders.csv")" = $'id,customer\n1,ann' ]
# Tab completion asks while one types, and hides its errors; so what readline shows is looked at.
command -v script > /dev/null && {
    completed=$(printf 'SELECT * FROM market.ord\t\n;\n\\q\n' | TERM=dumb script -qec "psql -X embedded" /dev/null)
    grep -q 'market.orders' <<< "$completed" || { echo "no tab completion: $completed"; exit 1; }
}
echo "psql's commands passed"
