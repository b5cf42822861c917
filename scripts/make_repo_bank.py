"""Make a bank of software tasks, for `--tasks repos:FOLDER`: small pure-Python packages from PyPI, each with single faults that its own tests notice.

    python scripts/make_repo_bank.py bank --count 12

The packages' code is fetched when this runs and is no part of Étude. Only licences of the MIT, BSD and Apache kind are taken, by what the package says of itself. Their tests
run in the jail (`etude.sandbox`). A repeated run with the same pip and Python gives the same bank.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict
from email.parser import Parser
from pathlib import Path
from typing import Any

from etude.errors import EtudeError, InputError
from etude.tasks.repos.bank import Package, make_tasks, with_splits, write_bank
from etude.tasks.repos.store import GitStore
from etude.tasks.repos.testing import TestRunner

PACKAGES = {
    "cachetools": "8.0.2",
    "inflection": "0.5.1",
    "munch": "4.0.0",
    "parse": "1.22.4",
    "schema": "0.7.8",
    "semver": "3.1.2",
    "simpleeval": "1.0.8",
    "tabulate": "0.10.0",
    "xmltodict": "1.0.4",
}
"""Name -> version."""
LICENCES = re.compile(r"\b(MIT|BSD|Apache)\b")


def fetch(name: str, version: str, folder: Path) -> Path:
    """The package's source archive, by pip. Raises InputError where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), f"{name}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode or not found:
        raise InputError(f"pip could not download {name} {version}: {done.stderr.strip()[-300:]}")
    return found[0]


def clean_package(name: str) -> tuple[Package, str]:
    """The repository of a package, as a tree in a store of its own, and its licence."""
    with tempfile.TemporaryDirectory() as scratch:
        root, licence = unpack(fetch(name, PACKAGES[name], Path(scratch)), Path(scratch) / "source")
        store = GitStore()
        return Package(name, store, store.from_folder(root)), licence


def unpack(archive: Path, folder: Path) -> tuple[Path, str]:
    """The unpacked repository without what the packaging added, and its licence. Raises InputError for another licence."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    root = next(path for path in folder.iterdir() if path.is_dir())
    licence = licence_of((root / "PKG-INFO").read_text())
    if not LICENCES.search(licence):
        raise InputError(f"{archive.name} says its licence is {licence!r}; expected MIT, BSD or Apache")
    for path in sorted(root.rglob("*"), reverse=True):
        parts = path.relative_to(root).parts
        if path.is_file() and (parts == ("PKG-INFO",) or any(part.endswith(".egg-info") for part in parts)):
            path.unlink()
    return root, licence


def licence_of(metadata: str) -> str:
    """What a package's metadata says of its licence: the expression, the field, or the classifiers."""
    fields = Parser().parsestr(metadata)
    named = [fields.get("License-Expression"), fields.get("License")]
    classified = [value.rpartition(" :: ")[2] for value in fields.get_all("Classifier", []) if value.startswith("License ::")]
    return next((value.strip().splitlines()[0] for value in [*named, *classified] if value and value.strip()), "not stated")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12, help="tasks of a package at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold-out", choices=("package", "function"), default="package", help="what training and held-out tasks never share")
    parser.add_argument("--packages", nargs="*", default=list(PACKAGES), choices=list(PACKAGES), metavar="NAME")
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.folder.exists() and any(chosen.folder.iterdir()):
        sys.exit(f"{chosen.folder} is not empty; expected a new folder")
    runner, began = TestRunner(seconds=60, workers=chosen.workers), time.monotonic()
    packages: list[Package] = []
    tasks: list[dict[str, Any]] = []
    made: dict[str, dict[str, Any]] = {}
    for name in chosen.packages:
        try:
            package, licence = clean_package(name)
            rows, tally = make_tasks(package, runner, count=chosen.count, seed=chosen.seed, said=lambda text: print(text, flush=True))
        except EtudeError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        packages.append(package)
        tasks += rows
        made[name] = {"version": PACKAGES[name], "licence": licence, **asdict(tally)}
        print(f"{name} {PACKAGES[name]} ({licence}): {tally} after {time.monotonic() - began:.0f} s", flush=True)
        if len(packages) > 1:
            # After each package, so that a build that is stopped leaves a bank of those that are done.
            write(chosen.folder, packages, tasks, {"packages": made, "seed": chosen.seed, "hold_out": chosen.hold_out})
    runner.close()
    if len(packages) < 2:
        sys.exit("fewer than two packages gave tasks; expected at least two, one of which may be held out")
    print(f"{len(tasks)} tasks in {chosen.folder} ({time.monotonic() - began:.0f} s)")


def write(folder: Path, packages: list[Package], tasks: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """The bank of the packages that are done, and what is in it."""
    split = with_splits(tasks, about["hold_out"])
    write_bank(folder, packages, split)
    counts = {side: sum(task["split"] == side for task in split) for side in ("train", "test")}
    (folder / "bank.json").write_text(json.dumps({**about, "tasks": counts, "python": sys.version.split()[0]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
