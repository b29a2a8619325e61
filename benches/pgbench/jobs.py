"""Fills the journal of a stopped Starkeep with copies of its one job: jobs.py <data directory> <how many>."""

import json
import pathlib
import sqlite3
import sys

directory, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for path in directory.rglob("*"):
    if not path.is_file() or path.open("rb").read(15) != b"SQLite format 3":
        continue
    database = sqlite3.connect(path)
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if "job_events" not in names:
        continue
    columns = [column[1] for column in database.execute("PRAGMA table_info(jobs)")]
    (job,) = database.execute("SELECT * FROM jobs").fetchall()
    job = dict(zip(columns, job))
    row = json.loads(job["row"])

    def copies():
        for number in range(2, count + 1):
            row["job_id"] = number
            yield [{"job_id": number, "row": json.dumps(row)}.get(name, job[name]) for name in columns]

    marks = ", ".join("?" * len(columns))
    database.executemany(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({marks})", copies())
    database.commit()
    print(f"{count} jobs", file=sys.stderr)
    break
else:
    sys.exit("no journal found")
