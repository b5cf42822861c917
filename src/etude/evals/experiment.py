"""Experiments: claims that no training run shows (a simulation, a search, an audit), run for each arm and seed in a process of its own.

An experiment is a function(seed, settings, budget) -> dict of floats, named `module:function` on the claim. What it returns is kept in
`FOLDER/ARM/seed-N/result.json` with everything it was asked, so that a second call with the same request runs nothing.

    python -m etude.evals.experiment REQUEST.json RESULT.json
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etude.claim import Arm
from etude.durable import json_safe, replace_file
from etude.errors import EtudeError, InputError, nearest

Experiment = Callable[[int, Mapping[str, Any], str], Mapping[str, float]]
RESULT = "result.json"
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
    finished: Callable[[ExperimentRun], None] = lambda run: None,
) -> list[ExperimentRun]:
    """Every arm with every seed, arm by arm; `workers` at a time (0: one a core). `finished` hears of each as it ends.

    Raises InputError for an experiment that cannot be loaded, before anything is run. An arm that fails is returned as crashed.
    """
    load_experiment(name)
    requests = [
        (arm, seed, {"experiment": name, "seed": seed, "settings": json_safe({**common, **arm.settings}), "budget": budget}) for arm in arms for seed in seeds
    ]
    places = {(arm.name, seed): i for i, (arm, seed, _) in enumerate(requests)}
    runs: list[ExperimentRun | None] = [None] * len(requests)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        waiting = [pool.submit(_one, arm.name, seed, request, folder / arm.name / f"seed-{seed}") for arm, seed, request in requests]
        try:
            for future in as_completed(waiting):
                run = future.result()
                runs[places[run.arm, run.seed]] = run
                finished(run)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [run for run in runs if run is not None]


def _one(arm: str, seed: int, request: dict[str, Any], folder: Path) -> ExperimentRun:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULT
    values = _kept(path, request)
    if values is None:
        asked = folder / "request.json"
        replace_file(asked, json.dumps(request, indent=1, ensure_ascii=False) + "\n")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            SHARED: str(folder.parent.parent / "shared"),
        }
        command = [sys.executable, "-m", __spec__.name, str(asked), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        values = _kept(path, request) if done.returncode == 0 else None
        if values is None:
            (folder / "error.txt").write_text(done.stderr)
            said = done.stderr.strip().splitlines()[-1:] or [f"it ended with exit code {done.returncode}"]
            return ExperimentRun(arm, seed, folder, "crashed", said[0], {})
    return ExperimentRun(arm, seed, folder, "finished", None, values)


def _kept(path: Path, request: Mapping[str, Any]) -> dict[str, float] | None:
    """What an earlier call with the same request found, or None."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record["values"] if isinstance(record, dict) and record.get("request") == request else None


def main(arguments: Sequence[str]) -> int:
    """The process of one arm and seed."""
    asked, answer = map(Path, arguments)
    request = json.loads(asked.read_text())
    try:
        found = load_experiment(request["experiment"])(request["seed"], request["settings"], request["budget"])
        values = {str(k): float(v) for k, v in found.items()}
    except EtudeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    bad = {k: v for k, v in values.items() if not math.isfinite(v)}
    if bad or not values:
        print(f"{request['experiment']} gave {bad or 'nothing'}; expected finite numbers by name", file=sys.stderr)
        return 1
    replace_file(answer, json.dumps({"request": request, "values": values}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
