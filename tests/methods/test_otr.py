"""OTR on the embedded model: what it learns and what it leaves, noise in demonstrations, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etude.config import RunConfig
from etude.errors import InputError
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.calculator import Calculator
from etude.types import Group, trajectories_of

SMALL: dict[str, Any] = {"tasks_per_step": 8, "eval_tasks": 4, "eval_samples": 1, "warmup_steps": 0, "eval_kl": False}


def ready(folder: Path, tasks: TaskSet, slug: str = "otr", seed: int = 0, **settings: Any) -> Any:
    config = build_config(slug, **{**SMALL, **settings})
    policy = LanguageModel.load("tiny", device="cpu", learner=config.method.learner)
    folder.mkdir(exist_ok=True)
    kind: Any = get_method(slug)
    method = kind(config, Run(folder, RunConfig(seed=seed, save_trajectories=0)), policy=policy, task_set=tasks)
    method.setup()
    return method


def shown(method: Any, count: int = 8, first: int = 0) -> list[Any]:
    tasks = [method.task_set.train_task(method.run.seed, first + i) for i in range(count)]
    return trajectories_of(method.collect(tasks))


def nll(method: Any, trajectories: list[Any]) -> list[list[float]]:
    return [[-v for v in values] for values in method.learner.logprobs(trajectories)]


def test_likely_tokens_are_learnt_and_implausible_ones_left_which_sft_learns(tmp_path: Path) -> None:
    change: dict[str, dict[str, float]] = {}
    metrics: dict[str, dict[str, float]] = {}
    for slug in ("otr", "sft"):
        method = ready(tmp_path / slug, Arithmetic(), slug, lr=3e-4, demo_noise=0.25)
        given = shown(method)
        before = [v for values in nll(method, given) for v in values]
        for _ in range(10):
            metrics[slug] = method.update([Group(t.task.id, [t]) for t in given])
        after = [v for values in nll(method, given) for v in values]
        pairs = list(zip(before, after, strict=True))
        change[slug] = {
            "likely": sum(b - a for a, b in pairs if a < 1) / sum(a < 1 for a, _ in pairs),
            "implausible": sum(b - a for a, b in pairs if a > 6) / sum(a > 6 for a, _ in pairs),
        }
    assert 0.2 < metrics["otr"]["loss/dead"] < 0.8
    assert 0 < metrics["otr"]["loss/weight"] < 1
    assert change["sft"]["implausible"] < -1
    assert change["otr"]["implausible"] > change["sft"]["implausible"] / 2, change
    assert change["otr"]["likely"] < 0, change
    assert change["sft"]["likely"] > change["otr"]["likely"]


def test_nothing_is_generated_and_the_accounts_are_those_of_sft(tmp_path: Path) -> None:
    ledgers = []
    for slug in ("otr", "sft"):
        method = ready(tmp_path / slug, Arithmetic(), slug)
        method.run.step = 1
        method.step()
        ledgers.append(method.run.ledger.to_plain())
    assert ledgers[0] == ledgers[1]
    assert ledgers[0]["generated_tokens"] == 0 < ledgers[0]["trained_tokens"]


def test_a_floor_of_1_without_a_miss_reward_takes_the_step_of_sft(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lr": 1e-3, "aggregation": "token_mean"}
    floor = ready(tmp_path / "floor", Arithmetic(), least_pull=1.0, miss_reward=0.0, token_draws=0, **settings)
    plain = ready(tmp_path / "plain", Arithmetic(), "sft", **settings)
    for method in (floor, plain):
        method.run.step = 1
        method.step()
    probe = shown(plain, first=100)
    assert [v for values in nll(floor, probe) for v in values] == pytest.approx([v for values in nll(plain, probe) for v in values], abs=1e-4)


def test_noise_belongs_to_the_seed_and_the_task_whatever_the_method(tmp_path: Path) -> None:
    first = ready(tmp_path / "a", Arithmetic(), demo_noise=0.25)
    again = ready(tmp_path / "b", Arithmetic(), "sft", demo_noise=0.25)
    given = shown(first, 64)
    assert [t.tokens for t in given] == [t.tokens for t in shown(again, 64)]
    clean = shown(ready(tmp_path / "d", Arithmetic(), "sft"), 64)
    wrong = [a != b for t, c in zip(given, clean, strict=True) for a, b in zip(t.tokens, c.tokens, strict=True)]
    assert sum(wrong) / len(wrong) == pytest.approx(0.25, abs=0.06)
    # The ends stay, and so does the count.
    assert {t.tokens[-1] for t in given} == {first.policy.tokenizer.eos_token_id}
    assert first.credit(first.collect([t.task for t in given]))["demonstrations/wrong"] == pytest.approx(sum(wrong) / len(wrong), abs=0.02)
    assert given[0].segments[0].text == first.policy.decode(given[0].tokens)
    # A task that comes again in a later step is wrong in the same places.
    first.run.step = 5
    assert [t.tokens for t in shown(first, 8)] == [t.tokens for t in given[:8]]
    # Tasks of another seed are other tasks; those of this seed are wrong elsewhere.
    other = ready(tmp_path / "c", Arithmetic(), demo_noise=0.25, seed=1)
    same_tasks = trajectories_of(other.collect([t.task for t in given]))
    assert [t.tokens for t in same_tasks] != [t.tokens for t in given]


def test_whole_demonstrations_that_are_wrong_are_right_ones_of_other_tasks(tmp_path: Path) -> None:
    method = ready(tmp_path / "a", Arithmetic(), "sft", demo_noise=0.5, demo_noise_kind="whole")
    given = shown(method, 64)
    right = [method.task_set.verify(t.task, t.segments[0].text)["correct"] for t in given]
    assert 0.3 < sum(right) / 64 < 0.7
    assert all(t.segments[0].text in method.wrong_texts for t, ok in zip(given, right, strict=True) if not ok)
    assert [t.tags["wrong"] for t in given if not t.tags["wrong"]] == [0.0] * sum(int(o) for o in right)


def test_turns_of_conversations_take_noise_in_what_the_assistant_says(tmp_path: Path) -> None:
    method = ready(tmp_path / "a", Calculator(), demo_noise=1.0, tasks_per_step=2)
    (noisy,) = shown(method, 1)
    (clean,) = shown(ready(tmp_path / "b", Calculator(), tasks_per_step=2), 1)
    for a, b in zip(noisy.segments, clean.segments, strict=True):
        assert (a.tokens == b.tokens) == (not a.trained)
    method.run.step = 1
    assert method.step()["loss/nll"] > 3
    with pytest.raises(InputError, match="a conversation about another task does not fit between its answers"):
        ready(tmp_path / "c", Calculator(), demo_noise=0.5, demo_noise_kind="whole")


def test_right_held_out_demonstrations_are_measured_noise_or_not(tmp_path: Path) -> None:
    noisy, clean = (ready(tmp_path / name, Arithmetic(), demo_noise=noise) for name, noise in (("a", 0.5), ("b", 0.0)))
    assert noisy.unlikeliness() == clean.unlikeliness()
    trajectories = [clean.imitated_answer(task, 0) for task in clean.held_out]
    values = [v for row in nll(clean, trajectories) for v in row]
    assert clean.unlikeliness()["eval/demonstration_nll"] == pytest.approx(sum(values) / len(values), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregation": "dr_grpo"}, "divides by a constant that OTR does not have"),
        ({"centre_draws": True, "token_draws": 1}, "--token-draws is 1; expected 2 or more"),
        ({"miss_reward": 1.0}, "miss_reward"),
        ({"draw_temperature": 0.0}, "draw_temperature"),
        ({"demo_noise": 1.5}, "demo_noise"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ready(tmp_path / "a", Arithmetic(), **settings)
