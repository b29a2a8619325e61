"""How long statements go on after a CancelRequest, milliseconds, the longest of five: cancel.py <port> <database>.

The first number is when the server has left the statement, the second when the driver knows, which reads what is on its way first.
"""

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
    # PostgreSQL sends nothing of a function behind FROM before it has all of it, so two short ones are joined.
    "streaming": "SELECT a.n FROM generate_series(1, 100000) AS a(n), generate_series(1, 10000) AS b(n)",
    "the catalogs": "SELECT count(*) FROM pg_attribute AS a, pg_attribute AS b, pg_attribute AS c WHERE a.attnum + b.attnum = -c.attnum",
    "planning": f"SELECT count(*) FROM generate_series(1, 2) AS g0(n){JOINS}",
}


def ended(connection, statement, told):
    try:
        for _ in connection.cursor().stream(statement):
            pass
    except psycopg.errors.QueryCanceled:
        told.append(time.monotonic())


address = {"host": "127.0.0.1", "port": sys.argv[1], "user": "root", "dbname": sys.argv[2], "autocommit": True}
watch = psycopg.connect(**address)
for name, statement in STATEMENTS.items():
    at_server = at_client = 0.0
    for _ in range(5):
        with psycopg.connect(**address) as connection:
            told = []
            thread = threading.Thread(target=ended, args=(connection, statement, told))
            thread.start()
            time.sleep(0.2)
            state = ("SELECT state FROM pg_stat_activity WHERE pid = %s" % connection.info.backend_pid,)
            if watch.execute(*state).fetchone() != ("active",):
                sys.exit(f"{name}: over before it was cancelled")
            asked = time.monotonic()
            connection.cancel_safe()
            while watch.execute(*state).fetchone() == ("active",):
                pass
            at_server = max(at_server, (time.monotonic() - asked) * 1000)
            thread.join()
            at_client = max(at_client, (told[0] - asked) * 1000)
    print(f"{name}: {at_server:.0f}, {at_client:.0f}", flush=True)
