#!/usr/bin/env python3
"""Everything that a repository does, on object stores that are not ours: created, written in parts and in one piece, listed, verified,
restored by a second server that has nothing but the location, dropped and looked through for leftovers. tests/stores/run installs what it needs."""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import psycopg

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own, as its manual gives it


ENCRYPTED = '"encryption" = "aes256-gcm", "encryption.key" = "' + "07" * 32 + '"'


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """A program that is stopped at the end, by its id."""

    def __init__(self, *command, **options):
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def listens(port):
    for _ in range(300):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")


class Starkeep(Process):
    def __init__(self, binary, directory):
        command = [binary, "--data-dir", directory, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        super().__init__(*command, stdout=subprocess.PIPE)
        port = int(re.search(r"root@127.0.0.1:(\d+)", self.process.stdout.readline())[1])
        self.connection = psycopg.connect(host="127.0.0.1", port=port, user="root", dbname="embedded", autocommit=True)

    def run(self, statement):
        cursor = self.connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def job(self, statement):
        """Runs a statement that begins a job, and waits for its end."""
        self.run(statement)
        (number,) = self.run("SELECT max(job_id) FROM system.jobs")[0]
        self.run(f"WAIT FOR JOB {number}")
        return number


def check(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r} where {expected!r} should be")


def play(store, binary, location, properties):
    create = f'CREATE REPOSITORY r WITH BROKER ON LOCATION "{location}"' + (f" PROPERTIES ({properties})" if properties else "")
    latest = 'PROPERTIES ("backup_timestamp" = "latest")'
    with tempfile.TemporaryDirectory() as directory:
        with Starkeep(binary, f"{directory}/first") as server:
            for statement in [
                "CREATE DATABASE d",
                "CREATE TABLE d.small (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 8",
                "INSERT INTO d.small SELECT value, 'row ' || value FROM generate_series(1, 8000)",
                # Random text does not compress: more than one part.
                "CREATE TABLE d.large (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 1",
                "INSERT INTO d.large SELECT value, encode(sha512('x' || value), 'hex') FROM generate_series(1, 300000)",
                create,
            ]:
                server.run(statement)
            server.job("BACKUP SNAPSHOT d.one TO r")
            number = server.job('BACKUP SNAPSHOT d.two TO r PROPERTIES ("type" = "incremental")')
            check("bytes that were moved again", server.run(f"SELECT bytes_new FROM system.jobs WHERE job_id = {number}"), [(0,)])
            number = server.job("VERIFY REPOSITORY r LEVEL RESTORE")
            check("findings", server.run(f"SELECT kind, object FROM system.repository_findings WHERE job_id = {number}"), [])
            files = server.run(f"SELECT DISTINCT files_checked, ok FROM system.verifications WHERE job_id = {number}")
            check("files read", files, [(9, True)])
        with Starkeep(binary, f"{directory}/second") as server:
            server.run(create)
            server.job(f"RESTORE SNAPSHOT two FROM r {latest}")
            rows = server.run("SELECT (SELECT count(*) FROM d.small), (SELECT count(DISTINCT b) FROM d.large)")
            check("rows that are back", rows, [(8000, 300000)])
            server.run("DROP SNAPSHOT one ON r FORCE")
            check("snapshots", server.run("SELECT snapshot FROM system.snapshots"), [("two",)])
            server.run("DROP SNAPSHOT two ON r FORCE")
            time.sleep(11)  # The shortest grace time: files younger than that stay.
            number = server.job('PRUNE REPOSITORY r DRY RUN PROPERTIES ("grace" = "10 SECOND")')
            outcome = f"SELECT DISTINCT outcome, count(*) OVER () FROM system.pruned_objects WHERE job_id = {number}"
            check("files that nothing needs", server.run(outcome), [("would be deleted", 9)])
    print(f"{store}: created, backed up, verified, restored, dropped")


def play_reader(store, binary, location, writer, reader):
    """What one writes with its keys another reads with its own, which may read only."""
    with tempfile.TemporaryDirectory() as directory:
        with Starkeep(binary, f"{directory}/first") as server:
            for statement in [
                "CREATE DATABASE d",
                "CREATE TABLE d.t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 2",
                "INSERT INTO d.t SELECT value FROM generate_series(1, 1000)",
                f'CREATE REPOSITORY r WITH BROKER ON LOCATION "{location}" PROPERTIES ({writer})',
            ]:
                server.run(statement)
            server.job("BACKUP SNAPSHOT d.s TO r")
        with Starkeep(binary, f"{directory}/second") as server:
            server.run(f'CREATE READ ONLY REPOSITORY r WITH BROKER ON LOCATION "{location}" PROPERTIES ({reader})')
            server.job('RESTORE SNAPSHOT s FROM r PROPERTIES ("backup_timestamp" = "latest")')
            check("rows that are back", server.run("SELECT count(*) FROM d.t"), [(1000,)])
    print(f"{store}: read")


def moto(program, binary):
    port = free_port()
    with Process(program, "-H", "127.0.0.1", "-p", str(port), stdout=subprocess.DEVNULL):
        listens(port)
        bucket = urllib.request.Request(f"http://127.0.0.1:{port}/vault", method="PUT")
        urllib.request.urlopen(bucket).read()
        properties = f'"aws.s3.endpoint" = "http://127.0.0.1:{port}", "aws.s3.access_key" = "k", "aws.s3.secret_key" = "s"'
        play("moto (S3)", binary, "s3://vault//some/path/", properties)
        play("moto (S3), encrypted", binary, "s3://vault/hidden", f"{properties}, {ENCRYPTED}")


def versitygw(program, binary):
    """A gateway from S3 to a directory, written in Go."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(f"{directory}/vault")
        command = [program, "--access", "k", "--secret", "s", "--port", f"127.0.0.1:{port}", "posix", directory]
        with Process(*command, stdout=subprocess.DEVNULL):
            listens(port)
            properties = f'"aws.s3.endpoint" = "http://127.0.0.1:{port}", "aws.s3.access_key" = "k", "aws.s3.secret_key" = "s"'
            play("versitygw (S3)", binary, "s3://vault/some/path", properties)
            play("versitygw (S3), encrypted", binary, "s3://vault/hidden", f"{properties}, {ENCRYPTED}")


def authority(directory):
    """An authority of one's own and a certificate of it for 127.0.0.1, as files."""
    ca, ca_key, leaf, leaf_key, request, more = (f"{directory}/{name}" for name in ["ca", "ca.key", "leaf", "leaf.key", "request", "more"])
    with open(more, "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new_key = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    signed_by = ["-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", more]
    for command in [
        [*new_key, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", ca_key, "-out", ca],
        [*new_key, "-subj", "/CN=store", "-keyout", leaf_key, "-out", request],
        ["openssl", "x509", "-req", "-in", request, *signed_by, "-out", leaf],
    ]:
        subprocess.run(command, check=True, capture_output=True)
    return ca, leaf, leaf_key


class TokenEndpoint:
    """What answers a client's id and secret with a token, as Microsoft's login does; Azurite checks all of it but the signature."""

    def __init__(self, certificate, key, client, secret):
        encoded = lambda part: base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        now, tenant = int(time.time()), "11111111-2222-3333-4444-555555555555"
        claims = {"aud": "https://storage.azure.com", "iss": f"https://sts.windows.net/{tenant}/", "iat": now, "nbf": now - 60, "exp": now + 3600}
        token = ".".join([encoded({"typ": "JWT", "alg": "RS256"}), encoded(claims), encoded("no signature")])
        self.asked = asked = []

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                asked.append(self.path)
                knows = form.get("client_id") == [client] and form.get("client_secret") == [secret]
                answer = {"token_type": "Bearer", "expires_in": 3600, "access_token": token} if knows else {"error": "invalid_client"}
                body = json.dumps(answer).encode()
                self.send_response(200 if knows else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}/{tenant}/oauth2/token"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()


def azurite_by_client(program, binary):
    """Azurite over TLS, by the id and secret of a client."""
    port, account = free_port(), "devstoreaccount1"
    with tempfile.TemporaryDirectory() as directory:
        ca, leaf, leaf_key = authority(directory)
        command = [program, "--silent", "--skipApiVersionCheck", "--location", directory, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        command += ["--oauth", "basic", "--cert", leaf, "--key", leaf_key]
        with Process(*command, stdout=subprocess.DEVNULL), TokenEndpoint(leaf, leaf_key, "starkeep", "a secret") as tokens:
            listens(port)
            endpoint = f"https://127.0.0.1:{port}/{account}"
            made = urllib.request.Request(f"{endpoint}/vault?restype=container&{shared_token(account)}", method="PUT")
            urllib.request.urlopen(made, context=ssl.create_default_context(cafile=ca)).read()
            properties = f'"azure.adls2.storage_account" = "{account}", "azure.adls2.endpoint" = "{endpoint}", "ssl.ca" = "{open(ca).read()}"'
            client = f'"azure.adls2.oauth2_client_id" = "starkeep", "azure.adls2.oauth2_client_endpoint" = "{tokens.url}"'
            play_tokens("Azurite (Azure) by a client's secret", binary, "az://vault/some/path", f"{properties}, {client}", tokens)


def play_tokens(store, binary, location, properties, tokens):
    """Backed up and restored with tokens that are asked for with the right secret; the wrong one is refused."""
    create = lambda secret: f'''CREATE REPOSITORY r WITH BROKER ON LOCATION "{location}" PROPERTIES ({properties}, "azure.adls2.oauth2_client_secret" = "{secret}")'''
    with tempfile.TemporaryDirectory() as directory, Starkeep(binary, directory) as server:
        for statement in [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 4",
            "INSERT INTO d.t SELECT value FROM generate_series(1, 1000)",
        ]:
            server.run(statement)
        try:
            server.run(create("another's secret"))
            raise SystemExit("a wrong secret was taken")
        except psycopg.errors.IoError as error:
            check("the reason and the secret in the error", ("invalid_client" in str(error), "another" in str(error)), (True, False))
        server.run(create("a secret"))
        server.job("BACKUP SNAPSHOT d.s TO r")
        server.job('RESTORE SNAPSHOT d.s FROM r ON (t AS back) PROPERTIES ("backup_timestamp" = "latest")')
        check("rows that are back", server.run("SELECT count(*), sum(a) FROM d.back"), [(1000, 500500)])
        check("tokens asked for", len(tokens.asked) > 1, True)
    print(f"{store}: created, backed up, restored")


def shared_token(account):
    """A token for everything in the account for ever, as a query's parameters."""
    values = {"sv": "2021-08-06", "ss": "b", "srt": "sco", "sp": "rwdlacup", "se": "2099-01-01T00:00:00Z"}
    signed = "\n".join([account, values["sp"], values["ss"], values["srt"], "", values["se"], "", "", values["sv"], "", ""])
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    values["sig"] = base64.b64encode(digest).decode()
    return urllib.parse.urlencode(values)


def azurite(program, binary):
    """Azurite's account, by its key and by a shared access token made with it."""
    port, account = free_port(), "devstoreaccount1"
    with tempfile.TemporaryDirectory() as directory:
        command = [program, "--silent", "--skipApiVersionCheck", "--location", directory, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        with Process(*command, stdout=subprocess.DEVNULL):
            listens(port)
            endpoint = f"http://127.0.0.1:{port}/{account}"
            token = shared_token(account)
            for container in ["full", "shared"]:
                made = urllib.request.Request(f"{endpoint}/{container}?restype=container&{token}", method="PUT")
                urllib.request.urlopen(made).read()
            common = f'"azure.blob.storage_account" = "{account}", "azure.blob.endpoint" = "{endpoint}"'
            by_key, by_token = f'{common}, "azure.blob.shared_key" = "{KEY}"', f'{common}, "azure.blob.sas_token" = "{token}"'
            play("Azurite (Azure)", binary, "az://full/some/path", by_key)
            play("Azurite (Azure), encrypted", binary, "az://full/hidden", f"{by_key}, {ENCRYPTED}")
            # Azurite answers 500 to a batch of deletions that is signed by a token.
            play_reader("Azurite (Azure) by a shared access token", binary, "az://shared/some/path", by_key, by_token)


def hdfs(classpath, binary):
    """A NameNode and a DataNode of Hadoop's own."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hdfs", "NameNode.java")
    with tempfile.TemporaryDirectory() as directory:
        command = ["java", "-cp", classpath, here, directory]
        with Process(*command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as hadoop:
            port = int(hadoop.process.stdout.readline())
            play("HDFS", binary, f"hdfs://127.0.0.1:{port}/some/path", "")
            play("HDFS, encrypted", binary, f"hdfs://127.0.0.1:{port}/hidden", ENCRYPTED)


STORES = {"moto": [moto], "azurite": [azurite, azurite_by_client], "versitygw": [versitygw], "hdfs": [hdfs]}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", required=True)
    for store in STORES:
        arguments.add_argument(f"--{store}")
    arguments = vars(arguments.parse_args())
    # Nothing of the machine's own keys.
    for name in [n for n in os.environ if n.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        del os.environ[name]
    for store, plays in STORES.items():
        if arguments[store]:
            for play_all in plays:
                play_all(arguments[store], arguments["server"])


main()
