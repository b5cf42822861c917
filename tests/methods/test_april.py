"""APRIL: what it shares with GRPO, what it keeps between steps, and what becomes of stale tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_baselines import Mixed, ready

import etude
from etude.config import RunConfig
from etude.driver import drive
from etude.errors import InputError
from etude.method import get_method, register
from etude.methods.baselines.dapo import DAPO, DAPOConfig
from etude.methods.exploration.april import PartialGathering, PartialGatheringConfig
from etude.models.language import LanguageModel
from etude.objectives import PolicyObjective, sequence_ratio, token_ratio
from etude.run import Run, without_time
from etude.settings import build_config
from etude.tasks.builtin.calculator import Calculator, CalculatorEnvironment
from etude.types import Group, Metrics, Trajectory, trajectories_of

TRAINED = {
    "eval_tasks": 4,
    "eval_samples": 2,
    "max_new_tokens": 20,
    "steps": 3,
    "checkpoint_every": 1,
    "evaluate_every": 0,
    "quiet": True,
    "threads": 1,
    "warmup_steps": 0,
    "eval_kl": False,
    "tasks_per_step": 2,
    "group_size": 4,
    "slots": 12,
}


def steps(method: Any, count: int) -> list[Metrics]:
    """Steps one after the other, as the driver takes them."""
    found = []
    for number in range(1, count + 1):
        method.run.step = number
        found.append(method.step())
    return found


def april(tmp_path: Path, **settings: Any) -> Any:
    # Its attempts at `Mixed` have from a few up to 20 tokens, in twelve slots.
    return ready("april", tmp_path, Mixed(), **{"max_new_tokens": 20, "slots": 12, **settings})


def test_without_more_groups_than_needed_it_is_grpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    etude.train("grpo", out="grpo", **TRAINED)
    etude.train("april", out="april", over_provision=1.0, **TRAINED)
    theirs, mine = ([without_time(line) for line in Run.open(name).metrics()] for name in ("grpo", "april"))
    added = {
        "rollout/decode_steps",
        "rollout/waiting_groups",
        "rollout/waiting_tokens",
        "rollout/utilisation",
        "rollout/trained_per_decode_step",
        "rollout/length_tail",
    }
    stale = {"rollout/stale_tokens", "rollout/lag_mean", "rollout/lag_max"}
    assert [{k: v for k, v in line.items() if k not in added | stale} for line in mine] == theirs
    assert all(line[name] == 0 for line in mine if "time/step" in line or "reward/mean" in line for name in (*stale, "rollout/waiting_groups"))


def test_waiting_groups_and_their_lag_are_reported(tmp_path: Path) -> None:
    method = april(tmp_path)
    found = steps(method, 4)
    assert found[0]["rollout/stale_tokens"] == 0
    assert sum(m["rollout/stale_tokens"] for m in found[1:]) > 0
    assert all(0 <= m["rollout/lag_mean"] <= m["rollout/lag_max"] <= 3 for m in found)
    assert all(m["rollout/waiting_groups"] == 2 for m in found)
    # The first step takes twice as many tasks as it trains on, every later one as many as it trains on.
    assert method.curriculum.cursor == 4 + 3 * 2
    ledger = method.run.ledger
    assert ledger.generated_tokens == ledger.trained_tokens + found[-1]["rollout/waiting_tokens"]
    assert sum(m["rollout/decode_steps"] for m in found) == ledger.decode_steps
    for m in found:
        # A step whose groups were complete before it began decodes nothing.
        assert ("rollout/utilisation" in m) == (m["rollout/decode_steps"] > 0)
    decoded = [m for m in found if m["rollout/decode_steps"]]
    assert all(0 < m["rollout/utilisation"] <= 1 for m in decoded)
    assert all(m["rollout/trained_per_decode_step"] * m["rollout/decode_steps"] == pytest.approx(round(8 * m["rollout/length"])) for m in decoded)


def test_every_attempt_is_judged_once_and_whole(tmp_path: Path) -> None:
    for name, settings in (("plain", {}), ("filtered", {"dynamic_filter": True})):
        method = april(tmp_path / name, **settings)
        judged: list[Trajectory] = []
        judge = method.judge

        def watched(groups: Sequence[Group], judged: list[Trajectory] = judged, judge: Any = judge) -> None:
            assert all(len(group) == 4 for group in groups)
            judged += trajectories_of(groups)
            judge(groups)

        method.judge = watched
        steps(method, 4)
        assert len({id(t) for t in judged}) == len(judged) >= 4 * 2 * 4
        assert all(t.stop_reason != "aborted" for t in judged)


def test_the_dynamic_filter_trains_on_groups_that_teach(tmp_path: Path) -> None:
    class Half(Mixed):
        """Every other task is always wrong."""

        def train_task(self, seed: int, index: int) -> Any:
            task = super().train_task(seed, index)
            return task if index % 2 else type(task)(f"wrong-{index}", task.messages, task.answer)

    method = ready("april", tmp_path, Half(), max_new_tokens=20, slots=12, dynamic_filter=True)
    for number in range(1, 4):
        method.run.step = number
        groups = method.collect(method.curriculum.next(2))
        chosen = method.select(groups)
        assert len(chosen) == 2
        assert all(g.has_spread for g in chosen)
        assert len(groups) == 2 + method.schedule_metrics(chosen)["rollout/rejected_groups"]


def test_discarding_throws_away_and_says_how_much(tmp_path: Path) -> None:
    method = april(tmp_path, discard_unfinished=True)
    found = steps(method, 4)
    dropped = sum(m["rollout/discarded_tokens"] for m in found)
    assert dropped > 0
    ledger = method.run.ledger
    assert ledger.generated_tokens == ledger.trained_tokens + dropped + found[-1]["rollout/waiting_tokens"]
    assert all(m["rollout/stale_tokens"] == 0 for m in found if m["rollout/waiting_groups"] == 0)


def test_stale_tokens_can_be_left_out_of_the_loss(tmp_path: Path) -> None:
    method = april(tmp_path, stale_tokens="mask")
    stale = 0.0
    for number in range(1, 5):
        method.run.step = number
        groups = method.select(method.collect(method.curriculum.next(2)))
        metrics = method.credit(groups)
        tokens = sum(t.trained_length for t in trajectories_of(groups))
        before = method.run.ledger.trained_tokens
        method.update(groups)
        fresh = round((1 - metrics["rollout/stale_tokens"]) * tokens)
        assert method.run.ledger.trained_tokens - before == fresh
        stale += metrics["rollout/stale_tokens"]
        # What is remembered and recorded is whole.
        assert tokens == sum(t.trained_length for t in trajectories_of(groups))
    assert stale > 0


def test_the_correction_weighs_stale_tokens_by_what_was_noted_when_they_were_drawn(tmp_path: Path) -> None:
    def gaps(**settings: Any) -> tuple[list[Metrics], torch.Tensor]:
        method = april(tmp_path / str(settings.get("correction")), lr=3e-3, **settings)
        learnt = [m for m in steps(method, 4) if "loss/ratio" in m]
        return learnt, torch.cat([p.detach().flatten() for p in method.policy.model.parameters()])

    plain, weights = gaps()
    # Without a correction stale tokens count as drawn by the current policy: their ratio is 1, and only the gap shows their age.
    assert all(m["loss/ratio"] == pytest.approx(1) for m in plain)
    stale, fresh = (max(m["loss/sampler_gap"] for m in plain if (m["rollout/stale_tokens"] > 0) == is_stale) for is_stale in (True, False))
    assert stale > 1000 * fresh
    _, corrected = gaps(correction="truncate")
    assert not torch.equal(weights, corrected)


def test_the_importance_ratio_is_an_option(tmp_path: Path) -> None:
    for name, ratio in (("token", token_ratio), ("sequence", sequence_ratio)):
        criterion = april(tmp_path / name, importance_ratio=name, clip_low=0.05).criterion
        assert isinstance(criterion, PolicyObjective)
        assert (criterion.ratio, criterion.clip_low) == (ratio, 0.05)


@pytest.mark.parametrize("tasks", ["calculator", "check-and-fix"])
def test_episodes_in_the_middle_of_their_turns_are_resumed_exactly(tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**TRAINED, "tasks": tasks, "over_provision": 3.0}
    etude.train("april", out="whole", **settings)
    cls: Any = get_method("april")
    step = cls.step

    def interrupted(self: Any) -> dict[str, float]:
        if self.run.step == 3:
            members = [m for g in self.partial.buffer for m in g.members]
            assert any(getattr(m, "writing", None) is not None and m.segments for m in members), "nobody was stopped between two turns"
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            etude.train("april", out="parted", **settings)
    etude.train(resume="parted")
    assert [without_time(m) for m in Run.open("parted").metrics()] == [without_time(m) for m in Run.open("whole").metrics()]
    assert list(Run.open("parted").trajectories_log) == list(Run.open("whole").trajectories_log)


def test_environments_that_wait_are_closed_at_the_end(tmp_path: Path) -> None:
    made: list[Any] = []

    class Counted(CalculatorEnvironment):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    class Counting(Calculator):
        def environment(self) -> Counted:
            made.append(Counted(self, self.max_turns))
            return made[-1]

    config = build_config("april", **TRAINED)
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run", RunConfig(steps=2, save_trajectories=0))
    method: Any = get_method("april")(config, run, policy=LanguageModel.load("tiny", device="cpu", slots=12), task_set=Counting())
    drive(method, run)
    assert method.partial.buffer
    assert {e.closed for e in made} == {1}


@dataclass
class PartialDAPOConfig(PartialGatheringConfig, DAPOConfig):
    """Options of DAPO on partial rollouts."""


def test_it_goes_in_front_of_another_method(tmp_path: Path) -> None:
    @register(slug="partial-dapo", name="Partial DAPO", family="mine", paper="", title="", summary="", config=PartialDAPOConfig)
    class PartialDAPO(PartialGathering, DAPO):
        config: PartialDAPOConfig

    method = ready("partial-dapo", tmp_path, Mixed(), max_new_tokens=20, slots=12, dynamic_filter=True)
    found = steps(method, 3)
    assert all(m["signal/groups_trained"] == 2 and "rollout/rejected_groups" in m for m in found)
    assert method.criterion.aggregation == "token_mean"
    assert sum(m["rollout/stale_tokens"] for m in found) > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"over_provision": 1.0, "discard_unfinished": True}, "--discard-unfinished has nothing to discard: with --over-provision 1 a step waits for all"),
        ({"max_lag": 2, "discard_unfinished": True}, "--max-lag 2 limits how old resumed groups get, and --discard-unfinished resumes none"),
        ({"over_provision": 0.5}, "over_provision|over-provision"),
        ({"group_size": 1}, "--group-size is 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        april(tmp_path, **settings)
