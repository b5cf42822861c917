"""Rates, lengths and settings out of what was run: folders that `etude train` wrote, and the JSON files of `benchmarks/generation.py` and `training_step.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.sampling import default_slots
from etude.planning.lengths import by_task, lengths_in
from etude.planning.rates import Observation, of_one_run
from etude.planning.shapes import Shape, shape_of

SPREAD = "signal/groups_with_spread"
WARM_UP = 2
"""First steps of a run that are left out: whatever is built when it is first used makes them slower."""


@dataclass
class Measured:
    """What one source says. settings: of those that a plan takes, what this was run with."""

    name: str
    sampling: list[Observation] = field(default_factory=list)
    learning: list[Observation] = field(default_factory=list)
    lengths: tuple[tuple[int, ...], ...] = ()
    rewards: tuple[tuple[float, ...], ...] = ()
    """Rewards of attempts by task, where the learner leaves groups out whose attempts have the same."""
    active: float = 1.0
    """Share of groups that it did not leave out."""
    settings: dict[str, Any] = field(default_factory=dict)


def read_source(path: Path) -> Measured:
    """A run's folder or a benchmark's JSON. Raises InputError when it is neither, or lacks what rates are made of."""
    if path.is_dir():
        return read_run(path)
    if path.suffix == ".json" and path.is_file():
        return read_benchmark(path)
    raise InputError(f"--from {path} is no folder and no JSON file; expected a folder that `etude train` wrote, or what a benchmark wrote with --out")


# Runs


def read_run(folder: Path) -> Measured:
    """A run on the common loop: a line of its metrics has the seconds of rollouts and update, the ledger what was done in them."""
    from etude.run import load_config

    if not (folder / "config.yaml").is_file():
        raise InputError(f"--from {folder} holds no run: there is no config.yaml in it; expected a folder that `etude train` wrote")
    config = _flat(load_config(folder / "config.yaml"))
    steps = list(_steps(folder))
    timed = [(number, line, spent) for number, (line, spent) in enumerate(steps) if _number(line, "time/rollout") and _number(line, "time/update")]
    if len(timed) <= WARM_UP:
        raise InputError(
            f"--from {folder} has {len(timed)} steps with time/rollout and time/update in metrics.jsonl, and the first {WARM_UP} are warm-up; "
            f"expected a run of at least {WARM_UP + 1} steps of a method on the common loop. State --decode-rate and --train-rate instead"
        )
    group_size, tasks = int(config.get("group_size") or 1), int(config.get("tasks_per_step") or 1)
    begun = timed[0][2].rollouts / group_size
    prompt = timed[0][2].prompt_tokens / begun if begun else 0.0
    found = Measured(str(folder))
    # The learner leaves groups without advantages out where nothing else is in the loss.
    skips = config.get("kl_coefficient") == 0 and not config.get("entropy_coefficient") and not config.get("entropy_target")
    for number, line, spent in timed:
        if number < WARM_UP:
            continue
        counts = {
            # And the pass that reads the prompts, which costs about a step besides its tokens.
            "decode_step": spent.decode_steps + 1,
            "decode_token": spent.generated_tokens,
            "prefill_token": spent.prompt_tokens,
            "environment": spent.environment_steps,
        }
        found.sampling.append(Observation({name: float(value) for name, value in counts.items()}, line["time/rollout"]))
        if spent.trained_tokens:
            passes = int(config.get("epochs") or 1)
            tokens = (spent.trained_tokens + passes * prompt * tasks) * (float(line.get(SPREAD) or 0.0) if skips else 1.0)
            found.learning.append(Observation({"update": 1.0, "train_token": tokens}, line["time/update"]))
    found.sampling, found.learning = of_one_run(found.sampling), of_one_run(found.learning)
    records = _records(folder / "trajectories.jsonl")
    found.lengths = lengths_in(records) or lengths_in(_records(folder / "samples.jsonl"))
    if skips:
        found.rewards = by_task(records, "reward")
        found.active = sum(float(line.get(SPREAD) or 0.0) for _, line, _ in timed) / len(timed)
    rollouts = sum(spent.rollouts for _, _, spent in timed)
    turns = sum(spent.environment_steps for _, _, spent in timed) / rollouts if rollouts else 0.0
    partial = config.get("slug") == "april"
    found.settings = {
        "model": config.get("model"),
        "tasks_per_step": tasks,
        "group_size": group_size,
        "prompt_length": prompt,
        "turns": max(1, round(turns)),
        "mode": ("partial",) if partial else ("synchronous",),
        "dtype": config.get("dtype") if config.get("dtype") not in (None, "auto", "float16") else "float32",
        "lora_rank": config.get("lora_rank") or 0,
        "environment": "inside",
    }
    if config.get("over_provision") is not None:
        found.settings |= {"over_provision": config["over_provision"], "max_staleness": config.get("max_lag") or None}
    if slots := config.get("slots") or _own_slots(str(config.get("model"))):
        found.settings["slots"] = slots
    return found


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by name, sections left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def _steps(folder: Path) -> Iterator[tuple[dict[str, Any], Ledger]]:
    """Lines of steps, each with what was spent in it."""
    before = Ledger()
    for line in _records(folder / "metrics.jsonl"):
        ledger = Ledger.from_plain(line["ledger"]) if isinstance(line.get("ledger"), dict) else before
        if "time/step" in line:
            yield line, ledger - before
        before = ledger


def _records(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a broken last line, of a run that was killed, is left out. None where there is no file."""
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return found
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _number(line: Mapping[str, Any], name: str) -> bool:
    return isinstance(line.get(name), (int, float)) and line[name] > 0


