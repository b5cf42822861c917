"""SSR-Zero: what is judged and what is not, what the scores become, and a judge that can be pleased."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.driver import drive
from etude.errors import InputError
from etude.ledger import Ledger
from etude.method import get_method
from etude.methods.rewards import _judged, ssr_zero
from etude.models.sampling import SamplingParams
from etude.rewards.judges import Judge, Judgement, Question
from etude.run import Run
from etude.settings import build_config
from etude.tasks.builtin.translation import LANGUAGES, Translation
from etude.tasks.builtin.translation_judging import compared
from etude.types import Group, Segment, Task, Trajectory
from etude.watch import History

SETTINGS: dict[str, Any] = {
    **{"tasks": "translation", "tasks_per_step": 2, "group_size": 4, "warmup_steps": 0, "threads": 1, "save_trajectories": 4},
    **{
        "eval_tasks": 2,
        "eval_samples": 1,
        "eval_kl": False,
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "probe": "never",
        "kl_coefficient": 0.0,
        "quiet": True,
    },
}
GENERIC = {"tavi": "rudo vel beki", "zomu": "ibo paro chim"}


class ScriptedJudge(Judge):
    """Answers by a function of the source, the candidate and the target language, as a digit."""

    def __init__(self, script: Callable[[str, str, str], str], ledger: Ledger) -> None:
        super().__init__("a script", SamplingParams(), ledger)
        self.script = script
        self.asked: list[Question] = []
        self.counted = 0
        self.finished = True

    def ask(self, question: Question) -> Future[Judgement]:
        self.asked.append(question)
        head, candidate = question.messages[0].content.split("\n")
        language, source = head.removeprefix("score to ").split(": ")
        future: Future[Judgement] = Future()
        future.set_result(Judgement(self.script(source, candidate, language), 10, self.finished))
        return future

    def settle(self) -> None:
        new, self.counted = len(self.asked) - self.counted, len(self.asked)
        self._count(10 * new, new)


def honest(source: str, candidate: str, language: str) -> str:
    meaning = LANGUAGES["zomu" if language == "tavi" else "tavi"].read(source)
    assert meaning is not None
    return f"answer: {compared(candidate, LANGUAGES[language].say(meaning))[1]}"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A method that is set up, with a scripted judge."""

    numbers = count()

    def make(script: Callable[[str, str, str], str] = honest, **settings: Any) -> Any:
        config = build_config("ssr-zero", out=tmp_path / f"run-{next(numbers)}", **{**SETTINGS, **settings})
        run = Run.create(config.run, folder_name="run")
        monkeypatch.setattr(_judged, "open_judge", lambda _config, _policy, ledger: ScriptedJudge(script, ledger))
        return get_method("ssr-zero")(config, run)

    return make


def attempt(task: Task, text: str, sample: int = 0) -> Trajectory:
    return Trajectory(task, [], [Segment([1], "policy", text)], "eos", sample=sample)


TASK = next(t for t in Translation().held_out() if t.info["to"] == "zomu" and len(str(t.answer).split()) == 4)
RIGHT = str(TASK.answer)
WORSE = " ".join(["chim" if RIGHT.split()[0] != "chim" else "paro", *RIGHT.split()[1:]])


def test_scores_become_rewards_and_what_has_no_form_or_breaks_a_rule_is_never_judged(made: Callable[..., Any]) -> None:
    method = made()
    method.setup()
    texts = [f"answer: {RIGHT}", f"answer: {WORSE}", RIGHT, f"answer: {TASK.info['source']}", f"answer: {RIGHT} / {RIGHT}", f"answer: {RIGHT} score: 9"]
    group = Group("g", [attempt(TASK, text, i) for i, text in enumerate(texts)])
    method.judge([group])
    assert group.rewards == pytest.approx([1.0, 7 / 9, -1.0, 0.0, 0.0, 0.0])
    assert len(method.judging.asked) == 2
    assert method.run.ledger.model_calls == {"judge": 2}
    metrics = ssr_zero.assessment_metrics([group])
    assert metrics["surface/in_form"] == pytest.approx(5 / 6)
    assert metrics["surface/copied"] == metrics["surface/several"] == metrics["surface/addressed"] == pytest.approx(1 / 5)
    assert metrics["judge/score"] == pytest.approx(8 / 9)
    assert metrics["judge/tied"] == 0.0


