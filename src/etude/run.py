"""The run: a folder, a seed, a ledger, a budget, metrics, sampled trajectories and checkpoints.

    config.yaml          the whole configuration          environment.json    versions, machine, git state
    metrics.jsonl        one object a logged step         trajectories.jsonl  sampled trajectories
    trees.jsonl          some trees of attempts, of methods that grow them: see `etude.rollouts.tree_record`
    search.json          the trees of a method that searches, as they are now: see `etude.searching`
    drawings/            sheets and trees of what was drawn, of methods that draw: see `etude.picturing`
    judgements.jsonl     some transcripts of a judging model, of methods that ask one: see `etude.rewards.judges`
    probe.jsonl          one object a reading of the probe, where there is one: see `etude.watch`
    checkpoints/step-N/  see `etude.checkpoints`          result.json         how it ended: see `etude.summary`

Keys under `time/` and the ledger's seconds are wall time; every other number repeats exactly when the run is repeated, or killed and resumed.
"""

from __future__ import annotations

import dataclasses
import enum
import fcntl
import json
import os
import random
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from etude.checkpoints import Checkpoints
from etude.config import RunConfig
from etude.durable import JsonLines, replace_file
from etude.errors import InputError, nearest
from etude.ledger import Budget, Ledger
from etude.provenance import environment
from etude.settings import check_config
from etude.summary import Summary
from etude.tracking import require_trackers

RUNS = Path("runs")
DRAWINGS = "drawings"
"""Where runs go that are not told a folder."""


