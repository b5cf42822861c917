"""HGM in its simulated world: it finds better agents than the root, repeats itself, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.config import CompareFlags
from etude.errors import InputError
from etude.experiments.self_changing_agents import by_strangers, foresight, self_changing_agents
from etude.method import get_method
from etude.run import Run, without_time
from etude.search import Statistics, Tree
from etude.search.worlds import Simulated
from etude.searching import SEARCH
from etude.settings import leaves

QUIET: dict[str, Any] = {"quiet": True, "budget": "150-evaluations", "iterations": 25, "evaluate_every": 2}
OWN_WORLD = """
from etude.search.archive import Trial
from etude.search.worlds import World

class Counters(World):
    tasks = ["1", "2", "3", "5"]

    def __init__(self, seed):
        self.calls = 0

    def root(self):
        return {"reach": 1}

    def mutate(self, agent, trials, random):
        self.ledger.count_call("editor")
        if "failed" in "".join(trial.log for trial in trials.values()) and random.random() < 0.5:
            return {"reach": agent["reach"] + 1}

    def evaluate(self, agent, task, random):
        return Trial(agent["reach"] >= int(task), "" if agent["reach"] >= int(task) else "failed")

    def measure(self, agent):
        return {"eval/success": agent["reach"] / 9}

    def describe(self, agent):
        return f"reaches {agent['reach']} <b>"

    def change(self, agent, parent):
        return f"- reach {parent['reach']}\\n+ reach {agent['reach']}"
"""


def test_a_search_finds_a_better_agent_and_says_which(tmp_path: Path) -> None:
    summary = etude.train("hgm", out=tmp_path / "run", **QUIET)
    assert (summary.status, summary.ledger.task_evaluations) == ("finished", 150)
    assert summary.before["eval/success"] == Simulated().success
    assert summary.after["eval/success"] > 0.3
    # 150 ** 0.6 = 20.2
    assert summary.metrics["search/agents"] == 22
    agent = json.loads((tmp_path / "run" / "model" / "agent.json").read_text())
    assert agent["agent"]["success"] == summary.after["eval/success"]
    tree = json.loads((tmp_path / "run" / SEARCH).read_text())["trees"][0]["nodes"]
    assert [node["number"] for node in tree if node["chosen"]] == [agent["number"]]
    assert (tree[0]["clade"]["visits"], tree[agent["number"]]["own"]["visits"]) == (150, len(agent["trials"]))


@pytest.mark.parametrize("options", [{"rule": "dgm", "more_trials": 5}, {"parallel": 3}], ids=["dgm", "parallel"])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etude.train("hgm", out=tmp_path / "whole", **QUIET, **options)
    evaluate, calls = Simulated.evaluate, iter(range(1000))

    def killed(self: Simulated, *given: Any) -> bool:
        if next(calls) == 90:
            raise KeyboardInterrupt
        return evaluate(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Simulated, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            etude.train("hgm", out=tmp_path / "parted", **QUIET, **options)
    etude.train(resume=tmp_path / "parted")
    whole, parted = Run.open(tmp_path / "whole"), Run.open(tmp_path / "parted")
    assert [without_time(line) for line in parted.metrics()] == [without_time(line) for line in whole.metrics()]
    assert (tmp_path / "parted" / SEARCH).read_text() == (tmp_path / "whole" / SEARCH).read_text()


def test_a_world_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN_WORLD)
    summary = etude.train("hgm", out=tmp_path / "run", tasks=f"{tmp_path / 'own.py'}:Counters", quiet=True, warm_up=2, most_changes=12)
    # 12 changes at most: the search ends when all agents were tried on all 4 tasks, long before its budget.
    assert summary.reason.startswith("of ")
    assert summary.ledger.calls == 12
    assert summary.metrics["search/agents"] + summary.metrics["search/failed_changes"] == 13
    assert summary.ledger.task_evaluations == 4 * summary.metrics["search/agents"]
    assert summary.after["eval/success"] > summary.before["eval/success"]
    few = etude.train("hgm", out=tmp_path / "few", tasks=f"{tmp_path / 'own.py'}:Counters", quiet=True, warm_up=2, budget="5-calls")
    assert (few.reason, few.ledger.calls) == ("the budget of 5-calls is spent", 5)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "reaches 2 &lt;b&gt;" in report
    assert "+ reach 2" in report


def test_what_a_world_does_not_need_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from etude.search.worlds import World\n\nclass Bad(World):\n    tasks = ['a']\n    root = lambda self: {1: (2,)}\n    mutate = evaluate = None\n"
    )
    for given, said in (
        ({"model": "tiny"}, "--model does nothing here"),
        ({"tasks": "arithmetic"}, "there is no world 'arithmetic'"),
        ({"tasks": f"{tmp_path / 'bad.py'}:Bad"}, "plain JSON values"),
    ):
        with pytest.raises(InputError, match=said):
            etude.train("hgm", out=tmp_path / "run", quiet=True, **given)
    with pytest.raises(InputError, match="spends evaluations"):
        self_changing_agents(0, {}, "10-steps")


def test_its_options_stand_beside_those_of_a_comparison() -> None:
    assert {"rule", "parallel", "workers"} <= leaves(CompareFlags(method=get_method("hgm").Config())).keys()


def test_foresight_is_the_correlation_with_the_best_descendant() -> None:
    tree = Tree({})
    for parent in (0, 0, 1, 2):
        tree.add(parent, {})
    success = [0.2, 0.3, 0.3, 0.6, 0.4]
    # Parents are 0, 1 and 2, whose best descendants have 0.6, 0.6 and 0.4.
    judged = [Statistics(10, 5), Statistics(10, 5), Statistics(10, 1), Statistics(), Statistics()]
    assert foresight(judged, tree.nodes, success) == pytest.approx(1.0)
    assert foresight([Statistics(10, 5)] * 5, tree.nodes, success) == 0
    # Of the nodes judged at first, 0 to 2, the descendants that came later have 0.6, 0.6 and 0.4.
    assert foresight([Statistics(10, n) for n in (5, 5, 1)], tree.nodes, [0.9, 0.9, 0.9, 0.6, 0.4], later=3) == pytest.approx(1.0)
    strangers = by_strangers(0)
    first = strangers(tree)
    assert sum(s.visits for s in first) == 0
    tree.record(4, 1.0)
    assert strangers(tree)[0] == Statistics(1, 1.0)


def test_without_heredity_it_makes_no_difference_who_is_changed() -> None:
    def found(rule: str, heredity: bool) -> list[float]:
        return [self_changing_agents(seed, {"rule": rule, "heredity": heredity}, "120-evaluations")["success"] for seed in range(5)]

    assert found("hgm", False) == found("own", False)
    assert found("hgm", True) != found("own", True)
