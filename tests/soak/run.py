#!/usr/bin/env python3
"""Twenty clients of every kind against one server: well-behaved, slow, silent and hostile ones.

    pip install 'psycopg[binary]'
    tests/soak/run.py --server target/debug/starkeep --minutes 30

The clients come for a minute, go, and come again for the time that was asked for: what the server holds after the first minute, it should
hold after the last. Prints its memory and open files before, each minute, and after each time; how long a SELECT 1 took that a process of its
own asked all the while; and every kind of error that clients were told. Fails when the server ends, when a hostile statement is answered by
the loss of the connection, when a panic was counted, or when files stay open.
"""

import argparse
import collections
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import psycopg

stop = threading.Event()
outcomes = collections.Counter()
faults = []
lock = threading.Lock()
# Seconds after which an answer is looked into.
SLOW = 0.06


class Leaves(Exception):
    """A client goes away in the middle."""


def connect(port, user="root"):
    return psycopg.connect(host="127.0.0.1", port=port, user=user, dbname="embedded", autocommit=True)


def said(kind, error):
    code = getattr(error, "sqlstate", None)
    with lock:
        outcomes[f"{kind} {code}"] += 1
        if code is None and not stop.is_set():
            faults.append(f"{kind}: {error}")


def run(kind, cursor, statement):
    try:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        with lock:
            outcomes[f"{kind} 00000"] += 1
        return rows
    except psycopg.Error as error:
        said(kind, error)
        return []


def client(kind):
    """A client that connects again when its work is over, until the end."""

    def decorate(work):
        def forever(port, n):
            while not stop.is_set():
                try:
                    work(port, n)
                except psycopg.Error as error:
                    said(kind, error)
                    time.sleep(0.1)
                except (OSError, Leaves):
                    time.sleep(0.1)

        return forever

    return decorate


