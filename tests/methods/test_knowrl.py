"""KnowRL: rewards, guards and the switches that take them away, on the embedded model and with verdicts that are given."""

from __future__ import annotations

import json
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.methods.rewards.knowrl import balanced
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.builtin.can_and_cannot import CAN, CanAndCannot
from etude.tasks.feasibility import Example
from etude.types import Group, Segment, Task, Trajectory

SMALL: dict[str, Any] = {
    "tasks_per_step": 4,
    "group_size": 4,
    "eval_tasks": 4,
    "eval_samples": 2,
    "warmup_steps": 0,
    "eval_kl": False,
    "seed_size": 2,
    "introspection_runs": 4,
    "probe": "never",
    "seed_tasks": "built-in",
}


def ready(tmp_path: Path, **settings: Any) -> Any:
    config = build_config("knowrl", **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=0))
    method: Any = get_method("knowrl")(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=CanAndCannot())
    method.setup()
    run.step = 1
    return method


def group(method: Any, verdicts: str, *, claim: str | None = None, label: Any = None) -> Group:
    """A group whose attempts say the letters of `verdicts`; anything but F and I is no verdict."""
    task: Task = method.verdicts.task(f"task {verdicts} {claim} {label}", label, id=f"{verdicts}-{claim}-{label}", claim=claim)
    attempts = [
        Trajectory(task, [1], [Segment([5, 2], "policy", v, trained=True, logprobs=[-0.7, 0.0], entropies=[0.6, 0.0])], "eos", sample=i)
        for i, v in enumerate(verdicts)
    ]
    return Group(task.id, attempts)


def test_written_tasks_are_rewarded_for_agreement_and_verified_ones_for_being_right(tmp_path: Path) -> None:
    method = ready(tmp_path)
    groups = [group(method, "FFFI?FFF", claim="infeasible"), group(method, "FFFI", label="infeasible")]
    method.judge(groups)
    assert groups[0].rewards == [1, 1, 1, 0, 0, 1, 1, 1]
    assert groups[1].rewards == [0, 0, 0, 1]
    assert [t.rewards["correct"] for t in groups[1].trajectories] == [0, 0, 0, 1]
    assert "correct" not in groups[0].trajectories[0].rewards
    # The probe sees what is trained on where nothing is known: agreement.
    method.judge_probe(groups)
    assert groups[1].rewards == [1, 1, 1, 0]
    graded = ready(tmp_path / "graded", consensus_reward="graded")
    graded.judge(groups)
    assert groups[0].rewards == pytest.approx([0.75, 0.75, 0.75, 0.25, 0, 0.75, 0.75, 0.75])


SCENE = [("FFFI", "feasible"), ("FFFI", "infeasible"), ("IIIF", "infeasible"), ("FFFF", "feasible"), ("FFII", "feasible"), ("FIF?", "feasible")]


@pytest.mark.parametrize(
    ("settings", "learnt"),
    [
        # One of each claim: the second is barred by its claim, the fourth teaches nothing, the fifth has no majority, the last is one too many.
        ({}, [0, 2]),
        ({"claim_gate": False}, [0, 1, 2, 5]),
        ({"class_balance": False}, [0, 2, 5]),
        ({"band_high": 1.0, "class_balance": False}, [0, 2, 3, 5]),
        ({"band_low": 0.7}, [0, 2]),
        ({"band_low": 0.7, "class_balance": False}, [0, 2]),
        ({"claim_gate": False, "class_balance": False, "band_high": 1.0}, [0, 1, 2, 3, 5]),
    ],
)
def test_each_guard_has_its_switch(settings: dict[str, Any], learnt: list[int], tmp_path: Path) -> None:
    method = ready(tmp_path, **settings)
    groups = [group(method, verdicts, claim=claim) for verdicts, claim in SCENE]
    verified = group(method, "FFFF", label="feasible")
    method.judge([*groups, verified])
    method.introspected(groups)
    method.counted = {}
    chosen = method.select([*groups, verified])
    assert {id(g) for g in chosen} == {id(groups[i]) for i in learnt} | {id(verified)}
    assert method.counted == {"signal/groups_trained": len(learnt) + 1, "signal/written_trained": len(learnt)}


def test_the_verified_share_and_the_divergence_are_switches(tmp_path: Path) -> None:
    with_seeds, without = ready(tmp_path), ready(tmp_path / "without", seed_share=0.0, kl_coefficient=0.0)
    assert [sum(t.answer is not None for t in m.curriculum.next(4)) for m in (with_seeds, without)] == [1, 0]
    groups = [group(without, "FFFI", claim="feasible")]
    without.judge(groups)
    without.counted = {}
    assert "reward/kl" not in without.credit(without.select(groups))


