"""Which weights a run leaves in `model/`: the best by held-out score, unless told or measured otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from walk_method import Walk, registered_walk

import etude
from etude.cli import main
from etude.export import wanted_step
from etude.run import Run
from etude.summary import Summary

SCORES = [0.2, 0.5, 0.7, 0.6, 0.4]
"""Held-out score after each step, from step 0."""
SETTINGS: dict[str, Any] = {"steps": 4, "evaluate_every": 1, "checkpoint_every": 0, "keep_last": 1, "quiet": True, "out": "run"}


@pytest.fixture(autouse=True)
def _walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`walk` scores as SCORES says, whatever place it has come to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(Walk, "evaluate", lambda self: {"eval/pass@1": SCORES[self.run.step]})
    with registered_walk():
        yield


def exported_step() -> int:
    """The step whose place is in `model/`: after n steps the place is 1 - 0.9**n."""
    place = float(Path("run/model/place.txt").read_text())
    return next(n for n in range(10) if place == pytest.approx(1 - 0.9**n))


@pytest.mark.parametrize(
    ("scores", "best", "last", "step"),
    [
        ({0: 0.1, 5: 0.3, 10: 0.2}, {"step": 5, "score": 0.3}, 10, 5),
        ({0: 0.1, 5: 0.2, 10: 0.3}, {"step": 10, "score": 0.3}, 10, 10),
        ({0: 0.1, 5: 0.3, 10: 0.3}, {"step": 5, "score": 0.3}, 10, 10),  # an earlier one that is no better
        ({0: 0.4, 5: 0.3, 10: 0.2}, {"step": 0, "score": 0.4}, 10, 0),  # training did harm
        ({0: 0.1, 5: 0.3}, {"step": 5, "score": 0.3}, 8, 5),  # interrupted between evaluations
        ({0: 0.4}, {"step": 0, "score": 0.4}, 8, 8),  # nothing was measured since the start
        ({}, None, 8, 8),
    ],
)
def test_the_last_weights_unless_earlier_ones_scored_higher(scores: dict[int, float], best: dict[str, float] | None, last: int, step: int) -> None:
    assert wanted_step(scores, best, last=last) == step
    assert wanted_step(scores, best, last=last, best_wanted=False) == last


def test_the_best_weights_are_exported_and_both_scores_said(capsys: pytest.CaptureFixture[str]) -> None:
    summary = etude.train("walk", **SETTINGS)
    assert exported_step() == 2
    assert summary.exported == {"step": 2, "score": 0.7, "last_step": 4, "last_score": 0.4, "evaluations": 5}
    assert Summary.read(Path("run")) == summary
    report = Path("run/report.html").read_text().replace("\u00a0", " ")
    assert "weights in model/" in report
    assert "best of 5 evaluations: 70.0 %; last, step 4: 40.0 %" in report
    assert main(["train", "--resume", "run"]) == 0
    shown = capsys.readouterr().out
    assert "weights  of step 2, the best of 5 evaluations; it has pass@1 70.0 %; step 4, the last, has pass@1 40.0 %\n" in shown


def test_the_last_weights_on_request_and_the_choice_may_change_later(capsys: pytest.CaptureFixture[str]) -> None:
    etude.train("walk", export="last", **SETTINGS)
    assert exported_step() == 4
    assert main(["train", "--resume", "run", "--export", "best"]) == 0
    assert exported_step() == 2
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--export", "last"]) == 0
    assert exported_step() == 4
    shown = capsys.readouterr().out
    assert "weights  of step 4, the last; it has pass@1 40.0 %\n" in shown
    assert "best     step 2, pass@1 70.0 %\n" in shown


def test_exporting_the_best_does_not_change_how_the_run_goes_on() -> None:
    etude.train("walk", **{**SETTINGS, "steps": 3})
    assert exported_step() == 2
    etude.train(resume="run", steps=4)
    assert Run.open("run").checkpoints.load(4).state().plain["place"] == pytest.approx(1 - 0.9**4)
    assert exported_step() == 2


def test_a_model_that_is_missing_is_exported_on_resume_and_one_that_is_there_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    etude.train("walk", **SETTINGS)
    Path("run/model/place.txt").unlink()
    Path("run/model").rmdir()
    etude.train(resume="run")
    assert exported_step() == 2
    monkeypatch.setattr(Walk, "setup", lambda self: pytest.fail("the method was set up though there was nothing to do"))
    etude.train(resume="run")


def test_a_best_checkpoint_that_is_damaged_gives_way_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaging(self: Walk) -> dict[str, float]:
        if self.run.step == 4:
            state = Path("run/checkpoints/step-2/state.json")
            state.write_bytes(state.read_bytes()[:-1])
        return {"eval/pass@1": SCORES[self.run.step]}

    monkeypatch.setattr(Walk, "evaluate", damaging)
    with pytest.warns(UserWarning, match=r"step-2/state\.json has .* cut off or changed\. The model is exported from step 4, the last, instead"):
        summary = etude.train("walk", **SETTINGS)
    assert exported_step() == 4
    assert summary.exported is not None
    assert summary.exported["step"] == 4


def test_a_record_without_the_entry_or_with_a_broken_one_still_gives_a_report() -> None:
    etude.train("walk", **SETTINGS)
    result = json.loads(Path("run/result.json").read_text())
    for broken in ({**result, "exported": {"step": "two"}}, {**result, "exported": 3}, {k: v for k, v in result.items() if k != "exported"}):
        Path("run/result.json").write_text(json.dumps(broken))
        assert main(["report", "run"]) == 0
        assert "weights in model/" not in Path("run/report.html").read_text()


def test_an_export_that_is_neither_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(etude.InputError, match="export is 'first'"):
        etude.train("walk", export="first", **SETTINGS)
