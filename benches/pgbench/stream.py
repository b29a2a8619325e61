"""How long a driver takes to read ten million rows as they come: stream.py <port> <database>."""

import sys
import time

import psycopg

with psycopg.connect(host="127.0.0.1", port=sys.argv[1], user="root", dbname=sys.argv[2]) as connection:
    begun = time.monotonic()
    count = sum(1 for _ in connection.cursor().stream("SELECT n FROM generate_series(1, 10000000) AS g(n)"))
    assert count == 10_000_000, count
    print(time.monotonic() - begun)