def test_verdicts_are_counted_by_claim(tmp_path: Path) -> None:
    method = ready(tmp_path)
    groups = [group(method, "FFFI", claim="feasible"), group(method, "FFF?", claim="infeasible"), group(method, "IIIF", label="infeasible")]
    method.judge(groups)
    found = method.introspected(groups)
    assert found["intrinsic/accuracy"] == 0.5
    assert found["intrinsic/consistency"] == 0.75
    assert found["intrinsic/feasible_if_feasible"] == 0.75
    assert found["intrinsic/feasible_if_infeasible"] == 1.0
    assert found["intrinsic/invalid"] == pytest.approx(1 / 12)
    assert found["seeds/infeasible"] == 0.75
    assert "seeds/feasible" not in found
    assert list(method.seed_verdicts) == [("infeasible", v) for v in ("infeasible", "infeasible", "infeasible", "feasible")]


def test_a_collapse_to_always_feasible_sounds_the_alarm_once(tmp_path: Path) -> None:
    method = ready(tmp_path)
    groups = [group(method, "FFFF", claim="infeasible"), *[group(method, "F" * 8, label=label) for label in ("feasible", "infeasible") * 2]]
    method.judge(groups)
    with pytest.warns(UserWarning, match="of the verdicts on verified infeasible tasks 0 % are right"):
        found = method.introspected(groups)
    assert found["intrinsic/alarms"] == 3
    assert found["intrinsic/information"] == found["intrinsic/verdict_entropy"] == 0.0
    # Agreement is perfect all the while.
    assert found["intrinsic/consistency"] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.introspected(groups)


def test_a_model_that_writes_no_tasks_is_told_of_once(tmp_path: Path) -> None:
    method = ready(tmp_path)
    verified = [group(method, "FFFI", label="feasible")]
    method.judge(verified)
    with pytest.warns(UserWarning, match="tiny wrote no task that could be read"):
        method.introspected(verified)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.introspected(verified)


def test_examples_are_measured_where_none_are_given_and_are_in_the_accounts(tmp_path: Path) -> None:
    method = ready(tmp_path, seed_tasks=None, solve_attempts=4)
    seeds = method.verified()
    ledger = method.run.ledger
    # At least one round of twice the examples that are wanted, four attempts each.
    assert ledger.rollouts >= 4 * 4
    assert ledger.rollouts % 16 == 0
    assert all(len(texts) <= 2 for texts in seeds.values())
    # Nothing here was taught the forms of these tasks but sums, copies and the like: what it cannot do is certain.
    assert len(seeds["infeasible"]) == 2
    held_out = {t.prompt for t in CanAndCannot().held_out()}
    assert not held_out & {text for texts in seeds.values() for text in texts}


def test_the_probe_of_a_fresh_run_is_set_apart_and_that_of_a_resumed_one_free(tmp_path: Path) -> None:
    fresh = ready(tmp_path, probe="auto", probe_size=8, seed_tasks=None, solve_attempts=2)
    assert (fresh.run.ledger.rollouts, fresh.run.ledger.evaluation_rollouts) == (0, 16)
    assert {t.answer for t in fresh.probe.tasks} <= {"feasible", "infeasible"}
    assert all(t.prompt.startswith("can? ") for t in fresh.probe.tasks)
    evaluated = {f"can? {t.prompt}" for t in fresh.held_out}
    assert not evaluated & {t.prompt for t in fresh.probe.tasks}
    resumed = Run(tmp_path / "resumed", RunConfig(save_trajectories=0))
    resumed.step = 2
    config = build_config("knowrl", **{**SMALL, "probe": "auto", "probe_size": 8, "seed_tasks": None, "solve_attempts": 2})
    again: Any = get_method("knowrl")(config, resumed, policy=LanguageModel.load("tiny", device="cpu"), task_set=CanAndCannot())
    again.setup()
    assert [t.answer for t in again.probe.tasks] == [t.answer for t in fresh.probe.tasks]
    assert resumed.ledger.evaluation_rollouts == 0
    labelled = ready(tmp_path / "labelled", probe="auto", probe_size=8)
    assert sorted(t.answer for t in labelled.probe.tasks) == ["feasible"] * 4 + ["infeasible"] * 4


