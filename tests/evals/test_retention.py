"""What a run forgets: other task sets measured beside the one that is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import etude
from etude.errors import InputError
from etude.evals.retention import open_retention
from etude.run import Run

SMALL: dict[str, Any] = {"eval_tasks": 8, "eval_samples": 2, "quiet": True, "threads": 1, "tasks_per_step": 2, "warmup_steps": 0, "evaluate_every": 0}


def test_task_sets_are_called_by_their_names_and_two_of_a_name_by_how_they_were_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}+1", "answer": i + 1}) + "\n" for i in range(20)))
    kept = open_retention(["compare", "lists", "lists:held_out_tasks=50", str(file)], most=3, seed=0)
    assert [k.name for k in kept] == ["compare", "lists", "lists:held_out_tasks=50", "mine"]
    assert [len(k.tasks) for k in kept] == [3, 3, 3, 3]
    assert {t.id for t in kept[0].tasks} <= {t.id for t in kept[0].task_set.held_out()}


@pytest.mark.parametrize(
    ("specs", "message"),
    [(["compare", "compare"], "names 'compare' twice"), (["compere"], "there is no task set 'compere'"), (["compare", "lists:high=x"], "lists:high=x")],
)
def test_what_cannot_be_measured_is_refused(specs: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_retention(specs, most=3, seed=0)


def test_a_run_measures_them_as_an_evaluation_of_their_own_would(tmp_path: Path) -> None:
    etude.train("sft", out=tmp_path / "run", steps=2, retention_tasks=["compare", "modular"], lr=3e-2, eval_kl=False, **SMALL)
    lines = [line for line in Run.open(tmp_path / "run").metrics() if "eval/retention" in line]
    assert [line["step"] for line in lines] == [0, 2]
    for line in lines:
        assert line["eval/retention"] == pytest.approx((line["eval/retention/compare"] + line["eval/retention/modular"]) / 2)
    alone = {name: etude.evaluate("tiny", tasks=name, samples=2, tasks_limit=8, threads=1).metrics["eval/pass@1"] for name in ("compare", "modular")}
    assert {name: lines[0][f"eval/retention/{name}"] for name in alone} == alone
    # Two steps at a rate that breaks the model: everything is forgotten, and no part of it was trained on.
    assert lines[1]["eval/retention"] < lines[0]["eval/retention"]
    assert lines[-1]["ledger"]["generated_tokens"] == 0
