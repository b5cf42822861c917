"""The command line. Commands are found by name and import what they need when they run, so that help answers at once."""

from __future__ import annotations

import os
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import EtudeError, InputError, first_line, nearest, ran_out_of_memory

if TYPE_CHECKING:
    from rich.console import Console

HELP = """[bold]etude[/] COMMAND …   self-improvement of models on one loop

[dim]commands[/]
  [bold]train[/] METHOD     improve a model by a method, or go on with a run
  [bold]search[/] METHOD    search by a method that changes no weights: agents, answers, attempts
  [bold]eval[/] MODEL       measure a model on held-out tasks: pass@k, maj@k, length, with intervals
  [bold]chat[/] MODEL       talk to a model, and watch it look at its answers again
  [bold]compare[/] ARM ARM  which method is worth it: at equal budget, over paired seeds, with intervals
  [bold]plan[/]             how long a run takes, what bounds it, and whether it fits
  [bold]list[/]             the methods, with paper and state of their claim
  [bold]reproduce[/] METHOD check what a paper claims: arms at equal budget over paired seeds, and a verdict
  [bold]experiment[/] NAME  a study that no training run shows: a simulation, a look at gradients
  [bold]claims[/]           bring the tables of claims up to date (in a source tree)
  [bold]report[/] DIR       write a run's report.html again
  [bold]doctor[/]           what is installed, and whether it works here
  [bold]version[/]          versions of etude, python and torch

[dim]examples[/]
  etude train grpo                                        the embedded model on arithmetic: two minutes, no download
  etude train grpo --model ./my-model --tasks problems.jsonl --reward my_reward.py:score
  etude train --resume runs/grpo-arithmetic-seed0 --steps 200
  etude eval runs/grpo-arithmetic-seed0 --samples 32
  etude compare grpo rloo low=grpo:lr=1e-4 --tasks arithmetic --budget 400k-tokens --seeds 5

etude COMMAND --help says more. With --debug (or ETUDE_DEBUG=1) errors come with their traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 1 failed or collapsed, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("ETUDE_DEBUG", "") not in ("", "0")
    given = [argument for argument in given if argument != "--debug"]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _command(given)
        except SystemExit as leaving:  # The option parser says what is wrong itself.
            return leaving.code if isinstance(leaving.code, int) else 1
        except KeyboardInterrupt:
            if debug:
                raise
            say("interrupted", "", "yellow")
            return 130
        except BrokenPipeError:
            # Whoever reads has seen enough (`etude list | head`); nothing is to be flushed at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except EtudeError as error:
            if debug:
                raise
            say("error: ", str(error), "bold red")
            return error.exit_code
        except RuntimeError as error:
            if debug or not ran_out_of_memory(error):
                raise
            relief = "lower --slots or --max-new-tokens, or load the model with --dtype bfloat16"
            say("error: ", f"GPU memory ran out ({first_line(error)}); {relief}", "bold red")
            return 1
        except OSError as error:  # A disk that fails is nothing that a traceback explains.
            if debug:
                raise
            say("error: ", f"{error} (--debug shows where)", "bold red")
            return 1


def _command(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        console().print(HELP, highlight=False, soft_wrap=True)
        return 0 if given else 2
    name = {"--version": "version", "-V": "version"}.get(given[0], given[0])
    if name not in COMMANDS:
        raise InputError(f"there is no command {given[0]!r}.{nearest(given[0], COMMANDS)} `etude --help` shows all of them.")
    return COMMANDS[name](given[1:])


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def say(title: str, text: str, style: str) -> None:
    """One line on standard error, the title in a style."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble((title, style), text), soft_wrap=True)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None) -> None:
    say("warning: ", str(message), "yellow")


def parsed(kind: Any, given: Sequence[str], *, prog: str, description: str, default: Any) -> Any:
    """A dataclass from flat flags. On --help and on flags that cannot be read, the parser prints what it has to say and exits."""
    if not given:
        return default  # Importing the parser takes longer than most commands.
    import tyro

    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    return tyro.cli(kind, args=list(given), prog=prog, description=description, default=default, config=config)


def leading(given: list[str]) -> tuple[str | None, list[str]]:
    """What stands before the first flag, and the rest."""
    return (given[0], given[1:]) if given and not given[0].startswith("-") else (None, given)