def test_evaluation_puts_verdicts_beside_what_is_solved_and_beside_labels(tmp_path: Path) -> None:
    metrics = ready(tmp_path).evaluate()
    assert {"eval/pass@1", "eval/self_accuracy", "eval/self_invalid", "eval/known_accuracy", "eval/known_f1"} <= metrics.keys()
    # Untaught, the model says nothing that is a verdict.
    assert metrics["eval/self_invalid"] > 0.5
    assert "eval/self_flips" not in metrics


def test_as_many_of_either_class_as_there_are() -> None:
    examples = [Example(f"{i}", "feasible" if i < 6 else "infeasible") for i in range(8)]
    assert [e.text for e in balanced(examples, 4)] == ["0", "1", "6", "7"]
    assert [e.text for e in balanced(examples, 6)] == ["0", "1", "2", "3", "6", "7"]
    assert len(balanced(examples, 20)) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"group_size": 1}, "--group-size is 1"),
        ({"band_low": 0.9}, "--band-low is 0.9 and --band-high 0.8"),
        ({"prompts": "none.yaml"}, "the prompts 'none.yaml' can't be read"),
        ({"seed_tasks": "arithmetic"}, "no JSONL file"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        ready(tmp_path, **settings)


def test_tasks_that_nobody_can_judge_need_examples(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(f'{{"prompt": "{c}"}}\n' for c in "abcdefgh"))

    def method(**settings: Any) -> Any:
        config = build_config("knowrl", **{**SMALL, "tasks": str(path), **settings})
        return get_method("knowrl")(config, Run(tmp_path, RunConfig()), policy=LanguageModel.load("tiny", device="cpu"))

    with pytest.raises(InputError, match=r"no answers by which to see what the model can do; .* --seed-tasks"):
        method(seed_tasks=None).setup()
    method().setup()


class Introspective(CanAndCannot):
    """Of the lessons only those in writing and judging."""

    def train_task(self, seed: int, index: int) -> Task:
        drawn = (super(Introspective, self).train_task(seed, 64 * index + i) for i in count())
        return next(task for task in drawn if "lesson" in task.info)


def labelled(path: Path, tasks: list[Task], split: str) -> None:
    rows = [{"prompt": t.prompt, "answer": "feasible" if t.info["kind"] in CAN else "infeasible", "split": split} for t in tasks]
    path.write_text(path.read_text() if path.exists() else "")
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_without_guards_verdicts_collapse_to_always_feasible_and_the_probe_says_so(tmp_path: Path) -> None:
    world = CanAndCannot()
    labelled(tmp_path / "seeds.jsonl", [world.train_task(0, i) for i in range(40)], "train")
    for able in (True, False):
        labelled(tmp_path / "seeds.jsonl", [t for t in world.held_out() if (t.info["kind"] in CAN) == able][:16], "test")
    shared: dict[str, Any] = {"threads": 1, "quiet": True, "eval_kl": False, "evaluate_every": 0, "eval_tasks": 4, "eval_samples": 1, "save_trajectories": 0}
    start = tmp_path / "start"
    etude.train("sft", out=start, tasks=Introspective(lessons="optimistic"), steps=16, tasks_per_step=64, lr=2e-3, export="last", **shared)
    settings = {**shared, "seed_tasks": str(tmp_path / "seeds.jsonl"), "tasks_per_step": 8, "steps": 16, "lr": 1e-3, "probe_size": 32, "probe_every": 8}
    guards_off = {"claim_gate": False, "class_balance": False, "seed_share": 0.0, "kl_coefficient": 0.0, "band_high": 1.0}
    with pytest.warns(UserWarning, match="of a batch's verdicts are 'feasible'"):
        etude.train("knowrl", out=tmp_path / "run", model=str(start / "model"), tasks="can-and-cannot", **settings, **guards_off)
    lines = Run.open(tmp_path / "run").metrics()
    readings = [line for line in lines if "probe/accuracy" in line]
    steps = [line for line in lines if "intrinsic/alarms" in line]
    # Agreement and the reward rise, and of labelled tasks no more than half are judged rightly.
    assert readings[-1]["probe/proxy"] > readings[0]["probe/proxy"] + 0.1
    assert readings[-1]["probe/top_answer"] > 0.9
    assert readings[-1]["probe/accuracy"] == pytest.approx(0.5, abs=0.15)
    assert readings[0]["collapse/signs"] == 0
    assert readings[-1]["collapse/signs"] >= 1
    assert steps[0]["intrinsic/verdict_entropy"] > 0.5
    assert any(line["intrinsic/alarms"] >= 1 for line in steps)