def answering(pid):
    """Whether a thread of the server that answers is at work, or ready to be; those of queries are not asked."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            name, rest = open(f"/proc/{pid}/task/{thread}/stat").read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if name != "query" and rest.split()[0] in "RD":
            return True
    return False


def taken_away():
    """How long others than this machine have had each of its processors, seconds: a guest is not told when, only how much."""
    with open("/proc/stat") as stat:
        return [int(line.split()[8]) / os.sysconf("SC_CLK_TCK") for line in stat if re.match(r"cpu\d", line)]


def probe(port, pid):
    """What everybody else must not hold up: prints how long a SELECT 1 took, milliseconds, until its standard input ends; the same without
    what the host of this machine took from a processor meanwhile; and beside it how much later than it had asked this process was woken
    from its pauses, in which the server has no part. Of those answers that are not there after SLOW seconds it says whether the server was
    at them just then."""
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    times, own, late = [], [], []
    asked, slow = None, collections.Counter()

    def watch():
        while not stop.is_set():
            time.sleep(0.01)
            since = asked
            if since is not None and time.monotonic() - since > SLOW:
                slow["the server was at it" if answering(pid) else "every thread of the server that answers was idle"] += 1
                while asked == since:
                    time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    with connect(port) as connection:
        cursor = connection.cursor()
        while not stop.is_set():
            before = taken_away()
            begun = asked = time.monotonic()
            cursor.execute("SELECT 1").fetchall()
            asked = None
            times.append(time.monotonic() - begun)
            elsewhere = max(after - earlier for earlier, after in zip(before, taken_away()))
            own.append(max(0, times[-1] - elsewhere))
            begun = time.monotonic()
            time.sleep(0.02)
            late.append(time.monotonic() - begun - 0.02)
    for what, taken in ("SELECT 1", times), ("SELECT 1, less what the host took", own), ("a pause, beyond what was asked", late):
        taken.sort()
        at = lambda share: taken[min(len(taken) - 1, int(len(taken) * share))] * 1000
        print(f"{what}: {len(taken)} times, median {at(0.5):.1f} ms, 99.9 % {at(0.999):.1f} ms, slowest {taken[-1] * 1000:.1f} ms, {sum(t > 0.25 for t in taken)} over 250 ms")
    print(f"not answered after {SLOW * 1000:.0f} ms: " + (", ".join(f"{count} times {what}" for what, count in slow.items()) or "never"))


@client("dashboard")
def dashboard(port, n):
    with connect(port) as connection:
        cursor = connection.cursor()
        for _ in range(50):
            if stop.is_set():
                return
            run("dashboard", cursor, "SELECT kind, status, count(*) FROM system.jobs GROUP BY 1, 2 ORDER BY 3 DESC")
            run("dashboard", cursor, "SELECT relname FROM pg_catalog.pg_class ORDER BY 1 LIMIT 20")
            run("dashboard", cursor, "SELECT * FROM system.settings")


@client("writer")
def writer(port, n):
    with connect(port) as connection:
        cursor = connection.cursor()
        run("writer", cursor, f"DROP TABLE IF EXISTS soak.w{n}")
        run("writer", cursor, f"CREATE TABLE soak.w{n} (a INT, b STRING) {'PRIMARY KEY (a)' if n % 2 else ''}")
        for i in range(30):
            if stop.is_set():
                return
            run("writer", cursor, f"INSERT INTO soak.w{n} SELECT value, 'row ' || value FROM generate_series({i}, {i + 500})")
            run("writer", cursor, f"SELECT count(*), max(b) FROM soak.w{n}")
        run("writer", cursor, f"DELETE FROM soak.w{n} WHERE a % 3 = 0")


@client("keeper")
def keeper(port, n):
    with connect(port) as connection:
        cursor = connection.cursor()
        label = f"s{n}_{time.monotonic_ns()}"
        run("keeper", cursor, f"BACKUP SNAPSHOT soak.{label} TO r ON (t)")
        ended = "SELECT count(*) FROM system.jobs WHERE db_name = 'soak' AND status IN ('queued', 'running')"
        while not stop.is_set() and run("keeper", cursor, ended) != [(0,)]:
            time.sleep(0.05)
        run("keeper", cursor, f"RESTORE SNAPSHOT soak.{label} FROM r ON (t AS back) PROPERTIES (\"backup_timestamp\" = \"latest\")")
        while not stop.is_set() and run("keeper", cursor, ended) != [(0,)]:
            time.sleep(0.05)
        run("keeper", cursor, f"DROP SNAPSHOT {label} ON r")
        time.sleep(1)


@client("cursor")
def cursors(port, n):
    with connect(port) as connection:
        cursor = connection.cursor()
        run("cursor", cursor, "BEGIN")
        run("cursor", cursor, "DECLARE c SCROLL CURSOR FOR SELECT value FROM generate_series(1, 1000000)")
        for _ in range(20):
            run("cursor", cursor, "FETCH 1000 FROM c")
            run("cursor", cursor, "FETCH BACKWARD 10 FROM c")
        run("cursor", cursor, "ROLLBACK")


@client("slow")
def slow(port, n):
    """Reads a long answer a few bytes at a time, then goes away in the middle."""
    with connect(port) as connection:
        received = 0
        for row in connection.cursor().stream("SELECT value, repeat('x', 1000) FROM generate_series(1, 100000000)"):
            received += 1
            if received % 100 == 0:
                time.sleep(0.05)
            if received > 5000 or stop.is_set():
                break
        connection.cancel()


@client("silent")
def silent(port, n):
    """Says nothing, or half of something."""
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(random.choice([b"", b"\0\0", struct.pack("!ii", 300, 196608), struct.pack("!ii", 8, 80877103)]))
        stop.wait(random.uniform(0.1, 5))
    with connect(port) as connection:
        with connection.cursor().copy("COPY soak.t (a) FROM STDIN") as copy:
            copy.write("1\n")
            stop.wait(random.uniform(0.1, 5))
            if random.random() < 0.5:
                raise Leaves


def nest(opening, middle, closing, times):
    return opening * times + middle + closing * times


def hostile_statements():
    return [
        "SELECT " + nest("(", "1", ")", 20000),
        "SELECT NULL::int" + "[]" * 20000,
        "SELECT '" + "x" * 17_000_000 + "'",
        "SELECT " + "ARRAY[" * 40,
        "SELECT repeat('a', 2000000000)",
        "SELECT length(replace(repeat('x', 10000000), 'x', repeat('y', 1000)))",
        "SELECT " + ", ".join(["upper(repeat('x', 100000))"] * 300) + " FROM generate_series(1, 50)",
        "SELECT count(*) FROM pg_attribute a, pg_attribute b, pg_attribute c",
        "SELECT sum(value) OVER (ORDER BY value) FROM generate_series(1, 100000000)",
        "SELECT sum(a) OVER (ORDER BY a RANGE BETWEEN -1 PRECEDING AND CURRENT ROW) FROM soak.t",
        "SELECT string_agg(repeat('x', 1000000), ',') FROM pg_proc",
        "SELECT array_repeat(1, 2000000000)",
        "SELECT 1;" * 20000,
        "WITH c0 AS (SELECT 1 AS x), "
        + ", ".join(f"c{i} AS (SELECT a.x FROM c{i - 1} a, c{i - 1} b)" for i in range(1, 40))
        + " SELECT count(*) FROM c39",
        "SELECT a.value FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value + b.value < 0",
        "SELECT generate_series(-9223372036854775808, 9223372036854775807, 1)",
        "SELECT bytes_total / 1e9 FROM system.jobs",
        "BACKUP SNAPSHOT soak.s TO r ON (" + ",".join(["t"] * 20000) + ")",
        'CREATE REPOSITORY q WITH BROKER ON LOCATION "oss://b/p" PROPERTIES ("fs.oss.endpoint" = "169.254.169.254")',
    ]


@client("hostile")
def hostile(port, n):
    with connect(port, "eve") as connection:
        cursor = connection.cursor()
        run("hostile", cursor, "SET statement_timeout = '3s'")
        for statement in random.sample(hostile_statements(), 10):
            if stop.is_set():
                return
            run("hostile", cursor, statement)


@client("garbage")
def garbage(port, n):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.settimeout(2)
        raw.sendall(struct.pack("!ii", 17, 196608) + b"user\0eve\0\0"[:9] + b"\0")
        raw.sendall(os.urandom(random.randint(1, 4096)))
        try:
            while raw.recv(4096):
                pass
        except OSError:
            pass
    time.sleep(0.05)


CLIENTS = [dashboard, dashboard, dashboard, dashboard, writer, writer, writer, keeper, cursors, cursors, slow, slow, silent, silent]
CLIENTS += [hostile] * 4 + [garbage] * 2


def state(pid):
    status = open(f"/proc/{pid}/status").read()
    rss = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    return rss, len(os.listdir(f"/proc/{pid}/fd"))


def settled(pid, files):
    """The state once what clients left has been cleared away, or after a minute."""
    deadline = time.monotonic() + 60
    time.sleep(20)
    while (now := state(pid))[1] > files + 16 and time.monotonic() < deadline:
        time.sleep(1)
    return now


def crowd(server, port, minutes):
    """All clients, for so long."""
    stop.clear()
    begun = time.monotonic()
    threads = [threading.Thread(target=work, args=(port, n), daemon=True) for n, work in enumerate(CLIENTS)]
    for thread in threads:
        thread.start()
    while time.monotonic() - begun < minutes * 60 and server.poll() is None:
        time.sleep(min(60, minutes * 60 / 4))
        if server.poll() is None:
            rss, files = state(server.pid)
            print(f"{(time.monotonic() - begun) / 60:5.1f} min: {rss:.0f} MiB, {files} open files", flush=True)
    stop.set()
    for thread in threads:
        thread.join(30)
    # One that is still at it would go on in the next crowd.
    faults.extend(f"{thread.name} did not end" for thread in threads if thread.is_alive())


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", default="target/debug/starkeep")
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--probe", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    if arguments.probe:
        return probe(*arguments.probe)
    with tempfile.TemporaryDirectory() as directory:
        command = [arguments.server, "--data-dir", f"{directory}/data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        log = open(f"{directory}/log", "w+")
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ, STARKEEP_LOG="error"))
        ready = server.stdout.readline()
        port = int(re.search(r"root@127.0.0.1:(\d+)", ready)[1])
        metrics = re.search(r"http://\S+", ready)[0]
        with connect(port) as connection:
            for statement in [
                "CREATE DATABASE soak",
                "CREATE TABLE soak.t (a INT) DISTRIBUTED BY HASH (a) BUCKETS 4",
                "INSERT INTO soak.t SELECT value FROM generate_series(1, 10000)",
                f'CREATE REPOSITORY r WITH BROKER ON LOCATION "{directory}/repository"',
                "CREATE USER eve",
                "GRANT REPOSITORY ON SYSTEM TO eve",
                "GRANT SELECT ON TABLE soak.t TO eve",
            ]:
                connection.execute(statement)
        before = state(server.pid)
        print(f"before: {before[0]:.0f} MiB, {before[1]} open files", flush=True)
        asking = subprocess.Popen([sys.executable, __file__, "--probe", str(port), str(server.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # Elsewhere the clients have processors of their own; here they give way to the server and to the one that asks SELECT 1.
        os.nice(10)
        crowd(server, port, 1)
        first = settled(server.pid, before[1]) if server.poll() is None else before
        print(f"after the first minute: {first[0]:.0f} MiB, {first[1]} open files", flush=True)
        crowd(server, port, arguments.minutes)
        after, panics = None, "unknown"
        if server.poll() is None:
            after = settled(server.pid, first[1])
            text = urllib.request.urlopen(metrics).read().decode()
            panics = re.search(r"^starkeep_panics_total (\d+)", text, re.M)[1]
            print(f"after the last: {after[0]:.0f} MiB, {after[1]} open files; panics {panics}")
        print(asking.communicate()[0].strip())
        if asking.returncode != 0:
            faults.append(f"the process that asks SELECT 1 ended with {asking.returncode}")
        for outcome, count in sorted(outcomes.items()):
            print(f"  {outcome}: {count}")
        good = server.poll() is None and panics == "0" and after[1] <= first[1] + 16 and not faults
        for fault in faults[:20]:
            print(f"fault: {fault[:300]}")
        if server.poll() is None:
            server.terminate()
        print(f"the server ended with {server.wait(60)}")
        log.seek(0)
        sys.stdout.write(log.read()[-4000:])
        sys.exit(0 if good else 1)


main()