def test_rules_can_be_switched_off_one_by_one(made: Callable[..., Any]) -> None:
    method = made(lambda *_: "answer: 9", zero_rules=("copied",))
    method.setup()
    group = Group("g", [attempt(TASK, f"answer: {text}", i) for i, text in enumerate((TASK.info["source"], f"{RIGHT} / {RIGHT}"))])
    method.judge([group])
    assert group.rewards == [0.0, 1.0]


def test_an_attempt_is_handed_in_once_and_as_soon_as_it_has_ended(made: Callable[..., Any]) -> None:
    method = made()
    method.setup()
    early = attempt(TASK, f"answer: {RIGHT}")
    method.ended(early)
    assert len(method.judging.asked) == 1
    method.judge([Group("g", [early])])
    assert len(method.judging.asked) == 1
    assert early.reward == 1.0


def test_several_judgements_are_averaged_and_each_has_random_numbers_of_its_own(made: Callable[..., Any]) -> None:
    said = iter(["answer: 3", "answer: 5", "no idea"])
    method = made(lambda *_: next(said), judge_samples=3, judge_temperature=0.7)
    method.setup()
    group = Group("g", [attempt(TASK, f"answer: {RIGHT}")])
    method.judge([group])
    assert group.rewards == [pytest.approx(4 / 9)]
    assert len({q.stream for q in method.judging.asked}) == 3


@pytest.mark.parametrize(("unreadable", "reward"), [("zero", 0.0), ("unjudged", float("nan"))])
def test_a_judgement_that_was_cut_off_or_has_no_score(made: Callable[..., Any], unreadable: str, reward: float) -> None:
    method = made(unreadable=unreadable)
    method.setup()
    method.judging.finished = False
    group = Group("g", [attempt(TASK, f"answer: {RIGHT}")])
    method.judge([group])
    assert group.rewards == [pytest.approx(reward, nan_ok=True)]
    assert ssr_zero.assessment_metrics([group])["judge/unreadable"] == 1.0


def test_an_external_metric_is_added_and_a_reference_metric_needs_references(made: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "metric.py").write_text("def half(source, candidate, reference):\n    return 0.5 if reference else 0.0\n")
    method = made(external_metric=f"{tmp_path / 'metric.py'}:half", external_weight=0.4, self_weight=2.0)
    method.setup()
    group = Group("g", [attempt(TASK, f"answer: {RIGHT}"), attempt(TASK, "nothing", 1)])
    method.judge([group])
    assert group.rewards == [pytest.approx(2.2), -1.0]


def test_quotation_marks_are_neither_judged_nor_measured(made: Callable[..., Any]) -> None:
    method = made()
    method.setup()
    group = Group("g", [attempt(TASK, f"answer: “{RIGHT}”")])
    method.judge([group])
    assert method.judging.asked[-1].messages[0].content.endswith(f"\n{RIGHT}")
    assert ssr_zero.assessment_metrics([group])["surface/quoted"] == 1.0


