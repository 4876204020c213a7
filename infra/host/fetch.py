"""Copies a prefix of the artifact bucket to a folder and checks every file against its manifest.json.

Runs on the host with the system's Python and the AWS CLI: `fetch.py BUCKET PREFIX FOLDER [SHA-256 of manifest.json]`.
The manifest: {"files": [{"path": "...", "size": bytes, "sha256": "..."}]}.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

CHUNK = 1 << 22


def digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            sha.update(piece)
    return sha.hexdigest()


def problems(folder: Path, expected: str) -> list[str]:
    """What is wrong with the files of `folder`, empty where all is as its manifest says."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return ["manifest.json is missing"]
    if expected and digest(manifest) != expected:
        return ["manifest.json is not the one that the stack names"]
    found = []
    for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
        path = (folder / entry["path"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            found.append(f"{entry['path']} leads out of the folder")
        elif not path.is_file():
            found.append(f"{entry['path']} is missing")
        elif path.stat().st_size != entry["size"] or digest(path) != entry["sha256"]:
            found.append(f"{entry['path']} is damaged")
    return found


def main() -> int:
    bucket, prefix, target, expected = [*sys.argv[1:], ""][:4]
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(3):
        copy = ["aws", "s3", "sync", "--only-show-errors", "--exact-timestamps", f"s3://{bucket}/{prefix}", str(folder)]
        copied = subprocess.run(copy, check=False)  # noqa: S603 (arguments of our own)
        wrong = (
            problems(folder, expected) if copied.returncode == 0 else [f"aws s3 sync ended with {copied.returncode}"]
        )
        if not wrong:
            return 0
        sys.stderr.write(f"attempt {attempt + 1} of s3://{bucket}/{prefix}: {'; '.join(wrong)}\n")
        for entry in wrong:  # a damaged file is fetched anew
            if entry.endswith(" is damaged"):
                (folder / entry.removesuffix(" is damaged")).unlink(missing_ok=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
