"""CoSC: programs, their output, a check and another try, learnt as one text (chain of self-correction, arXiv:2410.10735).

Asked to look again, a model that was never shown how seldom finds its own mistake. CoSC makes looking a part of the answer: a program, what running it gives, a check of
both against the question, and then either the answer or a corrected program, up to three times. Whole conversations of this form are imitated, those with mistakes in
them too as long as they end well; the model's words are learnt, and what the programs put out is only read.

Two phases. First the model that the run began with imitates a seed: conversations of the task set, of a file, or of a teacher. Then it makes many more of its own, with its
programs run for it; those that end in a right answer are kept, those with the same programs once; and the *base* model is fine-tuned anew on both. `--rounds 3` and so on
repeat the second phase.

Differs from ReST-EM in the seed, which stays in what is trained on, and in what an attempt is. Without checks (`--env cosc:verify=false`) it is self-training on programs,
and with `--rounds 1` the imitation of the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, NonNegative
from etude.curation import capped, conversation_example, distinct, rewarded, share_weights, with_origin
from etude.errors import InputError
from etude.evals.measures import Final, First, Spent
from etude.evals.program_rounds import round_metrics
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.method import register
from etude.models.endpoint import Endpoint
from etude.models.language import LanguageModel
from etude.rewards import judge_shown
from etude.rollouts.teachers import teacher_attempts
from etude.tasks.conversations import read_conversations
from etude.tasks.program_rounds import ProgramEnvironment, programs_in
from etude.tasks.revisions import VERDICTS
from etude.tasks.templates import filled, read_template
from etude.types import Message, Metrics, Task, Trajectory, mean, trajectories_of

Seed = tuple[Task, Sequence[Message]]
"""A conversation, and the task that it is about."""


@dataclass
class CoSCConfig(IteratedConfig):
    """Options of CoSC."""

    group_size: AtLeastOne = 16
    """Attempts of the model's own at each task, in the second phase."""
    round: RoundConfig = field(default_factory=lambda: RoundConfig(rounds=2, start_from="base", train_on="all"))
    seed_source: str = "demonstrations"
    """Seed: the task set's own `demonstrations`, a JSONL file of conversations, a teacher (a model folder or hub id, or `http://host:port/v1#model`), or `none`."""
    seed_tasks: Count = 0
    """Tasks that the seed is made for (0: as many as --tasks-per-round). Of a file every conversation is taken."""
    seed_attempts: AtLeastOne = 1
    """Conversations of each of them."""
    teacher_prompt: str | None = None
    """What a teacher is asked, where that is more than the model itself is: a text file with {question}, which may hold worked examples."""
    teacher_temperature: NonNegative = 1.0
    """Temperature of a teacher (0: greedy)."""
    keep_above: float = 0.5
    """Imitate conversations with a reward above this; of seeds, those that nothing can judge too."""
    keep_per_task: Count = 0
    """Conversations of the model's own to imitate of one task at most (0: all)."""
    keep_distinct: bool = True
    """Count conversations about a task that hold the same programs once."""
    several_share: float = 0.0
    """Least share of the weight of the model's own conversations that those of several rounds have, in [0, 1) (0: as it falls). Right answers mostly took one round."""


