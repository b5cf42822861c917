"""What every method in the registry that trains has to do: train, keep finite accounts, resume exactly, come back from its file, and export a model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import killed_in_step
from transformers import AutoModelForCausalLM, AutoTokenizer

import etude
from etude.cards import listings
from etude.method import get_method, known_methods
from etude.picturing import PictureMethod
from etude.run import Run, without_time
from etude.settings import build_config
from etude.settings_file import saved_config

SEARCHES = {listing.card.slug for listing in listings() if listing.card.searches}
DRAWS = {listing.card.slug for listing in listings() if listing.card.family == "images" and issubclass(get_method(listing.card.slug), PictureMethod)}
METHODS = [slug for slug in known_methods() if slug not in SEARCHES | DRAWS]
SMALL: dict[str, Any] = {
    "tasks_per_step": 2,
    "group_size": 4,
    "eval_tasks": 4,
    "eval_samples": 2,
    "max_new_tokens": 10,
    "steps": 3,
    "checkpoint_every": 1,
    "evaluate_every": 2,
    "quiet": True,
    "threads": 1,
    "warmup_steps": 0,
    "schedule": "cosine",
}
# A reward that splits whatever a model writes, so that there is something to learn from whether it can do the tasks or not.
REWARD = "import zlib\n\ndef parity(task, text):\n    return {'correct': float(zlib.crc32(text.encode()) % 2)}\n"
OWN: dict[str, dict[str, Any]] = {
    "rlccf": {"crowd": ["tiny"]},
    "co-reward": {"max_new_tokens": 24, "export": "last"},
    "knowrl": {"seed_size": 12, "introspection_runs": 4},
    "ssr-zero": {"judge_probe_tasks": 2, "judge_tokens": 8},
    "exit": {"buffer_minimum": 2, "start_share": 0.8, "improve_steps": 2, "reference_every": 1, "diversity": True},
    "rest-em": {"steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4},
    "agent-r": {"steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4, "judge_tokens": 4},
    "b-star": {"steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4, "temperatures": (0.8, 1.2), "search_tasks": 2},
    "cosc": {"tasks": "small-programs", "steps_per_round": 1, "tasks_per_round": 4, "rounds": 3, "export": "last"},
    "score": {"env": "revise:request=short", "export": "last", "stage_steps": 1},
    "star": {"env": "revise:request=short", "export": "last", "steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4},
    "pair-sft": {"env": "revise:request=short", "export": "last", "rounds": 0, "steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4},
    "smart": {"strategies": "short", "bootstrap": 1, "steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4, "max_new_tokens": 12},
    "self": {
        "tasks": "column-sums",
        "export": "last",
        "steps_per_round": 1,
        "tasks_per_round": 2,
        "tasks_per_step": 4,
        "meta_records": 4,
        "feedback_tokens": 8,
        "self_instruct": 4,
    },
    "self-rewarding": {"score": "mean-logprob", "rounds": 3, "steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 4},
    "rest-mcts": {"rounds": 3, "steps_per_round": 1, "tasks_per_round": 5, "tasks_per_step": 4, "search_tokens": 80, "keep_value": 0.0},
    "fapo-genrm": {"tasks": "max5-flaws", "export": "last", "temperature": 3.0},
    "selftok": {"model": "tiny-selftok", "tasks": "pictures", "max_new_tokens": 16, "export": "last"},
}
"""Settings of a method's own: a crowd has several models; votes need whole answers; where nothing is solved, the best state is the first; and fewer judgements."""
NO_ROLLOUTS = {"reward/mean", "reward/std", "rollout/entropy"}
UNDEFINED = {"sft": NO_ROLLOUTS, "otr": NO_ROLLOUTS}
"""Metrics that have no value for a method: imitation judges and samples nothing."""


TURNS = {"rest-mcts": 32, "cosc": 4, "score": 2, "star": 2, "pair-sft": 2}
"""Turns of an attempt at most, for methods whose attempts have several, or are written a step at a time."""
FOUND = {"rest-mcts"}
"""Methods whose trees end in as many attempts as they find."""


@dataclass
class Whole:
    slug: str
    folder: Path
    settings: dict[str, Any]
    summary: etude.Summary


@pytest.fixture(scope="module", params=METHODS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of each method that nothing disturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "reward.py").write_text(REWARD)
    settings = {**SMALL, **OWN.get(request.param, {}), "reward": f"{folder / 'reward.py'}:parity"}
    summary = etude.train(request.param, out=folder / "run", **settings)
    return Whole(request.param, folder, settings, summary)


