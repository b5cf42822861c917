"""Whole episodes under guidance in the system message, by any model: one that runs here, one behind an endpoint, or a scripted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.responders import Responder
from etude.models.sampling import SamplingParams
from etude.rollouts.conversing import respond_episodes
from etude.rollouts.episodes import EpisodeRequest, run_episodes
from etude.tasks.around import Around
from etude.tasks.base import EPISODE_TAGS, Environment, EnvironmentStep
from etude.types import Message, Task, Trajectory

GUIDANCE = "guidance"
"""Entry of a task's `info` that its episode is guided by."""
TESTS, PATCH = "last_tests", "patch"
"""Tags of an episode: how the last run of tests ended that the model made itself (`passed`, `failed`), and what it changed, where the environment can say."""


class Guided(Around):
    """Tasks that are told something more: `info["guidance"]` goes into the system message of an episode."""

    def environment(self) -> Environment | None:
        inner = self.tasks.environment()
        return None if inner is None else GuidedEnvironment(inner)


class GuidedEnvironment(Environment):
    """An environment that opens with guidance, and notes what the model saw of its tests and what it changed. What it answers is the inner one's."""

    def __init__(self, inner: Environment) -> None:
        self.inner = inner
        self.tests = ""

    def reset(self, task: Task) -> Sequence[Message]:
        return guided(self.inner.reset(task), task.info.get(GUIDANCE, ""))

    def step(self, text: str) -> EnvironmentStep:
        answer = self.inner.step(text)
        info: dict[str, Any] = dict(answer.info)
        if "tests_failed" in info:
            self.tests = "failed" if info["tests_failed"] else "passed"
        noted = {TESTS: self.tests} if self.tests else {}
        patch = getattr(self.inner, "patch", None) if answer.done else None
        if isinstance(patch, str):
            noted[PATCH] = patch
        return replace(answer, info={**info, EPISODE_TAGS: {**info.get(EPISODE_TAGS, {}), **noted}})

    def close(self) -> None:
        self.inner.close()


def guided(messages: Sequence[Message], guidance: str) -> tuple[Message, ...]:
    """A conversation's opening with guidance in its system message, behind what stands there; without guidance as it is."""
    if not guidance:
        return tuple(messages)
    if messages and messages[0].role == "system":
        return (replace(messages[0], content=f"{messages[0].content}\n\n{guidance}"), *messages[1:])
    return (Message("system", guidance), *messages)


def guided_request(task: Task, guidance: str, *, sample: int, stream: int) -> EpisodeRequest:
    """An episode of a task under guidance, in an environment or of a single turn."""
    info: Mapping[str, Any] = {**task.info, GUIDANCE: guidance}
    return EpisodeRequest(replace(task, info=info), sample, stream, messages=guided(task.opening, guidance))


def guided_episodes(
    actor: LanguageModel | Responder, requests: Sequence[EpisodeRequest], task_set: Guided, params: SamplingParams, *, max_turns: int, ledger: Ledger
) -> list[Trajectory]:
    """One trajectory for each request, in their order, not judged. Everything spent is added to `ledger`; a responder counts what it writes itself."""
    if isinstance(actor, LanguageModel):
        return run_episodes(actor, requests, task_set, params, max_turns=max_turns, ledger=ledger)
    ledger.rollouts += len(requests)
    return respond_episodes(actor, requests, task_set, params, max_turns=max_turns, ledger=ledger)