def plain(value: Any) -> Any:
    """A configuration as plain values: dataclasses as mappings, paths as text, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, enum.Enum):
        return plain(value.value)
    return value


def dump_config(config: Any, path: Path) -> None:
    """Write a configuration (dataclasses or mappings) as YAML, replacing the file at once."""
    import yaml

    replace_file(path, yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))


def load_config(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises InputError when it is not there, not YAML, or not a mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; expected a mapping of options to values")
    return values


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """The run's part of a configuration, from plain values.

    Raises InputError for an unknown option.
    """
    known = [f.name for f in fields(RunConfig)]
    for name in values:
        if name not in known:
            raise InputError(f"there is no run option {name!r}.{nearest(name, known)}")
    given = dict(values)
    if given.get("out") is not None:
        given["out"] = Path(given["out"])
    if "track" in given:
        given["track"] = tuple(given["track"])
    return RunConfig(**given)


def check_run_config(config: RunConfig) -> Budget | None:
    """Refuse what no run can do; returns the budget when there is one.

    Raises InputError, or MissingExtra for a tracker whose package is not installed.
    """
    check_config(config)
    require_trackers(config.track)
    return Budget.parse(config.budget) if config.budget is not None else None


class Run:
    """One run's folder and counters. Make it with `Run.create`, or `Run.open` for one that exists; `etude.driver.drive` moves it on."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config
        self.seed = config.seed
        self.budget = check_run_config(config)
        self.ledger = Ledger()
        self._full_config: Any = None
        self.step = 0
        """Steps done; while a method's `step` runs, the number of that step, from 1."""
        self.metrics_log = JsonLines(folder / "metrics.jsonl")
        self.trajectories_log = JsonLines(folder / "trajectories.jsonl")
        self.trees_log = JsonLines(folder / "trees.jsonl")
        self.judgements_log = JsonLines(folder / "judgements.jsonl")
        self.probe_log = JsonLines(folder / "probe.jsonl")
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep_last)

    @classmethod
    def create(cls, config: RunConfig, *, folder_name: str, full_config: Any = None) -> Run:
        """Make the folder and write what the run is made of.

        folder_name: name under `runs/` when the configuration names no folder; a number is added while it is taken.
        full_config: the whole configuration, dataclass or mapping, with the run's part under `run`.
        Raises InputError for a configuration that cannot be run, and for a folder that is not empty or cannot be written.
        """
        check_run_config(config)
        folder = _named_folder(config.out) if config.out is not None else _numbered_folder(folder_name)
        try:
            dump_config(full_config if full_config is not None else {"run": config}, folder / "config.yaml")
            record = {"id": uuid.uuid4().hex, **environment(config.threads)}
            replace_file(folder / "environment.json", json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"the folder {folder} cannot be written: {error.strerror}; choose another one with --out") from error
        return cls(folder, config)

    @classmethod
    def open(cls, folder: Path | str, *, config: RunConfig | None = None, full_config: Any = None) -> Run:
        """A run that exists, to read or to resume. Nothing in the folder is changed.

        config: the run's part, where it differs from what the folder holds (more steps, a larger budget).
        full_config: replaces `config.yaml` when the run is resumed.
        Raises InputError for a folder that holds no run.
        """
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            raise InputError(f"{folder} holds no run: there is no config.yaml in it; expected a folder that `etude train` wrote")
        if config is None:
            stored = load_config(folder / "config.yaml").get("run", {})
            if not isinstance(stored, dict):
                raise InputError(f"{folder / 'config.yaml'} has no mapping under `run`; expected the run's options there")
            config = run_config(stored)
        run = cls(folder, config)
        run._full_config = full_config
        return run

    @property
    def id(self) -> str:
        """A name that no other run has."""
        try:
            return str(json.loads((self.folder / "environment.json").read_text())["id"])
        except (OSError, ValueError, KeyError, TypeError):
            return self.folder.resolve().name

    def stream(self, *parts: int | str) -> int:
        """A 63-bit seed for whatever the parts name (step, task, sample), which the run's own seed goes into."""
        from etude.models.sampling import stream_key

        return stream_key(self.seed, *parts)

    def rng(self, *parts: int | str) -> random.Random:
        """A generator for whatever the parts name. The same run seed and parts give the same numbers, so that nothing of it needs saving."""
        return random.Random(self.stream(*parts))

    def seed_libraries(self, *parts: int | str) -> None:
        """Seed the global generators of Python, NumPy and torch, where loaded.

        Étude draws from none of them; this is for libraries that do (dropout, adapter initialisation), so that a resumed run repeats itself all the same.
        """
        key = self.stream("global", *parts)
        random.seed(key)
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed(key % 2**32)
        if (torch := sys.modules.get("torch")) is not None:
            torch.manual_seed(key)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl: the step, the metrics (NaN and infinities as null), and the ledger as it stands."""
        for name in ("step", "ledger"):
            if name in metrics:
                raise ValueError(f"a metric is called {name!r}, which every line has already; call it group/{name}")
        self.metrics_log.append([{"step": step, **metrics, "ledger": self.ledger.to_plain()}])

    def save_trajectories(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records, plain JSON values, to trajectories.jsonl, each with the step."""
        self.trajectories_log.append([{"step": step, **r} for r in records])

    def save_trees(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records of trees of attempts, plain JSON values, to trees.jsonl, each with the step."""
        self.trees_log.append([{"step": step, **r} for r in records])

    def save_judgements(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Append transcripts of a judging model, plain JSON values, to judgements.jsonl, each with the step."""
        self.judgements_log.append([{"step": step, **r} for r in records])

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl."""
        return list(self.metrics_log)

    def scores(self, name: str) -> dict[int, float]:
        """step -> a metric's last finite value there."""
        return {line["step"]: float(line[name]) for line in self.metrics_log if isinstance(line.get(name), (int, float))}

    def stop_reason(self) -> str | None:
        """Why there is no next step, or None while there is one."""
        if self.budget is not None and self.budget.spent(self.ledger) >= 1:
            return f"the budget of {self.budget} is spent"
        if self.step >= self.config.steps:
            return f"all {self.config.steps} steps are done"
        return None

    @property
    def progress(self) -> float:
        """The fraction that is done, in [0, 1], by steps or by budget, whichever is further."""
        by_steps = self.step / self.config.steps if self.config.steps else 1.0
        return min(1.0, max(by_steps, self.budget.spent(self.ledger) if self.budget else 0.0))

    def result(self) -> Summary | None:
        """How the run ended, or None while it has not: it goes on, or was killed."""
        return Summary.read(self.folder)

    def record_resume(self) -> None:
        """Add to environment.json what the run goes on with, and write the configuration that it was opened with."""
        if self._full_config is not None:
            dump_config(self._full_config, self.folder / "config.yaml")
        path = self.folder / "environment.json"
        record: dict[str, Any] = {"id": self.id}
        with suppress(OSError, ValueError):
            record = json.loads(path.read_text())
        record.setdefault("resumed", []).append({"step": self.step, **environment(self.config.threads)})
        replace_file(path, json.dumps(record, indent=1) + "\n")

    def discard(self) -> None:
        """Remove what the run wrote, and the folder if nothing else is in it: for a run whose input was refused before it began."""
        for name in (
            "config.yaml",
            "environment.json",
            "trajectories.jsonl",
            "trees.jsonl",
            "judgements.jsonl",
            "probe.jsonl",
            "samples.jsonl",
            "search.json",
            "rewrites.jsonl",
            "mlflow.json",
            ".lock",
        ):
            (self.folder / name).unlink(missing_ok=True)
        for name in ("tensorboard", "wandb", DRAWINGS):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it however the process ends.

        Raises InputError when another process holds it, or the folder cannot be written.
        """
        try:
            (self.folder / ".lock").touch()
        except OSError as error:
            raise InputError(f"the folder {self.folder} cannot be written: {error.strerror}; a run needs to write into its folder") from error
        with open(self.folder / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise InputError(f"{self.folder} is in use by process {holder}; wait until it is done, or train into another folder with --out") from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def without_time(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl without wall time: what repeats exactly when the run is repeated."""
    kept = {k: v for k, v in record.items() if not k.startswith("time/")}
    if isinstance(kept.get("ledger"), Mapping):
        kept["ledger"] = {k: v for k, v in kept["ledger"].items() if not k.endswith("seconds")}
    return kept


def _named_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"the folder {folder} is not empty; choose another one with --out, or go on with the run in it with --resume {folder}")
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written: {error.strerror}; choose another one with --out") from error
    return folder


def _numbered_folder(name: str) -> Path:
    number = 1
    while True:
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=False)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise InputError(f"the folder {folder.resolve()} cannot be made: {error.strerror}; choose one with --out") from error
