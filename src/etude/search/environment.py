"""Tree search over the turns of episodes: a node is where an episode stands, an action is a turn that the policy writes, and only the end of an episode has a value.

Going back to a node takes the environment's `snapshot` and `restore`; of an environment without them the path's turns are played to a fresh one, and every one of these
steps is counted too. Task sets of single turns give trees of depth 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from random import Random
from types import TracebackType
from typing import Any

from etude.errors import InputError, NonFiniteError
from etude.ledger import FORWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import Request, SamplingParams
from etude.rewards import judge
from etude.rollouts.episodes import close_all
from etude.search.mcts import Child, Place, Search
from etude.search.tree import Node, Tree
from etude.tasks.base import EPISODE_TAGS, TOOL_COUNTS, Environment, EnvironmentStep, TaskSet
from etude.types import Completion, Message, Segment, Task, Trajectory

Key = tuple[int | None, str]
"""A node by its parent and the turn that leads to it, which is known before the node has a number."""
ROOT: Key = (None, "")
Stream = Callable[[Task, int, int, int], int]
"""Key of the random numbers of a try: task, place of its tree, number of the node, number of the try."""


class EnvironmentSearch:
    """What `etude.search.grow` needs to search the episodes of some tasks, for one policy: `plant` the trees, then hand in `expand` and `evaluate`.

    tries: turns that are sampled at a node; equal ones count once. What is sampled and every environment step goes into `ledger`; a rollout is a try that ends an
    episode. A negative reward ends an episode, whose value is then 0. The judged episodes of a tree are in `attempts`, by the number of the node that they end in.
    A context: environments are closed on leaving it.
    """

    def __init__(self, policy: LanguageModel, task_set: TaskSet, params: SamplingParams, *, tries: int, max_turns: int, ledger: Ledger, stream: Stream) -> None:
        self.policy, self.task_set, self.params = policy, task_set, params
        self.tries, self.max_turns, self.ledger, self.stream = tries, max_turns, ledger, stream
        self.tasks: list[Task] = []
        self.attempts: list[dict[int, Trajectory]] = []
        self._live: list[Environment | None] = []
        self._snapshots: list[dict[Key, Any] | None] = []

    def __enter__(self) -> EnvironmentSearch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        live, self._live = [environment for environment in self._live if environment is not None], []
        close_all(live)

    def plant(self, tasks: Sequence[Task], random: Callable[[int], Random]) -> list[Search]:
        """A tree of one node for each task. random: the generator for ties of a tree. Raises InputError for a prompt that leaves no room in the model's context."""
        searches: list[Search] = []
        for task in tasks:
            environment = self.task_set.environment()
            opening = list(task.opening if environment is None else environment.reset(task))
            prompt = self.policy.render(opening)
            if len(prompt) >= self.policy.context_length:
                raise InputError(
                    f"the prompt of task {task.id!r} has {len(prompt)} tokens, but {self.policy.name} reads {self.policy.context_length} in all; "
                    "shorten the prompt or use a model with a longer context"
                )
            self._live.append(environment)
            self._snapshots.append({ROOT: state} if environment is not None and (state := _snapshot(environment)) is not _MISSING else None)
            self.tasks.append(task)
            self.attempts.append({})
            place = len(self.tasks) - 1
            searches.append(Search(Tree({"messages": [asdict(m) for m in opening], "tokens": prompt}), random(place), place))
        return searches

    def expand(self, front: Sequence[Place]) -> list[list[Child]]:
        """Sample turns at some nodes, one batch for all, and let the environments answer to the different ones."""
        contexts = [context_of(search.tree.path(node.number)) for search, node in front]
        requests = [
            Request(tuple(context), self.params, stream=self.stream(self.tasks[search.place], search.place, node.number, i))
            for context, (search, node) in zip(contexts, front, strict=True)
            for i in range(self.tries)
        ]
        completions = self._sampled(requests)
        children: list[list[Child]] = []
        for place, (context, (search, node)) in enumerate(zip(contexts, front, strict=True)):
            tried = completions[place * self.tries : (place + 1) * self.tries]
            search.tokens += sum(len(completion.tokens) for completion in tried)
            different = {completion.text: completion for completion in reversed(tried)}
            made = {text: self._step(search, node, len(context), completion) for text, completion in different.items()}
            self.ledger.rollouts += sum(self._ends(node, made[completion.text]) for completion in tried)
            children.append([made[text] for text in dict.fromkeys(completion.text for completion in tried)])
        return children

    def evaluate(self, fresh: Sequence[Place]) -> list[float | None]:
        """The reward of each terminal node, not below 0; None for the others, and for what could not be judged."""
        ended = {(search.place, node.number): self.attempt(search, node) for search, node in fresh if node.terminal}
        judge(list(ended.values()), self.task_set)
        for (place, number), attempt in ended.items():
            attempt.sample = len(self.attempts[place])
            self.attempts[place][number] = attempt
        rewards = [ended[search.place, node.number].reward if node.terminal else math.nan for search, node in fresh]
        return [None if math.isnan(reward) else max(0.0, reward) for reward in rewards]

    def attempt(self, search: Search, node: Node) -> Trajectory:
        """The episode from the root to a node, not judged yet."""
        root, *turns = search.tree.path(node.number)
        segments: list[Segment] = []
        for turn in turns:
            state = turn.state
            segments.append(Segment(state["tokens"], "policy", state["text"], trained=True, logprobs=state["logprobs"], entropies=state["entropies"]))
            segments[-1].versions = state["versions"]
            if turn is not node:
                author = "tool" if any(m["role"] == "tool" for m in state["messages"]) else "environment"
                segments.append(Segment(state["observed"], author, "\n".join(m["content"] for m in state["messages"])))
        last = node.state
        attempt = Trajectory(self.tasks[search.place], root.state["tokens"], segments, last["stop_reason"])
        if self._live[search.place] is not None:
            attempt.tags["environment_reward"] = sum(turn.state["reward"] for turn in turns)
            verdicts = [float(turn.state["info"]["correct"]) for turn in turns if "correct" in turn.state["info"]]
            if verdicts:
                attempt.tags["environment_correct"] = verdicts[-1]
            for name in TOOL_COUNTS:
                counts = [int(turn.state["info"][name]) for turn in turns if name in turn.state["info"]]
                attempt.tags |= {name: sum(counts)} if counts else {}
            for turn in turns:
                attempt.tags |= turn.state["info"].get(EPISODE_TAGS, {})
        return attempt

    def _sampled(self, requests: Sequence[Request]) -> list[Completion]:
        sampler = self.policy.sampler
        before = sampler.clock.copy()
        completions = sampler.generate(requests)
        spent = sampler.clock.since(before)
        self.ledger.generated_tokens += spent.generated_tokens
        self.ledger.prompt_tokens += spent.prefill_tokens
        self.ledger.decode_steps += spent.steps
        self.ledger.count_call("policy", len(requests))
        self.ledger.forward_equivalents += FORWARD * (spent.generated_tokens + spent.prefill_tokens)
        if not all(math.isfinite(value) for completion in completions for value in completion.logprobs):
            raise NonFiniteError(f"the log-probabilities of {self.policy.name} are not finite: its weights or activations hold NaN or infinities")
        return completions

    def _step(self, search: Search, node: Node, context: int, completion: Completion) -> Child:
        """Take a turn at a node, and say where it leads."""
        answer = self._answer(search, node, completion.text)
        observed = [] if answer.done else self.policy.render_after(completion.tokens, answer.messages)
        full = context + len(completion.tokens) + len(observed) + 1 >= self.policy.context_length
        state = {
            "text": completion.text,
            "tokens": completion.tokens,
            "logprobs": completion.logprobs,
            "entropies": completion.entropies,
            "versions": completion.versions,
            "messages": [asdict(m) for m in answer.messages],
            "observed": observed,
            "reward": answer.reward,
            "info": {name: value for name, value in answer.info.items() if name in ("correct", EPISODE_TAGS) or name in TOOL_COUNTS},
            "stop_reason": completion.stop_reason if self._live[search.place] is None else "environment" if answer.done else "length",
        }
        return Child(state, terminal=answer.done or answer.reward < 0 or full)

    def _answer(self, search: Search, node: Node, text: str) -> EnvironmentStep:
        """What the environment says to a turn at a node."""
        live, known = self._live[search.place], self._snapshots[search.place]
        if live is None:
            return EnvironmentStep(done=True)
        self.ledger.environment_steps += 1
        if known is not None:
            live.restore(known[_key(node)])
            answer = live.step(text)
            if not answer.done:
                known[node.number, text] = live.snapshot()
            return answer
        fresh = self.task_set.environment()
        assert fresh is not None, "a task set has environments or it has none"
        try:
            self.ledger.environment_steps += node.depth
            replay(fresh, self.tasks[search.place], search.tree.path(node.number))
            return fresh.step(text)
        finally:
            fresh.close()

    def _ends(self, node: Node, child: Child) -> bool:
        return child.terminal or node.depth + 1 >= self.max_turns


