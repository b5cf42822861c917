"""The world of real coding agents for `etude search hgm`: programs that solve software tasks with a model, and edit their own code.

An agent is a folder of Python. It is tried on a task by a run in the jail (`runs.py`). It is changed by itself: the same program runs on its own code, told how it did and
shown the log of a task that it did not solve. What comes of that is an agent only if it passes the gate (`gate.py`). Hidden tests decide a trial, and only this side sees
them: the log says what the agent did and saw, and whether it solved the task.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

from etude.agents.code import STARTING_AGENT, agent_of, difference, files_in, listing, read_agent, sizes, tree_of
from etude.agents.gate import PASSED, faults_of
from etude.agents.runs import Refusal, RunLog, run_agent
from etude.agents.workshop import TaskPlace, Workshop
from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.remote_errors import refused
from etude.models.replies import count_replies
from etude.models.responders import Asked, Responder
from etude.models.sampling import SamplingParams
from etude.sandbox.base import cut
from etude.sandbox.jail import JailSandbox
from etude.sandbox.programs import program_limits
from etude.search.archive import Agent, Failure, History, Trial
from etude.search.worlds import World
from etude.tasks.repos.actions import FORM
from etude.tasks.repos.environment import RepositoryEnvironment
from etude.tasks.repos.store import GitStore
from etude.tasks.repos.tasks import RepositoryTasks
from etude.types import Message, Metrics, Task

LOG = 4000
"""Characters of a log that an agent is shown when it changes itself."""
FAILURES = 2
"""Earlier changes that failed which it is told of."""
SOLVER, EDITOR = "solver", "editor"
"""Roles that calls of the model are counted under."""


@dataclass(frozen=True)
class AgentOptions:
    """How agents are run."""

    tasks: int = 60
    """Tasks that agents are tried on, at most."""
    held_out: int = 60
    """Tasks that the agent which is taken is measured on, at most."""
    repeats: int = 1
    """Runs at each of these."""
    turns: int = 20
    """Actions of a run."""
    calls: int = 20
    """Calls of the model in a run."""
    tokens: int = 1024
    """Tokens of an answer of the model."""
    temperature: float = 0.7
    """Of the model."""
    seconds: float = 30.0
    """Of one run of tests."""
    agent: str | None = None
    """Folder of the agent to start from; by default the one that comes with Étude."""

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("tasks", "held_out", "repeats", "calls", "tokens")}
        small = {name: value for name, value in numbers.items() if type(value) is not int or value < 1}
        if small or type(self.turns) is not int or self.turns < 2 or self.temperature < 0 or self.seconds <= 0:
            raise InputError(f"options of the agents are {self}; expected whole numbers of at least 1 (turns: 2), no negative temperature, and some seconds")


class CodingAgents(World):
    """Agents as `agent_of` makes them. responder: the model that all of them ask, when they solve and when they edit. May be used from several threads.

    Raises InputError where there is no bubblewrap, no task on either side, or a starting agent that does not pass the gate.
    """

    def __init__(self, tasks: RepositoryTasks, responder: Responder, options: AgentOptions, *, asks_side_by_side: bool = True) -> None:
        if tasks.train_size == 0 or not tasks.held_out():
            raise InputError(f"{tasks.name} has {tasks.train_size} training tasks and {len(tasks.held_out())} held-out ones; agents need some of each")
        self._set, self._responder, self.options = tasks, responder, options
        search = sorted({task.id: task for task in (tasks.train_task(0, i) for i in range(tasks.train_size))}.items())
        Random(0).shuffle(search)
        self._tasks = dict(search[: options.tasks])
        self._held_out = list(tasks.held_out())[: options.held_out]
        self.tasks: Sequence[str] = list(self._tasks)
        self._jail = JailSandbox(program_limits())
        self._store = GitStore()
        self._counting = Lock()
        self._asking: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if asks_side_by_side else Lock()
        self._answered = False
        self._measured: dict[str, tuple[Metrics, Ledger]] = {}
        self._root = read_agent(Path(options.agent).expanduser() if options.agent else STARTING_AGENT)
        if wrong := faults_of(self._jail, self._store, self._root["files"]):
            raise InputError(f"the starting agent in {options.agent or STARTING_AGENT} does not work: {wrong}")

    def root(self) -> Agent:
        return self._root

    def evaluate(self, agent: Agent, task: str, random: Random) -> Trial:
        return self._tried(agent, self._tasks[task], random)

    def mutate(self, agent: Agent, trials: History, random: Random) -> Agent | Failure:
        files = agent["files"]
        tree = tree_of(self._store, files)
        shop = Workshop(self._store, tree, self._issue(agent, trials, random), self._checked, self.options.turns)
        log = self._run(agent, "edit", shop, random, EDITOR)
        try:
            after = files_in(self._store, shop.tree)
            child = agent_of(after, shop.note or sizes(files, after))
        except InputError as error:
            return Failure(f"{error}\n{log.text}")
        if shop.tree == tree:
            return Failure(f"nothing was changed\n{log.text}")
        if wrong := faults_of(self._jail, self._store, child["files"]):
            return Failure(f"{wrong}\nThe change:\n{difference(files, child['files'])}")
        return child

    def measure(self, agent: Agent) -> Metrics:
        """Share of its runs at held-out tasks that solve them, always with the same random numbers. An agent is measured once, and counted every time."""
        key, ledger = json.dumps(agent["files"], sort_keys=True), self.ledger or Ledger()
        if key in self._measured:
            metrics, spent = self._measured[key]
            ledger.restore(ledger + spent)
            return dict(metrics)
        before = ledger.copy()
        runs = [(task, i) for task in self._held_out for i in range(self.options.repeats)]
        with ThreadPoolExecutor(self.workers) as pool:
            solved = list(pool.map(lambda run: self._tried(agent, run[0], Random(f"measure {run[0].id} {run[1]}")).solved, runs))
        metrics = {"eval/success": sum(solved) / len(solved), "eval/runs": float(len(runs))}
        self._measured[key] = metrics, ledger - before
        return dict(metrics)

    def describe(self, agent: Agent) -> str:
        return agent["note"] or "the starting agent"

    def change(self, agent: Agent, parent: Agent) -> str:
        return difference(parent["files"], agent["files"])

    def close(self) -> None:
        self._jail.close()
        self._set.close()
        self._store.close()

    def _tried(self, agent: Agent, task: Task, random: Random) -> Trial:
        environment = self._set.environment()
        assert isinstance(environment, RepositoryEnvironment)
        place = TaskPlace(environment, task)
        log = self._run(agent, "solve", place, random, SOLVER)
        return Trial(place.solved, f"{log.text}\n[verdict] {'solved' if place.solved else 'not solved'}")

    def _run(self, agent: Agent, mode: str, place: TaskPlace | Workshop, random: Random, role: str) -> RunLog:
        key = (mode, random.getrandbits(62))
        asked = iter(range(self.options.calls + 1))

        def ask(messages: tuple[Message, ...], tokens: int | None, stop: tuple[str, ...]) -> str:
            return self._answer(messages, tokens, stop, (*key, next(asked)), role)

        log = run_agent(self._jail, agent["files"], mode, place, ask, calls=self.options.calls)
        if self.ledger is not None:
            with self._counting:
                self.ledger.environment_steps += log.actions
        return log

    def _answer(self, messages: tuple[Message, ...], tokens: int | None, stop: tuple[str, ...], key: tuple[str | int, ...], role: str) -> str:
        params = SamplingParams(min(tokens or self.options.tokens, self.options.tokens), self.options.temperature, stop=stop)
        if not self._responder.fits(messages, params.max_new_tokens):
            raise Refusal("the conversation is too long for the model; shorten it")
        try:
            with self._asking:
                reply = self._responder.replies([Asked("agent", messages)], params, samples=1, key=key)[0][0]
        except InputError as error:
            # A server that has answered before may not take what this agent asks, a conversation that is too long for example, and take what others ask.
            if self._answered and refused(error):
                raise Refusal(str(error)) from error
            raise
        self._answered = True
        if self.ledger is not None:
            with self._counting:
                count_replies(self.ledger, [reply], role)
        return reply.text

    def _checked(self, tree: str) -> str:
        """What an agent is told that runs the checks of its own code."""
        return faults_of(self._jail, self._store, files_in(self._store, tree)) or PASSED

    def _issue(self, agent: Agent, trials: History, random: Random) -> str:
        """What an agent is told when it is to change itself."""
        unsolved = [log.log for log in trials.values() if not log.solved]
        parts = [
            f"This repository is your own code: you are a coding agent, and you change yourself. Make one change after which you solve more tasks like those that you were "
            f"tried on, or change yourself more reliably. It has to help in general, not with one task. {FORM}\n"
            "test - check that the changed agent still works\nsubmit WHAT WAS CHANGED - hand in the changed agent, with a few words on it",
            "`main.py solve` works on a task, `main.py edit` on this code. You write lines of JSON and read one for each: the task, answers of a model, results of actions. "
            f"There is Python's standard library and nothing else. A run has {self.options.calls} calls of the model and {self.options.turns} actions.",
            f"You solved {sum(trial.solved for trial in trials.values())} of {len(trials)} tasks.",
        ]
        if unsolved:
            parts.append(f"What you did at one that you did not solve:\n{cut(random.choice(unsolved), LOG)}")
        if trials.failures:
            parts.append("Earlier changes of yours that failed:\n" + "\n---\n".join(cut(text, LOG // 4) for text in trials.failures[-FAILURES:]))
        return "\n\n".join([*parts, f"Your code:\n{listing(agent['files'])}"])
