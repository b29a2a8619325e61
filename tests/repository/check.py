"""Lists a repository in a directory and checks it, by docs/repository-format.md alone.

    python3 check.py <location>/__starrocks_repository_<name>

One line a backup; damage goes to standard error, and the exit code is 1 if there is any.
"""

import hashlib, json, pathlib, re, sys, urllib.parse

root = pathlib.Path(sys.argv[1])
damage, needed = [], set()

def sha256(data):
    return hashlib.sha256(data).hexdigest()

def check(condition, path, why):
    if not condition:
        damage.append(f"{path.relative_to(root)}: {why}")
    return condition

info = json.loads((root / "__repo_info").read_bytes())
if info["format"] != 1 or root.name != f"__starrocks_repository_{info['name']}":
    sys.exit(f"not a repository of format 1: {info}")
print(f"repository {info['name']}, {info['id']}")

def files_of(manifest):
    for table in manifest["tables"]:
        for partition in table["partitions"]:
            for tablet in partition["tablets"]:
                yield from tablet["files"]

for path in sorted(root.glob("__ss_*/__info_*")):
    text = path.read_text("utf-8")
    # The hash is of the manifest's exact bytes: what stands between these two.
    found = re.fullmatch(r'\{"sha256":"([0-9a-f]{64})","manifest":(.*)\}', text, re.S)
    if not check(found and sha256(found[2].encode()) == found[1], path, "its hash is another"):
        continue
    manifest = json.loads(found[2])
    label = urllib.parse.unquote(path.parent.name.removeprefix("__ss_"))
    place = (label, path.name.removeprefix("__info_"))
    check(manifest["format"] == 1, path, f"format {manifest['format']}")
    check((manifest["label"], manifest["timestamp"]) == place, path, "of another place")
    files = {file["sha256"]: file for file in files_of(manifest)}
    for name, file in files.items():
        data = root / "data" / name[:2] / f"{name}.parquet"
        if not check(data.is_file(), data, f"missing, needed by {label}") or name in needed:
            continue
        body = data.read_bytes()
        check(len(body) == file["bytes"], data, f"{len(body)} bytes instead of {file['bytes']}")
        check(sha256(body) == name, data, "other bytes than its name says")
    needed.update(files)
    tables, size = len(manifest["tables"]), sum(file["bytes"] for file in files.values())
    print(f"{label} {place[1]} {manifest['database']}: {tables} tables, {len(files)} files, {size} bytes")

held = {path.stem for path in root.glob("data/??/*.parquet")}
print(f"{len(held & needed)} files needed, {len(held - needed)} not needed")
print("\n".join(damage), file=sys.stderr)
sys.exit(bool(damage))