def test_labels_are_for_the_log_alone(made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    method = made()
    method.setup()
    monkeypatch.setattr(type(method.task_set), "verify", lambda *_: {"correct": 0.0, "format": 0.0})
    group = Group("g", [attempt(TASK, f"answer: {RIGHT}"), attempt(TASK, f"answer: {WORSE}", 1)])
    method.judge([group])
    assert [t.rewards["correct"] for t in group.trajectories] == [0.0, 0.0]
    assert group.rewards == pytest.approx([1.0, 7 / 9])


def test_sentences_alone_are_enough(tmp_path: Path) -> None:
    file = tmp_path / "sentences.jsonl"
    sources = [Translation().train_task(0, i).info for i in range(12)]
    file.write_text("".join(json.dumps({"source": s["source"], "target_language": s["target_language"]}) + "\n" for s in sources))
    (tmp_path / "prompt.txt").write_text("to {target_language}: {source}")
    settings = {**SETTINGS, "tasks": str(file), "actor_prompt": str(tmp_path / "prompt.txt"), "judge_tokens": 12, "steps": 2}
    with pytest.warns(UserWarning, match="nothing watches it"):
        etude.train("ssr-zero", out=tmp_path / "run", **{**settings, "probe": "auto"})
    steps = [line for line in Run.open(tmp_path / "run").metrics() if "judge/unreadable" in line]
    assert len(steps) == 2
    assert all(line["surface/in_form"] > 0 for line in steps)
    assert steps[-1]["ledger"]["judged_tokens"] > 0
    judged = [json.loads(line) for line in (tmp_path / "run" / "judgements.jsonl").read_text().splitlines()]
    assert {len(j["judgements"]) for j in judged} == {1}
    assert all(j["question"].startswith("score to ") for j in judged)


def test_settings_that_cannot_work_are_refused(made: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"source": "a b", "target_language": "de"}\n{"source": "c d", "target_language": "de"}\n')
    for settings, message in (
        ({"judge_samples": 2}, "--judge-temperature 0"),
        ({"external_metric": "comet"}, "--external-metric is 'comet'"),
        ({"judge_prompt": "nothing.txt"}, "--judge-prompt is 'nothing.txt'"),
        ({"tasks": "calculator"}, "played in turns"),
    ):
        with pytest.raises(InputError, match=message):
            made(**settings).setup()
    pytest.importorskip("sacrebleu")
    with pytest.raises(InputError, match="compares with references"):
        made(tasks=str(tmp_path / "s.jsonl"), external_metric="chrf").setup()


def test_references_are_reported_where_there_are_some(made: Callable[..., Any]) -> None:
    pytest.importorskip("sacrebleu")
    method = made(eval_metrics=("chrf", "bleu"), eval_tasks=8)
    method.setup()
    metrics = method.evaluate()
    assert 0.2 < metrics["eval/chrf"] < 1
    assert 0 < metrics["eval/bleu"] < 1


def trained(method: Any) -> tuple[Any, History]:
    summary = drive(method, method.run)
    return summary, History(method.run.probe_log)


LEARN = {"tasks_per_step": 8, "group_size": 8, "lr": 2e-3, "probe": "always", "probe_size": 24, "probe_samples": 4, "probe_every": 3, "evaluate_every": 3}


def test_an_honest_judge_makes_better_translations(made: Callable[..., Any]) -> None:
    _, history = trained(made(honest, steps=9, **{**LEARN, "lr": 1e-3, "probe_every": 9, "evaluate_every": 9}))
    first, last = history.readings()[0].metrics, history.readings()[-1].metrics
    assert last["probe/accuracy"] > first["probe/accuracy"] + 0.15


def test_a_judge_that_comes_to_like_one_sentence_is_found_out(made: Callable[..., Any]) -> None:
    asked_in = []

    def fond(source: str, candidate: str, language: str) -> str:
        """Honest at first. From the third step on it scores how much a candidate is like one sentence, whatever the source."""
        if method.run.step < 3:
            return honest(source, candidate, language)
        asked_in.append(method.run.step)
        return f"answer: {compared(candidate, GENERIC[language])[1]}"

    method = made(fond, steps=15, on_collapse="stop", **LEARN)
    with pytest.warns(UserWarning, match="the judge goes astray"):
        summary, history = trained(method)
    assert asked_in
    last = [line for line in method.run.metrics() if "judge_probe/signs" in line][-1]
    assert last["judge_probe/sign_blind"] == 1.0
    assert summary.status == "collapsed"
    assert {"exploited", "one_answer", "lost"} & summary.collapses[-1]["signs"].keys()
    readings = history.readings()
    assert readings[-1].metrics["probe/accuracy"] < max(r.metrics["probe/accuracy"] for r in readings) - 0.05
