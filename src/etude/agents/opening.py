"""`agents:BANK` with a model: which tasks agents have, and who answers them. Whatever is missing is found here, before anything is asked."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from etude.agents.scripted import scripted_agent_model
from etude.agents.world import AgentOptions, CodingAgents
from etude.config import NO_MODEL, EndpointConfig
from etude.errors import InputError
from etude.models.opening import open_responder
from etude.models.remote import is_endpoint
from etude.models.scripted import ScriptedModel
from etude.sandbox.jail import INSTALL
from etude.tasks.options import settings_in
from etude.tasks.repos.micro import NAME as MICRO
from etude.tasks.repos.micro import repository_tasks
from etude.tasks.repos.tasks import BANK, RepositoryTasks

SCHEME = "agents:"
"""What the name of such a world begins with: `agents:BANK` or `agents:micro`, and perhaps `:option=value,...`."""
SCRIPTED = "scripted"
"""The model that needs no model, with `:skill=-0.5,editing=0.5` perhaps."""
OPTIONS = {
    "tasks": "tasks that agents are tried on, at most",
    "held_out": "tasks that the agent which is taken is measured on, at most",
    "repeats": "runs at each of these",
    "turns": "actions of a run",
    "calls": "of the model in a run",
    "tokens": "of an answer of the model",
    "temperature": "of the model",
    "seconds": "of one run of tests",
    "agent": "folder of the agent to start from",
}
SKILLS = {"skill": "of an edit of a task, in logits", "editing": "of a change of an agent's own code"}


def open_coding_agents(spec: str, model: str, endpoint: EndpointConfig, *, seed: int = 0) -> CodingAgents:
    """The world that `--tasks agents:...` names, with the model that its agents ask.

    model: an endpoint (`openai:NAME`, `http://...#NAME`), `scripted`, or one that runs here. Raises InputError for what cannot be used.
    """
    place, options = _read(spec)
    if model == NO_MODEL:
        raise InputError(
            f"--tasks {spec}: the agents ask a model; give --model openai:NAME with --base-url, a model that runs here, or {SCRIPTED} to try the whole"
        )
    if shutil.which("bwrap") is None:
        raise InputError(f"coding agents run in the jail and nowhere else. It needs bubblewrap, and there is no program 'bwrap' here; install it ({INSTALL})")
    if place != MICRO and not (Path(place).expanduser() / BANK).is_file():
        raise InputError(
            f"--tasks {spec}: there is no bank {Path(place).expanduser() / BANK}; expected a folder made by scripts/make_repo_bank.py, or {SCHEME}{MICRO}"
        )
    responder = None if _is_scripted(model) else open_responder(model, endpoint)
    tasks = repository_tasks(f"{place}:turns={options.turns},seconds={options.seconds}")
    # A model that runs here answers one question after another.
    side_by_side = responder is None or is_endpoint(model)
    return CodingAgents(tasks, responder or _scripted(model, tasks, seed), options, asks_side_by_side=side_by_side)


def _read(spec: str) -> tuple[str, AgentOptions]:
    """Where the tasks are, and the options."""
    text = spec.removeprefix(SCHEME)
    place, colon, settings = text.rpartition(":")
    if not colon or "=" not in settings:
        place, settings = text, ""
    given: dict[str, Any] = settings_in(settings, f"--tasks {spec}", OPTIONS, example="tasks=40,calls=12")
    defaults = {field.name: field.default for field in fields(AgentOptions)}
    for name, value in given.items():
        wanted = type(defaults[name]) if defaults[name] is not None else str
        if not isinstance(value, (int, float) if wanted is float else wanted) or isinstance(value, bool):
            raise InputError(f"--tasks {spec}: {name} is {value!r}; expected {'a number' if wanted is not str else 'a folder'}")
    return place, AgentOptions(**given)


def _is_scripted(model: str) -> bool:
    return model.partition(":")[0] == SCRIPTED


def _scripted(model: str, tasks: RepositoryTasks, seed: int) -> ScriptedModel:
    """The scripted model, as its name and options say."""
    given = settings_in(model.partition(":")[2], f"--model {model}", SKILLS, example="skill=0.5,editing=0")
    wrong = {name: value for name, value in given.items() if not isinstance(value, (int, float))}
    if wrong:
        raise InputError(f"--model {model}: {', '.join(f'{name} is {value!r}' for name, value in wrong.items())}; expected numbers")
    return scripted_responder(tasks, **given, seed=seed)


def scripted_responder(tasks: RepositoryTasks, *, skill: float = -0.5, editing: float = 0.5, seed: int = 0) -> ScriptedModel:
    """The scripted model for all tasks of a set. skill, editing: see `scripted_agent_model`."""
    every = [*(tasks.train_task(0, i) for i in range(tasks.train_size)), *tasks.held_out()]
    return scripted_agent_model(tasks, every, skill=skill, editing=editing, seed=seed)
