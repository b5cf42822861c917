"""SE-Agent: guidance out of summaries finds what independent attempts do not, tasks are kept apart, no verdict goes in, and a killed search goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from chat_server import serving
from interruption import killed_in_step
from sandbox.test_jail import needs_bwrap
from tasks.test_repos import EDIT, bank  # noqa: F401

import etude
from etude.errors import InputError
from etude.memory.attempt_summaries import SUMMARISE
from etude.models.scripted import Rule, ScriptedModel, Situation
from etude.run import Run, without_time
from etude.search.attempt_operators import GUIDE, PROMPTS
from etude.searching import SEARCH
from etude.settings_file import saved_config
from etude.tasks.decisions import Decisions

QUIET: dict[str, Any] = {"quiet": True, "parallel": 16, "tasks_limit": 16, "plans": 3, "styles": 4, "candidates": 9, "iterations": 3, "evaluate_every": 0}


def pools_of(run: Path) -> list[dict[str, Any]]:
    checkpoint = Run.open(run).checkpoints.newest()
    assert checkpoint is not None
    return checkpoint.state().plain["search"]["pools"]


def test_attempts_made_out_of_others_solve_more_than_as_many_independent_ones(tmp_path: Path) -> None:
    settings = {**QUIET, "tasks": "simulated:accuracy=0.9", "calls_per_task": 60}
    evolved = etude.train("se-agent", out=tmp_path / "evolved", **settings)
    independent = etude.train("se-agent", out=tmp_path / "independent", **{**settings, "operators": (), "plans": 20, "candidates": 20})
    assert evolved.reason == independent.reason == "all 16 tasks were searched"
    assert evolved.after["eval/success"] > independent.after["eval/success"] + 0.2
    # 5 turns, a summary, and from the fourth attempt on guidance: 3 * 6 + 6 * 7.
    assert evolved.ledger.model_calls == {"policy": 16 * 9 * 5, "summary": 16 * 9, "operator": 16 * 6}
    assert independent.ledger.model_calls == {"policy": 16 * 10 * 5, "summary": 16 * 10}
    assert evolved.metrics["search/right_findings"] == pytest.approx(0.9, abs=0.05)
    answers = [json.loads(line) for line in (tmp_path / "evolved" / "model" / "answers.jsonl").read_text().splitlines()]
    assert [answer["task"] for answer in answers] == [f"case-{i}" for i in range(16)]
    trees = json.loads((tmp_path / "evolved" / SEARCH).read_text())["trees"]
    crossed = [node for tree in trees for node in tree["nodes"] if node["label"].startswith("crossover of ")]
    assert crossed
    assert all(len(node["parents"]) == 2 for node in crossed)
    assert "crossover of" in (tmp_path / "evolved" / "report.html").read_text()
    assert saved_config(tmp_path / "evolved")[1].method.growth.calls_per_task == 60
    # An attempt holds nothing that the verifier said, and findings of one case are in no other's guidance.
    pools = pools_of(tmp_path / "evolved")
    for pool in pools:
        states = [node["state"] for node in pool["tree"][1:]]
        assert not re.search("checks|correct|verdict", json.dumps(states))
        steps = {step for state in states for step in re.findall(r"[a-z]+=\d", json.dumps(state["turns"]))}
        assert {step for state in states for step in re.findall(r"(?:keep|avoid): ([a-z]+=\d)", state["guidance"])} <= steps


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        **QUIET,
        "parallel": 3,
        "tasks_limit": 5,
        "mutations": 1,
        "choose": "model",
        "operators": ("revise", "crossover", "transfer", "restructure", "refine"),
    }
    etude.train("se-agent", out=tmp_path / "whole", **settings)
    with killed_in_step("se-agent", 3, monkeypatch):
        etude.train("se-agent", out=tmp_path / "parted", **settings)
    etude.train(resume=tmp_path / "parted")
    whole, parted = Run.open(tmp_path / "whole"), Run.open(tmp_path / "parted")
    assert [without_time(line) for line in parted.metrics()] == [without_time(line) for line in whole.metrics()]
    assert pools_of(tmp_path / "parted") == pools_of(tmp_path / "whole")
    made = {node["state"]["operator"] for pool in pools_of(tmp_path / "whole") for node in pool["tree"][1:]}
    assert made == {"plan", "mutate", "revise", "crossover", "transfer", "restructure", "refine"}
    assert whole.metrics()[-1]["ledger"]["model_calls"]["pick"] == 5


def test_a_budget_in_attempts_is_not_overspent_and_wrong_input_is_refused(tmp_path: Path) -> None:
    summary = etude.train("se-agent", out=tmp_path / "run", **QUIET, budget="100-evaluations")
    assert summary.ledger.task_evaluations == 100
    for given, said in (
        ({"tasks": "arithmetic"}, "no model acts on arithmetic"),
        ({"model": "tiny"}, "leave --model and --adviser out"),
        ({"tasks": "simulated:accuracy=1"}, "accuracy=1; expected shares"),
        ({"split": "train"}, "has no training tasks"),
        ({"split": "train", "tasks": "simulated:luck=1"}, "no setting"),
    ):
        with pytest.raises(InputError, match=said):
            etude.train("se-agent", out=tmp_path / "bad", quiet=True, **given)


def test_a_small_model_that_cannot_summarise_is_searched_by_rules_and_length(tmp_path: Path) -> None:
    small = {"quiet": True, "tasks_limit": 2, "plans": 2, "candidates": 3, "advice_tokens": 8, "max_new_tokens": 8, "threads": 1}
    summary = etude.train("se-agent", model="tiny", tasks="arithmetic", out=tmp_path / "run", **small)
    assert summary.ledger.rollouts == 6
    assert summary.metrics["search/unread_summaries"] == 6
    assert 0 < summary.metrics["search/best_rate"] <= 0.2


def coder(situation: Situation) -> str:
    """Edits at once where guidance says so, and else only looks."""
    system, turns = situation.messages[0].content, sum(m.role == "assistant" for m in situation.messages)
    actions = [EDIT, "test", "submit"] if "hours * 60" in system else ["list", "submit"]
    return f"<action>{actions[turns]}</action>"


def summarised(situation: Situation) -> str:
    done = "edit src" in situation.last
    texts = {name: "" for name in ("approach_summary", "strategy", "reasoning_pattern")}
    lists = {name: [] for name in ("modified_files", "key_changes", "specific_techniques", "tools_used", "assumptions_made", "components_touched", "findings")}
    ratings = dict.fromkeys(("completion", "coherence", "depth", "robustness"), 0.9 if done else 0.2)
    return json.dumps({**texts, **lists, **ratings, "tests": "passed" if done else "not run"})


@needs_bwrap
def test_repositories_are_mended_by_a_model_behind_an_endpoint(bank: Path, tmp_path: Path) -> None:  # noqa: F811
    advice = json.dumps({"observations": [], "guidance": "make it hours * 60"})
    rules = [
        Rule("summarise", lambda messages: messages[-1].content.startswith(SUMMARISE), summarised),
        Rule("revise", lambda messages: messages[-1].content.startswith(PROMPTS["revise"]), lambda situation: advice),
        Rule("act", lambda messages: True, coder),
    ]
    with serving() as server:
        server.reply = ScriptedModel(rules, name="small").completion
        settings = {"quiet": True, "plans": 1, "candidates": 2, "operators": ("revise",)}
        tasks = f"repos:{bank}:turns=6,workers=1,seconds=10"
        summary = etude.train("se-agent", model="openai:small", base_url=server.url, tasks=tasks, out=tmp_path / "run", **settings)
    assert (summary.after["eval/first"], summary.after["eval/success"]) == (0.0, 1.0)
    # list, submit and a summary; guidance; edit, test, submit and a summary.
    assert summary.ledger.model_calls == {"policy": 5, "summary": 2, "operator": 1}
    assert summary.metrics["search/right_tests"] == 1.0
    first, second = (node["state"] for node in pools_of(tmp_path / "run")[0]["tree"][1:])
    assert (first["status"], second["status"], second["facts"]["last_tests"]) == ("nothing done", "handed in", "passed")
    assert second["guidance"] == f"{GUIDE}make it hours * 60"
    assert "+    return hours * 60" in json.loads((tmp_path / "run" / "model" / "answers.jsonl").read_text())["patch"]
    assert "test_secret" not in json.dumps([body for _, body, _ in server.requests])


def test_a_simulated_case_is_right_when_every_decision_is() -> None:
    tasks = Decisions(cases=3, seed=4)
    task, environment = tasks.held_out()[1], tasks.environment()
    environment.reset(task)
    right = tasks.right(1)
    assert environment.step("file=99").messages[0].content.startswith("Error")
    for part, option in list(right.items())[:3]:
        assert not environment.step(f"{part}={option}").done
    assert environment.step("submit").reward == 0
    environment.reset(task)
    for part, option in right.items():
        environment.step(f"{part}={option}")
    step = environment.step("submit")
    assert (step.reward, step.messages) == (1.0, ())
    assert all(option > 1 for option in right.values())
