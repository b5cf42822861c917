"""What `--tasks`, `--reward` and `--env` name becomes a task set."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.errors import InputError, nearest
from etude.tasks.base import TaskSet
from etude.tasks.options import settings_in
from etude.tasks.user_code import describe, load_object, where

KINDS = (
    "a built-in family (arithmetic, or arithmetic:terms=4 for harder tasks), a JSONL file (or train.jsonl,test.jsonl), gym:NAME for a reasoning-gym data set, "
    "textworld:FILE.z8,FILE.z8 (or a folder) for text adventures, "
    "scienceworld:NAME,NAME for experiments in ScienceWorld, "
    "pictures for pictures to write as visual tokens, "
    "repos:FOLDER, repos:micro or swebench:FILE.jsonl,CLONES for repositories with a fault, humaneval:FILE.jsonl for functions to write, "
    "or file.py:Class for a TaskSet of your own"
)


def load_tasks(
    tasks: str | TaskSet | Sequence[Mapping[str, Any]],
    reward: str | Callable[..., Any] | None = None,
    env: str | type | None = None,
    seed: int = 0,
    *,
    labelled: bool = True,
) -> TaskSet:
    """The task set that a specification names, judged by a reward function and practised in an environment of the user's own where given.

    tasks: a built-in family (`NAME:option=value,option=value` for another difficulty), one JSONL file or two joined by a comma (training, held out), `gym:NAME`,
    or `file.py:Class`.
    reward: `file.py:function`. env: `file.py:Class`, or a built-in one: `python` (`etude.tasks.python_tool`), `revise` (`etude.tasks.revisions`),
    `cosc` (`etude.tasks.program_rounds`), `strategies` (`etude.tasks.strategies`).
    seed: the run's, for an environment whose constructor takes one; the held-out split does not depend on it.
    labelled: refuse tasks of a file that have no answer where nothing else judges them; otherwise attempts at them are left unjudged.
    From Python, the things themselves will do as well: a TaskSet or a list of what the lines of a JSONL file hold, a function, a class.
    Raises InputError for whatever cannot be used, before anything is computed.
    """
    from etude.tasks.jsonl import JsonlTaskSet, has_answer

    # The user's code first: it fails fastest.
    environment_class = reward_function = None
    tool = env if names_tool(env) else None
    if env is not None and tool is None:
        from etude.tasks.user_environment import EnvironmentClass

        environment_class = EnvironmentClass.load(env, seed) if isinstance(env, str) else EnvironmentClass(env, _title(env), seed)
    if reward is not None:
        from etude.tasks.user_reward import RewardFunction

        reward_function = RewardFunction.load(reward) if isinstance(reward, str) else RewardFunction(reward, _title(reward))
    unjudged = not labelled and reward is None and env is None
    judged_elsewhere = reward is not None or environment_class is not None or unjudged
    if isinstance(tasks, TaskSet):
        task_set = tasks
    elif isinstance(tasks, str):
        task_set = _named(tasks, judged_elsewhere=judged_elsewhere)
    else:
        task_set = _from_rows(tasks, judged_elsewhere)
    from_file = isinstance(task_set, JsonlTaskSet)
    if from_file and unjudged:
        from etude.tasks.unlabelled import PartlyLabelled

        return PartlyLabelled(task_set)
    if environment_class is not None:
        from etude.tasks.user_environment import EnvironmentTaskSet

        task_set = EnvironmentTaskSet(task_set, environment_class)
    if reward_function is not None:
        from etude.tasks.user_reward import RewardedTaskSet

        task_set = RewardedTaskSet(task_set, reward_function, has_verdict=has_answer) if from_file else RewardedTaskSet(task_set, reward_function)
    if tool is not None:
        from etude.tasks.program_rounds import ProgramRounds
        from etude.tasks.python_tool import PythonTool
        from etude.tasks.revisions import Revisions
        from etude.tasks.strategies import Strategic

        built_in = {"python": PythonTool, "revise": Revisions, "cosc": ProgramRounds, "strategies": Strategic}
        task_set = built_in[kind_of(tool) or ""].named(str(tool), task_set)
    return task_set


def names_tool(env: object) -> bool:
    """Whether `--env` asks for a built-in environment around tasks of any kind, and not for a class of the user's own."""
    return kind_of(env) in ("python", "revise", "cosc", "strategies")


def kind_of(env: object) -> str | None:
    """What stands before the options of a built-in environment; None for a class."""
    return env.partition(":")[0] if isinstance(env, str) else None


