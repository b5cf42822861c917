"""FAPO and the training of its judge: what is judged, what it costs, what raises an alarm, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from etude.config import RunConfig
from etude.errors import InputError
from etude.ledger import Ledger
from etude.method import get_method
from etude.methods.baselines.grpo import GRPO
from etude.methods.rewards._flaw_watch import flaws_seen
from etude.models.language import LanguageModel
from etude.models.sampling import SamplingParams
from etude.objectives import PolicyObjective
from etude.rewards.judges import Judge, Judgement, Question
from etude.run import Run
from etude.settings import build_config
from etude.tasks.base import TaskSet
from etude.tasks.builtin.arithmetic import Arithmetic
from etude.tasks.builtin.max5 import Max5
from etude.tasks.builtin.max5_flaws import Max5Flaws
from etude.tasks.first_error import Checked
from etude.types import Group, Segment, Task, Trajectory

SMALL: dict[str, Any] = {"tasks_per_step": 2, "group_size": 4, "eval_tasks": 2, "eval_samples": 2, "warmup_steps": 0, "eval_kl": False, "overlong_weight": 0.0}


class Scripted(Judge):
    """Answers with what a function says of the question's last message."""

    def __init__(self, said: Any) -> None:
        super().__init__("scripted", SamplingParams(max_new_tokens=8), Ledger())
        self.said, self.asked, self.finished = said, [], True

    def ask(self, question: Question) -> Future[Judgement]:
        self.asked.append(question.messages[-1].content)
        future: Future[Judgement] = Future()
        future.set_result(Judgement(self.said(question.messages[-1].content), 1, self.finished))
        return future

    def settle(self) -> None:
        pass


def ready(tmp_path: Path, tasks: TaskSet | None = None, *, slug: str = "fapo", said: Any = None, **settings: Any) -> Any:
    """A method that is set up on the embedded model, with the exact checker or a scripted judge."""
    if slug == "fapo" and said is None:
        settings = {"judge": "exact", **settings}
    config = build_config(slug, **{**SMALL, **settings})
    run = Run(tmp_path, RunConfig(save_trajectories=8))
    method: Any = get_method(slug)(config, run, policy=LanguageModel.load("tiny", device="cpu"), task_set=tasks or Max5())
    method.setup()
    if said is not None:
        method.judging = Scripted(said)
    run.step = 1
    return method


def sound(task: Task) -> str:
    return "\n".join([*(f"{a}+{b}={a + b}" for a, b in task.info["pairs"]), f"answer: {task.answer}"])


def flawed(task: Task) -> str:
    return f"answer: {task.answer}"


def wrong(task: Task) -> str:
    return "answer: X"


def group_of(task: Task, texts: Sequence[str]) -> Group:
    def attempt(text: str, sample: int) -> Trajectory:
        segment = Segment([5, 6], "policy", text, trained=True, logprobs=[-1.0] * 2, entropies=[0.5] * 2)
        return Trajectory(task, [1, 2, 3], [segment], "eos", sample)

    return Group(task.id, [attempt(text, i) for i, text in enumerate(texts)])


def seen_in(method: Any, groups: Sequence[Group]) -> dict[str, float]:
    """What is logged of judged groups."""
    seen = flaws_seen(groups, method.task_set, penalty=method.config.flaw_penalty) | method.planted_flaws_found(groups)
    return seen | method.alarms.raised(method.run.step, seen)


def test_right_sound_flawed_and_wrong_attempts_earn_the_papers_rewards(tmp_path: Path) -> None:
    method, task = ready(tmp_path), Max5().train_task(0, 0)
    group = group_of(task, [sound(task), flawed(task), wrong(task), wrong(task)])
    method.judge([group])
    assert group.rewards == [1.0, 0.0, -1.0, -1.0]
    assert [t.rewards.get("flagged") for t in group.trajectories] == [0.0, 1.0, None, None]
    method.seen = {}
    method.credit([group])
    # Mean -1/4: the flawed positive is still a stepping stone.
    assert group.trajectories[1].segments[0].advantages[0] > 0
    group = group_of(task, [sound(task), sound(task), flawed(task), wrong(task)])
    method.judge([group])
    method.credit([group])
    assert group.trajectories[2].segments[0].advantages[0] < 0


