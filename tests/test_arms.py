"""Arms in processes of their own: what they record, what happens when one crashes, is killed, is stopped, and what is refused before anything runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from arm_method import Climb, Idle

import etude.method
from etude.errors import InputError
from etude.evals.arms import Arm, ArmProgress, ArmRun, plan_runs, run_arms
from etude.run import without_time

COMMON = {"evaluate_every": 1, "checkpoint_every": 1}


@pytest.fixture(autouse=True)
def _methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for method in (Climb, Idle):
        monkeypatch.setitem(etude.method._registered, method.card.slug, method)


class Watcher:
    """Writes down what it is told; `on_move` may act on it."""

    def __init__(self) -> None:
        self.runs: Sequence[ArmProgress] = ()
        self.heard: list[str] = []

    def began(self, runs: Sequence[ArmProgress]) -> None:
        self.runs = runs
        self.heard.append("began")

    def moved(self, run: ArmProgress) -> None:
        pass

    def stopping(self) -> None:
        self.heard.append("stopping")

    def ended(self) -> None:
        self.heard.append("ended")


def run(*arms: Arm, seeds: Sequence[int] = (1, 2), budget: str = "500-tokens", folder: str = "out", **more: Any) -> list[ArmRun]:
    watcher = more.pop("watcher", None)
    return run_arms(arms, common={**COMMON, **more}, budget=budget, seeds=seeds, folder=Path(folder), watcher=watcher, workers=2)


def numbers(found: ArmRun) -> list[dict[str, Any]]:
    return [without_time(row) for row in found.rows]


def test_arms_run_with_the_same_seeds_to_the_same_budget_and_are_reused() -> None:
    watcher = Watcher()
    runs = run(Arm("slow", "climb"), Arm("fast: far", "climb", {"pull": 0.5, "tokens": 200}), watcher=watcher)
    assert [(r.arm, r.seed, r.status, r.error) for r in runs] == [
        *(("slow", seed, "finished", None) for seed in (1, 2)),
        *(("fast: far", seed, "finished", None) for seed in (1, 2)),
    ]
    assert runs[3].folder == Path("out/fast-far/seed-2")
    # 500 tokens are 5 steps of 100; of 200 the third step overshoots by 100.
    assert [r.ledger.steps for r in runs] == [5, 5, 3, 3]
    spent, values = runs[2].curve("eval/pass@1")
    assert spent == [0, 200, 400, 600]
    assert values == pytest.approx([0, 0.501, 0.7515, 0.87675])
    assert runs[2].curve("reward/mean", "steps")[0] == [1, 2, 3]
    assert runs[0].curve("reward/absent") == ([], [])
    assert runs[2].spent() == 600
    assert watcher.heard == ["began", "ended"]
    assert {p.state for p in watcher.runs} == {"finished"}
    # Seeds in turn: every arm's first seed starts before any second one.
    assert [(p.arm, p.seed) for p in watcher.runs] == [("slow", 1), ("fast: far", 1), ("slow", 2), ("fast: far", 2)]

    before = {r.folder: (r.folder / "environment.json").read_text() for r in runs}
    again = run(Arm("slow", "climb"), Arm("fast: far", "climb", {"pull": 0.5, "tokens": 200}), watcher=watcher)
    assert {p.state for p in watcher.runs} == {"reused"}
    assert again == runs
    assert {r.folder: (r.folder / "environment.json").read_text() for r in again} == before

    with pytest.raises(InputError, match=r"out/slow/seed-1 holds a run that was begun with pull 0\.1, not 0\.2"):
        run(Arm("slow", "climb", {"pull": 0.2}))
    with pytest.raises(InputError, match="begun with budget '500-tokens', not '900-tokens'"):
        run(Arm("slow", "climb"), budget="900-tokens")


def test_a_crash_is_told_and_the_others_go_on() -> None:
    runs = run(Arm("sound", "climb"), Arm("frail", "climb", {"crash_seed": 2}))
    states = {(r.arm, r.seed): r.status for r in runs}
    assert states == {("sound", 1): "finished", ("sound", 2): "finished", ("frail", 1): "finished", ("frail", 2): "crashed"}
    assert runs[3].error == "step 3: RuntimeError: the third step went wrong"
    assert [row["step"] for row in runs[3].rows if "reward/mean" in row] == [1, 2]


def test_a_killed_run_says_so_and_goes_on_from_its_checkpoint_next_time() -> None:
    marked = str(Path("killed").absolute())
    first = run(Arm("killed", "climb", {"kill_once": marked}), seeds=[1])
    assert (first[0].status, first[0].error) == ("crashed", "the process was ended by SIGKILL; the system does this when memory runs out")
    again = run(Arm("killed", "climb", {"kill_once": marked}), seeds=[1])
    assert again[0].status == "finished"
    assert "resumed" in json.loads((again[0].folder / "environment.json").read_text())
    whole = run(Arm("whole", "climb"), seeds=[1], folder="other")
    assert numbers(again[0]) == numbers(whole[0])


def test_ctrl_c_lets_every_run_finish_its_step_and_the_next_call_goes_on() -> None:
    go = Path("go").absolute()

    class Interrupting(Watcher):
        sent = False

        def moved(self, run: ArmProgress) -> None:
            if not self.sent and all(p.step == 2 for p in self.runs):
                self.sent = True
                os.kill(os.getpid(), signal.SIGINT)

        def stopping(self) -> None:
            super().stopping()
            go.touch()

    watcher = Interrupting()
    arms = [Arm("one", "climb", {"wait_for": str(go)}), Arm("two", "climb", {"pull": 0.2, "wait_for": str(go)})]
    with pytest.raises(KeyboardInterrupt):
        run(*arms, seeds=[1], watcher=watcher)
    assert watcher.heard == ["began", "stopping", "ended"]
    # Whoever had begun its third step finished it.
    assert all(p.state == "interrupted" and p.step in (2, 3) for p in watcher.runs)
    finished = run(*arms, seeds=[1])
    assert [r.status for r in finished] == ["finished"] * 2
    whole = run(*arms, seeds=[1], folder="other")
    assert [numbers(r) for r in finished] == [numbers(r) for r in whole]


def test_what_a_run_cannot_be_set_up_for_is_refused_before_any_step() -> None:
    # Three arms on two workers: the third would start late, so that all are set up once beforehand.
    with pytest.raises(InputError, match="arm odd: this cannot be used"):
        run(Arm("a", "climb"), Arm("b", "climb"), Arm("odd", "climb", {"unusable": True}))
    assert not list(Path("out").glob("*/seed-*"))
    with pytest.raises(InputError, match="arm odd, seed 1: this cannot be used"):
        run(Arm("odd", "climb", {"unusable": True}), seeds=[1])


def test_a_budget_that_is_never_spent_is_refused_instead_of_running_for_ever() -> None:
    with pytest.raises(
        InputError, match=r"nothing of the budget of 500-tokens is spent after 5 steps: Idle .* spends no tokens; expected a budget in one of steps"
    ):
        run(Arm("idle", "idle"), seeds=[1])


def score(task: Any, text: str) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("arms", "options", "said"),
    [
        ([], {}, "no arm is given"),
        ([Arm("a", "climb"), Arm("a", "climb")], {}, "the arm 'a' is there twice"),
        ([Arm("a b", "climb"), Arm("a:b", "climb")], {}, "the arm 'a:b' and 'a b' would have the same folder"),
        ([Arm("a", "clim")], {}, "there is no method 'clim'. Did you mean climb"),
        ([Arm("a", "climb", {"pul": 1})], {}, "arm a: there is no option 'pul'. Did you mean pull"),
        ([Arm("a", "climb", {"group_size": 0})], {}, "arm a: group_size is 0; expected a whole number, 1 or more"),
        ([Arm("a", "climb", {"seed": 3})], {}, "seed cannot be set for an arm: every arm runs with every one of `seeds`"),
        ([Arm("a", "climb")], {"out": "x"}, "out cannot be set for an arm"),
        ([Arm("a", "climb")], {"dynamic_sampling": True}, "dynamic_sampling is no option of climb"),
        ([Arm("a", "climb")], {"reward": score}, "reward is a Python object, which cannot go to the processes"),
        ([Arm("a", "climb")], {"budget": "lots"}, "the budget 'lots' cannot be read"),
        ([Arm("a", "climb")], {"budget": "1k-env-steps"}, "climb (a) spends no env-steps; expected one in rollouts, tokens, steps, seconds"),
        ([Arm("a", "sft")], {"budget": "1k-tokens"}, "sft (a) spends no tokens; expected one in steps, seconds"),
        ([Arm("a", "grpo")], {"budget": "1k-env-steps"}, "arithmetic has no environment, so that no env-steps are spent"),
        ([Arm("a", "climb")], {"budget": "2.5-steps"}, "expected a whole number of steps"),
        ([Arm("a", "climb")], {"budget": "50-steps", "steps": 10}, "the budget is 50-steps and steps is 10"),
        ([Arm("a", "climb")], {"schedule": "linear"}, "the schedule linear runs over `steps`, which a budget of 500-tokens does not say"),
        ([Arm("a", "climb")], {"seeds": [1, 1]}, "seeds are [1, 1]; expected different whole numbers"),
        ([Arm("a", "climb")], {"seeds": []}, "at least one"),
    ],
)
def test_bad_arms_are_refused_before_anything_is_written(arms: list[Arm], options: dict[str, Any], said: str) -> None:
    given = {"budget": "500-tokens", "seeds": [1, 2], **options}
    common = {name: given.pop(name) for name in list(given) if name not in ("budget", "seeds")} if "out" not in options else {"out": given.pop("out")}
    with pytest.raises(InputError) as caught:
        plan_runs(arms, common=common, folder=Path("out"), **given)
    assert said in str(caught.value)
    assert not Path("out").exists()


def test_a_budget_in_steps_counts_steps_and_one_in_tokens_lifts_their_limit() -> None:
    by_steps, by_tokens = (
        plan_runs([Arm("a", "climb")], common={}, budget=budget, seeds=[1], folder=Path("out"))[0].config.run for budget in ("50-steps", "9-tokens")
    )
    assert (by_steps.steps, by_steps.budget, by_steps.threads) == (50, "50-steps", 1)
    assert (by_tokens.steps, by_tokens.budget) == (10**9, "9-tokens")


def test_a_method_that_other_processes_cannot_find_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Here(Climb):
        pass

    Here.card = etude.method.MethodCard(slug="here", name="Here", family="tests", paper="", title="", summary="")
    monkeypatch.setitem(etude.method._registered, "here", Here)
    with pytest.raises(InputError, match="the method here is defined in the script or function that is running"):
        run(Arm("a", "here"), seeds=[1])
