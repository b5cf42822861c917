"""`etude compare`: flags to a comparison, and back to the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from etude.config import CompareConfig, CompareFlags, PolicyOptimizationConfig
from etude.errors import InputError
from etude.evals.arm_text import parse_arm
from etude.evals.comparison import Comparison
from etude.method import get_method
from etude.settings import check_config, leaves

DESCRIPTION = (
    "Which of these methods is worth it? ARM is METHOD, METHOD:OPTION=VALUE,OPTION=VALUE or LABEL=METHOD:OPTION=VALUE; the first one is what the others are compared "
    "with. Every arm is run with the same seeds until the same budget is spent, and what the options below say holds for all arms. The same command goes on where it "
    "was stopped. `etude compare --runs DIR DIR …` compares runs that exist already."
)


@dataclass
class NoOptions:
    """Methods that share no options."""


@dataclass
class RunsConfig:
    """A comparison of runs that exist."""

    budget: str | None = None
    """Where they are compared; every run must have spent it. Default: the most that all of them spent."""
    metric: str | None = None
    """What is compared. Default: the methods' own score, for language models held-out pass@1."""
    lower_is_better: bool = False
    """A lower value of the metric is a better one."""
    out: Path | None = None
    """Folder for the comparison. Default: runs/compare-METHODS-TASKS, numbered when taken."""


def compare_command(given: list[str]) -> int:
    """Run the command; returns its exit code: 0 when every run finished, 1 when one crashed, 130 when the user stopped it."""
    arms = _before_flags(given)
    rest = given[len(arms) :]
    runs, rest = _run_folders(rest)
    if runs is not None:
        if arms:
            raise InputError(f"--runs compares runs that exist; leave the arm {arms[0]} out, or leave --runs out to run it")
        return _compare_runs(runs, rest)
    if not arms and not {"-h", "--help"} & set(rest):
        raise InputError("no arm is named; expected methods before the first option, as in `etude compare grpo rloo --budget 400k-tokens`")
    return _compare_arms(arms, rest)


def _before_flags(given: Sequence[str]) -> list[str]:
    end = next((i for i, word in enumerate(given) if word.startswith("-")), len(given))
    return list(given[:end])


def _run_folders(rest: list[str]) -> tuple[list[Path] | None, list[str]]:
    parser = argparse.ArgumentParser(prog="etude compare", add_help=False, allow_abbrev=False)
    parser.add_argument("--runs", nargs="+", type=Path)
    known, left = parser.parse_known_args(rest)
    return known.runs, left


def _compare_runs(folders: list[Path], rest: list[str]) -> int:
    from etude.cli import parsed
    from etude.comparing_runs import compare_runs

    config = parsed(RunsConfig, rest, prog="etude compare --runs DIR DIR …", description="Compare runs that exist already.", default=RunsConfig())
    return _shown(compare_runs(folders, **{f.name: getattr(config, f.name) for f in fields(config)}))


def _compare_arms(arms: list[str], rest: list[str]) -> int:
    from etude.cli import parsed, say
    from etude.comparing import plan
    from etude.viewer.live_arms import LiveArms

    options = shared_options([parse_arm(arm).method for arm in arms])
    flags: CompareFlags[Any] = parsed(
        CompareFlags[options], rest, prog=f"etude compare {' '.join(arms) or 'ARM ARM …'}", description=DESCRIPTION, default=CompareFlags(method=options())
    )
    check_config(flags, "flag")
    own = {f.name: getattr(flags.comparison, f.name) for f in fields(CompareConfig) if f.name != "quiet"}
    planned = plan(arms, **own, **given_settings(flags, rest))
    try:
        return _shown(planned.run(LiveArms(metric=planned.metric, title=planned.title, quiet=flags.comparison.quiet)))
    except KeyboardInterrupt:
        say("stopped. ", f"What was done is kept in {planned.folder}; go on with: {planned.command}", "yellow")
        return 130


def shared_options(slugs: Sequence[str]) -> Any:
    """The options class that these methods have in common: the nearest that all of theirs are made from. Raises InputError for an unknown method."""
    kinds = [get_method(slug).Config for slug in slugs] or [PolicyOptimizationConfig]
    shared = (kind for kind in kinds[0].__mro__ if is_dataclass(kind) and all(kind in other.__mro__ for other in kinds))
    return next(shared, NoOptions)


def given_settings(flags: CompareFlags[Any], rest: Sequence[str]) -> dict[str, Any]:
    """The settings of runs that were given as flags. Ones that were not stay as each arm's method has them, which can differ."""
    words = {word[2:].partition("=")[0].replace("-", "_") for word in rest if word.startswith("--")}
    return {name: leaf.value for name, leaf in leaves(flags).items() if leaf.sections[0] != "comparison" and (name in words or f"no_{name}" in words)}


def _shown(comparison: Comparison) -> int:
    from etude.viewer.comparison_table import print_comparison

    print_comparison(comparison)
    return 1 if any(result.failed for result in comparison.arms) else 0
