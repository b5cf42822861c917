"""SELF: what records teach, answers that are refined until they qualify, the filter, and what is left when parts are switched off."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

import etude
import etude.experiments.self_evolution as self_evolution_module
import etude.rollouts.refinement as refinement
from etude.config import RunConfig
from etude.curation.corpus import ORIGIN
from etude.curation.meta_skills import MetaRecord, read_records, three_ways
from etude.errors import InputError
from etude.evals.measures import Record
from etude.evals.verification import acceptance_metrics
from etude.memory.self_instruct import PromptWriting
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.rollouts import EpisodeRequest
from etude.run import Run
from etude.settings import build_config
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.column_sums import ColumnSums, columns
from etude.tasks.feedback import FEEDBACK, REFINE, Roles, verdict_in
from etude.types import Segment, Trajectory

SHORT = Roles(FEEDBACK["short"], REFINE["short"])
SMALL: dict[str, Any] = {"tasks_per_round": 4, "eval_tasks": 3, "eval_samples": 2, "warmup_steps": 0, "eval_kl": False, "probe": "never", "feedback_tokens": 8}


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return LanguageModel.load("tiny", device="cpu")


def ready(tmp_path: Path, policy: LanguageModel, **settings: Any) -> Any:
    config = build_config("self", **{**SMALL, **settings})
    kind: Any = get_method("self")
    method = kind(config, Run(tmp_path, RunConfig(save_trajectories=0)), policy=policy, task_set=ColumnSums())
    method.setup()
    method.run.step = 1
    return method


def test_a_written_addition_and_its_annotator() -> None:
    tasks = ColumnSums()
    assert columns(345, 278, Random(0), 0.0) == (["5+8+0=13", "4+7+1=12", "3+2+1=6"], "623")
    # A slip is carried on.
    slipped = columns(500, 500, Random(1), 1.0)[0]
    assert all(line.split("=")[0].rpartition("+")[2] == str(int(before.split("=")[1]) // 10) for before, line in pairwise(slipped))
    asked = tasks.train_task(3, 0)
    lines, value = columns(asked.info["left"], asked.info["right"], Random(0), 0.0)
    whole = "\n".join([*lines, f"answer: {value}"])
    second = lines[1].split("=")[1]
    looks = [f"{line},{found}" for line, found in zip([*lines, f"answer: {value}"], [*(line.split("=")[1] for line in lines), value], strict=True)]
    good = tasks.annotate(asked, whole)
    assert good is not None
    assert (good.feedback, good.refined) == ("\n".join([*looks, "ok"]), whole)
    wrong = tasks.annotate(asked, whole.replace(lines[1], lines[1] + "0").replace(value, "1"))
    assert wrong is not None
    assert (wrong.feedback, wrong.refined) == (f"{looks[0]}\n{lines[1]},{second}0\nbad 2: {second}", whole)
    other: Any = builtin_task_sets()["max5"]()
    sums = other.train_task(0, 0)
    found = other.annotate(sums, f"{'+'.join(map(str, sums.info['pairs'][0]))}=99")
    assert (found.feedback, other.verify(sums, found.refined)["correct"]) == ("bad 1", 1.0)
    miscopied = tasks.annotate(asked, whole.replace(f"answer: {value}", "answer: 1"))
    assert miscopied is not None
    assert miscopied.feedback.endswith(f"{value},1\nbad 4: {value}")
    missing = tasks.annotate(asked, lines[0])
    assert missing is not None
    assert missing.feedback == f"{looks[0]}\n{lines[1]},?\nbad 2: {second}"


def test_sums_without_carries() -> None:
    tasks = ColumnSums(carries=False, slips=0.5)
    for asked in (tasks.train_task(0, i) for i in range(30)):
        shown = tasks.demonstration(asked, 0)
        assert shown is not None
        *columns_, last = shown.splitlines()
        assert all(int(a) + int(b) < 10 for a, b in zip(str(asked.info["left"]), str(asked.info["right"]), strict=True))
        assert all(line.split("=")[0].endswith("+0") and len(line.split("=")[1]) == 1 for line in columns_)
        assert last.startswith("answer: ")


def test_lessons_show_a_solution_and_what_the_annotator_says_of_it() -> None:
    plain, school = ColumnSums(), ColumnSums(lessons=0.5)
    pairs = [(plain.train_task(1, i), school.train_task(1, i)) for i in range(40)]
    lessons = [(task, lesson) for task, lesson in pairs if lesson != task]
    assert 10 < len(lessons) < 30
    verdicts = set[bool | None]()
    for task, lesson in lessons:
        solution = lesson.prompt.removeprefix(f"check: {task.prompt}\n")
        said = plain.annotate(task, solution)
        assert said is not None
        assert school.demonstration(lesson, 0) == said.feedback
        verdicts.add(verdict_in(said.feedback))
    assert verdicts == {True, False}
    assert school.held_out() == plain.held_out()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It adds up.\nVerdict: **qualified**.", True),
        ("verdict: not qualified", False),
        ("ok", True),
        ("bad 2: 12", False),
        ("mostly qualified", None),
        ("verdict: qualified\nverdict: not qualified", None),
        ("verdict: qualified\nbut look again", None),
        ("", None),
    ],
)
def test_only_a_clear_last_line_is_a_verdict(text: str, verdict: bool | None) -> None:
    assert verdict_in(text) is verdict


def test_what_verdicts_are_worth() -> None:
    # Right: accepted, unread, refused. Wrong: accepted, refused.
    found = acceptance_metrics([True, True, True, False, False], [True, None, False, True, False])
    assert found == pytest.approx({"accepted": 2 / 5, "precision": 1 / 2, "recall": 1 / 3, "specificity": 1 / 2, "balanced": 5 / 12})
    assert acceptance_metrics([True], [None]) == {"accepted": 0.0, "recall": 0.0}


def test_a_record_teaches_three_ways(policy: LanguageModel, tmp_path: Path) -> None:
    task = ColumnSums().train_task(0, 0)
    record = MetaRecord(task, "answer: 1", "bad 1: 7", "answer: 2")
    made = {e.tags[ORIGIN]["kind"]: e for e in three_ways(policy, record, SHORT, answer_weight=0.5)}
    read = {kind: policy.tokenizer.decode(e.prompt) for kind, e in made.items()}
    assert [f"check: {task.prompt}\nanswer: 1" in read["feedback"], f"mend: {task.prompt}\nanswer: 1\nbad 1: 7" in read["refine"]] == [True, True]
    assert [made[kind].last_text or made[kind].segments[0].text for kind in ("answer", "feedback", "refine")] == ["answer: 2", "bad 1: 7", "answer: 2"]
    assert [made[kind].segments[0].advantages[0] for kind in ("answer", "feedback", "refine")] == [0.5, 1.0, 1.0]
    assert [e.tags[ORIGIN]["kind"] for e in three_ways(policy, record, SHORT, skills=False)] == ["answer"]

    lines = [{"prompt": "1+1", "response": "3", "feedback": "bad 1: 2", "refined": "2"}, {"prompt": "2+2", "response": "4", "feedback": "fine", "refined": "4"}]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match="'fine', which is no verdict"):
        read_records(tmp_path / "records.jsonl")


def scripted(critic: ColumnSums, unsure: set[str]) -> Any:
    """A sampler of the second phase that says what the annotator would; feedback on tasks of `unsure` gives no verdict."""

    def run(policy: LanguageModel, requests: list[EpisodeRequest], *_: Any, **__: Any) -> list[Trajectory]:
        written = []
        for r in requests:
            assert r.messages
            asked = r.messages[-1].content
            role, rest = asked.split(": ", 1)
            response = rest.removeprefix(r.task.prompt + "\n")
            said = critic.annotate(r.task, response)
            assert said is not None
            text = "who knows" if r.task.id in unsure else said.feedback if role == "check" else said.refined
            tokens: list[int] = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            written.append(Trajectory(r.task, policy.render(r.messages), [Segment(tokens, "policy", text, trained=True)], "eos", sample=r.sample))
        return written

    return run


def test_rounds_learn_what_qualifies_under_the_prompt_alone(policy: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = ready(tmp_path, policy)
    method.round = 2
    tasks = method.curriculum.next(4)
    unsure = {tasks[3].id}
    monkeypatch.setattr(refinement, "run_episodes", scripted(method.task_set, unsure))
    made, metrics = method.examples(tasks)
    # The untaught model is wrong everywhere: three answers are mended, and the fourth, whose feedback gives no verdict, is not let through.
    assert [e.task.id for e in made] == [t.id for t in tasks[:3]]
    for example in made:
        assert example.prompt == policy.render(example.task.messages)
        assert method.task_set.verify(example.task, example.last_text)["correct"] == 1.0
        assert all(value == 1.0 for s in example.segments for value in s.advantages)
    assert {k: v for k, v in metrics.items() if k.startswith(("evolve", "feedback"))} == pytest.approx(
        {
            "evolve/kept": 3 / 4,
            "evolve/qualified": 3 / 4,
            "evolve/refined": 1.0,
            "evolve/refinements": 1.0,
            "evolve/accuracy_first": 0.0,
            "evolve/accuracy_unfiltered": 3 / 4,
            "evolve/accuracy_filtered": 1.0,
            "feedback/accepted": 3 / 8,
            "feedback/precision": 1.0,
            "feedback/recall": 1.0,
            "feedback/specificity": 1.0,
            "feedback/balanced": 1.0,
            "feedback/unread": 2 / 8,
        }
    )
    method.config.refinements = 0
    assert method.examples(tasks)[0] == []
    method.config.skills, method.config.keep = False, "none"
    assert method.examples(tasks)[1]["evolve/kept"] == 1.0
    method.config.skills, method.config.keep = True, "verdict"

    # A good answer is never touched.
    monkeypatch.setattr(refinement, "run_episodes", scripted(method.task_set, set()))
    good = [Trajectory(t, [], [Segment([1], "policy", method.task_set.annotate(t, "").refined)], "eos") for t in tasks]
    chains = method.refined(good, 2, lambda *_: 0)
    assert all(c.qualified and c.final is a for c, a in zip(chains, good, strict=True))
    method.config.keep = "coin"
    for chain in chains[:2]:
        chain.feedback = [None]
    assert len(method.kept(chains)) == 2


def test_what_a_round_trains_on(policy: LanguageModel, tmp_path: Path) -> None:
    method = ready(tmp_path, policy)
    record = MetaRecord(method.held_out[0], "answer: 1", "bad 1: 7", "answer: 2")

    def numbers(train_on: str = "all", replay_meta: bool = True) -> list[int]:
        method.config.round.train_on, method.config.replay_meta = train_on, replay_meta
        method.corpus.forget([])
        for round_ in (1, 2, 3):
            method.round = round_
            method.corpus.add(three_ways(policy, record, SHORT)[:1], round_)
            chosen = method.chosen()
            method.corpus.choose(chosen)
        return [method.corpus.examples[i].tags[ORIGIN]["round"] for i in method.corpus.chosen]

    assert numbers() == [1, 2, 3]
    assert numbers(replay_meta=False) == [2, 3]
    assert numbers("newest") == [1, 3]
    assert numbers("newest", replay_meta=False) == [3]


def test_settings_that_do_not_go_together_are_refused(policy: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="goes by feedback"):
        ready(tmp_path, policy, skills=False)
    with pytest.raises(InputError, match="group-size 2 or more"):
        ready(tmp_path, policy, keep="majority", skills=False)
    kind: Any = get_method("self")
    rows = [{"prompt": f"{i}+1", "answer": str(i + 1)} for i in range(8)]
    unannotated = kind(build_config("self", tasks=rows, **SMALL), Run(tmp_path, RunConfig()), policy=policy)
    with pytest.raises(InputError, match="has no annotator"):
        unannotated.setup()


def test_written_prompts_are_sieved() -> None:
    numbered = PromptWriting.load("standard", 2048)
    found = numbered.sieve(["1. Add 3 and 4\n2. Name a river\nHere you are!", "1. Add 3 and 4"], ["Name a river"], similar=0.7, forbidden={"spell cat"})
    assert (found.fresh, found.malformed, found.duplicates) == (["Add 3 and 4"], 1, 2)
    alone = PromptWriting.load("auto", 256)
    assert alone.request(["add 1+2", "add 3+4"])[0].content == "new: add 1+2; add 3+4"
    assert alone.sieve(["add 5+6", "spell cat"], [], similar=0.7, forbidden={"spell cat"}).fresh == ["add 5+6"]


def test_what_the_claim_measures_is_read_from_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"step": 0, "eval/pass@1": 0.4, "eval/feedback_accepted": 0.0, "eval/feedback_specificity": 1.0},
        {"step": 2, "evolve/accuracy_unfiltered": 0.5, "evolve/accuracy_filtered": 0.7},
        {"step": 2, "eval/pass@1": 0.5, "eval/feedback_accepted": 0.5, "eval/feedback_recall": 0.9, "eval/feedback_specificity": 0.7, "eval/correct@2": 0.6},
        {"step": 4, "evolve/accuracy_unfiltered": 0.7, "evolve/accuracy_filtered": 0.9},
        {"step": 4, "eval/pass@1": 0.75, "eval/feedback_accepted": 1.0, "eval/feedback_recall": 1.0, "eval/correct@2": 0.8, "ledger": {"generated_tokens": 7}},
    ]
    monkeypatch.setattr(self_evolution_module, "imitate_first", lambda *_: Record(rows))
    assert self_evolution_module.self_evolution(0, {}, "4-steps") == pytest.approx(
        {
            "direct_start": 0.4,
            "direct_taught": 0.5,
            "direct": 0.75,
            "gain": 0.25,
            "refined": 0.8,
            "tokens": 7.0,
            "critic": 0.8,
            "critic_last": 0.5,
            "unfiltered": 0.6,
            "unfiltered_once": 0.5,
            "kept": 0.8,
            "kept_once": 0.7,
        }
    )


def test_it_runs_on_a_file_of_prompts_without_answers(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"compute {i}+1"}) + "\n" for i in range(10)))
    records = [{"prompt": f"compute {i}+2", "response": f"answer: {i}", "feedback": f"bad 1: {i + 2}", "refined": f"answer: {i + 2}"} for i in range(3)]
    records.append({"prompt": "compute 1+1", "response": "answer: 2", "feedback": "ok", "refined": "answer: 2"})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    few: dict[str, Any] = {"steps": 2, "steps_per_round": 1, "tasks_per_round": 2, "tasks_per_step": 8, "eval_tasks": 2, "eval_samples": 1, "evaluate_every": 0}
    quiet: dict[str, Any] = {"quiet": True, "threads": 1, "eval_kl": False, "probe": "never", "feedback_tokens": 4, "max_new_tokens": 6, "keep": "none"}
    etude.train("self", out=tmp_path / "run", tasks=str(tmp_path / "prompts.jsonl"), meta=str(tmp_path / "records.jsonl"), **few, **quiet)
    first, second = [m for m in Run.open(tmp_path / "run").metrics() if "round/number" in m]
    assert (first["meta/records"], first["meta/qualified"], first["round/examples"]) == (4.0, 0.25, 12.0)
    # Nobody knows what is right here, so nothing is said of it.
    assert second["round/corpus"] == 14.0
    assert not [name for name in second if "accuracy" in name]