def _title(thing: Any) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _from_rows(rows: Sequence[Mapping[str, Any]], judged_elsewhere: bool) -> TaskSet:
    """Tasks from what the lines of a JSONL file hold: read as such a file, so that the same rules hold and the same mistakes are named."""
    from etude.tasks.jsonl import JsonlTaskSet

    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"tasks is a {type(rows).__name__}; expected {KINDS}; a TaskSet; or a list of dicts with a prompt and an answer each")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks"
        try:
            path.write_text("".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
            return JsonlTaskSet(path, needs_answers=not judged_elsewhere)
        except TypeError as error:
            raise InputError(f"tasks holds something that is no plain JSON value: {error}") from error
        except InputError as error:
            raise InputError(str(error).replace(str(path), "tasks")) from error


def _named(spec: str, *, judged_elsewhere: bool) -> TaskSet:
    if spec.startswith("gym:"):
        from etude.tasks.gym import GymTaskSet

        return GymTaskSet.parse(spec.removeprefix("gym:"))
    if spec.startswith("textworld:"):
        from etude.tasks.text_games import TextGames

        return TextGames.parse(spec.removeprefix("textworld:"))
    if spec.partition(":")[0] == "scienceworld":
        from etude.tasks.science_world import ScienceWorld

        return ScienceWorld.parse(spec.partition(":")[2])
    if spec.startswith("repos:"):
        from etude.tasks.repos.micro import repository_tasks

        return repository_tasks(spec.removeprefix("repos:"))
    if spec.startswith("swebench:"):
        from etude.tasks.repos import RepositoryTasks

        return RepositoryTasks.from_swebench(spec.removeprefix("swebench:"))
    if spec.startswith("humaneval:"):
        from etude.tasks.humaneval import HumanEval

        return HumanEval.parse(spec.removeprefix("humaneval:"))
    if spec.partition(":")[0] == "pictures":
        from etude.tasks.pictures import PictureTasks

        return _family("pictures", PictureTasks, spec.partition(":")[2])
    if ".py:" in spec:
        return _own(spec)
    if ".jsonl" in spec.lower():
        return _from_files(spec, judged_elsewhere)

    from etude.tasks.builtin import builtin_task_sets

    families = builtin_task_sets()
    family, _, difficulty = spec.partition(":")
    if family in families:
        return _family(family, families[family], difficulty)
    path = Path(spec).expanduser()
    if path.exists():
        raise InputError(f"--tasks {spec} is a {'folder' if path.is_dir() else 'file'}, but only files that end in .jsonl are read; expected {KINDS}")
    raise InputError(f"there is no task set {spec!r}.{nearest(spec, families)} Built in: {', '.join(families)}. Expected {KINDS}")


def _family(name: str, make: Callable[..., TaskSet], difficulty: str) -> TaskSet:
    """A built-in family, harder or easier by `option=value,option=value`."""
    options = settings_in(difficulty, f"--tasks {name}:{difficulty}", example="arithmetic:terms=4,high=99")
    try:
        return make(**options)
    except TypeError as error:
        raise InputError(f"--tasks {name}:{difficulty} can't be made: {error}; expected numbers for options of the family, for example terms=4") from error


def _from_files(spec: str, judged_elsewhere: bool) -> TaskSet:
    from etude.tasks.jsonl import JsonlTaskSet

    whole = Path(spec).expanduser()
    paths = [whole] if whole.exists() else [Path(part.strip()).expanduser() for part in spec.split(",")]
    if len(paths) > 2:
        raise InputError(f"--tasks {spec!r} names {len(paths)} files; expected one, or two joined by a comma: training,held-out")
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no task file {path}; relative paths start at {Path.cwd()}")
        if path.is_dir():
            raise InputError(f"the task file {path} is a folder; expected a JSONL file")
    return JsonlTaskSet(paths[0], paths[1] if len(paths) == 2 else None, needs_answers=not judged_elsewhere)


def _own(spec: str) -> TaskSet:
    thing = load_object(spec, "--tasks")
    if inspect.isclass(thing) and issubclass(thing, TaskSet):
        try:
            return thing()
        except Exception as error:
            raise InputError(f"--tasks {spec} could not be constructed: {describe(error)} ({where(error, inspect.getfile(thing))})") from error
    if isinstance(thing, TaskSet):
        return thing
    raise InputError(f"--tasks {spec} is no task set; expected a subclass of etude.tasks.base.TaskSet that is made without arguments, or an instance of one")
