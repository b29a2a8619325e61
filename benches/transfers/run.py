#!/usr/bin/env python3
"""How fast a backup and a restore move bytes, beside `cp -r` and a sync on the same disk and beside rclone on the same S3 server, with as many transfers
at a time.

    pip install 'psycopg[binary]'; apt install rclone; go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
    benches/transfers/run.py --server target/release/starkeep --s3 ~/go/bin/versitygw

Two tables are moved: one of large files, and one of as many small files as it has tablets, some 2 kB each. A ratio is the other one's time over
ours, so more than 1 means that Starkeep is faster. Each number is the best of --rounds. What a job does beside moving bytes (plan, links, hashes, syncs,
manifest) counts; SHA-256 of every byte does, too, which neither cp nor rclone computes.
"""

import argparse
import asyncio
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import psycopg

STORE_PORT, FAR_PORT = 18014, 18015
KEYS = '"aws.s3.access_key" = "AKEXAMPLE", "aws.s3.secret_key" = "SKEXAMPLE", "aws.s3.enable_path_style_access" = "true", "aws.s3.region" = "us-east-1"'


class Distance:
    """What stands between a client and the store: everything arrives so many milliseconds later, either way, and nothing is held up by what came before it."""

    def __init__(self, port, target, milliseconds):
        ready = multiprocessing.Event()
        self.process = multiprocessing.Process(target=self.relay, args=(port, target, milliseconds / 1000, ready), daemon=True)
        self.process.start()
        ready.wait()

    @staticmethod
    def relay(port, target, delay, ready):
        async def forward(reader, writer):
            loop, waiting = asyncio.get_running_loop(), asyncio.Queue()

            async def deliver():
                while (item := await waiting.get())[1]:
                    await asyncio.sleep(item[0] - loop.time())
                    writer.write(item[1])
                    await writer.drain()
                writer.close()

            delivering = asyncio.create_task(deliver())
            try:
                while True:
                    piece = await reader.read(1 << 18)
                    waiting.put_nowait((loop.time() + delay, piece))
                    if not piece:
                        break
                await delivering
            except ConnectionError:
                delivering.cancel()
                writer.close()

        async def meet(reader, writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(forward(reader, far_writer), forward(far_reader, writer))

        async def serve():
            async with await asyncio.start_server(meet, "127.0.0.1", port):
                ready.set()
                await asyncio.Event().wait()

        asyncio.run(serve())

    def stop(self):
        self.process.terminate()


class Server:
    def __init__(self, binary, directory, concurrency):
        command = [binary, "--data-dir", f"{directory}/data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--backends", "1"]
        environment = dict(os.environ, STARKEEP_LOG="error", STARKEEP_UPLOAD_CONCURRENCY=str(concurrency))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        port = int(re.search(r"root@127.0.0.1:(\d+)", self.process.stdout.readline())[1])
        self.connection = psycopg.connect(host="127.0.0.1", port=port, user="root", dbname="embedded", autocommit=True)

    def run(self, statement):
        cursor = self.connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def job(self, statement):
        """How long the job of a statement takes, from the statement to its end."""
        begun = time.monotonic()
        self.run(statement)
        number = self.run("SELECT max(job_id) FROM system.jobs")[0][0]
        self.run(f"WAIT FOR JOB {number}")
        return time.monotonic() - begun

    def stop(self):
        self.process.terminate()
        self.process.wait()


def timed(*command):
    begun = time.monotonic()
    # Nothing of the machine's own for AWS' library in rclone.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    subprocess.run(command, check=True, env=environment)
    return time.monotonic() - begun


def best(rounds, measure):
    return min(measure(n) for n in range(rounds))


def sources(directory, table_files):
    """The files of a table by themselves, for the others to copy."""
    target = pathlib.Path(directory)
    target.mkdir()
    for path in table_files:
        os.link(path, target / path.name)
    return target


def report(what, ours, other, size):
    print(f"{what:<34} {ours:8.2f} s {other:8.2f} s   ratio {other / ours:5.2f}   {size / ours / 1e6:8.1f} MB/s", flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", default="target/release/starkeep")
    arguments.add_argument("--s3", default="versitygw", help="versitygw, a gateway from S3 to a directory")
    arguments.add_argument("--rclone", default="rclone")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--megabytes", type=int, default=400)
    arguments.add_argument("--files", type=int, default=3000)
    arguments.add_argument("--concurrency", type=int, default=4, help="transfers at a time, of both")
    arguments.add_argument("--delay-ms", type=int, default=0, help="to the S3 server, each way; then nothing else is measured")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        (bucket := pathlib.Path(directory, "s3", "bench")).mkdir(parents=True)
        s3 = subprocess.Popen(
            [arguments.s3, "--access", "AKEXAMPLE", "--secret", "SKEXAMPLE", "--port", f"127.0.0.1:{STORE_PORT}", "posix", str(bucket.parent)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        distance = Distance(FAR_PORT, STORE_PORT, arguments.delay_ms) if arguments.delay_ms else None
        server = Server(arguments.server, directory, arguments.concurrency)
        try:
            play(server, arguments, directory)
        finally:
            if distance:
                distance.stop()
            server.stop()
            s3.terminate()
            s3.wait()


def play(server, arguments, directory):
    rows = arguments.megabytes * 10_000
    server.run("CREATE DATABASE d")
    server.run("CREATE TABLE d.large (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 8")
    # Hexadecimal digits compress to half: 200 bytes of them are some 100 in a file.
    for start in range(1, rows, 1_000_000):
        server.run(f"INSERT INTO d.large SELECT value, concat(encode(sha512(concat('x', value)), 'hex'), encode(sha256(concat('y', value)), 'hex')) FROM generate_series({start}, {min(start + 999_999, rows)})")
    partitions = ", ".join(f'PARTITION p{n} VALUES LESS THAN ("{n + 1}")' for n in range(3))
    server.run(f"CREATE TABLE d.small (p INT, a BIGINT, b STRING) PARTITION BY RANGE (p) ({partitions}) DISTRIBUTED BY HASH (a) BUCKETS {arguments.files // 3}")
    server.run(f"INSERT INTO d.small SELECT value % 3, value, encode(sha512(concat('z', value)), 'hex') FROM generate_series(1, {arguments.files * 12})")
    server.run(f'CREATE REPOSITORY here WITH BROKER ON LOCATION "{directory}/repository"')
    endpoint = f"http://127.0.0.1:{FAR_PORT if arguments.delay_ms else STORE_PORT}"
    server.run(f'CREATE REPOSITORY there WITH BROKER ON LOCATION "s3://bench/p" PROPERTIES ({KEYS}, "aws.s3.endpoint" = "{endpoint}")')
    remote = f":s3,provider=Other,access_key_id=AKEXAMPLE,secret_access_key=SKEXAMPLE,endpoint='{endpoint}',force_path_style=true,no_check_bucket=true:bench"
    flags = ["--transfers", str(arguments.concurrency), "--checkers", str(arguments.concurrency), "--no-check-dest", "--multi-thread-streams", "0", "--expect-continue-timeout", "0", "--quiet", "--config", "/dev/null"]
    print(f"{'':<34} {'ours':>10} {'beside':>10}")
    for table in ["large", "small"]:
        tablets = server.run(f"SELECT DISTINCT tablet_id FROM system.tablets WHERE table_name = '{table}'")
        files = [file for (tablet,) in tablets for file in pathlib.Path(directory, f"data/be1/tablets/{tablet}").glob("*.parquet")]
        size = sum(file.stat().st_size for file in files)
        print(f"{table}: {len(files)} files, {size / 1e6:.0f} MB")
        source = sources(f"{directory}/{table}", files)

        def backup(repository):
            def once(n):
                # Nothing of it is there: what a round has brought goes.
                place = pathlib.Path(directory, "repository") if repository == "here" else pathlib.Path(directory, "s3", "bench", "p")
                shutil.rmtree(place / f"__starrocks_repository_{repository}" / "data", ignore_errors=True)
                return server.job(f"BACKUP SNAPSHOT d.{table}_{repository}_{n} TO {repository} ON ({table})")
            return best(arguments.rounds, once)

        def restore(repository):
            last = arguments.rounds - 1

            def once(n):
                took = server.job(f"RESTORE SNAPSHOT d.{table}_{repository}_{last} FROM {repository} ON ({table} AS back_{n}) PROPERTIES ('backup_timestamp' = 'latest', 'replication_num' = '1')".replace("'", '"'))
                server.run(f"DROP TABLE d.back_{n}")
                return took
            return best(arguments.rounds, once)

        def copied(n):
            took = timed("sh", "-c", f"cp -r {source} {directory}/copy && sync -f {directory}/copy")
            shutil.rmtree(f"{directory}/copy")
            return took

        def sent(n):
            return timed(arguments.rclone, "copy", str(source), f"{remote}/{table}_{n}", *flags)

        def fetched(n):
            took = timed(arguments.rclone, "copy", f"{remote}/{table}_0", f"{directory}/fetched", *flags)
            took += timed("sync", "-f", f"{directory}/fetched")
            shutil.rmtree(f"{directory}/fetched")
            return took

        if not arguments.delay_ms:
            report("  backup, directory; cp -r, sync", backup("here"), best(arguments.rounds, copied), size)
            report("  restore, directory; cp -r, sync", restore("here"), best(arguments.rounds, copied), size)
        report("  backup, S3; rclone", backup("there"), best(arguments.rounds, sent), size)
        report("  restore, S3; rclone, sync", restore("there"), best(arguments.rounds, fetched), size)


main()