def test_a_method_trains_accounts_and_exports(whole: Whole) -> None:
    slug, summary, run = whole.slug, whole.summary, whole.folder / "run"
    assert (summary.status, summary.step) == ("finished", 3)
    lines = Run.open(run).metrics()
    missing = {name for line in lines for name, value in line.items() if value is None}
    assert missing == UNDEFINED.get(slug, set())

    steps = [line for line in lines if "time/step" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    spent = [0.0, *(line["ledger"]["forward_equivalents"] for line in steps)]
    assert all(b > a for a, b in pairwise(spent))
    last = steps[-1]["ledger"]
    assert last["trained_tokens"] > 0
    if get_method(slug).card.rollouts == "none":
        assert (last["rollouts"], last["generated_tokens"]) == (0, 0)
    else:
        assert last["rollouts"] >= 3 * 2 * 4
        # Two whole groups a step, where groups are of a fixed size, and more of them that follow up; of a tree the method says how many attempts it gives.
        assert slug in FOUND or last["rollouts"] % {"group": 8, "follow-up": 4, "tree": 2}.get(get_method(slug).card.rollouts, 1) == 0
        turns = last["model_calls"]["policy"]
        assert last["rollouts"] <= turns <= TURNS.get(slug, 1) * last["rollouts"]
        assert turns <= last["generated_tokens"] <= whole.settings["max_new_tokens"] * turns
        assert last["model_calls"].keys() <= {"policy", "judge", "value"}

    assert saved_config(run) == (slug, build_config(slug, out=run, **whole.settings))

    exported = AutoModelForCausalLM.from_pretrained(run / "model")
    shipped = AutoModelForCausalLM.from_pretrained(etude.models.language.model_folder(whole.settings.get("model", "tiny")))
    moved = [float((a - b).detach().abs().max()) for a, b in zip(exported.parameters(), shipped.parameters(), strict=True)]
    assert max(moved) > 0
    assert len(AutoTokenizer.from_pretrained(run / "model")) == exported.config.vocab_size
    asked = {name: whole.settings[name] for name in ("tasks", "reward", "env", "max_new_tokens") if name in whole.settings}
    again = etude.evaluate(run, samples=2, tasks_limit=4, max_turns=8, threads=1, **asked)
    step = json.loads((run / "result.json").read_text())["exported"]["step"]
    [line] = [line for line in lines if line["step"] == step and any(name.startswith("eval/") for name in line)]
    after = {name: math.nan if value is None else value for name, value in line.items()}
    # Of several models the run's measurements are means, and the exported one in front has a score of its own.
    if "eval/tiny/pass@1" in after:
        after = {"eval/pass@1": after["eval/tiny/pass@1"]}
    assert {k: v for k, v in again.metrics.items() if k in after} == pytest.approx({k: v for k, v in after.items() if k in again.metrics}, nan_ok=True)


def test_a_method_that_was_stopped_goes_on_as_if_it_had_not_been(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_in_step(whole.slug, 3, monkeypatch):
        etude.train(whole.slug, out=whole.folder / "parted", **whole.settings)
    assert Run.open(whole.folder / "parted").checkpoints.steps()[-1] == 2
    assert etude.train(resume=whole.folder / "parted").step == 3
    undisturbed, parted = Run.open(whole.folder / "run"), Run.open(whole.folder / "parted")
    assert [without_time(line) for line in parted.metrics()] == [without_time(line) for line in undisturbed.metrics()]
    assert list(parted.trajectories_log) == list(undisturbed.trajectories_log)
    weights = [AutoModelForCausalLM.from_pretrained(run.folder / "model").state_dict() for run in (undisturbed, parted)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("tasks", ["calculator", "check-and-fix"])
def test_episodes_with_an_environment_are_trained_and_resumed(tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**SMALL, "tasks": tasks, "steps": 2}
    etude.train("grpo", out="whole", **settings)
    records = [json.loads(line) for line in Path("whole/trajectories.jsonl").read_text().splitlines()]
    assert all("environment" in r["rewards"] and "correct" in r["rewards"] for r in records)
    assert Run.open("whole").metrics()[-1]["ledger"]["environment_steps"] > 0
    with killed_in_step("grpo", 2, monkeypatch):
        etude.train("grpo", out="parted", **settings)
    etude.train(resume="parted")
    assert [without_time(m) for m in Run.open("parted").metrics()] == [without_time(m) for m in Run.open("whole").metrics()]


def test_an_adapter_is_trained_resumed_exported_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reward.py").write_text(REWARD)
    settings = {**SMALL, "schedule": "constant", "lora_rank": 4, "lr": 1e-2, "evaluate_every": 0, "reward": "reward.py:parity"}
    etude.train("grpo", out="whole", **settings)
    etude.train("grpo", out="parted", **{**settings, "steps": 2})
    summary = etude.train(resume="parted", steps=3)
    lines = [[without_time(m) for m in Run.open(name).metrics() if m["step"] == 3 and "reward/mean" in m] for name in ("whole", "parted")]
    assert len(lines[0]) == 1
    # The shorter run measured once more, after its own last step.
    for line in (lines[0][0], lines[1][0]):
        line["ledger"] = {k: v for k, v in line["ledger"].items() if not k.startswith("evaluation")}
    assert lines[0] == lines[1]
    assert not list(Path("parted/model").glob("model*.safetensors"))
    assert "lora_A" in " ".join(AutoModelForCausalLM.from_pretrained("parted/model").state_dict())
    again = etude.evaluate("parted", reward="reward.py:parity", samples=2, tasks_limit=4, max_new_tokens=10, threads=1)
    assert again.metrics["eval/entropy"] == pytest.approx(summary.after["eval/entropy"], abs=1e-3)
