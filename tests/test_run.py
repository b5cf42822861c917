import dataclasses
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from etude import provenance
from etude.config import RunConfig, TrainConfig
from etude.errors import InputError, MissingExtra
from etude.ledger import Budget, Ledger
from etude.run import Run, dump_config, load_config, plain, run_config, without_time


@dataclass
class Inner:
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass
class Outer:
    folder: Path = Path("a/ü")
    inner: Inner = field(default_factory=Inner)
    none: None = None
    names: tuple[str, ...] = ()


def test_importing_the_run_does_not_import_torch() -> None:
    code = "import etude.run, etude.driver, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    dump_config(Outer(), tmp_path / "config.yaml")
    expected = {"folder": "a/ü", "inner": {"lr": 1e-5, "betas": [0.9, 0.95]}, "none": None, "names": []}
    assert load_config(tmp_path / "config.yaml") == expected == plain(Outer())


@pytest.mark.parametrize(("text", "complaint"), [("a: [", "not valid YAML"), ("- 1", "holds a list"), ("", "holds a NoneType")])
def test_a_broken_configuration_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=complaint):
        load_config(tmp_path / "config.yaml")


def test_a_missing_configuration_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_config(tmp_path / "config.yaml")


def test_a_run_is_written_and_opened_with_an_equal_configuration(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path / "run", seed=7, steps=3, budget="1.5M-tokens", track=("tensorboard",), keep_last=4)
    whole = TrainConfig(method=Outer(), run=config)
    run = Run.create(config, folder_name="unused", full_config=whole)
    assert sorted(p.name for p in run.folder.iterdir()) == ["config.yaml", "environment.json"]
    assert load_config(run.folder / "config.yaml") == plain(whole)
    opened = Run.open(run.folder)
    assert opened.config == config
    assert (opened.folder, opened.seed, opened.budget, opened.id) == (run.folder, 7, Budget(1_500_000, "tokens"), run.id)
    assert opened.checkpoints.keep_last == 4


def test_opening_can_raise_the_limits_and_changes_nothing(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run", steps=3), folder_name="unused")
    before = {p.name: p.read_bytes() for p in run.folder.iterdir()}
    opened = Run.open(str(run.folder), config=dataclasses.replace(run.config, steps=9), full_config={"run": {"steps": 9}})
    assert opened.config.steps == 9
    assert {p.name: p.read_bytes() for p in run.folder.iterdir()} == before
    opened.record_resume()
    assert Run.open(run.folder).config.steps == 9
    assert len(json.loads((run.folder / "environment.json").read_text())["resumed"]) == 1
    assert opened.id == run.id


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        Run.open(tmp_path)


def test_an_unknown_run_option_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no run option 'step'.*steps"):
        run_config({"step": 3})


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"steps": -1}, "steps is -1; expected a whole number, 0 or more"),
        ({"keep_last": 0}, "keep_last is 0; expected a whole number, 1 or more"),
        ({"evaluate_every": -2}, "evaluate_every is -2"),
        ({"budget": "lots"}, "budget 'lots'"),
        ({"track": ("tensorbord",)}, r"no tracker 'tensorbord'.*Did you mean tensorboard"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused_before_the_folder_is_made(tmp_path: Path, option: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Run.create(RunConfig(out=tmp_path / "run", **option), folder_name="unused")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"etude\[wandb\]"):
        Run.create(RunConfig(out=tmp_path / "run", track=("wandb",)), folder_name="unused")


def test_default_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [Run.create(RunConfig(), folder_name="grpo-arithmetic-seed0").folder for _ in range(3)]
    assert [str(f) for f in folders] == ["runs/grpo-arithmetic-seed0", "runs/grpo-arithmetic-seed0-2", "runs/grpo-arithmetic-seed0-3"]


def test_a_file_where_runs_should_go_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    with pytest.raises(InputError, match=r"runs/x cannot be made: Not a directory"):
        Run.create(RunConfig(), folder_name="x")


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty"):
        Run.create(RunConfig(out=tmp_path), folder_name="unused")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert Run.create(RunConfig(out=tmp_path), folder_name="unused").folder == tmp_path


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="cannot be written"):
            Run.create(RunConfig(out=out), folder_name="unused")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        Run.create(RunConfig(out=tmp_path), folder_name="unused")


def test_a_disk_that_is_full_from_the_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("etude.run.replace_file", full)
    with pytest.raises(InputError, match=r"No space left on device; choose another"):
        Run.create(RunConfig(out=tmp_path / "run"), folder_name="unused")