def test_without_a_penalty_it_is_the_baseline_that_still_asks(tmp_path: Path) -> None:
    method, task = ready(tmp_path, flaw_penalty=0.0), Max5().train_task(0, 0)
    group = group_of(task, [sound(task), flawed(task), wrong(task), wrong(task)])
    method.judge([group])
    assert group.rewards == [1.0, 1.0, -1.0, -1.0]
    assert seen_in(method, [group])["flaw/ratio"] == 0.5


def test_only_right_attempts_are_judged_each_once_and_as_soon_as_it_has_ended(tmp_path: Path) -> None:
    task = Max5().train_task(0, 0)
    method = ready(tmp_path, said=lambda asked: "answer: 0" if "+" not in asked.splitlines()[2] else "answer: -1")
    group = group_of(task, [sound(task), flawed(task), wrong(task), wrong(task)])
    method.ended(group.trajectories[1])
    assert len(method.judging.asked) == 1
    method.ended(group.trajectories[2])
    method.judge([group])
    assert len(method.judging.asked) == 2
    assert f"{task.prompt}\nanswer: {task.answer}\n0 answer: {task.answer}" in method.judging.asked
    assert group.rewards == [1.0, 0.0, -1.0, -1.0]


def test_what_cannot_be_read_flags_nothing_is_counted_and_raises_an_alarm_once(tmp_path: Path) -> None:
    task = Max5().train_task(0, 0)
    method = ready(tmp_path, said=lambda asked: "it looks fine to me")
    group = group_of(task, [flawed(task), flawed(task), wrong(task), wrong(task)])
    method.judge([group])
    assert group.rewards == [1.0, 1.0, -1.0, -1.0]
    with pytest.warns(UserWarning, match="100% of the judgements name no step"):
        seen = seen_in(method, [group])
    assert (seen["flaw/unreadable"], seen["flaw/alarm_silent"], seen["flaw/recall"], seen["flaw/true_ratio"]) == (1.0, 1.0, 0.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen_in(method, [group])["flaw/alarm_silent"] == 1.0


def test_a_judgement_that_was_cut_off_names_nothing(tmp_path: Path) -> None:
    task = Max5().train_task(0, 0)
    method = ready(tmp_path, said=lambda asked: "answer: 0")
    method.judging.finished = False
    group = group_of(task, [flawed(task), sound(task)])
    method.judge([group])
    assert [t.tags["named"] for t in group.trajectories] == [None, None]


def test_rewards_without_a_verdict_are_taken_for_one(tmp_path: Path) -> None:
    class Unspoken(Max5):
        reward_weights: Mapping[str, float] = {"points": 1.0}

        def verify(self, task: Task, text: str) -> dict[str, float]:
            return {"points": super().verify(task, text)["correct"]}

    method, task = ready(tmp_path, Unspoken()), Max5().train_task(0, 0)
    group = group_of(task, [sound(task), flawed(task), wrong(task)])
    method.judge([group])
    assert group.rewards == [1.0, 0.0, -1.0]
    assert [t.correct for t in group.trajectories] == [1.0, 1.0, 0.0]


def test_merged_steps_raise_an_alarm_also_in_a_resumed_run(tmp_path: Path) -> None:
    method, task = ready(tmp_path), Max5().train_task(0, 0)
    honest = group_of(task, [sound(task)] * 4)
    merged = group_of(task, [sound(task).replace("\n", " ", 3)] * 4)
    method.judge([honest, merged])
    assert seen_in(method, [honest])["flaw/alarm_merged"] == 0.0
    saved = json.loads(json.dumps(method.state().plain["alarms"]))
    again = ready(tmp_path)
    state = again.state()
    state.plain["alarms"] = saved
    again.load_state(state)
    with pytest.warns(UserWarning, match=r"attempts have 3\.0 steps, at first 6\.0"):
        assert seen_in(again, [merged])["flaw/alarm_merged"] == 1.0


def test_a_judge_that_misses_planted_flaws_raises_an_alarm(tmp_path: Path) -> None:
    task = Max5().train_task(0, 0)
    blind = ready(tmp_path, said=lambda asked: "answer: -1", planted_flaws=8)
    groups = [group_of(task, [sound(task)] * 4)]
    blind.judge(groups)
    with pytest.warns(UserWarning, match="finds 0% of the flaws that were planted"):
        seen = seen_in(blind, groups)
    assert (seen["flaw/planted_recall"], seen["flaw/alarm_blind"]) == (0.0, 1.0)
    assert len(blind.judging.asked) == 8, "four attempts, and each once more with a flaw"
    sees = ready(tmp_path, planted_flaws=8)
    groups = [group_of(task, [sound(task)] * 4)]
    sees.judge(groups)
    seen = seen_in(sees, groups)
    assert (seen["flaw/planted_recall"], seen["flaw/alarm_blind"]) == (1.0, 0.0)


def test_shuffled_flags_are_as_many_and_stay_among_the_right_ones_of_their_group(tmp_path: Path) -> None:
    method, tasks = ready(tmp_path, shuffle_flaws=True), [Max5().train_task(0, i) for i in range(40)]
    groups = [group_of(t, [sound(t), sound(t), flawed(t), wrong(t)]) for t in tasks]
    method.judge(groups)
    assert all(sorted(g.rewards) == [-1.0, 0.0, 1.0, 1.0] and g.rewards[3] == -1.0 for g in groups)
    hit = sum(g.rewards[2] == 0.0 for g in groups) / 40
    assert 0.1 < hit < 0.6, "one in three by chance"


def test_a_worse_checker_is_as_bad_as_it_was_asked_to_be(tmp_path: Path) -> None:
    method = ready(tmp_path, checker_recall=0.75, checker_false_alarms=0.25)
    tasks = [Max5().train_task(0, i) for i in range(400)]
    groups = [group_of(t, [sound(t), flawed(t)]) for t in tasks]
    method.judge(groups)
    seen = seen_in(method, groups)
    assert seen["flaw/recall"] == pytest.approx(0.75, abs=0.08)
    # Half of the attempts are flawed: precision is 0.75 / (0.75 + 0.25).
    assert seen["flaw/precision"] == pytest.approx(0.75, abs=0.08)
    again = ready(tmp_path, checker_recall=0.75, checker_false_alarms=0.25)
    repeated = [group_of(t, [sound(t), flawed(t)]) for t in tasks]
    again.judge(repeated)
    assert [g.rewards for g in repeated] == [g.rewards for g in groups]


def test_dynamic_sampling_keeps_groups_that_are_all_right_but_not_all_sound(tmp_path: Path) -> None:
    method, task = ready(tmp_path, dynamic_sampling=True), Max5().train_task(0, 0)
    groups = [group_of(task, texts) for texts in ([sound(task), flawed(task)], [sound(task)] * 2, [flawed(task)] * 2, [wrong(task)] * 2)]
    method.judge(groups)
    assert [method.teaches(g) for g in groups] == [True, False, False, False]


def test_shares_are_told(tmp_path: Path) -> None:
    method, tasks = ready(tmp_path), [Max5().train_task(0, i) for i in range(2)]
    groups = [group_of(tasks[0], [sound(tasks[0]), sound(tasks[0]), flawed(tasks[0]), wrong(tasks[0])]), group_of(tasks[1], [wrong(tasks[1])] * 4)]
    method.judge(groups)
    seen = seen_in(method, groups)
    assert {name: seen[f"flaw/{name}"] for name in ("alpha", "beta", "refining", "ratio", "true_ratio", "judged", "unreadable")} == pytest.approx(
        {"alpha": 0.25, "beta": 0.625, "refining": 0.5, "ratio": 1 / 3, "true_ratio": 1 / 3, "judged": 3, "unreadable": 0.0}
    )
    assert seen["flaw/steps"] == pytest.approx((6 + 6 + 1 + 1 + 4) / 8)


def test_the_objective_has_the_dual_clip(tmp_path: Path) -> None:
    criterion = ready(tmp_path).criterion
    assert isinstance(criterion, PolicyObjective)
    assert (criterion.aggregation, criterion.clip_low, criterion.clip_high) == ("token_mean", 0.2, 0.28)
    assert issubclass(get_method("fapo"), GRPO)


@pytest.mark.parametrize(
    ("tasks", "settings", "named"),
    [
        (Arithmetic(), {}, "arithmetic does not check steps"),
        (Max5(), {"judge": "live", "checker_recall": 0.5}, "expected --judge exact with them"),
        (Max5(), {"step_prompt": "nowhere.txt"}, "expected auto, short, full, or a text file"),
    ],
)
def test_settings_that_make_no_sense_are_named(tasks: TaskSet, settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named):
        ready(tmp_path, tasks, **settings)


# The judge's own training


@pytest.mark.parametrize(
    ("location", "texts", "expected"),
    [
        ("distance", ["answer: 2", "answer: 4", "answer: -1", "?"], [1.0, 1 - 2 / 6, -1.0, -1.0]),
        ("none", ["answer: 2", "answer: 4", "answer: -1", "?"], [1.0, 1.0, -1.0, -1.0]),
    ],
)
def test_naming_the_first_wrong_step_earns_by_distance(location: str, texts: list[str], expected: list[float], tmp_path: Path) -> None:
    method = ready(tmp_path, Max5Flaws(), slug="fapo-genrm", location_reward=location)
    task = next(t for i in range(200) if Checked.of(t := method.task_set.train_task(0, i)).first_wrong == 2)
    group = group_of(task, texts)
    method.judge([group])
    assert group.rewards == pytest.approx(expected)
    assert [t.correct for t in group.trajectories] == [1.0, 0.0, 0.0, 0.0]


def test_the_control_measures_the_distance_to_any_step(tmp_path: Path) -> None:
    method = ready(tmp_path, Max5Flaws(jumps=0.0), slug="fapo-genrm", location_reward="random")
    tasks = [t for i in range(150) if Checked.of(t := method.task_set.train_task(0, i)).first_wrong >= 0]
    groups = [group_of(t, [f"answer: {Checked.of(t).first_wrong}", "answer: -1"]) for t in tasks]
    method.judge(groups)
    exact = [g.rewards[0] for g in groups]
    assert 0.05 < sum(e == 1.0 for e in exact) / len(exact) < 0.35, "one in six by chance"
    assert all(e > -1 for e in exact)
    assert all(g.rewards[1] == -1.0 for g in groups)


def test_evaluation_says_how_well_flaws_are_found(tmp_path: Path) -> None:
    method = ready(tmp_path, Max5Flaws(), slug="fapo-genrm", eval_tasks=8)
    metrics = method.evaluate()
    assert {"eval/located", "eval/cleared", "eval/process_f1", "eval/recall", "eval/unreadable"} <= set(metrics)


def test_tasks_that_ask_for_no_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no steps with a known first wrong one"):
        ready(tmp_path, Arithmetic(), slug="fapo-genrm")


def test_a_trained_judge_is_used_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import etude

    monkeypatch.chdir(tmp_path)
    few = {"steps": 1, "tasks_per_step": 2, "group_size": 2, "eval_tasks": 2, "eval_samples": 1, "quiet": True, "threads": 1, "eval_kl": False}
    etude.train("fapo-genrm", out="judge", tasks="max5-flaws", **few)
    (tmp_path / "easy.py").write_text("def score(task, text):\n    return {'correct': 1.0}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        etude.train("fapo", out="policy", tasks="max5", judge="judge/model", judge_tokens=20, reward="easy.py:score", **few)
    run = Run.open("policy")
    ledger = run.metrics()[-1]["ledger"]
    assert ledger["model_calls"] == {"policy": 4, "judge": 4}
    assert ledger["judged_tokens"] > 0
    transcripts = list(run.judgements_log)
    assert transcripts
    assert {"question", "judgement", "read", "judge"} <= set(transcripts[0])
    assert "flaw/recall" in run.metrics()[1] or "flaw/unreadable" in run.metrics()[1], "a reward of one's own leaves the step checker in place"
