"""Configurations from keywords, mappings and files, for a method made for tests and for every method there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import yaml
from annotated_types import Ge, Gt, Interval, Le
from hypothesis import given
from hypothesis import strategies as st
from walk_method import registered_walk

from etude.config import LearnerConfig, MeasureConfig, TrainConfig
from etude.errors import InputError
from etude.method import known_methods
from etude.run import dump_config
from etude.settings import build_config, check_config, default_config, expected, leaves, merged
from etude.settings_file import check_resumable, file_config, saved_form, tasks_title


@pytest.fixture(autouse=True)
def _walk() -> Iterator[None]:
    with registered_walk():
        yield


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_keywords_are_flat_and_reach_every_section() -> None:
    config = build_config("walk", model="smollm2", steps=7, pull=0.5, group_size=4, lr=0.25, eval_samples=3, out="somewhere")
    assert config.inputs.model == "smollm2"
    assert config.run.steps == 7
    assert config.run.out == Path("somewhere")
    assert (config.method.pull, config.method.group_size) == (0.5, 4)
    assert config.method.learner.lr == 0.25
    assert config.method.evaluation.eval_samples == 3
    assert config.method.sampler == default_config("walk").method.sampler


def test_building_leaves_the_defaults_alone() -> None:
    build_config("walk", lr=0.25, track=["wandb"])
    assert default_config("walk").method.learner.lr is None
    assert LearnerConfig().lr is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"groupsize": 3}, "no option 'groupsize'. Did you mean group_size"),
        ({"group_size": 0}, "group_size is 0; expected a whole number, 1 or more"),
        ({"group_size": 1.5}, "group_size is 1.5; expected a whole number, 1 or more"),
        ({"group_size": True}, "group_size is True; expected a whole number, 1 or more"),
        ({"lr": 0}, "lr is 0; expected a number, more than 0, or nothing"),
        ({"lr": float("nan")}, "lr is nan; expected a number, more than 0"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"lr": "fast"}, "lr is 'fast'; expected a number"),
        ({"steps": -1}, "steps is -1; expected a whole number, 0 or more"),
        ({"eval_samples": 0}, "eval_samples is 0; expected a whole number, 1 or more"),
        ({"top_p": 0}, "top_p is 0; expected a number, more than 0 and at most 1"),
        ({"pull": 2}, "pull is 2; expected a number, more than 0 and at most 1"),
        ({"schedule": "cubic"}, "schedule is 'cubic'; expected one of constant, linear, cosine"),
        ({"betas": [0.9]}, "betas is [0.9]; expected a list of 2"),
        ({"track": "wandb"}, "track is 'wandb'; expected a list, each a text"),
        ({"quiet": "perhaps"}, "quiet is 'perhaps'; expected true or false"),
        ({"model": 5}, "model is 5; expected a text"),
        ({"tasks": 5}, "tasks is 5; expected a text"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_was_expected(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        build_config("walk", **settings)
    assert said in str(caught.value)


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no method 'wakl'. Did you mean walk"):
        build_config("wakl")


def test_numbers_of_array_libraries_and_paths_are_taken() -> None:
    config = build_config("walk", lr=np.float32(0.5), steps=np.int64(3), model=Path("folder") / "model")
    assert (config.method.learner.lr, config.run.steps, config.inputs.model) == (0.5, 3, "folder/model")
    assert type(config.run.steps) is int


def test_inputs_may_be_python_objects() -> None:
    def score(task: Any, text: str) -> float:
        return 1.0

    rows = [{"prompt": "1+1", "answer": "2"}]
    config = build_config("walk", tasks=rows, reward=score)
    assert config.inputs.tasks is rows
    assert config.inputs.reward is score
    saved = saved_form("walk", config)
    assert saved["inputs"]["reward"].startswith("python:test_settings.")
    yaml.safe_dump(saved)


@pytest.mark.parametrize(
    "text",
    [
        "lr: 1e-3\ngroup-size: 4\nsteps: 5\n",
        "method:\n  group_size: 4\n  learner: {lr: 0.001}\nrun: {steps: 5}\n",
        "learner: {lr: 0.001}\ngroup_size: 4\nrun: {steps: 5}\ninputs:\n",
        "method: walk\nlr: 0.001\ngroup_size: 4\nsteps: 5\n",
        "method: {slug: walk, lr: 0.001, group_size: 4}\nrun: {steps: 5}\n",
    ],
)
def test_files_may_be_flat_or_nested(tmp_path: Path, text: str) -> None:
    slug, config = file_config(written(tmp_path, text), "walk")
    assert slug == "walk"
    assert config == build_config("walk", lr=1e-3, group_size=4, steps=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lern_rate: 1\n", "settings.yaml: there is no option 'lern_rate'"),
        ("learnr: {lr: 1}\n", "settings.yaml: there is no option 'learnr'. Did you mean learner"),
        ("run: {lr: 1}\n", "settings.yaml: lr is no option of run; it belongs into method.learner"),
        ("lr: 1\nlearner: {lr: 2}\n", "settings.yaml: lr is given twice"),
        ("group_size: many\n", "settings.yaml: group_size is 'many'; expected a whole number, 1 or more"),
        ("seed: yes\n", "settings.yaml: seed is True; expected a whole number"),
        ("run: 5\n", "settings.yaml: run is 5; expected a mapping"),
        ("method: [walk]\n", "settings.yaml: method is ['walk']; expected a method's name"),
        ("method: {slug: 3}\n", "settings.yaml: the method's slug is 3"),
        ("method: stroll\n", "settings.yaml is a configuration of stroll, not of walk"),
        ("- lr\n", "settings.yaml holds a list; expected a mapping"),
        ("lr: [1\n", "settings.yaml is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong_in_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        file_config(written(tmp_path, text), "walk")
    assert said in str(caught.value)


def test_a_file_without_a_method_needs_one_beside_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no method"):
        file_config(written(tmp_path, "lr: 0.1\n"))


METHODS = sorted({*known_methods(), "walk"})


@pytest.mark.parametrize("slug", METHODS)
def test_every_configuration_comes_back_from_its_file(tmp_path: Path, slug: str) -> None:
    config = build_config(slug, model="smollm2", seed=3, out=tmp_path / "run", track=["tensorboard"], reward="my.py:score")
    path = tmp_path / "config.yaml"
    dump_config(saved_form(slug, config), path)
    assert file_config(path) == (slug, config)


@pytest.mark.parametrize("slug", METHODS)
def test_every_method_has_options_of_its_own_name_and_defaults_in_range(slug: str) -> None:
    config = default_config(slug)
    names = leaves(config)  # Raises when two options share a name.
    assert {"model", "seed"} <= set(names)
    check_config(config)
    check_config(config, "flag")


@dataclass
class Clashing:
    lr: float = 0.1
    learner: LearnerConfig = field(default_factory=LearnerConfig)


@dataclass
class Reserved:
    resume: bool = False


@pytest.mark.parametrize(("method", "said"), [(Clashing(), "learner.lr needs another name"), (Reserved(), "resume needs another name: it is reserved")])
def test_names_that_clash_are_refused(method: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        leaves(TrainConfig(method=method))


def test_flags_are_named_as_flags() -> None:
    config = default_config("walk")
    config.method.group_size = 0
    with pytest.raises(InputError, match=r"^--group-size is 0; expected"):
        check_config(config, "flag")


def test_other_configurations_are_merged_alike() -> None:
    assert merged(MeasureConfig(), {"samples": 4}).samples == 4
    with pytest.raises(InputError, match="samples is 0"):
        merged(MeasureConfig(), {"samples": 0})


@given(lr=st.floats(1e-12, 1e3), steps=st.integers(0, 10**9), model=st.text(min_size=1, max_size=20))
def test_keywords_and_mappings_agree(lr: float, steps: int, model: str) -> None:
    with registered_walk():
        by_keyword = build_config("walk", lr=lr, steps=steps, model=model)
        assert merged(default_config("walk"), {"method": {"learner": {"lr": repr(lr)}}, "run": {"steps": steps}, "model": model}) == by_keyword


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "a whole number"),
        (Annotated[int, Ge(2)], "a whole number, 2 or more"),
        (Annotated[float, Interval(gt=0, le=1)], "a number, more than 0 and at most 1"),
        (Annotated[float, Gt(0), Le(1)] | None, "a number, more than 0 and at most 1, or nothing"),
        (Literal["a", "b"], "one of a, b"),
        (tuple[str, ...], "a list, each a text"),
        (tuple[int, str], "a list of 2: a whole number; a text"),
        (Path | None, "a path, or nothing"),
    ],
)
def test_types_are_put_into_words(hint: Any, text: str) -> None:
    assert expected(hint) == text


@pytest.mark.parametrize(
    ("tasks", "title"),
    [
        ("arithmetic", "arithmetic"),
        ("gym:leg_counting", "gym-leg_counting"),
        ("data/Problems.jsonl,data/test.jsonl", "Problems"),
        ("../own.py:MyTasks", "own"),
        ([{"prompt": "x"}], "tasks"),
    ],
)
def test_tasks_have_a_short_name_for_folders(tasks: Any, title: str) -> None:
    assert tasks_title(tasks) == title


def test_a_resumed_run_may_change_its_run_and_nothing_else() -> None:
    saved = build_config("walk", steps=10)
    assert not check_resumable(saved, build_config("walk", steps=10))
    assert check_resumable(saved, build_config("walk", steps=20, budget="5k-tokens", evaluate_every=0))
    for settings in ({"lr": 0.1}, {"model": "other"}, {"tasks": "lists"}, {"seed": 1}, {"pull": 0.2}, {"out": "x"}, {"reward": len}):
        (name,) = settings
        with pytest.raises(InputError, match=f"keeps its {name}: "):
            check_resumable(saved, build_config("walk", steps=10, **settings))
        with pytest.raises(InputError, match=f"keeps its --{name}: "):
            check_resumable(saved, build_config("walk", steps=10, **settings), "flag")


def test_a_resumed_run_may_change_where_its_learner_computes(tmp_path: Path) -> None:
    # `learner` is an option in the section of that name: the file has both.
    dump_config(saved_form("grpo", build_config("grpo", learner="fsdp", ranks=2, lr=0.5)), tmp_path / "config.yaml")
    _, saved = file_config(tmp_path / "config.yaml")
    assert (saved.method.learner.learner, saved.method.learner.ranks, saved.method.learner.lr) == ("fsdp", 2, 0.5)
    assert check_resumable(saved, build_config("grpo", ranks=4, learner="single", lr=0.5))
    with pytest.raises(InputError, match="keeps its lr"):
        check_resumable(saved, build_config("grpo", learner="fsdp", ranks=2))


def test_a_run_with_a_python_object_needs_it_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    dump_config(saved_form("walk", build_config("walk", reward=len)), path)
    _, saved = file_config(path)
    with pytest.raises(InputError, match=r"reward is the Python object builtins.len.*reward=\.\.\."):
        check_resumable(saved, saved)
    assert not check_resumable(saved, build_config("walk", reward=len))