def test_metrics_and_trajectories_are_logged(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run"), folder_name="unused")
    run.ledger.generated_tokens = 5
    run.log(1, {"reward/mean": 0.1 + 0.2, "loss": math.nan, "time/step": 1.0})
    run.save_trajectories(1, [{"text": "a\nb", "reward": math.nan}, {"text": "c", "reward": 1.0}])
    (line,) = run.metrics()
    assert line == {"step": 1, "reward/mean": 0.1 + 0.2, "loss": None, "time/step": 1.0, "ledger": Ledger(generated_tokens=5).to_plain()}
    assert list(run.trajectories_log) == [{"step": 1, "text": "a\nb", "reward": None}, {"step": 1, "text": "c", "reward": 1.0}]
    assert without_time(line)["ledger"].keys().isdisjoint({"seconds", "evaluation_seconds"})
    assert "time/step" not in without_time(line)
    with pytest.raises(ValueError, match="called 'step'"):
        run.log(2, {"step": 1.0})


def test_random_numbers_depend_on_seed_and_parts_alone(tmp_path: Path) -> None:
    first, same, other = (Run.create(RunConfig(out=tmp_path / name, seed=seed), folder_name="unused") for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    first.rng("warm", "up").random()
    assert first.rng("task", 3).random() == same.rng("task", 3).random()
    assert len({first.stream("task", 3), first.stream("task", 4), first.stream("task", "3"), other.stream("task", 3)}) == 4


def test_global_generators_are_seeded_where_loaded(tmp_path: Path) -> None:
    import random

    import numpy as np
    import torch

    run = Run.create(RunConfig(out=tmp_path / "run"), folder_name="unused")

    def draws(step: int) -> tuple[float, float, float]:
        run.seed_libraries("step", step)
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002 - it is the legacy global generator that is tested

    assert draws(1) == draws(1)
    assert not set(draws(1)) & set(draws(2))


def test_progress_and_the_reason_to_stop(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run", steps=10, budget="400-tokens"), folder_name="unused")
    assert (run.progress, run.stop_reason()) == (0.0, None)
    run.step, run.ledger.generated_tokens = 2, 300
    assert (run.progress, run.stop_reason()) == (0.75, None)
    run.ledger.judged_tokens = 100
    assert (run.progress, run.stop_reason()) == (1.0, "the budget of 400-tokens is spent")
    run.step, run.ledger.judged_tokens = 10, 0
    assert run.stop_reason() == "all 10 steps are done"


def test_a_locked_run_is_refused_to_another_process(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run"), folder_name="unused")
    code = "import sys; from etude.run import Run\nwith Run.open(sys.argv[1]).lock(): print('held')"

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, str(run.folder)], capture_output=True, text=True, check=False)

    with run.lock():
        refused = other()
    assert refused.returncode != 0
    assert f"is in use by process {os.getpid()}" in refused.stderr
    assert other().stdout == "held\n"


def test_a_refused_run_leaves_no_folder_but_what_is_not_its_own(tmp_path: Path) -> None:
    run = Run.create(RunConfig(out=tmp_path / "run"), folder_name="unused")
    run.discard()
    assert not run.folder.exists()
    run = Run.create(RunConfig(out=tmp_path / "run"), folder_name="unused")
    (run.folder / "note.txt").touch()
    run.discard()
    assert [p.name for p in run.folder.iterdir()] == ["note.txt"]


def test_the_environment_says_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["etude", "train", "grpo"])
    run = Run.create(RunConfig(out=tmp_path / "run", threads=3), folder_name="unused")
    said = json.loads((run.folder / "environment.json").read_text())
    assert said["python"] == ".".join(map(str, sys.version_info[:3]))
    assert said["packages"]["etude"]
    assert said["packages"]["torch"]
    assert said["threads"] == 3
    assert said["cpus"] >= said["usable_cpus"] >= 1
    assert said["command"] == ["etude", "train", "grpo"]
    assert said["git"] is None


def test_git_state_names_the_commit_and_local_changes(tmp_path: Path) -> None:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path, env={**os.environ, **identity}, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-b", "trunk")
    (tmp_path / "file").write_text("a")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "untracked").touch()
    assert provenance.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "branch": "trunk", "dirty": False}
    (tmp_path / "file").write_text("b")
    state = provenance.git_state(tmp_path)
    assert state is not None
    assert state["dirty"] is True


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(tmp_path) is None
