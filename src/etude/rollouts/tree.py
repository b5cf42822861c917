"""Trees of attempts: paths that fork from each other, are dropped again, and share what they have in common.

A tree is grown over the sampler's own calls. A fork copies keys and values and generates nothing; a dropped branch leaves the batch at once. The trees of all tasks
grow together in the one continuously batched sampler. When and where to fork and to prune is a rule's to say: `etude.rollouts.lookahead`,
`etude.rollouts.entropy_forks`. Single-turn tasks only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from etude.errors import InputError, NonFiniteError
from etude.ledger import FORWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.sampling import FinishedEvent, Request, SamplingParams, TokenEvent
from etude.types import Alternatives, Completion, Segment, Task, Trajectory


@dataclass(slots=True, eq=False)
class Branch:
    """One path through a tree, from the prompt to its end. Its first `fork` tokens are its parent's; the rest are its own.

    opened: why it is there. pruned: why it was dropped, empty where it was not. `completion` is there once it has ended or was dropped.
    `alternatives` are those of its newest token, where they were asked for.
    """

    tree: Tree = field(repr=False)
    parent: Branch | None = field(repr=False)
    fork: int
    number: int
    request: int
    tokens: list[int] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    opened: str = ""
    pruned: str = ""
    completion: Completion | None = field(default=None, repr=False)
    alternatives: Alternatives | None = field(default=None, repr=False)

    @property
    def age(self) -> int:
        """Tokens of its own."""
        return len(self.tokens) - self.fork

    @property
    def running(self) -> bool:
        return self.completion is None

    def descends_from(self, other: Branch) -> bool:
        """Whether it is the other branch or grew out of it, however indirectly."""
        branch: Branch | None = self
        while branch is not None and branch is not other:
            branch = branch.parent
        return branch is other


@dataclass(slots=True, eq=False)
class Tree:
    """All branches of the attempts at one task, in the order in which they were opened; several of them may start at the prompt.

    suppressed: forks that a rule wanted and found no room for.
    """

    task: Task
    prompt: list[int]
    branches: list[Branch] = field(default_factory=list)
    suppressed: int = 0

    @property
    def kept(self) -> list[Branch]:
        """Branches that were not dropped: each is an attempt."""
        return [b for b in self.branches if not b.pruned]

    @property
    def pruned(self) -> list[Branch]:
        return [b for b in self.branches if b.pruned]

    @property
    def generated(self) -> int:
        """Tokens that were generated for it: what branches share counts once, what was dropped counts too."""
        return sum(b.age for b in self.branches)

    def trajectories(self) -> list[Trajectory]:
        """One attempt for each kept branch, in order, with `parent` and `fork` as in the tree."""
        made: dict[Branch, Trajectory] = {}
        for sample, branch in enumerate(self.kept):
            assert branch.completion is not None, "a tree's attempts are there when all its branches have ended"
            segment = Segment.from_completion(branch.completion)
            # They cover the part that was grown by a rule only, and nothing later reads them.
            segment.alternatives = []
            parent = made[branch.parent] if branch.parent is not None else None
            made[branch] = Trajectory(self.task, self.prompt, [segment], branch.completion.stop_reason, sample=sample, parent=parent, fork=branch.fork)
        return list(made.values())


class Growth:
    """What grows trees in a policy's sampler. Use it as a context: on leaving, what still runs is taken out of the sampler, and the ledger is told.

    The ledger counts each generated token once, whether its branch was kept or not; kept branches are rollouts.
    """

    def __init__(self, policy: LanguageModel, ledger: Ledger) -> None:
        self.policy = policy
        self.sampler = policy.sampler
        self.ledger = ledger
        self.trees: list[Tree] = []
        self._running: dict[int, Branch] = {}
        self._held: set[int] = set()

    def __enter__(self) -> Growth:
        self._before = self.sampler.clock.copy()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for request in self._running:
            with contextlib.suppress(InputError):
                self.sampler.abort(request)
        for request in self._held:
            self.sampler.release(request)
        if kind is None:
            self._account()

    def _account(self) -> None:
        spent = self.sampler.clock.since(self._before)
        rollouts = sum(len(tree.kept) for tree in self.trees)
        self.ledger.generated_tokens += spent.generated_tokens
        self.ledger.prompt_tokens += spent.prefill_tokens
        self.ledger.decode_steps += spent.steps
        self.ledger.rollouts += rollouts
        self.ledger.count_call("policy", rollouts)
        self.ledger.forward_equivalents += FORWARD * (spent.generated_tokens + spent.prefill_tokens)

    def tree(self, task: Task) -> Tree:
        """A new tree with no branch yet."""
        tree = Tree(task, self.policy.render(task.messages))
        self.trees.append(tree)
        return tree

    def plant(self, tree: Tree, params: SamplingParams, *, stream: int, why: str, keep: bool = False) -> Branch:
        """A branch that starts at the prompt. keep: it can be forked after it ended, until it is let go."""
        request = self.sampler.add(Request(tuple(tree.prompt), params, stream=stream, keep=keep))
        return self._adopt(Branch(tree, None, 0, len(tree.branches), request, opened=why), keep)

    def fork(
        self, parent: Branch, at: int, *, stream: int, why: str, take: int | None = None, params: SamplingParams | None = None, keep: bool = False
    ) -> Branch:
        """A branch that leaves its parent after `at` tokens, to go on with the alternative `take` where one is given, else with whatever it draws."""
        request = self.sampler.fork(parent.request, at, take=take, stream=stream, params=params, keep=keep)
        branch = Branch(parent.tree, parent, at, len(parent.tree.branches), request, parent.tokens[:at], parent.entropies[:at], why)
        if take is not None:
            branch.tokens.append(take)
            branch.entropies.append(parent.entropies[at])
        return self._adopt(branch, keep)

    def _adopt(self, branch: Branch, keep: bool) -> Branch:
        branch.tree.branches.append(branch)
        self._running[branch.request] = branch
        if keep:
            self._held.add(branch.request)
        return branch

    def go_on(self, branch: Branch, params: SamplingParams, *, stream: int) -> None:
        """Draw the rest of a running branch otherwise than its beginning."""
        request = self.sampler.fork(branch.request, stream=stream, params=params)
        self._take_out(branch)
        branch.request, branch.completion = request, None
        self._running[request] = branch

    def prune(self, branch: Branch, why: str) -> None:
        """Drop a branch and all that grew out of it."""
        for other in branch.tree.kept:
            if other.descends_from(branch):
                other.pruned = why if other is branch else "with its parent"
                if other.running:
                    self._take_out(other)
                else:
                    self.let_go(other)

    def _take_out(self, branch: Branch) -> None:
        del self._running[branch.request]
        branch.completion = self.sampler.abort(branch.request)
        self.let_go(branch)

    def let_go(self, branch: Branch) -> None:
        """Release what was kept of a branch for forking."""
        if branch.request in self._held:
            self._held.discard(branch.request)
            self.sampler.release(branch.request)

    @property
    def alive(self) -> bool:
        """Whether anything still grows."""
        return bool(self._running)

    def step(self, token_events: bool = False) -> list[Branch]:
        """Let everything grow by a token. Returns the branches that did, with `token_events`, else those that ended; they know their tokens then.

        Raises NonFiniteError when the policy's log-probabilities are not finite: what it then writes means nothing.
        """
        grown: dict[Branch, None] = {}
        for event in self.sampler.step(token_events):
            branch = self._running.get(event.request)
            if branch is None:
                continue
            grown[branch] = None
            if isinstance(event, TokenEvent):
                branch.tokens.append(event.token)
                branch.entropies.append(event.entropy)
                branch.alternatives = event.alternatives
            elif isinstance(event, FinishedEvent):
                del self._running[event.request]
                self._finish(branch, event.completion)
        return list(grown)

    def _finish(self, branch: Branch, completion: Completion) -> None:
        if not all(map(math.isfinite, completion.logprobs)):
            task, name = branch.tree.task, self.policy.name
            raise NonFiniteError(f"the log-probabilities of {name} are not finite on task {task.id!r}: its weights or activations hold NaN or infinities")
        branch.completion, branch.tokens, branch.entropies = completion, completion.tokens, completion.entropies

    def finish(self) -> Iterator[Branch]:
        """Go on until nothing runs; each branch as it ends. More may be opened meanwhile."""
        while self.alive:
            yield from self.step()


def tree_metrics(trees: Sequence[Tree]) -> dict[str, float]:
    """What growing trees did, as means over trees.

    `tree/opened`: branches that left another one; `tree/pruned`: of all branches, those that were dropped; `tree/suppressed`: forks without room.
    `tree/leaves_per_100_tokens`: kept branches for a hundred generated tokens, over all trees together.
    """
    count = max(1, len(trees))
    generated = sum(tree.generated for tree in trees)
    return {
        "tree/opened": sum(b.parent is not None for tree in trees for b in tree.branches) / count,
        "tree/pruned": sum(len(tree.pruned) for tree in trees) / count,
        "tree/suppressed": sum(tree.suppressed for tree in trees) / count,
        "tree/leaves_per_100_tokens": 100 * sum(len(tree.kept) for tree in trees) / max(1, generated),
    }