def path_options(given: list[str], *names: str, command: str = "eval") -> tuple[list[Path | None], list[str]]:
    """The values of options that say where settings come from, and what is left."""
    parser = ArgumentParser(prog=f"etude {command}", add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", type=Path)
    known, rest = parser.parse_known_args(given)
    return [getattr(known, name) for name in names], rest


def _train(given: list[str]) -> int:
    from etude.method_command import method_command

    return method_command(given, "train")


def _search(given: list[str]) -> int:
    from etude.method_command import method_command

    return method_command(given, "search")


# eval

PROTOCOLS = ("self-correction", "search")
"""Ways of measuring that ask otherwise: again and again, or a step at a time."""


def _eval(given: list[str]) -> int:
    from etude.config import MeasureConfig
    from etude.evaluation_file import require_writable, write_evaluation
    from etude.settings import check_config

    model, rest = leading(given)
    (out, protocol), rest = path_options(rest, "out", "protocol")
    if protocol is not None:
        if str(protocol) not in PROTOCOLS:
            raise InputError(f"there is no protocol {str(protocol)!r}.{nearest(str(protocol), PROTOCOLS)} Expected {', '.join(PROTOCOLS)}, or none")
        if str(protocol) == "search":
            from etude.step_search_command import step_search_command

            return step_search_command(model, rest, out)
        from etude.self_correction_command import self_correction_command

        return self_correction_command(model, rest, out)
    description = (
        "Measure MODEL on the held-out split of some tasks. MODEL: tiny, smollm2, a Hugging Face folder or hub id, a run's folder, a checkpoint's folder, or an "
        "OpenAI-compatible endpoint (http://host:port/v1#model, or openai:NAME with --base-url). --out FILE.json writes the numbers and every attempt to a file. "
        "--protocol self-correction asks the same questions again and again instead, freely and by choosing among options; --protocol search spends the same tokens on every "
        "question in several ways, tree search among them. With --help each lists its own options."
    )
    if model is None and not {"-h", "--help"} & set(rest):
        raise InputError("no model is named; expected one first, as in `etude eval tiny --tasks arithmetic`")
    config = parsed(MeasureConfig, rest, prog=f"etude eval {model or 'MODEL'}", description=description, default=MeasureConfig())
    check_config(config, "flag")
    if out is not None:
        require_writable(out)
    from etude.api import measure
    from etude.viewer.evaluation import evaluation_table

    with console(stderr=True).status(f"measuring {model} on {config.tasks}: {config.samples} samples a task, {config.tasks_limit} tasks at most"):
        evaluation = measure(str(model), config)
    screen = console()
    screen.print(f"{model} on {config.tasks}: {len(evaluation.tasks)} tasks, {config.samples} samples each", markup=False, highlight=False, soft_wrap=True)
    screen.print(evaluation_table(evaluation.metrics))
    if out is not None:
        write_evaluation(out, evaluation, str(model), config)
    return 0


# The rest


def _chat(given: list[str]) -> int:
    from etude.chat_command import chat_command

    return chat_command(given)


def _compare(given: list[str]) -> int:
    from etude.compare_command import compare_command

    return compare_command(given)


def _plan(given: list[str]) -> int:
    from etude.plan_command import plan_command

    return plan_command(given)


@dataclass
class _ListOptions:
    family: str | None = None
    """Only this family of methods."""
    json: bool = False
    """As JSON."""


def _list(given: list[str]) -> int:
    options = parsed(
        _ListOptions,
        given,
        prog="etude list",
        description="The methods by family: paper, what changes, and the state of the paper's claim.",
        default=_ListOptions(),
    )
    from etude.catalogue import as_json, as_tables, entries

    rows = entries(options.family)
    if options.json:
        print(as_json(rows))
    else:
        console().print(as_tables(rows))
    return 0


@dataclass
class _DoctorOptions:
    json: bool = False
    """As JSON."""


def _doctor(given: list[str]) -> int:
    options = parsed(
        _DoctorOptions,
        given,
        prog="etude doctor",
        description="What is installed, what the machine has, and whether a model works here.",
        default=_DoctorOptions(),
    )
    from etude.doctor import as_json, as_table, examine, healthy

    findings = examine()
    if options.json:
        print(as_json(findings))
    else:
        console().print(as_table(findings))
    return 0 if healthy(findings) else 1


def _reproduce(given: list[str]) -> int:
    from etude.claims_command import reproduce_command

    return reproduce_command(given)


def _experiment(given: list[str]) -> int:
    from etude.experiment_command import experiment_command

    return experiment_command(given)


def _claims(given: list[str]) -> int:
    from etude.claims_command import claims_command

    return claims_command(given)


def _report(given: list[str]) -> int:
    folder, rest = leading(given)
    parsed(
        _NoOptions,
        rest,
        prog="etude report DIR",
        description="Write report.html into a run's folder again, from what the run has recorded so far.",
        default=_NoOptions(),
    )
    if folder is None:
        raise InputError("no run is named; expected its folder, as in `etude report runs/grpo-arithmetic-seed0`")
    if not (Path(folder) / "config.yaml").is_file():
        raise InputError(f"{folder} holds no run: there is no config.yaml in it; expected a folder that `etude train` wrote")
    from etude.viewer import write_report

    print(write_report(Path(folder)))
    return 0


@dataclass
class _NoOptions:
    pass


def _version(given: list[str]) -> int:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    parsed(_NoOptions, given, prog="etude version", description="Versions of etude, python and torch.", default=_NoOptions())
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    print(f"etude {version('etude')} (python {platform.python_version()}, torch {torch})")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "search": _search,
    "eval": _eval,
    "chat": _chat,
    "compare": _compare,
    "plan": _plan,
    "list": _list,
    "reproduce": _reproduce,
    "experiment": _experiment,
    "claims": _claims,
    "report": _report,
    "doctor": _doctor,
    "version": _version,
}
