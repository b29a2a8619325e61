#!/usr/bin/env python3
"""What a tablet costs a backup and a restore, by how many there are; and how soon a server listens that was killed in the middle.

    pip install 'psycopg[binary]'
    benches/tablets/run.py --server target/release/starkeep 10 1000 10000 30000

Each size is measured with empty tablets, and with a row in each up to --filled tablets. CPU is the server's own, user and system time, by
/proc; what a job of one tablet costs is taken off first. The last column is the cost a tablet beside that of the smallest size of 1,000 or
more, so 1.00 means that a tablet costs the same however many there are.

The last lines hold what was seen against what is asked: below 1 ms of the program's own CPU a tablet (user; the system's is that of links,
directories and syncs), a cost a tablet of both within 20 % of the smallest size, 10,000 empty tablets within 10 s, and a server that
listens within 1 s. With --check what is missed ends the run with 1.
"""

import argparse
import os
import re
import signal
import subprocess
import tempfile
import time

import psycopg

TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, binary, directory):
        command = [binary, "--data-dir", f"{directory}/data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self.log = open(f"{directory}/log", "a")
        begun = time.monotonic()
        environment = dict(os.environ, STARKEEP_LOG="error")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        ready = self.process.stdout.readline()
        self.seconds_to_listen = time.monotonic() - begun
        self.port = int(re.search(r"root@127.0.0.1:(\d+)", ready)[1])
        self.connection = psycopg.connect(host="127.0.0.1", port=self.port, user="root", dbname="embedded", autocommit=True)

    def run(self, statement):
        cursor = self.connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) / TICKS, int(fields[12]) / TICKS

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()


def wait_for(server, label, kind):
    """Until the job is over, clean-up included; it must have ended well."""
    query = f"SELECT status FROM system.jobs WHERE snapshot = '{label}' AND kind = '{kind}' ORDER BY job_id DESC LIMIT 1"
    while (status := server.run(query)[0][0]) in ("queued", "running"):
        time.sleep(0.05)
    assert status == "succeeded", status
    # What another job of the database would have to wait for: links and pins go after the end.
    while os.listdir(f"{server.directory}/data/be1/snapshot") if os.path.isdir(f"{server.directory}/data/be1/snapshot") else []:
        time.sleep(0.05)


def make_table(server, database, tablets):
    buckets = min(tablets, 1000)
    assert tablets % buckets == 0, f"{tablets} tablets are no whole number of partitions of 1,000"
    ranges = ", ".join(f'PARTITION p{p} VALUES [("{p}"), ("{p + 1}"))' for p in range(tablets // buckets))
    server.run(f"CREATE DATABASE {database}")
    server.run(
        f"CREATE TABLE {database}.t (p INT, k INT) DUPLICATE KEY (p) PARTITION BY RANGE (p) ({ranges}) "
        f"DISTRIBUTED BY HASH (k) BUCKETS {buckets}"
    )
    return buckets


def fill(server, database, tablets, buckets):
    """Rows until nearly every tablet has one, partition by partition."""
    for p in range(tablets // buckets):
        server.run(f"INSERT INTO {database}.t SELECT {p}, value FROM generate_series(1, {buckets * 10})")


def measured(server, work):
    user, system = server.cpu()
    begun = time.monotonic()
    work()
    wall = time.monotonic() - begun
    now_user, now_system = server.cpu()
    return wall, now_user - user, now_system - system


def job(server, database, label):
    server.run(f"CREATE DATABASE {database}_restored")

    def backup():
        server.run(f"BACKUP SNAPSHOT {database}.{label} TO r")
        wait_for(server, label, "backup")

    backed_up = measured(server, backup)
    [timestamp] = server.run(f"SELECT backup_timestamp FROM system.jobs WHERE snapshot = '{label}' AND kind = 'backup'")[0]

    def restore():
        server.run(f"RESTORE SNAPSHOT {database}_restored.{label} FROM r PROPERTIES (\"backup_timestamp\" = \"{timestamp}\")")
        wait_for(server, label, "restore")

    return {"backup": backed_up, "restore": measured(server, restore)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", default="target/release/starkeep")
    arguments.add_argument("--filled", type=int, default=10000, help="the largest number of tablets that are measured with rows, too")
    arguments.add_argument("--check", action="store_true", help="end with 1 if a target is missed")
    arguments.add_argument("sizes", type=int, nargs="*", default=[10, 1000, 10000, 30000])
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = Server(arguments.server, directory)
        server.directory = directory
        server.run(f'CREATE REPOSITORY r WITH BROKER ON LOCATION "{directory}/repository"')
        make_table(server, "one", 1)
        least = job(server, "one", "one")
        print(f"{'tablets':>8} {'':6} {'job':8} {'wall s':>7} {'user ms':>8} {'system ms':>9}  a tablet  of that at 1,000")
        base, seen = {}, []
        for filled in (False, True):
            for size in arguments.sizes:
                if filled and size > arguments.filled:
                    continue
                database = f"{'filled' if filled else 'empty'}_{size}"
                buckets = make_table(server, database, size)
                if filled:
                    fill(server, database, size, buckets)
                for kind, (wall, user, system) in job(server, database, database).items():
                    user, system = (max(0, user - least[kind][1]), max(0, system - least[kind][2]))
                    each = user / size, system / size
                    if size >= 1000:
                        base.setdefault((filled, kind), sum(each))
                    # Less than a tick of the system's clock in all is no measure.
                    known = size >= 1000 and base[filled, kind] * 1000 * TICKS >= 1
                    beside = f"{sum(each) / base[filled, kind]:.2f}" if known else ""
                    what = "filled" if filled else "empty"
                    if size >= 1000:
                        seen.append((f"{kind} of {size} {what}: own ms of CPU a tablet", each[0] * 1000, 1.0))
                    if known and size > 1000:
                        seen.append((f"{kind} of {size} {what}: cost a tablet beside the smallest", sum(each) / base[filled, kind], 1.2))
                    if size == 10000 and not filled:
                        seen.append((f"{kind} of {size} {what}: seconds", wall, 10.0))
                    print(f"{size:8} {what:6} {kind:8} {wall:7.2f} {each[0] * 1000:8.3f} {each[1] * 1000:9.3f}  {'':8}  {beside}", flush=True)
        largest = max(arguments.sizes)
        server.run(f"BACKUP SNAPSHOT empty_{largest}.killed TO r")
        done = 0
        while done < largest // 2:
            [done] = server.run("SELECT tasks_done FROM system.jobs WHERE snapshot = 'killed'")[0]
        server.kill()
        assert done < largest, "the job was over before the kill"
        print(f"killed after {done} of {largest} tablets")
        server = Server(arguments.server, directory)
        server.directory = directory
        [tablets] = server.run("SELECT count(*) FROM system.tablets")[0]
        print(f"listens again after {server.seconds_to_listen:.2f} s, with {tablets} tablets in its metastore")
        seen.append(("seconds until it listens after the kill", server.seconds_to_listen, 1.0))
        wait_for(server, "killed", "backup")
        print("the backup ended well")
        server.stop()
    missed = [(what, value, most) for what, value, most in seen if value > most]
    for what, value, most in seen:
        print(f"{'missed' if value > most else 'held':6} {what}: {value:.2f}, at most {most}")
    if missed and arguments.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
