"""The headline and remarks say what the numbers say, also when that is unpleasant."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.viewer.changes import Change, change_of, changes, difference_text
from etude.viewer.numbers import count, duration, interval_text, ledger_rows, number, percent, value_text
from etude.viewer.record import RunRecord, read_run
from etude.viewer.wording import headline, remarks

MakeRun = Callable[..., Path]


def written(folder: Path, rows: list[dict[str, Any]], result: dict[str, Any] | None = None) -> RunRecord:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return read_run(folder)


def change(before: float, after: float, half: float, name: str = "eval/pass@1") -> Change:
    return Change(name, 0, 10, (before, before - half, before + half), (after, after - half, after + half))


def test_verdict_compares_the_difference_with_its_interval() -> None:
    # Half-widths 0.03 and 0.03 give a margin of 0.03 * sqrt(2) = 0.0424.
    assert change(0.30, 0.35, 0.03).margin == pytest.approx(0.042426, abs=1e-6)
    assert change(0.30, 0.35, 0.03).verdict == "up"
    assert change(0.30, 0.34, 0.03).verdict == "same"
    assert change(0.34, 0.29, 0.03).verdict == "down"
    assert change(0.30, 0.90, math.nan).verdict == "unknown"


def test_differences_as_text() -> None:
    assert difference_text(change(0.30, 0.35, 0.03)) == "+5.0 ± 4.2 points"
    assert difference_text(change(0.35, 0.30, math.nan)) == "−5.0 points"
    assert difference_text(change(2.0, 0.5, 0.3, "eval/return")) == "−1.50 ± 0.424"


@pytest.mark.parametrize(
    ("value", "text"), [(0.344, "34 %"), (0.004, "0.4 %"), (0.0, "0 %"), (1.0, "100 %"), (0.996, "99.6 %"), (0.0996, "10 %"), (math.nan, "–")]
)
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.7, "0.700"), (123.4, "123"), (12345.6, "12,346"), (-0.05, "-0.0500"), (0.00012, "1.2e-4"), (math.inf, "–")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(950, "950"), (9999, "9,999"), (12_345, "12.3k"), (4.56e6, "4.56M"), (2e9, "2G")])
def test_count(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0s"), (8.44, "8.4s"), (9.96, "10s"), (59.6, "1m 00s"), (112, "1m 52s"), (7500, "2h 05m"), (math.nan, "–")]
)
def test_duration(value: float, text: str) -> None:
    assert duration(value) == text


def test_shares_have_one_decimal_in_tables() -> None:
    assert value_text("eval/pass@8", 0.3444) == "34.4 %"
    assert value_text("rollout/length", 12.0) == "12.0"
    assert interval_text("eval/maj@4", 0.2, 0.301) == "[20.0, 30.1]"
    assert interval_text("eval/maj@4", math.nan, 0.3) == ""


def test_ledger_leaves_out_what_was_not_spent() -> None:
    rows = ledger_rows({"steps": 10, "generated_tokens": 20_000, "judged_tokens": 0, "evaluation_tokens": 500, "model_calls": {"judge": 30}, "own_count": 4})
    assert [(r.name, r.total, r.per_step) for r in rows] == [
        ("Steps", "10", ""),
        ("Generated tokens", "20k", "2,000"),
        ("Evaluation tokens", "500", ""),
        ("own count", "4", "0"),
        ("Calls: judge", "30", "3"),
    ]


def test_raised(make_run: MakeRun) -> None:
    assert headline(read_run(make_run())) == "made-up raised held-out pass@1 of tiny on arithmetic from 34 % to 78 % in 20 steps, 1m 52s"


def test_fell(make_run: MakeRun) -> None:
    record = read_run(make_run(start=0.5, end=0.2))
    assert headline(record) == "Held-out pass@1 of tiny on arithmetic fell from 50 % to 20 % under made-up in 20 steps, 1m 52s"


def test_within_the_noise(make_run: MakeRun) -> None:
    record = read_run(make_run(start=0.50, end=0.53))
    assert headline(record) == "made-up left held-out pass@1 of tiny on arithmetic about where it was: 50 % before, 53 % after, in 20 steps, 1m 52s"
    assert remarks(record) == [
        "The change in held-out pass@1 (+3.0 ± 5.7 points) is within what this evaluation can tell apart; more held-out tasks or samples would narrow it."
    ]


def test_interrupted(make_run: MakeRun) -> None:
    folder = make_run(result={"status": "interrupted", "reason": "stopped by SIGINT after step 20", "ledger": {"steps": 20, "seconds": 58}})
    (folder / "config.yaml").write_text("run: {steps: 100}")
    record = read_run(folder)
    assert headline(record).endswith("in 20 of 100 steps, 58s, before it was interrupted")
    assert "The run was interrupted at step 20: stopped by SIGINT after step 20" in remarks(record)


def test_failed(make_run: MakeRun) -> None:
    record = read_run(make_run(result={"status": "failed", "reason": "step 20: loss is NaN"}))
    assert headline(record).endswith("before it stopped with an error")
    assert remarks(record)[0] == "The run stopped with an error at step 20: step 20: loss is NaN"


def test_no_held_out_tasks(tmp_path: Path) -> None:
    record = written(tmp_path, [{"step": 1, "reward/mean": 0.5}], {"status": "finished", "method": "made-up"})
    assert headline(record) == "made-up trained the model on its tasks in 1 step; nothing was measured on held-out tasks"


def test_only_one_evaluation(tmp_path: Path) -> None:
    record = written(tmp_path, [{"step": 0, "eval/pass@1": 0.25}, {"step": 1, "reward/mean": 0.5}])
    assert headline(record).startswith("Held-out pass@1 of the model on its tasks was 25 % at step 0;")


def test_score_of_another_kind(tmp_path: Path) -> None:
    rows = [{"step": 0, "eval/return": -12.0, "eval/pass@1": 0.1}, {"step": 5, "eval/return": 30.0, "eval/pass@1": 0.1}]
    record = written(tmp_path, rows, {"status": "finished", "score_key": "eval/return", "method": "made-up"})
    assert headline(record) == "made-up raised held-out return of the model on its tasks from -12.0 to 30.0 in 5 steps"


def test_best_was_earlier(tmp_path: Path) -> None:
    rows = [{"step": s, "eval/pass@1": v, "eval/pass@1_low": v - 0.02, "eval/pass@1_high": v + 0.02} for s, v in ((0, 0.3), (10, 0.8), (20, 0.5))]
    assert "Held-out pass@1 was best at step 10 (80.0 %) and fell afterwards to 50.0 %." in remarks(written(tmp_path, rows, {"status": "finished"}))


def test_reward_rises_while_held_out_falls(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"step": s, "reward/mean": s / 20} for s in range(1, 21)]
    rows += [{"step": s, "eval/pass@1": v, "eval/pass@1_low": v - 0.02, "eval/pass@1_high": v + 0.02} for s, v in ((0, 0.6), (20, 0.2))]
    assert any("reward may be exploited" in remark for remark in remarks(written(tmp_path, rows, {"status": "finished"})))


def test_surer_but_narrower(tmp_path: Path) -> None:
    def row(step: int, one: float, eight: float) -> dict[str, Any]:
        values = {"eval/pass@1": one, "eval/pass@8": eight}
        return {"step": step, **{f"{n}{end}": v + d for n, v in values.items() for end, d in (("", 0), ("_low", -0.02), ("_high", 0.02))}}

    found = remarks(written(tmp_path, [row(0, 0.3, 0.9), row(9, 0.5, 0.7)], {"status": "finished"}))
    assert found == ["pass@1 rose but pass@8 fell (−20.0 ± 2.8 points): the model became surer, and solves fewer tasks in 8 tries."]


def test_training_that_stopped_teaching(tmp_path: Path) -> None:
    rows = [{"step": s, "signal/groups_with_spread": 0.9 if s < 15 else 0.02, "rollout/entropy": 2.0 / s**2, "rollout/truncated": 0.5} for s in range(1, 21)]
    found = " ".join(remarks(written(tmp_path, rows, {"status": "finished"})))
    assert "only 2.0 % of the groups" in found
    assert "hardly explores" in found
    assert "50 % of the last rollouts were cut off" in found


def test_nothing_to_remark(make_run: MakeRun) -> None:
    assert remarks(read_run(make_run())) == []


def test_changes_are_in_reading_order(make_run: MakeRun) -> None:
    record = read_run(make_run())
    assert [c.name for c in changes(record)] == ["eval/pass@1", "eval/pass@2", "eval/pass@4", "eval/pass@8", "eval/length"]
    assert change_of(record, "eval/maj@8") is None