def context_of(path: Sequence[Node]) -> list[int]:
    """The tokens that the policy reads at the end of a path."""
    root, *turns = path
    return [*root.state["tokens"], *(token for turn in turns for part in ("tokens", "observed") for token in turn.state[part])]


def messages_of(state: Mapping[str, Any]) -> tuple[Message, ...]:
    """What a node's state says that the environment answered (of the root: what the episode opens with)."""
    return tuple(Message(**m) for m in state["messages"])


def replay(environment: Environment, task: Task, path: Sequence[Node]) -> None:
    """Play a path's turns to a fresh environment. Raises InputError where it answers otherwise than it did: such a path can't be gone back to."""
    root, *turns = path
    said = [tuple(environment.reset(task)), *(tuple(environment.step(turn.state["text"]).messages) for turn in turns)]
    if said != [messages_of(root.state), *(messages_of(turn.state) for turn in turns)]:
        raise InputError(
            f"the environment of task {task.id!r} answered otherwise when turns were replayed to a fresh one, so that it can't be searched; expected answers that depend "
            "on the task and the turns alone, or an environment with snapshot() and restore(state)"
        )


def _key(node: Node) -> Key:
    return ROOT if node.parent is None else (node.parent, node.state["text"])


_MISSING = object()


def _snapshot(environment: Environment) -> Any:
    """The environment's state, or _MISSING where it keeps none."""
    try:
        return environment.snapshot()
    except TypeError:
        return _MISSING
