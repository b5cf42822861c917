import shlex

import pytest

from etude.errors import InputError
from etude.evals.arm_text import arm_text, command_line, parse_arm, parse_seeds, parse_sweep
from etude.evals.arms import Arm


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("grpo", Arm("grpo", "grpo", {})),
        ("grpo:lr=1e-3", Arm("grpo:lr=1e-3", "grpo", {"lr": "1e-3"})),
        ("grpo:lr=0.001,group-size=8", Arm("grpo:lr=0.001,group-size=8", "grpo", {"lr": 0.001, "group_size": 8})),
        ("my-label=dapo:dynamic_sampling=false", Arm("my-label", "dapo", {"dynamic_sampling": False})),
        ("plain=rloo", Arm("plain", "rloo", {})),
        ("a=grpo:betas=0.9,0.99,lr=0.1", Arm("a", "grpo", {"betas": [0.9, 0.99], "lr": 0.1})),
        ("a=grpo:lr=null", Arm("a", "grpo", {"lr": None})),
        ("a=walk:note=x=y", Arm("a", "walk", {"note": "x=y"})),
    ],
)
def test_an_arm_is_read_and_written_again(text: str, arm: Arm) -> None:
    assert parse_arm(text) == arm
    assert parse_arm(arm_text(arm)) == arm


@pytest.mark.parametrize("text", ["", "grpo:", "=grpo", "a=", "grpo:lr", "a,b=grpo", "grpo:lr=1,lr=2", "grpo:0.9,lr=1", "a/b=grpo"])
def test_what_is_no_arm_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="arm"):
        parse_arm(text)


def test_arms_made_in_python_become_text_as_well() -> None:
    assert arm_text(Arm("low", "grpo", {"lr": 0.001, "share_prompts": False, "betas": (0.9, 0.99)})) == "low=grpo:lr=0.001,share_prompts=false,betas=0.9,0.99"
    assert arm_text(Arm("grpo", "grpo", {"lr": 0.001})) == "grpo=grpo:lr=0.001"


def test_sweeps() -> None:
    assert parse_sweep("group-size=4,8") == ("group_size", [4, 8])
    assert parse_sweep("share_prompts=true,false") == ("share_prompts", [True, False])
    for text in ("lr", "lr=1", "lr=1,1", "lr=1,2,kl=3", ""):
        with pytest.raises(InputError, match="the sweep"):
            parse_sweep(text)


def test_seeds_are_counted_from_1000_or_given() -> None:
    assert parse_seeds(3) == parse_seeds("3") == [1000, 1001, 1002]
    assert parse_seeds("2", first=0) == [0, 1]
    assert parse_seeds("7, 9") == [7, 9]
    assert parse_seeds("1003,") == [1003]
    assert parse_seeds([4, 2]) == [4, 2]
    for seeds in ("many", "", "0", "-1", "3,3", "1.5", 0, [1, -2]):
        with pytest.raises(InputError, match="seeds"):
            parse_seeds(seeds)  # type: ignore[arg-type]


def test_the_command_says_what_was_asked_for() -> None:
    line = command_line(
        [parse_arm("grpo"), parse_arm("a b=grpo:lr=0.1")], {"tasks": "lists", "eval_kl": False, "share_prompts": True, "sweep": ["lr=1,2"], "out": None}
    )
    assert shlex.split(line) == ["etude", "compare", "grpo", "a b=grpo:lr=0.1", "--tasks", "lists", "--no-eval-kl", "--share-prompts", "--sweep", "lr=1,2"]