def _own_slots(model: str) -> int:
    """The slots that the embedded engine takes for a model that none are given for, in float32; 0 where its shape is not known."""
    try:
        return engine_slots(shape_of(model))
    except InputError:
        return 0


def engine_slots(shape: Shape) -> int:
    """The slots that the embedded engine takes by itself, in float32."""
    return default_slots(4 * shape.kv_elements(), shape.context)


# Benchmarks


def read_benchmark(path: Path) -> Measured:
    """What `benchmarks/generation.py` or `benchmarks/training_step.py` wrote with `--out`: Étude's side of it."""
    try:
        record = json.loads(path.read_text())
        found = Measured(str(path), settings={"model": record["model"], "dtype": "float32"})
        _generation(record, found) if "batches" in record else _training_step(record, found)
    except OSError as error:
        raise InputError(f"--from {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--from {path} is no benchmark that rates are read from ({type(error).__name__}: {error}); "
            "expected what benchmarks/generation.py or benchmarks/training_step.py wrote with --out"
        ) from error
    if not found.sampling:
        raise InputError(f"--from {path} measured more sequences than the engine had slots, so that its decode steps are not known; expected fewer sequences")
    return found


def _generation(record: Mapping[str, Any], found: Measured) -> None:
    slots = _own_slots(record["model"])
    for batch in record["batches"]:
        if slots and batch["sequences"] > slots:
            continue
        shared = int(batch["name"].rpartition(" of ")[2]) if "groups of" in batch["name"] else 1
        counts = {"decode_step": float(batch["longest"]), "decode_token": float(batch["new_tokens"]), "prefill_token": batch["prompt_tokens"] / shared}
        found.sampling += of_one_run([Observation(counts, seconds) for seconds in batch["sides"]["etude"]["seconds"]])


def _training_step(record: Mapping[str, Any], found: Measured) -> None:
    size, slots = record["size"], _own_slots(record["model"])
    prompt = sum(size["prompt_tokens"]) / len(size["prompt_tokens"])
    prompts = prompt * size["tasks"]
    found.settings |= {
        "tasks_per_step": size["tasks"],
        "group_size": size["group"],
        "prompt_length": prompt,
        "length": size["new_tokens"],
    }
    for result in record["sides"]["etude"]:
        if not slots or result["rollouts"] <= slots:
            counts = {"decode_step": float(size["new_tokens"]), "decode_token": float(result["new_tokens"]), "prefill_token": prompts}
            found.sampling.append(Observation(counts, result["rollout_seconds"]))
        found.learning.append(Observation({"update": 1.0, "train_token": result["new_tokens"] + prompts}, result["update_seconds"]))
    found.sampling, found.learning = of_one_run(found.sampling), of_one_run(found.learning)


def combined(sources: Sequence[Measured]) -> Measured:
    """Several sources as one: all observations; lengths and settings of the first that has them."""
    found = Measured(", ".join(source.name for source in sources))
    for source in sources:
        found.sampling += source.sampling
        found.learning += source.learning
        if source.lengths and not found.lengths:
            found.lengths, found.rewards, found.active = source.lengths, source.rewards, source.active
        found.settings = {**source.settings, **found.settings}
    return found