@register(
    slug="cosc",
    name="CoSC",
    family="self_correction",
    paper="2410.10735",
    title="Embedding Self-Correction as an Inherent Ability in Large Language Models for Enhanced Mathematical Reasoning",
    summary="programs that are run and checked in rounds, learnt from a seed and then from one's own",
    config=CoSCConfig,
    signal="rewards",
    claim=Claim(
        statement="Fine-tuning on conversations in which programs are run, checked and corrected makes a model find and mend its own mistakes unasked, and it ends more "
        "accurate than one that was trained on programs alone.",
        expectation="Where a reading shows only in the result, and after the seed 30 to 50 % of the first programs are wrong: from the same seed and on as many generated "
        "tokens, held-out accuracy ends more than 5 points above self-training on programs without checks, and more than 5 points above the accuracy of its own first "
        "programs. With the seed alone it ends lower.",
        arms=(
            Arm("cosc"),
            Arm("programs alone", "cosc", {"tasks": "small-programs:verify=false", "group_size": 20, "tasks_per_step": 160}),
            Arm("seed alone", "cosc", {"rounds": 1, "steps_per_round": 120}),
        ),
        common={
            **ON_TINY,
            "tasks": "small-programs",
            "lr": 1e-3,
            "seed_tasks": 400,
            "tasks_per_round": 300,
            "group_size": 8,
            "tasks_per_step": 64,
            "steps_per_round": 60,
            "eval_samples": 4,
            "evaluate_every": 60,
        },
        budget="120-steps",
        tests=(
            Comparison("over programs alone", "cosc", "programs alone", Final("eval/pass@1"), margin=0.05),
            Comparison("all rounds over the first", "cosc", None, Final("eval/correct@3") - Final("eval/correct@1"), margin=0.05),
            Comparison("the second phase", "cosc", "seed alone", Final("eval/pass@1"), role="ablation"),
            Comparison("over programs alone, with a vote of four", "cosc", "programs alone", Final("eval/maj@4"), role="ablation"),
            Comparison("no more generated tokens", "cosc", "programs alone", Spent("generated_tokens"), better="lower", margin=-20000, role="ablation"),
        ),
        preconditions=(
            Precondition(
                "first programs are often wrong after the seed",
                "cosc",
                First("attempts/first_right"),
                at_least=0.5,
                at_most=0.7,
                otherwise="the seed taught too little, or left nothing to correct",
            ),
        ),
        tried="Nothing: no pilot was run.",
        seeds=reported_seeds(3),
        quick={"seed_tasks": 8, "tasks_per_round": 4, "rounds": 0, "steps_per_round": 1},
    ),
)
class CoSC(IteratedImitation):
    """Differs from ReST-EM in the seed and in the form of an attempt."""

    config: CoSCConfig

    def setup(self) -> None:
        config = self.config
        if not 0 <= config.several_share < 1:
            raise InputError(f"--several-share is {config.several_share}; expected a share in [0, 1)")
        super().setup()
        environment = self.task_set.environment()
        if environment is not None:
            environment.close()
        if not isinstance(environment, ProgramEnvironment):
            raise InputError(
                f"{self.task_set.name} is not solved by programs in rounds; expected --env cosc around tasks of single turns, or the built-in small-programs"
            )
        self.language = environment.language
        self.teacher: LanguageModel | Endpoint | None = None
        self.given: list[Seed] = []
        self.open_seed()

    def open_seed(self) -> None:
        """Load or look at whatever the seed comes from. Raises InputError where there is nothing to be had."""
        source, prompt = self.config.seed_source, self.config.teacher_prompt
        self.asked = "{question}" if prompt is None else read_template(prompt, "--teacher-prompt", names=(), needs=("question",), may=())
        if source == "demonstrations":
            if self.task_set.conversation(self.task_set.train_task(self.run.seed, 0), 0) is None:
                raise InputError(
                    f"{self.task_set.name} has no conversations to begin with; give JSONL lines a field 'conversation', or name another --seed-source: a JSONL file, a "
                    "model or an endpoint as teacher, or none"
                )
        elif source.lower().endswith(".jsonl"):
            self.given = [(task, messages) for task, messages in read_conversations(Path(source).expanduser())]
        elif source.startswith(("http://", "https://")):
            self.teacher = Endpoint.parse(source)
            self.teacher.check()
        elif source != "none":
            try:
                self.teacher = LanguageModel.load(source, device=str(self.policy.device))
            except InputError as error:
                raise InputError(
                    f"--seed-source {source} can't be used: {error}; expected demonstrations, a JSONL file, a model, an endpoint, or none"
                ) from error

    # One round

    def round_tasks(self) -> list[Task]:
        config = self.config
        if self.round > 1 or config.seed_source == "none":
            return super().round_tasks()
        return [] if self.given else self.curriculum.next(config.seed_tasks or config.round.tasks_per_round)

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        return self.seed(tasks) if self.round == 1 and self.config.seed_source != "none" else self.self_made(tasks)

    def seed(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        """The first phase's examples: conversations by others that end well, or that nothing can judge."""
        seeds = self.given or (self.taught(tasks) if self.teacher is not None else self.demonstrated(tasks))
        made = [conversation_example(self.policy, task, messages, kind="seed") for task, messages in seeds]
        unjudged = [e for e in made if self.given and e.task.answer is None]
        judged = [e for e in made if not self.given or e.task.answer is not None]
        judge_shown(judged, self.task_set)
        kept = unjudged + rewarded(judged, self.config.keep_above)
        if self.config.keep_distinct:
            kept = distinct(kept, self.same)
        return kept, {"seed/made": float(len(made)), "seed/kept": len(kept) / max(1, len(made)), "seed/several": self.several(kept)}

    def demonstrated(self, tasks: Sequence[Task]) -> list[Seed]:
        """The task set's own conversations."""
        wanted = [(task, i) for task in tasks for i in range(self.config.seed_attempts)]
        found = [(task, self.task_set.conversation(task, self.run.stream("seed", task.id, i))) for task, i in wanted]
        return [(task, messages) for task, messages in found if messages is not None]

    def taught(self, tasks: Sequence[Task]) -> list[Seed]:
        """Conversations that the teacher had, about the tasks as the model itself is asked."""
        assert self.teacher is not None
        shown = [
            replace(t, messages=(*t.messages[:-1], replace(t.messages[-1], content=filled(self.asked, {"question": t.messages[-1].content})))) for t in tasks
        ]
        params = replace(self.params, temperature=self.config.teacher_temperature, top_p=1.0, top_k=0)
        samples = self.config.seed_attempts
        held = teacher_attempts(
            self.teacher, shown, self.task_set, params, samples=samples, seed=self.run.stream("teacher"), ledger=self.run.ledger, whole=self.language.closed
        )
        return [(task, [*task.opening, *self.said(held[i * samples + k])]) for i, task in enumerate(tasks) for k in range(samples)]

    def said(self, trajectory: Trajectory) -> list[Message]:
        """The turns of an episode as messages, up to the policy's last."""
        turns = [Message("assistant", self.language.closed(s.text)) if s.author == "policy" else Message("tool", s.text) for s in trajectory.segments]
        return turns[:-1] if turns and turns[-1].role == "tool" else turns

    def self_made(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        """The second phase's examples: the model's own attempts that ended well."""
        config = self.config
        groups, metrics = self.attempted(tasks)
        attempts = trajectories_of(groups)
        # A right answer without a program is luck, and no conversation of this form.
        kept = [t for t in rewarded(attempts, config.keep_above) if programs_in(t, self.language)]
        if config.keep_distinct:
            kept = distinct(kept, self.same)
        kept = capped(kept, config.keep_per_task, self.run.rng("kept", self.round))
        weights = share_weights([self.took_several(t) for t in kept], config.several_share)
        made = [with_origin(t, weight=weight, kind="self-made", reward=t.reward) for t, weight in zip(kept, weights, strict=True)]
        metrics["attempts/first_right"] = mean([t.tags[VERDICTS][0] for t in attempts])
        metrics |= {f"attempts/{name}": value for name, value in round_metrics(attempts).items()}
        return made, metrics | {"self/kept": len(kept) / max(1, len(attempts)), "self/several": self.several(kept)}

    def same(self, trajectory: Trajectory) -> tuple[str, ...]:
        """What makes two conversations the same: their task and their programs, white space aside."""
        return trajectory.task.id, *(" ".join(program.split()) for program in programs_in(trajectory, self.language))

    def took_several(self, trajectory: Trajectory) -> bool:
        return len(programs_in(trajectory, self.language)) > 1

    def several(self, trajectories: Sequence[Trajectory]) -> float:
        """The share that took several rounds: selection by the last answer thins it out."""
        return mean([float(self.took_several(t)) for t in trajectories], default=0.0)
