"""The probe in the report, the remarks and the live table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_live import METHOD, evaluation, text_of
from test_report import HOSTILE, Page, report

from etude.config import RunConfig
from etude.evals.collapse import Reading
from etude.run import Run
from etude.viewer.curves import main_charts, probe_charts
from etude.viewer.live import LiveTable
from etude.viewer.probe import answer_rows, probe_facts
from etude.viewer.record import RunRecord, read_run
from etude.viewer.wording import headline, remarks
from etude.watch import collapse_text

MakeRun = Callable[..., Path]
SIGNS = {"exploited": "accuracy on the probe fell from 40 % at step 5 to 10 %, while the reward that is trained on went from 0.5 to 0.9"}


def line(
    step: int, accuracy: float, proxy: float, signs: dict[str, str] | None = None, action: str = "none", to: int | None = None, **answers: float
) -> dict[str, Any]:
    metrics = {
        **{"probe/accuracy": accuracy, "probe/accuracy_low": accuracy - 0.05, "probe/accuracy_high": accuracy + 0.05, "probe/proxy": proxy},
        **{"probe/top_answer": 0.2, "probe/positive": 0.5, "probe/length": 20.0, "probe/entropy": 0.4},
    }
    reading = Reading(step, metrics, (accuracy,) * 12, (proxy,) * 12, tuple(answers.items()))
    return {**reading.to_plain(), "signs": signs or {}, "action": action, "to": to}


def with_probe(folder: Path, lines: list[dict[str, Any]], status: str = "finished") -> Path:
    """Puts readings into a run's folder, as the driver does: into both logs."""
    (folder / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    with open(folder / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps({"step": row["step"], **row["metrics"]}) + "\n" for row in lines)
    (folder / "result.json").write_text(json.dumps({"status": status, "reason": "said", "method": "made-up"}))
    with open(folder / "config.yaml", "a") as file:
        file.write("watch:\n  probe_samples: 6\n")
    return folder


def collapsed(make_run: MakeRun) -> Path:
    first = line(0, 0.3, 0.4, **{"12": 0.1, "7": 0.05})
    last = line(10, 0.1, 0.9, SIGNS, "stop", **{"7": 0.8, "9": 0.1})
    return with_probe(make_run(), [first, line(5, 0.4, 0.5, **{"12": 0.1}), last], "collapsed")


def test_the_section_shows_reward_beside_truth_and_the_answers_before_and_after(make_run: MakeRun) -> None:
    folder = collapsed(make_run)
    page = report(folder)
    assert {"Reward against truth", "Answers and verdicts", "Response length on the probe", "Entropy on the probe"} <= set(page.chart_titles)
    assert "12 labelled tasks that are never trained on, each tried 6 times at 3 steps of the run" in page.everything
    assert "No sign of a collapse" not in page.everything
    label = next(a["aria-label"] for a in page.all("div") if (a.get("aria-label") or "").startswith("Reward against truth"))
    assert label == (
        "Reward against truth: accuracy, by the labels from 30 % to 10 %, lowest 10 %, highest 40 %; reward that is trained on from 40 % to 90 %, lowest 40 %, highest 90 %"
    )
    rows = {row.answer: row.cells for row in answer_rows(read_run(folder))}
    # Of the first reading only two answers were kept: another one was rarer than the rarest of these.
    assert rows == {
        "7": [("5.0 %", pytest.approx(6.25)), ("80 %", 100.0)],
        "9": [("below 5.0 %", 0.0), ("10 %", 12.5)],
        "12": [("10 %", 12.5), ("below 10 %", 0.0)],
    }


def test_a_collapse_is_said_before_anything_else(make_run: MakeRun) -> None:
    record = read_run(collapsed(make_run))
    assert record.status == "collapsed"
    assert headline(record).endswith(", before a collapse ended it")
    assert remarks(record)[0] == f"Collapse at step 10 (exploited: {SIGNS['exploited']}); the run ended there."
    assert "ended by a collapse" in Page(report_path(record)).everything


def report_path(record: RunRecord) -> Path:
    from etude.viewer.report import write_report

    return write_report(record.folder)


def test_a_sound_run_says_so_and_a_run_without_a_probe_says_nothing(make_run: MakeRun) -> None:
    folder = make_run()
    assert probe_facts(read_run(folder)) is None
    assert "The probe" not in report(folder).words("h2")
    with_probe(folder, [line(0, 0.3, 0.4), line(10, 0.5, 0.6)])
    assert "No sign of a collapse was seen." in report(folder).everything
    assert not any("ollapse" in remark for remark in remarks(read_run(folder)))


def test_many_collapses_are_counted(make_run: MakeRun) -> None:
    lines = [line(0, 0.4, 0.5), *(line(step, 0.1, 0.9, SIGNS, "rollback", 0) for step in range(1, 8))]
    found = [r for r in remarks(read_run(with_probe(make_run(), lines))) if "ollapse" in r]
    assert len(found) == 6
    assert found[0].endswith("; the run went back to the state of step 0.")
    assert found[-1] == "The probe showed 2 more collapses."


def test_a_reward_on_another_scale_is_drawn_on_its_own(make_run: MakeRun) -> None:
    record = read_run(with_probe(make_run(), [line(0, 0.3, -2.0), line(5, 0.4, 1.0), line(10, 0.2, 2.0)]))
    chart = probe_charts(record)[0]
    assert chart.note == "on the probe; the reward from 0 % (-2.00) to 100 % (2.00)"
    assert chart.lines[1].values["y"] == [0.0, 0.75, 1.0]


def test_exploitation_is_drawn_where_the_reward_is_not_the_verdict(make_run: MakeRun) -> None:
    folder = make_run()

    def titles(auc: float) -> list[str]:
        rows = [{"step": s, "explore/solved": 0.9, "exploit/auc": auc, "exploit/best_by_reward": 0.5} for s in (1, 2)]
        with open(folder / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return [c.title for c in main_charts(read_run(folder))]

    assert "Exploration" in titles(1.0)
    assert "Exploitation" not in titles(1.0)
    assert "Exploitation" in titles(0.7)


def test_what_a_round_chose_and_what_that_gave_is_drawn(make_run: MakeRun) -> None:
    folder = make_run()
    chosen = {"balance/temperature": 0.8, "balance/threshold": -0.1, "balance/score": 0.4, "balance/quantity": 0.5, "balance/quality": 0.9}
    with open(folder / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps({"step": step, **chosen}) + "\n" for step in (1, 3))
    drawn = {chart.title: [line.last for line in chart.lines] for chart in main_charts(read_run(folder))}
    assert (drawn["Balance"], drawn["Chosen settings"]) == (["40 %", "50 %", "90 %"], ["0.800", "-0.100"])


@pytest.mark.parametrize("broken", [{"step": 3}, {"step": 3, "metrics": []}, {**line(3, 0.1, 0.2), "signs": None}, {**line(3, 0.1, 0.2), "to": "x"}])
def test_lines_that_are_no_readings_are_counted_and_left_out(make_run: MakeRun, broken: dict[str, Any]) -> None:
    folder = with_probe(make_run(), [line(0, 0.3, 0.4), line(10, 0.5, 0.6)])
    with open(folder / "probe.jsonl", "a") as file:
        file.write(json.dumps(broken) + "\n")
    record = read_run(folder)
    assert (len(record.probe), record.broken_lines) == (2, 1)


def test_what_a_model_answered_is_escaped(make_run: MakeRun) -> None:
    signs = {"one_answer": f"80 % give the answer {HOSTILE!r}"}
    folder = with_probe(make_run(), [line(0, 0.3, 0.4), line(10, 0.1, 0.9, signs, "warn", **{HOSTILE: 0.8})])
    page = report(folder)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert "alert(1)" in page.everything


def test_the_live_table_puts_accuracy_beside_the_reward_and_warns_above(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    out = Console(file=io.StringIO(), force_terminal=True, width=200, height=30, color_system=None)
    table = LiveTable(console=out)
    run = Run.create(RunConfig(out=tmp_path / "run", steps=20), folder_name="x")
    table.started(run, METHOD)
    table.evaluated(0, evaluation(0.3))
    table.probed(0, line(0, 0.3, 0.4)["metrics"], "")
    assert "probe accuracy 30.0 %  its reward 0.400  at step 0" in text_of(table)
    told = collapse_text(line(10, 0.1, 0.9, SIGNS, "warn"))
    table.probed(10, line(10, 0.1, 0.9)["metrics"], told)
    assert "probe accuracy 30.0 % → 10.0 %  its reward 0.400 → 0.900  at step 10" in text_of(table)
    if table._live is not None:
        table._live.stop()
    assert isinstance(out.file, io.StringIO)
    assert f"! {told}" in out.file.getvalue()
