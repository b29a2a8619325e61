"""How long statements go on after a CancelRequest, milliseconds, the longest of five: cancel.py <port> <database>."""

import sys
import threading
import time

import psycopg

JOINS = "".join(f" JOIN generate_series(1, 2) AS g{i}(n) ON g{i}.n = g{i - 1}.n" for i in range(1, 400))
STATEMENTS = {
    "sleeping": "SELECT pg_sleep(60)",
    "a join that finds nothing": "SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y)"
    " WHERE x * y = 7",
    "sorting": "SELECT md5(n::text) AS m FROM generate_series(1, 30000000) AS g(n) ORDER BY m",
    "streaming": "SELECT n FROM generate_series(1, 1000000000) AS g(n)",
    "the catalogs": "SELECT count(*) FROM pg_attribute AS a, pg_attribute AS b, pg_attribute AS c WHERE a.attnum + b.attnum = -c.attnum",
    "planning": f"SELECT count(*) FROM generate_series(1, 2) AS g0(n){JOINS}",
}


def ended(connection, statement, told):
    try:
        for _ in connection.cursor().stream(statement):
            pass
    except psycopg.errors.QueryCanceled:
        told.append(time.monotonic())


for name, statement in STATEMENTS.items():
    longest = 0.0
    for _ in range(5):
        with psycopg.connect(host="127.0.0.1", port=sys.argv[1], user="root", dbname=sys.argv[2], autocommit=True) as connection:
            told = []
            thread = threading.Thread(target=ended, args=(connection, statement, told))
            thread.start()
            time.sleep(0.2)
            asked = time.monotonic()
            connection.cancel_safe()
            thread.join()
            if not told:
                longest = None
                break
            longest = max(longest, (told[0] - asked) * 1000)
    print(f"{name}: {'over before it was cancelled' if longest is None else f'{longest:.0f}'}", flush=True)
