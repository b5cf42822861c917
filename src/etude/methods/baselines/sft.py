"""SFT: imitate given answers.

The task set's demonstrations (for a JSONL file: the field `demonstration`, else the answer) are the tokens to make likely; of tasks that are played in turns, the
assistant's turns of whole conversations. Nothing is sampled while training, so
`group_size` plays no part: it is the yardstick for what practice adds to imitation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from etude.claim import ON_TINY, Arm, Claim, Comparison, room_to_learn
from etude.config import LearnerConfig, PolicyOptimizationConfig, Share
from etude.curation.examples import conversation_example, written
from etude.errors import InputError
from etude.evals.measures import AtBudget, gain
from etude.ledger import FORWARD
from etude.loop import PolicyOptimization
from etude.method import register
from etude.objectives import Aggregation, Objective, SupervisedObjective
from etude.tasks.noise import NoiseKind, with_another, with_wrong_tokens
from etude.types import Group, Metrics, Segment, Task, Trajectory, mean, trajectories_of

NOISE_FROM = 64
"""Training demonstrations that noise takes its wrong texts and tokens from."""


@dataclass
class SFTConfig(PolicyOptimizationConfig):
    """Options of SFT."""

    tasks_per_step: int = 64
    """Demonstrations per step."""
    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""
    demo_noise: Share = 0.0
    """Share of the demonstrations that is made wrong on purpose, to see what comes of it: the same ones for a seed, whatever the method."""
    demo_noise_kind: NoiseKind = "tokens"
    """What is replaced: single `tokens`, by tokens of other demonstrations; or `whole` demonstrations, by those of other tasks."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)


