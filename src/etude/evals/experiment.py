"""Experiments: claims that no training run shows (a simulation, a search, an audit), run for each arm and seed in a process of its own.

An experiment is a function(seed, settings, budget) -> dict of floats, named `module:function` on the claim. What it returns is kept in
`FOLDER/ARM/seed-N/result.json` with everything it was asked, so that a second call with the same request runs nothing.

    python -m etude.evals.experiment FOLDER [FOLDER …]

answers the request.json in each folder by a result.json, or an error.txt.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etude.claim import Arm
from etude.durable import json_safe, replace_file
from etude.errors import EtudeError, InputError, nearest

Experiment = Callable[[int, Mapping[str, Any], str], Mapping[str, float]]
REQUEST, RESULT, ERROR = "request.json", "result.json", "error.txt"
SHARED = "ETUDE_SHARED_FOLDER"
"""Variable that names, in the process of an arm, a folder that all arms and seeds of the claim share: for what several of them begin with."""


@dataclass(frozen=True)
class ExperimentRun:
    """One arm with one seed. values: the results by name; empty when it crashed."""

    arm: str
    seed: int
    folder: Path
    status: Literal["finished", "crashed"]
    error: str | None
    values: dict[str, float]


def load_experiment(name: str) -> Experiment:
    """The function that `module:function` names.

    Raises InputError for a name of another form, a module that cannot be imported and a function that is not there.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise InputError(f"the experiment is {name!r}; expected module:function")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"the experiment {name!r} cannot be imported: {error}") from error
    if not callable(getattr(found, function, None)):
        raise InputError(f"the module {module} has no function {function!r}.{nearest(function, vars(found))}")
    return getattr(found, function)


def run_experiment(
    name: str,
    arms: Sequence[Arm],
    *,
    common: Mapping[str, Any],
    budget: str,
    seeds: Sequence[int],
    folder: Path,
    workers: int = 0,
    together: int = 1,
    finished: Callable[[ExperimentRun], None] = lambda run: None,
) -> list[ExperimentRun]:
    """Every arm with every seed, arm by arm; `workers` processes at a time (0: one a core). `finished` hears of each run as its process ends.

    together: seeds of an arm that share a process. Raises InputError for an experiment that cannot be loaded, before anything is run. An arm that fails is returned as
    crashed.
    """
    load_experiment(name)
    asked = [
        _Asked(arm.name, seed, folder / arm.name / f"seed-{seed}", {"experiment": name, "seed": seed, "settings": settings, "budget": budget})
        for arm in arms
        for settings in [json_safe({**common, **arm.settings})]
        for seed in seeds
    ]
    places = {(one.arm, one.seed): i for i, one in enumerate(asked)}
    blocks = [asked[first + i : first + min(i + together, len(seeds))] for first in range(0, len(asked), len(seeds)) for i in range(0, len(seeds), together)]
    runs: list[ExperimentRun | None] = [None] * len(asked)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        waiting = [pool.submit(_answered, block) for block in blocks]
        try:
            for future in as_completed(waiting):
                for run in future.result():
                    runs[places[run.arm, run.seed]] = run
                    finished(run)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [run for run in runs if run is not None]


@dataclass(frozen=True)
class _Asked:
    """One call of an experiment, and where its answer goes."""

    arm: str
    seed: int
    folder: Path
    request: dict[str, Any]


def _answered(block: Sequence[_Asked]) -> list[ExperimentRun]:
    """The runs of a block: what was kept of earlier calls, and the rest made in one process."""
    missing = [one for one in block if _kept(one.folder / RESULT, one.request) is None]
    said = ""
    if missing:
        for one in missing:
            one.folder.mkdir(parents=True, exist_ok=True)
            (one.folder / ERROR).unlink(missing_ok=True)
            replace_file(one.folder / REQUEST, json.dumps(one.request, indent=1, ensure_ascii=False) + "\n")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            SHARED: str(missing[0].folder.parent.parent / "shared"),
        }
        command = [sys.executable, "-m", __spec__.name, *(str(one.folder) for one in missing)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        said = done.stderr.strip() or f"it ended with exit code {done.returncode}"
    return [_run_of(one, said) for one in block]


def _run_of(one: _Asked, said: str) -> ExperimentRun:
    """How a call ended. said: what its process wrote, for one that it did not come to."""
    values = _kept(one.folder / RESULT, one.request)
    if values is not None:
        return ExperimentRun(one.arm, one.seed, one.folder, "finished", None, values)
    path = one.folder / ERROR
    if not path.exists():
        path.write_text(said + "\n")
    return ExperimentRun(one.arm, one.seed, one.folder, "crashed", path.read_text().strip().splitlines()[-1], {})


def _kept(path: Path, request: Mapping[str, Any]) -> dict[str, float] | None:
    """What an earlier call with the same request found, or None."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record["values"] if isinstance(record, dict) and record.get("request") == request else None


def main(arguments: Sequence[str]) -> int:
    """The process of some calls: each is answered, or its error written down, whatever becomes of the others."""
    return max((_answer(Path(folder)) for folder in arguments), default=0)


def _answer(folder: Path) -> int:
    request = json.loads((folder / REQUEST).read_text())
    try:
        found = load_experiment(request["experiment"])(request["seed"], request["settings"], request["budget"])
        values = {str(k): float(v) for k, v in found.items()}
        bad = {k: v for k, v in values.items() if not math.isfinite(v)}
        if bad or not values:
            raise InputError(f"{request['experiment']} gave {bad or 'nothing'}; expected finite numbers by name")
    except EtudeError as error:
        (folder / ERROR).write_text(f"{error}\n")
        return error.exit_code
    except Exception:
        (folder / ERROR).write_text(traceback.format_exc())
        return 1
    replace_file(folder / RESULT, json.dumps({"request": request, "values": values}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
