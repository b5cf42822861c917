"""`etude.train` and `etude.evaluate`, with a method without a model and with the embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from walk_method import Walk, registered_walk

import etude
from etude.cli import main
from etude.errors import InputError
from etude.run import Run
from etude.tasks.builtin import builtin_task_sets

FAST: dict[str, Any] = {"steps": 3, "evaluate_every": 0, "quiet": True}
SMALL: dict[str, Any] = {"steps": 1, "group_size": 2, "tasks_per_step": 2, "max_new_tokens": 4, "eval_tasks": 2, "eval_samples": 2, "quiet": True, "threads": 1}
ROWS = [{"prompt": f"{i}+1", "answer": str(i + 1)} for i in range(20)]


@pytest.fixture(autouse=True)
def _walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with registered_walk():
        yield


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(etude, name) is not None for name in etude.__all__)
    assert sorted(etude.__all__) == sorted(etude._MODULE_OF)
    assert set(etude.__all__) <= set(dir(etude))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = etude.nothing


def test_training_ends_with_a_summary_a_report_and_the_model() -> None:
    summary = etude.train("walk", pull=0.5, out="run", **FAST)
    assert (summary.status, summary.step, summary.folder) == ("finished", 3, Path("run"))
    assert summary.after["eval/pass@1"] == pytest.approx(1 - 0.5**3)
    assert Path("run/report.html").is_file()
    assert float(Path("run/model/place.txt").read_text()) == pytest.approx(1 - 0.5**3)
    assert not list(Path("run").glob(".model*"))


def test_keywords_go_before_the_file() -> None:
    Path("settings.yaml").write_text("method: walk\npull: 0.25\nsteps: 2\n")
    summary = etude.train(config="settings.yaml", steps=1, out="run", quiet=True)
    assert (summary.step, summary.after["eval/pass@1"]) == (1, 0.25)


def test_a_run_goes_on() -> None:
    etude.train("walk", out="run", **FAST)
    assert etude.train(resume="run", steps=5).step == 5
    again = etude.train("walk", resume="run")
    assert (again.step, again.status) == (5, "finished")
    assert "nothing to do" in again.reason
    assert float(Path("run/model/place.txt").read_text()) == pytest.approx(1 - 0.9**5)
    with pytest.raises(InputError, match="keeps its pull"):
        etude.train(resume="run", pull=0.5)
    with pytest.raises(InputError, match="is one of walk, not of grpo"):
        etude.train("grpo", resume="run")
    with pytest.raises(InputError, match="leave config out"):
        etude.train(resume="run", config="settings.yaml")


def test_a_method_has_to_be_named() -> None:
    with pytest.raises(InputError, match="no method is named"):
        etude.train(steps=3)


def test_nothing_is_left_of_a_run_that_was_refused() -> None:
    with pytest.raises(InputError, match="there is no model 'absent'"):
        etude.train("walk", model="absent", out="run", **FAST)
    assert not Path("run").exists()


def test_an_export_that_fails_leaves_the_earlier_model(monkeypatch: pytest.MonkeyPatch) -> None:
    etude.train("walk", out="run", **FAST)
    before = Path("run/model/place.txt").read_text()

    def fail(self: Walk, folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "export", fail)
        with pytest.raises(etude.EtudeError, match=r"the run in run has finished, but its model .* disk full\. Free space .* --resume run"):
            etude.train(resume="run", steps=4)
    assert [f.name for f in Path("run/model").iterdir()] == ["place.txt"]
    assert Path("run/model/place.txt").read_text() == before
    assert not list(Path("run").glob(".model*"))
    assert "nothing to do" in etude.train(resume="run").reason
    assert float(Path("run/model/place.txt").read_text()) == pytest.approx(1 - 0.9**4)


def test_a_method_without_an_export_leaves_no_model_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "export", lambda self, folder: None)
    etude.train("walk", out="run", **FAST)
    assert not Path("run/model").exists()


def test_a_run_with_python_objects_is_saved_and_resumed_with_them() -> None:
    seen = []

    def score(task: etude.Task, text: str) -> float:
        return 1.0

    class Noting(Walk):
        def setup(self) -> None:
            super().setup()
            seen.append((self.inputs.tasks, self.inputs.reward))

    etude.register(slug="noting", name="N", family="tests", paper="", title="", summary="", config=Walk.Config)(Noting)
    etude.train("noting", tasks=ROWS, reward=score, out="run", **FAST)
    saved = yaml.safe_load(Path("run/config.yaml").read_text())["inputs"]
    assert saved["tasks"] == "python:builtins.list"
    assert saved["reward"].endswith("score")
    with pytest.raises(InputError, match="Python object"):
        etude.train(resume="run", steps=4)
    etude.train(resume="run", steps=4, tasks=ROWS, reward=score)
    assert seen == [(ROWS, score), (ROWS, score)]
    assert yaml.safe_load(Path("run/config.yaml").read_text())["inputs"] == saved


def test_a_method_trains_the_embedded_model_and_its_checkpoints_are_measured() -> None:
    summary = etude.train("grpo", model="tiny", tasks="arithmetic", lr=1e-3, out="run", **SMALL)
    assert (summary.status, summary.step) == ("finished", 1)
    assert 0 <= summary.after["eval/pass@1"] <= 1
    measured = {"samples": 2, "tasks_limit": 2, "max_new_tokens": 4, "threads": 1}
    assert summary.exported is not None
    exported = etude.evaluate("run", **measured)
    kept = etude.evaluate(f"run/checkpoints/step-{summary.exported['step']}", **measured)
    begun = etude.evaluate("run/checkpoints/step-0", **measured)
    embedded = etude.evaluate("tiny", **measured)

    def texts(evaluation: Any) -> list[str]:
        return [t.text for row in evaluation.trajectories for t in row]

    assert texts(exported) == texts(kept)
    assert texts(begun) == texts(embedded)


def test_rewards_and_tasks_from_python_are_what_is_trained_on() -> None:
    asked: list[str] = []

    def score(task: etude.Task, text: str) -> float:
        asked.append(task.prompt)
        return float(len(text) % 2)

    etude.train("grpo", tasks=ROWS, reward=score, out="run", **SMALL)
    assert {prompt.split("+")[1] for prompt in asked} == {"1"}
    lines = Path("run/trajectories.jsonl").read_text().splitlines()
    assert {json.loads(line)["reward"] for line in lines} <= {0.0, 1.0}


def test_evaluation_takes_objects_and_settings() -> None:
    held_out = list(builtin_task_sets()["arithmetic"]().held_out())[:3]
    by_name = etude.evaluate("tiny", tasks="arithmetic", samples=2, tasks_limit=3, threads=1)
    by_object = etude.evaluate("tiny", tasks=builtin_task_sets()["arithmetic"](), samples=2, tasks_limit=3, threads=1)
    assert [task.id for task in by_name.tasks] == [task.id for task in held_out]
    assert by_name.metrics == pytest.approx(by_object.metrics, nan_ok=True)
    paid = etude.evaluate("tiny", tasks=ROWS, reward=lambda task, text: 0.25, samples=2, tasks_limit=2, max_new_tokens=4)
    assert paid.metrics["eval/reward"] == 0.25


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("tiny", {"samples": 0}, "samples is 0; expected a whole number, 1 or more"),
        ("tiny", {"sample": 3}, "there is no option 'sample'. Did you mean samples"),
        ("tiny", {"tasks": "arithmetik"}, "there is no task set 'arithmetik'"),
        ("./absent", {}, "there is no model folder './absent'"),
        ("ftp://host/v1", {}, "there is no model folder"),
        ("http://127.0.0.1:1/v1#m", {"tasks_limit": 1, "samples": 1}, "127.0.0.1:1"),
    ],
)
def test_evaluation_refuses_what_it_cannot_use(model: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        etude.evaluate(model, **settings)
    assert said in str(caught.value)


def test_a_checkpoint_of_a_method_without_a_language_model_is_refused() -> None:
    etude.train("walk", out="run", **FAST)
    with pytest.raises(InputError, match="is a checkpoint of walk, which has no language model"):
        etude.evaluate("run/checkpoints/step-3")


def test_the_command_line_measures_and_writes_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "tiny", "--samples", "2", "--tasks-limit", "3", "--max-new-tokens", "8", "--threads", "1", "--out", "found.json"]
    assert main(arguments) == 0
    assert "pass@1" in capsys.readouterr().out
    found = json.loads(Path("found.json").read_text())
    assert found["model"] == "tiny"
    assert (found["settings"]["samples"], found["settings"]["tasks"]) == (2, "arithmetic")
    assert len(found["attempts"]) == 6
    assert found["metrics"] == etude.evaluate("tiny", samples=2, tasks_limit=3, max_new_tokens=8).metrics


def test_a_run_that_is_opened_elsewhere_is_not_driven_twice() -> None:
    etude.train("walk", out="run", **FAST)
    with Run.open("run").lock(), pytest.raises(InputError, match="is in use by process"):
        etude.train(resume="run", steps=9)