@register(
    slug="sft",
    name="SFT",
    family="baselines",
    paper="",
    title="Supervised fine-tuning",
    summary="imitate given answers",
    config=SFTConfig,
    signal="demonstrations",
    rollouts="none",
    claim=Claim(
        statement="Imitating correct worked answers raises accuracy without a single attempt of the model's own; how many different ones are seen matters.",
        expectation="60 steps of 64 correct demonstrations lift held-out pass@1 by more than 20 points.",
        arms=(
            Arm("sft"),
            Arm("few demonstrations", "sft", {"tasks_per_step": 4}),
        ),
        common=ON_TINY,
        budget="60-steps",
        tests=(
            Comparison("gain over the start", "sft", None, gain("eval/pass@1"), margin=0.2),
            Comparison("number of demonstrations", "sft", "few demonstrations", AtBudget("eval/pass@1"), role="ablation"),
        ),
        preconditions=(room_to_learn("sft"),),
    ),
)
class SFT(PolicyOptimization):
    """Differs from GRPO in where the tokens come from."""

    config: SFTConfig
    spends: ClassVar[frozenset[str] | None] = frozenset()
    wrong_texts: Sequence[str] = ()
    wrong_tokens: Sequence[int] = ()

    def setup(self) -> None:
        super().setup()
        task = self.task_set.train_task(self.run.seed, 0)
        environment = self.task_set.environment()
        self.in_turns = environment is not None
        if environment is not None:
            environment.close()
            if self.task_set.conversation(task, 0) is None:
                raise InputError(
                    f"{self.task_set.name} is played in turns with an environment, and has no conversations to imitate; "
                    "give the task set a method conversation(task, seed), or choose a single-turn task set"
                )
        elif self.demonstration(task, 0) is None:
            raise InputError(
                f"{self.task_set.name} has no demonstrations to imitate: task {task.id!r} has none; give JSONL lines a field 'demonstration' or 'answer'"
            )
        if self.config.demo_noise:
            self._gather_noise()

    def _gather_noise(self) -> None:
        """Texts and tokens to put in the place of right ones."""
        if self.in_turns and self.config.demo_noise_kind == "whole":
            raise InputError(
                f"{self.task_set.name} is played in turns, and a conversation about another task does not fit between its answers; expected --demo-noise-kind tokens"
            )
        tasks = [self.task_set.train_task(self.run.seed, i) for i in range(NOISE_FROM)]
        shown = [self.demonstration(task, self.run.stream("noise", i)) for i, task in enumerate(tasks)]
        self.wrong_texts = [text for text in shown if text is not None]
        # Without their end tokens: an answer that breaks off is no slip.
        self.wrong_tokens = [token for text in self.wrong_texts for token in written(self.policy, text)[:-1]]

    def demonstration(self, task: Task, seed: int) -> str | None:
        """A worked answer where there is one, else the reference answer."""
        shown = self.task_set.demonstration(task, seed)
        return shown if shown is not None else task.answer

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        return [Group(task.id, [self.imitated(task, i)]) for i, task in enumerate(tasks)]

    def imitated(self, task: Task, place: int) -> Trajectory:
        """The demonstration as a trajectory that somebody else wrote, made wrong where there is to be noise."""
        seed = self.run.stream(self.run.step, place, task.id)
        right = self.imitated_conversation(task, seed) if self.in_turns else self.imitated_answer(task, seed)
        return self.with_noise(right) if self.config.demo_noise else right

    def imitated_answer(self, task: Task, seed: int) -> Trajectory:
        """A demonstrated answer to a task of one turn."""
        text = self.demonstration(task, seed)
        if text is None:
            raise InputError(f"task {task.id!r} has no demonstration to imitate; every training task needs one")
        return self._answered(task, text)

    def _answered(self, task: Task, text: str) -> Trajectory:
        policy = self.policy
        prompt = policy.render(task.messages)
        tokens = written(self.policy, text)
        room = policy.context_length - len(prompt)
        return Trajectory(task, prompt, [Segment(tokens[:room], "injected", text, trained=True)], "eos" if len(tokens) <= room else "length")

    def with_noise(self, right: Trajectory) -> Trajectory:
        """The demonstration with some of it made wrong. It depends on the run's seed and the task alone: a wrong one stays wrong in every epoch.

        The tag `wrong` is the share of its tokens that are not what they should be.
        """
        random, share = self.run.rng("noise", right.task.id), self.config.demo_noise
        if self.config.demo_noise_kind == "whole":
            text = with_another(right.segments[0].text, self.wrong_texts, share, random)
            wrong = self._answered(right.task, text)
            wrong.tags["wrong"] = float(text != right.segments[0].text)
            return wrong
        changed = total = 0
        for segment in right.segments:
            if segment.trained:
                # The end of a turn stays where it is.
                tokens = [*with_wrong_tokens(segment.tokens[:-1], self.wrong_tokens, share, random), segment.tokens[-1]]
                changed += sum(a != b for a, b in zip(tokens, segment.tokens, strict=True))
                total += len(tokens)
                segment.tokens, segment.text = tokens, self.policy.decode(tokens)
        right.tags["wrong"] = changed / total
        return right

    def imitated_conversation(self, task: Task, seed: int) -> Trajectory:
        """A demonstrated episode: the assistant's turns are imitated, what stands between them is read."""
        messages = self.task_set.conversation(task, seed)
        if messages is None:
            raise InputError(f"task {task.id!r} has no conversation to imitate; every training task needs one")
        return conversation_example(self.policy, task, messages)

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return {"demonstrations/wrong": mean([t.tags["wrong"] for t in trajectories_of(groups)])} if self.config.demo_noise else {}

    def evaluate(self) -> Metrics:
        return super().evaluate() | self.unlikeliness()

    def unlikeliness(self) -> Metrics:
        """Negative log-likelihood per token of right demonstrations of held-out tasks, where they have any. Empty for conversations."""
        tasks = [] if self.in_turns else [task for task in self.held_out if self.demonstration(task, 0) is not None]
        if not tasks:
            return {}
        shown = [self.imitated_answer(task, 0) for task in tasks]
        self.run.ledger.forward_equivalents += FORWARD * sum(t.trained_length for t in shown)
        return {"eval/demonstration_nll": -mean([value for values in self.learner.logprobs(shown) for value in values])}

    def objective(self) -> Objective:
        return SupervisedObjective(aggregation=self.config.aggregation)
