"""SWE-Search in a world of known odds, and on tasks with real environments: it finds more than the agent alone, keeps what decides to itself, and goes on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from chat_server import serving

import etude
from etude.errors import InputError
from etude.evals.judged_values import agreement
from etude.experiments.repaired_bugs import repaired_bugs
from etude.ledger import Ledger
from etude.models.sampling import SamplingParams
from etude.models.scripted import Rule, ScriptedModel
from etude.rewards.judges import ResponderJudge
from etude.run import Run, without_time
from etude.search.acting import ActionTree, Actor
from etude.search.action_search import ActionSearch, Ends
from etude.search.discriminator import Debate, candidates, pick
from etude.search.scripts import BugHuntScript, scripted_model
from etude.search.value_agent import Candidate, ValueAgent, rule_value
from etude.searching import SEARCH
from etude.tasks.builtin.bug_hunt import BugHunt
from etude.tasks.builtin.repair import Repair

QUIET: dict[str, Any] = {"quiet": True, "search_tasks": 3, "tree_steps": 12, "most_finished": 0, "iterations": 3, "parallel": 2, "evaluate_every": 2}


def planted(task_set: Any = None) -> ActionTree:
    task_set = task_set or BugHunt()
    return ActionTree.plant(task_set, task_set.train_task(0, 0), Random(0))


def test_a_search_finds_more_than_restarts_at_the_same_cost_and_random_values_less() -> None:
    found = {
        name: repaired_bugs(0, {"bugs": 20, **settings}, "40-env-steps")
        for name, settings in {"search": {}, "restarts": {"how": "restarts"}, "random": {"value": "random"}}.items()
    }
    assert found["search"]["success"] > found["restarts"]["success"] + 0.1
    assert found["random"]["success"] < found["restarts"]["success"]
    assert found["restarts"]["steps"] == 40
    assert found["search"]["steps"] <= 41
    # Eight attempts of three actions, and a judgement of each.
    assert (found["restarts"]["attempts"], found["restarts"]["calls"]) == (8, 48)
    once = repaired_bugs(0, {"bugs": 5, "how": "once"}, "40-env-steps")
    assert (once["attempts"], once["steps"]) == (1, 5)
    with pytest.raises(InputError, match="spend environment steps"):
        repaired_bugs(0, {}, "40-calls")


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = etude.train("swe-search", out=tmp_path / "whole", **QUIET)
    assert whole.reason == "the search of all 3 tasks has ended"
    played, calls = ActionTree.play, iter(range(1000))

    def killed(self: ActionTree, *given: Any) -> Any:
        if next(calls) == 13:
            raise KeyboardInterrupt
        return played(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ActionTree, "play", killed)
        with pytest.raises(KeyboardInterrupt):
            etude.train("swe-search", out=tmp_path / "parted", **QUIET)
    assert Run.open(tmp_path / "parted").checkpoints.steps()
    etude.train(resume=tmp_path / "parted")
    runs = [Run.open(tmp_path / name) for name in ("whole", "parted")]
    assert [without_time(line) for line in runs[0].metrics()] == [without_time(line) for line in runs[1].metrics()]
    assert (tmp_path / "parted" / SEARCH).read_text() == (tmp_path / "whole" / SEARCH).read_text()
    lines = [json.loads(line) for line in (tmp_path / "whole" / "model" / "picked.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert whole.ledger.environment_steps <= 3 * 13
    report = (tmp_path / "whole" / "report.html").read_text()
    assert "suspect" in report
    assert "try something else" in report


def test_who_searches_never_sees_what_decides() -> None:
    tree = planted()
    right = [f"{verb} {choice}" for verb, choice in zip(("open", "suspect", "patch"), tree.task.info["right"], strict=True)]
    at = 0
    for action in right:
        at = tree.add(at, tree.play(at, action), value=0.0).number
    assert tree.outcomes == {at: 1.0}
    assert tree.steps == 5
    assert "correct" not in json.dumps(tree.tree.to_plain())
    assert "reward" not in json.dumps(tree.tree.to_plain())
    again = planted()
    again.restore(json.loads(json.dumps(tree.to_plain())))
    assert again.to_plain() == tree.to_plain()
    # Any state can be gone back to: the right file is known, and another cause is tried.
    assert again.play(1, "patch 1").state["failed"]
    assert not again.play(1, right[1]).state["failed"]


def test_a_child_that_repeats_another_is_a_duplicate_and_costs_no_step() -> None:
    model = ScriptedModel([Rule("act", ".", lambda situation: "open clock.py")])
    tree, ledger = planted(), Ledger()
    search = ActionSearch(Actor(model, SamplingParams(8)), ValueAgent("rule"), ledger, (0,), ends=Ends(children=3, depth=1))
    while not tree.ended:
        search.round([tree])
    assert [node.state["duplicate"] for node in tree.tree.nodes[1:]] == [False, True, True]
    assert (tree.steps, ledger.task_evaluations, tree.ended) == (2, 1, "nothing is left to go on from")
    assert tree.tree.root.statistics.visits == 1


def test_the_rule_values_actions_by_what_can_be_seen() -> None:
    task_set = Repair(shown=2)
    tree = planted(task_set)

    def value(number: int, text: str, **changed: Any) -> float:
        played = tree.play(number, text)
        state = {**played.state, **changed}
        found, _ = rule_value(Candidate(tree, number, state, played.done, 0))
        tree.tree.add(number, {**state, "value": found})
        return found

    assert value(0, "nonsense") == -25
    assert value(1, "nonsense") == -50
    assert value(0, "run") == 25
    assert value(0, "submit") == -100
    right = next(m.content for m in task_set.conversation(tree.task, 1) or () if m.role == "assistant" and "=" in m.content)
    assert value(0, right, failed=False) == 50
    edit = len(tree.tree) - 1
    assert value(edit, "run", tests=[2, 0]) == 100
    # Two fail, then one: 50 - 25, and 25 + 25.
    assert value(edit, "run", tests=[0, 2]) == 25
    assert value(len(tree.tree) - 1, "run", tests=[1, 1]) == 50


def test_discriminators() -> None:
    tree = planted()
    first = tree.add(0, tree.play(0, "open clock.py"), value=90.0).number
    middle = tree.add(first, tree.play(first, "suspect unit"), value=90.0).number
    ends = [tree.add(middle, tree.play(middle, f"patch {i}"), value=value, explanation="").number for i, value in ((1, 0.0), (2, 30.0), (1, -50.0))]
    # Of two equal patches the better path counts.
    assert [node.number for node in candidates(tree)] == ends[:2]
    assert pick(tree)[0] == ends[1]
    params = SamplingParams(64)

    def says(number: int) -> ScriptedModel:
        return ScriptedModel([Rule("debate", ".", lambda situation: json.dumps({"explanation": "so", "id": number}))])

    assert pick(tree, "debate", debate=Debate(says(1), params, 2, 1))[0] == ends[0]
    # Nobody names a candidate that is there: the path's values decide.
    assert pick(tree, "debate", debate=Debate(says(9), params, 2, 1))[0] == ends[1]
    # Further opinions take the place of the values: node numbers 3, 4, 5 are the ends.
    judge = ScriptedModel([Rule("judge", ".", lambda s: json.dumps({"explanation": "", "feedback": "", "value": 80 if "patch 1" in s.last else -80}))])
    again = ValueAgent("judge", ResponderJudge(judge, "judge", params, Ledger()))
    assert pick(tree, again=again)[0] == ends[0]
    assert pick(planted())[:2] == (None, "nothing was done")


def test_a_judge_that_cannot_be_read_leaves_a_node_without_a_value() -> None:
    tree = planted()
    judge = ResponderJudge(ScriptedModel([Rule("judge", ".", lambda situation: "good")]), "judge", SamplingParams(16), Ledger())
    played = tree.play(0, "open clock.py")
    (valued,) = ValueAgent("judge", judge).values([Candidate(tree, 0, played.state, False, 0)])
    assert valued.value is None
    assert "no value" in valued.explanation
    with pytest.raises(InputError, match="all opinions would be the same"):
        ValueAgent("judge", ResponderJudge(judge.responder, "judge", SamplingParams(16, temperature=0), Ledger()), opinions=3)


def test_models_behind_an_endpoint_act_and_judge_the_same_way(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    tasks, script = BugHunt(), BugHuntScript()
    script.learn(tasks.held_out()[:2])
    model = scripted_model(script)
    with serving() as server:
        server.models, server.reply = [model.name], model.completion
        url = f"{server.url}#{model.name}"
        summary = etude.train(
            "swe-search", out=tmp_path / "run", model=url, structured=True, **{**QUIET, "search_tasks": 2, "tree_steps": 8, "evaluate_every": 0}
        )
    assert summary.status == "finished"
    assert summary.ledger.model_calls["judge"] >= 6
    assert summary.metrics["search/unvalued"] == summary.metrics["search/duplicates"]
    assert summary.metrics["search/finished"] > 0


def test_a_model_that_runs_here_acts_and_a_rule_judges(tmp_path: Path) -> None:
    summary = etude.train(
        "swe-search",
        out=tmp_path / "run",
        model="tiny",
        tasks="repair:held_out_tasks=2",
        value="rule",
        hindsight="off",
        quiet=True,
        search_tasks=2,
        tree_iterations=4,
        most_finished=0,
    )
    assert summary.metrics["search/nodes"] == 8
    assert summary.ledger.model_calls == {"policy": 8}


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    for given, said in (
        ({"tasks": "arithmetic:held_out_tasks=2", "model": "tiny"}, "answered in one turn"),
        ({"tasks": "repair:held_out_tasks=2"}, "there is no scripted model for tasks of repair"),
        ({"tasks": "calculator:held_out_tasks=2", "model": "tiny", "value": "rule"}, "can't be gone back to"),
        ({"judge": "frozen"}, "for methods that train"),
        ({"weights": "deep=3"}, "is no setting"),
        ({"judged": "ends"}, "needs the values of all actions"),
        ({"opinions": 2}, "all opinions would be the same"),
    ):
        with pytest.raises(InputError, match=said):
            etude.train("swe-search", out=tmp_path / "run", quiet=True, **given)


def test_agreement_of_values_with_outcomes() -> None:
    rows = [("look", 10.0, 0.0), ("look", 20.0, 1.0), ("edit", 5.0, 1.0)]
    found = agreement(rows)
    assert found["eval/agreement_look"] == pytest.approx(1.0)
    # Means 35/3 and 2/3: the deviations' products add up to 5/3.
    assert found["eval/agreement"] == pytest.approx(0.1889822)
    assert "eval/agreement_edit" not in found
