"""The probe: which tasks it takes, that nothing is learnt from them, what a reading says, and that reading changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.config import RunConfig
from etude.errors import InputError
from etude.evals.passk import task_interval
from etude.evals.probe import reading_of
from etude.method import LABELLED, MethodCard, get_method
from etude.run import Run
from etude.settings import build_config, flag, leaves
from etude.settings_file import file_config, saved_form
from etude.tasks.answers import final_answer
from etude.tasks.base import TaskSet, prompt_key
from etude.types import Group, Message, Metrics, Segment, Task, Trajectory

SMALL: dict[str, Any] = {
    **{"tasks_per_step": 2, "group_size": 3, "max_new_tokens": 8, "eval_tasks": 5, "eval_samples": 2, "warmup_steps": 0, "eval_kl": False},
    **{"probe_size": 8, "probe_samples": 2, "lr": 1e-3},
}


class Sums(TaskSet):
    """Forty held-out sums; the verdict is a function of the text, so that an untrained model gets both kinds."""

    name = "sums"
    first_train = 1000

    def train_task(self, seed: int, index: int) -> Task:
        return self._task(self.first_train + index)

    def held_out(self) -> Sequence[Task]:
        return [self._task(i) for i in range(40)]

    def _task(self, number: int) -> Task:
        return Task(f"s{number}", (Message("user", f"{number}+1"),), answer=str(number + 1))

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": float(sum(map(ord, text)) % 2)}


def ready(
    folder: Path, task_set: TaskSet | None = None, slug: str = "grpo", *, run: dict[str, Any] | None = None, handed_in: bool = True, **settings: Any
) -> Any:
    config = build_config(slug, **{**SMALL, **settings})
    method: Any = get_method(slug)(config, Run(folder, RunConfig(save_trajectories=0, **(run or {}))), task_set=(task_set or Sums()) if handed_in else None)
    method.setup()
    method.run.step = 1
    return method


def attempt(task: Task, text: str, correct: float, reward: float, *, entropy: float = 0.5, stop: Any = "eos") -> Trajectory:
    tokens = list(range(len(text)))
    segment = Segment(tokens, "policy", text, trained=True, entropies=[entropy] * len(tokens))
    return Trajectory(task, [1], [segment], stop, reward=reward, rewards={"correct": correct})


def test_a_reading_by_hand() -> None:
    one, two = Task("1", (Message("user", "a"),), answer="7"), Task("2", (Message("user", "b"),), answer="#### 7.0")
    groups = [
        Group("1", [attempt(one, "answer: 7", 1.0, 0.9), attempt(one, "answer: 7.0", 1.0, 0.2)]),
        Group("2", [attempt(two, "answer: 8", 0.0, 0.8, entropy=1.5), attempt(two, "no", math.nan, math.nan, stop="length")]),
    ]
    reading = reading_of(30, groups, final_answer)
    assert (reading.step, reading.accuracy, reading.proxy) == (30, (1.0, 0.0), (pytest.approx(0.55), 0.8))
    assert reading.answers == (("7", 0.5), ("8", 0.25))
    low, high = task_interval([1.0, 0.0], 2)
    proxy_low, proxy_high = task_interval([0.55, 0.8], 2)
    assert reading.metrics == pytest.approx(
        {
            **{"probe/accuracy": 0.5, "probe/accuracy_low": low, "probe/accuracy_high": high},
            **{"probe/proxy": 0.675, "probe/proxy_low": proxy_low, "probe/proxy_high": proxy_high},
            **{"probe/answers": 2.0, "probe/top_answer": 0.5, "probe/top_reference": 1.0, "probe/unanswered": 0.25},
            "probe/positive": 2 / 3,
            "probe/length": (9 + 11 + 9 + 2) / 4,
            "probe/truncated": 0.25,
            "probe/entropy": (22 * 0.5 + 9 * 1.5) / 31,
            "probe/tasks": 2.0,
            "probe/solved": 0.5,
            # The two right ones tie with nothing: 0.9 is right, and 0.8 the only judged attempt at the other task.
            "probe/best_by_reward": 0.5,
        }
    )


def test_a_reward_outside_the_unit_interval_has_a_normal_interval() -> None:
    task = Task("1", (Message("user", "a"),))
    metrics = reading_of(0, [Group("1", [attempt(task, "x", 1.0, r)]) for r in (-1.0, 3.0)], final_answer, positive=0.0).metrics
    # Mean 1, deviation sqrt(8), error 2.
    assert metrics["probe/proxy"] == 1.0
    assert metrics["probe/proxy_high"] == pytest.approx(1 + 1.959964 * 2)
    assert (metrics["probe/positive"], metrics["probe/top_reference"], metrics["probe/unanswered"]) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("signal", ["votes", "agreement", "self-judge", "judge", "confidence", "entropy"])
def test_methods_without_labels_are_watched_unless_told_otherwise(signal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MethodCard("x", "X", "", "", "", "", signal=signal).label_free
    if signal != "votes":
        return
    assert ready(tmp_path / "labelled").watch is None
    monkeypatch.setattr(get_method("grpo"), "card", MethodCard("grpo", "GRPO", "", "", "", "", signal=signal))
    assert ready(tmp_path / "free").watch.every == 10
    assert ready(tmp_path / "never", probe="never").watch is None


def test_every_method_here_says_where_its_signal_is_from() -> None:
    assert {get_method(slug).card.signal for slug in ("grpo", "sft", "dpo")} <= LABELLED
    assert ready(Path("unused"), probe="always", probe_every=7).watch.every == 7


def test_the_probe_takes_tasks_that_evaluation_does_not_measure(tmp_path: Path) -> None:
    method = ready(tmp_path, probe="always")
    evaluated = {t.id for t in method.held_out}
    chosen = [t.id for t in method.probe.tasks]
    assert len(set(chosen)) == 8
    assert not evaluated & set(chosen)
    assert [t.id for t in ready(tmp_path, probe="always").probe.tasks] == chosen
    # Where there are too few others, the evaluated ones come last.
    everything = [t.id for t in ready(tmp_path, probe="always", probe_size=100, eval_tasks=30).probe.tasks]
    assert len(everything) == 40
    assert {int(ident[1:]) for ident in everything[:10]} == set(range(30, 40))


def test_a_reading_repeats_and_changes_nothing(tmp_path: Path) -> None:
    method = ready(tmp_path, probe="always")
    ledger = method.run.ledger.copy()
    before = method.state()
    first, second = method.read_probe(), method.read_probe()
    assert first == second
    assert len(first.accuracy) == 8
    assert method.run.ledger.rollouts - ledger.rollouts == 2 * 8 * 2
    after = method.state()
    assert after.plain == before.plain
    assert all(torch.equal(after.tensors[n], t) for n, t in before.tensors.items())


def test_the_numbers_of_a_step_are_the_same_with_and_without_a_probe(tmp_path: Path) -> None:
    def stepped(name: str, **settings: Any) -> list[Metrics]:
        method = ready(tmp_path / name, **settings)
        found = []
        for step in (1, 2):
            method.run.step = step
            if method.watch is not None:
                method.watch.read()
            found.append({k: v for k, v in method.step().items() if not k.startswith("time/")})
        return found

    assert stepped("watched", probe="always") == stepped("alone")


def test_a_reward_of_the_users_own_is_the_proxy_and_the_labels_stay_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}+1", "answer": str(i + 1)}) + "\n" for i in range(60)))

    def generous(task: Task, text: str) -> dict[str, float]:
        return {"correct": 1.0, "reward": 0.75}

    method = ready(tmp_path, handed_in=False, tasks=str(path), reward=generous, probe="always", eval_tasks=2)
    reading = method.read_probe()
    assert reading.proxy == (0.75,) * 8
    assert reading.metrics["probe/positive"] == 1.0
    # The model, which has not met sums of this form, is not always right, whatever the reward says.
    assert max(reading.accuracy) < 1.0
    assert method.step()["reward/correct"] == 1.0


def test_a_method_judges_the_probe_as_it_judges_in_training(tmp_path: Path) -> None:
    class Agreeable(get_method("dapo")):
        """Pays for agreement with the first attempt."""

        def judge(self, groups: Sequence[Group]) -> None:
            for group in groups:
                for trajectory in group.trajectories:
                    trajectory.reward = float(trajectory.text == group.trajectories[0].text)
                    trajectory.rewards = {"agreement": trajectory.reward}

    config = build_config("dapo", **{**SMALL, "probe": "always"})
    method: Any = Agreeable(config, Run(tmp_path, RunConfig()), task_set=Sums())
    method.setup()
    reading = method.read_probe()
    assert min(reading.proxy) >= 0.5
    assert set(reading.proxy) <= {0.5, 1.0}
    assert 0 <= reading.metrics["probe/accuracy"] <= 1


def test_probe_tasks_from_a_file_are_all_its_lines_and_judged_by_their_own_answers(tmp_path: Path) -> None:
    path = tmp_path / "probe.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"compute {i}*3", "answer": str(3 * i), "id": f"p{i}"}) + "\n" for i in range(20, 30)))
    method = ready(tmp_path, probe_tasks=str(path), probe_size=50)
    assert {t.id for t in method.probe.tasks} == {f"p{i}" for i in range(20, 30)}
    assert method.read_probe().accuracy == method.read_probe().proxy
    assert isinstance(method.task_set, Sums)
    family = ready(tmp_path, probe_tasks="compare")
    assert family.probe.tasks[0].id.startswith("compare/held-out")
    assert 0 <= family.read_probe().metrics["probe/accuracy"] <= 1


def test_probe_tasks_that_are_trained_on_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "probe.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}  +1".replace("  ", ""), "answer": "1", "id": f"p{i}"}) + "\n" for i in (1003, 5, 1001)))
    with pytest.raises(InputError, match=r"2 of the 3 probe tasks are trained on as well, 'p100[13]' among them"):
        ready(tmp_path, probe_tasks=str(path))


def test_nothing_is_learnt_from_a_probe_task_that_comes_up_all_the_same(tmp_path: Path) -> None:
    class Leaky(Sums):
        """Trains on what it holds out."""

        first_train = 20

    method = ready(tmp_path, Leaky(), probe="always", probe_size=40, tasks_per_step=4)
    before = [p.clone() for p in method.policy.model.parameters()]
    metrics = method.step()
    assert (metrics["probe/withheld"], metrics["signal/updates"]) == (4.0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.policy.model.parameters(), strict=True))
    few = ready(tmp_path, Leaky(), probe="always", tasks_per_step=20)
    known = {prompt_key(t) for t in few.probe.tasks}
    came_up = sum(prompt_key(few.task_set.train_task(0, i)) in known for i in range(20))
    metrics = few.step()
    assert 0 < came_up < 20
    assert (metrics["probe/withheld"], metrics["signal/updates"]) == (float(came_up), 1.0)


def test_what_cannot_be_watched_is_refused_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--on-collapse stop acts on what a probe shows, and --probe never leaves it out"):
        ready(tmp_path, probe="never", run={"on_collapse": "stop"})
    assert ready(tmp_path, run={"on_collapse": "stop"}).watch is not None
    path = tmp_path / "open.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"write about {i}"}) + "\n" for i in range(60)))
    unlabelled: dict[str, Any] = {"handed_in": False, "tasks": str(path), "reward": lambda task, text: 0.5, "eval_tasks": 2}
    with pytest.raises(InputError, match='no task has "answer"'):
        ready(tmp_path, probe="always", **unlabelled)
    monkeypatch.setattr(get_method("grpo"), "card", MethodCard("grpo", "GRPO", "", "", "", "", signal="self-judge"))
    with pytest.warns(UserWarning, match="grpo learns without labels, and nothing watches it for a collapse"):
        assert ready(tmp_path, **unlabelled).watch is None


def test_options_survive_a_file(tmp_path: Path) -> None:
    wanted = {"probe": "always", "probe_size": 12, "probe_tasks": "compare", "collapse_noise": 2.5, "on_collapse": "rollback", "most_rollbacks": 4}
    config = build_config("grpo", **wanted)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(saved_form("grpo", config)))
    slug, again = file_config(path)
    assert (slug, again) == ("grpo", config)
    known = leaves(again)
    assert {name: known[name].value for name in wanted} == wanted
    assert flag("collapse_noise") == "--collapse-noise"
    for name, value in (("probe", "on"), ("probe_size", 4), ("collapse_answers", 1.5), ("on_collapse", "panic"), ("probe_every", 0)):
        with pytest.raises(InputError, match=f"{name} is {value!r}; expected"):
            build_config("grpo", **{name: value})
