"""Crowds to experiment with: models that were taught the same words by different teachers, and so are right and wrong about different ones.

Each member imitates one teacher of the task family `commands`, who knows a quarter of the words and is systematically mistaken about the others. It may start from `tiny` or
from a smaller Llama with random weights, so that members differ in what they know, and in size.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.config import NO_STEP_LIMIT
from etude.errors import InputError
from etude.evals.measures import Record
from etude.experiments.imitate_first import QUIET, shared_folder, warm_start
from etude.ledger import Budget
from etude.types import mean

TASKS = "commands"
WORDS = 4
"""Words that are asked, one for each teacher, unless `words` says otherwise."""
STRANGER = "teacher=-2"
"""Demonstrations by somebody who takes every word for one that no teacher takes it for: how digits are moved, and nothing true about the words."""
FORM_STEPS, FRESH_STEPS = 60, 600
"""Steps of imitating those before any teacher's, for a model that is given, and for one with random weights."""
FRESH_PUPILS = 5
"""How many times as long pupils of random weights imitate their teacher: they are slower to learn words anew."""
WARM_UP: dict[str, Any] = {"steps": 60, "tasks_per_step": 24, "lr": 2e-3, "schedule": "linear"}
"""The imitation of a teacher, unless `warm_steps`, `warm_lr` or the like say otherwise."""
SIZE = re.compile(r"(\d+)x(\d+)")
TEACHING = ("mistakes", "sure", "right", "wrong")
"""Settings of the experiment that are options of the teachers."""


def crowd_run(seed: int, settings: Mapping[str, Any], budget: str) -> Record:
    """What a run recorded whose members were each taught by one teacher first.

    teachers: who taught each member, in order; of members with the same teacher and start there is one model, and each is a copy of it. starts: what each member
    starts from (default: `tiny`): a model, or `WIDTHxLAYERS` for a Llama with random weights and tiny's vocabulary. A start is first taught by a stranger, once for
    all of its pupils, for `form_steps` or (with random weights) `fresh_steps` steps, so that it can move digits.
    words, mistakes, sure, right, wrong: options of the tasks and the teachers. Names that begin with `warm_` are settings of the imitation, all others (`method` among
    them) the run's.
    The budget is the run's alone. Raises InputError when there is not one start for every teacher.
    """
    import etude
    from etude.run import Run

    teachers = list(settings.get("teachers", range(4)))
    starts = list(settings.get("starts", ["tiny"] * len(teachers)))
    if len(starts) != len(teachers) or len(teachers) < 2:
        raise InputError(f"teachers are {teachers} and starts {starts}; expected one of each for every member, and two members or more")
    apart = {"teachers", "starts", "method", "model", "tasks", "form_steps", "fresh_steps", "words", *TEACHING}
    own = {name: value for name, value in settings.items() if name not in apart and not name.startswith("warm_")}
    with shared_folder() as folder, tempfile.TemporaryDirectory() as scratch:
        models = [taught(folder, teacher, start, seed, settings) for teacher, start in zip(teachers, starts, strict=True)]
        trained = Path(scratch) / "run"
        method = str(settings.get("method", "rlccf"))
        run: dict[str, Any] = {
            "tasks": _tasks(settings),
            "model": models[0],
            "crowd": tuple(models[1:]),
            "budget": budget,
            "steps": NO_STEP_LIMIT,
            "seed": seed,
        }
        etude.train(method, out=trained, **{**QUIET, **run, **own})
        return Record(Run.open(trained).metrics(), Budget.parse(budget), name=f"{method}, seed {seed}")


def crowd_experiment(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """What became of a crowd: see `crowd_run` for the settings.

    Returns before (`_first`) and after the run: `pass_rate`, the members' mean; `vote` and `plain_vote`, the crowd's, weighted by self-consistency and not; `best`, the
    best member. `least_gain`: that of the member which gained least. Of the first five and of the last quarter of the steps: `label_accuracy`, and `same_mistakes`,
    the share of pairs of wrong attempts of two members that give the same answer.
    """
    from etude.evals.measures import AtBudget, Average, First

    record = crowd_run(seed, settings, budget)
    members = sorted({name for row in record.rows for name in row if name.startswith("eval/") and name.endswith("/pass@1")})
    found: dict[str, float] = {}
    for name, metric in {"pass_rate": "eval/pass@1", "vote": "eval/vote", "plain_vote": "eval/plain_vote"}.items():
        found |= {f"{name}_first": First(metric)(record), name: AtBudget(metric)(record)}
    found |= {"best_first": max(First(m)(record) for m in members), "best": max(AtBudget(m)(record) for m in members)}
    found["least_gain"] = min((AtBudget(m) - First(m))(record) for m in members)
    for name, metric in {"label_accuracy": "votes/label_accuracy", "same_mistakes": "crowd/same_mistakes"}.items():
        values = [row[metric] for row in record.rows if metric in row]
        # Members that make no mistakes any more make none alike.
        found |= {f"{name}_first": mean(values[:5], 0.0), name: Average(metric, last=0.25)(record) if values else 0.0}
    return found


def taught(folder: Path, teacher: int, start: str, seed: int, settings: Mapping[str, Any]) -> str:
    """The folder of a model that imitated one teacher. What is under `folder` already is not made again."""
    title = re.sub("[^A-Za-z0-9]", "-", start)
    warm = {"seed": seed, **WARM_UP} | {name.removeprefix("warm_"): value for name, value in settings.items() if name.startswith("warm_")}
    size = SIZE.fullmatch(start)
    model = fresh_llama(folder / f"{title}-fresh-{seed}", width=int(size[1]), layers=int(size[2]), seed=seed) if size else start
    steps = settings.get("fresh_steps", FRESH_STEPS) if size else settings.get("form_steps", FORM_STEPS)
    formed = warm_start({**warm, "model": model, "tasks": _tasks(settings, STRANGER), "steps": steps}, folder, name=f"{title}-formed")
    options = [f"teacher={teacher}", *(f"{name}={settings[name]}" for name in TEACHING if name in settings)]
    steps = warm["steps"] * (FRESH_PUPILS if size else 1)
    return str(warm_start({**warm, "model": str(formed), "tasks": _tasks(settings, *options), "steps": steps}, folder, name=f"{title}-of-{teacher}"))


def _tasks(settings: Mapping[str, Any], *teacher: str) -> str:
    return ",".join([f"{TASKS}:words={settings.get('words', WORDS)}", *teacher])


def fresh_llama(folder: Path, *, width: int, layers: int, seed: int) -> str:
    """Write a Llama with random weights and tiny's vocabulary, and say where. Raises InputError for a width that its heads cannot share."""
    from etude.models.language import without_bars
    from etude.models.tiny import build_model, build_tokenizer

    if width % 8 or layers < 1:
        raise InputError(f"a Llama of width {width} and {layers} layers can't be made; expected a width that 8 divides, and a layer or more")
    # The tokenizer last, and each file whole: who makes the same one meanwhile writes the same bytes.
    with without_bars():
        build_model(seed, width=width, layers=layers).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)
