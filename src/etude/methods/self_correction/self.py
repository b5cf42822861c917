"""SELF: learn once to criticise and to refine, then evolve without labels by one's own feedback (arXiv:2310.00533).

A model that cannot yet solve a task well can often see that an answer to it is wrong, and where. Two *meta-skills* are taught first, from records of an answer, feedback
on it (an analysis and a verdict) and a refined answer: to write the feedback, and to refine after it. Then come rounds without labels. The model answers prompts,
criticises its answers, refines those that it finds wanting, and is fine-tuned on prompt -> refined answer, of which only those are kept that its own last verdict calls
qualified. The records are replayed in every round, or the skills would be forgotten. At test time the same skills refine answers until they qualify.

Differs from ReST-EM in who selects: its own words in place of a verifier. Where labels exist they only measure: what the filter lets through, and what feedback is
worth. The annotator's refined answers bring knowledge in from outside, so that the method has to be compared with a model that imitates them alone (`--no-skills`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, NonNegative, Share
from etude.curation import distinct, relabelled
from etude.curation.corpus import ORIGIN
from etude.curation.meta_skills import MetaRecord, read_records, three_ways
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.measures import Final
from etude.evals.monitors import monitors
from etude.evals.refinement import evolution_metrics, refined_metrics
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.loop import rollout_metrics
from etude.memory.self_instruct import WRITTEN, PromptWriting, SelfInstruct
from etude.method import State, register
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge
from etude.rewards.votes import answers_of, majority
from etude.rollouts import EpisodeRequest, has_room
from etude.rollouts.refinement import Chain, Stream, refine_until_qualified
from etude.tasks.feasibility import plain
from etude.tasks.feedback import Roles, verdict_in
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of


@dataclass
class SELFConfig(IteratedConfig):
    """Options of SELF."""

    group_size: AtLeastOne = 1
    """Answers to each prompt of a round."""
    round: RoundConfig = field(default_factory=lambda: RoundConfig(train_on="all"))
    meta: str | None = None
    """Records that teach the skills: a JSONL file (prompt, response, feedback, refined). Default: the task set's own annotator, on the model's answers."""
    meta_records: Count = 0
    """Records at most (0: the whole file; of an annotator as many as `tasks_per_round`)."""
    skills: bool = True
    """Learn to criticise and to refine. Off: imitate the records' refined answers alone, the control that tells what the annotator's knowledge is worth."""
    answer_weight: NonNegative = 1.0
    """Weight of a record's refined answer as a direct answer to its prompt, beside its feedback and its refinement (0: not learnt)."""
    replay_meta: bool = True
    """Go on training on the records in later rounds."""
    refinements: Count = 1
    """Refinements of an answer at most, while its feedback does not call it qualified."""
    keep: Literal["verdict", "coin", "majority", "none"] = "verdict"
    """Answers to learn from: those of a last verdict `qualified`; as a control as many, drawn at random; those of the majority's final answer; or all."""
    feedback_prompt: str = "auto"
    """What a critic is asked: `standard`, `short`, or a text file with {question} and {response}. `auto`: by how much the model reads."""
    refine_prompt: str = "auto"
    """What a reviser is asked: the same, with {feedback} too."""
    feedback_tokens: Count = 0
    """Tokens that feedback may have (0: as many as an answer)."""
    feedback_temperature: NonNegative = 0.3
    """Temperature of feedback."""
    self_instruct: Count = 0
    """Requests for new prompts, which the model answers from the third round on by the example of others; the prompts come on top of a round's."""
    instruct_prompt: str = "auto"
    """What is asked for new prompts: `standard`, `short`, or a text file with {examples}."""
    prompt_similarity: Share = 0.7
    """A written prompt whose ROUGE-L with an earlier one is above this is dropped."""
    eval_refine: bool = True
    """Refine held-out answers at an evaluation, and measure them beside the direct ones."""


@register(
    slug="self",
    name="SELF",
    family="self_correction",
    paper="2310.00533",
    title="SELF: Language-Driven Self-Evolution for Large Language Models",
    summary="learn to criticise and refine once, then evolve on answers that one's own feedback lets through",
    config=SELFConfig,
    signal="self-judge",
    rollouts="follow-up",
    claim=Claim(
        statement="A model that was taught to criticise and to refine its answers improves without labels on those that its own feedback lets through, and more than on all "
        "of its answers.",
        expectation="From a model that solves half of the column sums and was taught to check and to mend, but not shown an annotator's answer as an answer, four rounds "
        "without labels lift direct held-out accuracy by more than 6 points, and it ends more than 5 points above one that learns all of its answers after the same "
        "feedback and refinement. What the filter lets through is right more than 10 points more often than what comes before it; with a coin in its place it ends lower.",
        arms=(
            Arm("self"),
            Arm("all answers", "self", {"keep": "none"}),
            Arm("coin", "self", {"keep": "coin"}),
            Arm("majority", "self", {"keep": "majority", "group_size": 3, "tasks_per_round": 54}),
        ),
        common={
            "method": "self",
            "tasks": "column-sums:carries=false,digits=2,held_out_tasks=192",
            "warm_tasks": "column-sums:carries=false,digits=2,slips=0.26,lessons=0.75,held_out_tasks=192",
            "warm_steps": 480,
            "warm_tasks_per_step": 24,
            "warm_lr": 2e-3,
            "warm_schedule": "linear",
            "lr": 3e-4,
            "rounds": 5,
            "start_from": "newest",
            "train_on": "newest",
            "meta_records": 320,
            "answer_weight": 0.0,
            "tasks_per_round": 160,
            "steps_per_round": 16,
            "tasks_per_step": 48,
            "feedback_tokens": 40,
            "eval_tasks": 128,
            "eval_samples": 1,
            "evaluate_every": 16,
            "probe": "never",
        },
        experiment="etude.experiments.self_evolution:self_evolution",
        budget="80-steps",
        tests=(
            Comparison("what the rounds add", "self", None, Final("gain"), margin=0.06),
            Comparison("all of its own answers", "self", "all answers", Final("direct"), margin=0.05),
            Comparison("what the filter lets through", "self", None, Final("kept_once") - Final("unfiltered_once"), margin=0.1),
            Comparison("refining at test time", "self", None, Final("refined") - Final("direct"), role="ablation"),
            Comparison("a majority's answers", "self", "majority", Final("direct"), margin=-0.03, role="ablation"),
            Comparison("the verdict", "self", "coin", Final("direct"), role="ablation"),
        ),
        preconditions=(
            Precondition("room to learn", "self", Final("direct_start"), at_least=0.35, at_most=0.6, otherwise="the model solves almost nothing, or too much"),
            Precondition("a critic", "self", Final("critic"), at_least=0.75, otherwise="its feedback hardly tells right from wrong"),
        ),
        tried="Seed 0. A critic was the difficulty. On sums of three digits with carries, feedback of two bare numbers a line gave a balanced accuracy of 0.49 to 0.57. "
        "Worked anew line by line it had right sums and wrong verdicts: 0.54 after some 110 steps of 48 (three digits), 0.58 after 200 of 24 and 0.56 after 300 with "
        "more errors in lessons (two digits). Without carries, at 209 of 400 steps, 0.96 with 47 % right answers; after some 110 steps 0.57, so that steps must not "
        "be saved here. Rounds from that start: 64 records with an answer weight of 1 took direct accuracy from 52 to 96 % in 24 steps, hence 0; without it, at 2e-3, "
        "16 steps took the critic from 0.94 to 0.65; with 160 records at 5e-4 it kept 0.82 at 58 % right answers, and the round's answers went from 61 % by "
        "refinement to 73, behind the filter to 80 %. Restarted on these and the records, 16 steps left direct accuracy at 56 % (58 before). At 1e-3 and 32 steps the "
        "skills alone, without the answers, took it to 81 % (refined 89), with a critic of 0.75 and 90, 93 and 94 % before, after refinement and behind the filter: "
        "little room is left. Hence short rounds at 5e-4 that go on from the newest weights. With them, on the whole start of 360 steps: "
        "direct accuracy from 40.6 % after the skills to 59.4 %, a critic of 0.70 at the start of the rounds and 0.52 at their end, 69.2 % right in the last round before the "
        "filter and 69.6 % behind it. After 480 steps of lessons instead the critic began at 0.89, and at 5e-4 still ended at 0.53 (46 to 63 % right). At 3e-4 with 320 "
        "records it fell from 0.87 over 0.83, 0.72 and 0.71 to 0.57, while direct accuracy went from 38.3 % over 51, 77 and 86 to 86 %; what the filter let through was right "
        "in 59 % (42 before it), then 77 (73), 83 (81) and 92 (92). All answers in place of these: 38.3 % over 13, 30 and 56 to 52 %. So the filter matters at the beginning, "
        "and its test looks there. The other arms were not tried. Five reported seeds left all three tests open, the rounds adding 34 points (8 to 60); eight were then "
        "run, the five of them anew.",
        seeds=reported_seeds(8),
        quick={
            "warm_steps": 2,
            "warm_tasks_per_step": 8,
            "tasks_per_step": 4,
            "tasks_per_round": 4,
            "meta_records": 4,
            "steps_per_round": 1,
            "rounds": 2,
            "eval_tasks": 8,
            "evaluate_every": 1,
        },
    ),
)
class SELF(IteratedImitation):
    """Differs from ReST-EM in what the first round teaches, and in who says which answers are learnt."""

    config: SELFConfig

    # Before the first step

    def setup(self) -> None:
        config = self.config
        if config.keep in ("verdict", "coin") and not config.skills:
            raise InputError(f"--keep {config.keep} goes by feedback, which --no-skills does not teach; expected --keep none or majority with it")
        if config.keep == "majority" and config.group_size < 2:
            raise InputError("--keep majority asks several answers to a prompt; expected --group-size 2 or more")
        self.records = read_records(Path(config.meta).expanduser()) if config.meta is not None else None
        super().setup()
        self.require_single_turns("puts an answer and feedback on it into one prompt: give tasks of single turns")
        if self.records is None:
            first = self.task_set.train_task(self.run.seed, 0)
            said = self.task_set.annotate(first, "")
            if said is None or verdict_in(said.feedback) is None:
                raise InputError(
                    f"{self.task_set.name} has no annotator to teach feedback with; give records (--meta records.jsonl, a prompt, response, feedback and refined a line), "
                    "or take tasks that have one, as the built-in families do"
                )
        self.roles = Roles.load(config.feedback_prompt, config.refine_prompt, self.policy.context_length)
        tokens = config.feedback_tokens or self.params.max_new_tokens
        self.feedback_params = replace(self.params, max_new_tokens=tokens, temperature=config.feedback_temperature, stop=())
        asked = self.roles.criticise(self.held_out[0], "")
        if len(self.policy.render(asked)) + tokens > self.policy.context_length:
            raise InputError(
                f"the request for feedback and {tokens} tokens of it do not fit into the {self.policy.context_length} tokens that {self.policy.name} reads, even without an "
                "answer; shorten it (--feedback-prompt short), or lower --feedback-tokens"
            )
        writing = PromptWriting.load(config.instruct_prompt, self.policy.context_length)
        self.instruct = SelfInstruct(writing, self.write, similar=config.prompt_similarity)

    # A round

    def round_tasks(self) -> list[Task]:
        if self.round > 1:
            return super().round_tasks()
        if self.records is not None:
            return []
        return self.curriculum.next(self.config.meta_records or self.config.round.tasks_per_round)

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        return self.meta_skills(tasks) if self.round == 1 else self.evolution(tasks)

    def chosen(self) -> list[int]:
        """The records are the first round's; they come back, or are left out, whatever else is trained on."""
        config, rounds = self.config, [int(e.tags[ORIGIN]["round"]) for e in self.corpus.examples]
        if config.round.train_on == "newest":
            self.corpus.forget([i for i, of in enumerate(rounds) if of == self.round or (of == 1 and config.replay_meta)])
            return list(range(len(self.corpus)))
        return [i for i, of in enumerate(rounds) if of > 1 or self.round == 1 or config.replay_meta]

    def meta_skills(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        """Round one: the examples that records make. Without a file the model that nothing was taught yet answers, and the task set's annotator says the rest."""
        config, metrics = self.config, Metrics()
        if self.records is not None:
            records = self.records[: config.meta_records or None]
        else:
            answers = self.attempt([EpisodeRequest(task, 0, self.stream(task, place, 0)) for place, task in enumerate(tasks)])
            judge(answers, self.task_set)
            records = list[MetaRecord]()
            for answer in answers:
                said = self.task_set.annotate(answer.task, answer.text)
                if said is not None:
                    records.append(MetaRecord(answer.task, answer.text, said.feedback, said.refined))
                    answer.reward = float(verdict_in(said.feedback) is True)
            metrics = self.told([Group(answer.task.id, [answer]) for answer in answers])
        made = [e for r in records for e in three_ways(self.policy, r, self.roles, skills=config.skills, answer_weight=config.answer_weight)]
        good = mean([float(verdict_in(r.feedback) is True) for r in records], default=0.0)
        return made, metrics | {"meta/records": float(len(records)), "meta/qualified": good}

    def evolution(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        """A later round: answers, feedback, refinement, and what the filter keeps."""
        config, metrics = self.config, Metrics()
        if config.self_instruct and self.round > 2:
            held_out = {plain(task.prompt) for task in self.held_out}
            prompts = [task.prompt for task in tasks]
            new, metrics = self.instruct.grow(prompts, config.self_instruct, self.run.rng("self-instruct", self.round), forbidden=held_out)
            tasks = [*tasks, *self.with_room(new)]
        groups = self.rollout(tasks)
        step = self.run.step
        chains = self.refined(trajectories_of(groups), config.refinements, lambda t, role, turn: self.run.stream(step, role, turn, t.task.id, t.sample))
        self.label([answer for chain in chains for answer in chain.answers])
        opinion(groups, chains, config.keep, self.task_set.answer_in)
        kept = self.kept(chains)
        return distinct([self.example(chain) for chain in kept]), metrics | self.told(groups) | evolution_metrics(chains, kept)

    def refined(
        self, answers: Sequence[Trajectory], refinements: int, stream: Stream, *, last_word: bool = True, temperature: float | None = None
    ) -> list[Chain]:
        """What the policy makes of answers by its own feedback; the answers alone where it was taught no feedback. temperature: of refinements, by default that of answers."""
        if not self.config.skills:
            return [Chain([answer]) for answer in answers]
        params = self.params if temperature is None else plainly(self.params, temperature)
        looking = self.feedback_params if temperature is None else plainly(self.feedback_params, min(temperature, self.config.feedback_temperature))
        return refine_until_qualified(
            self.policy,
            self.task_set,
            answers,
            self.roles,
            params,
            looking,
            refinements=refinements,
            last_word=last_word,
            stream=stream,
            ledger=self.run.ledger,
        )

    def kept(self, chains: Sequence[Chain]) -> list[Chain]:
        """The chains whose final answers are learnt. No label is looked at."""
        rng = self.run.rng("kept", self.round)
        match self.config.keep:
            case "verdict":
                return [c for c in chains if c.qualified]
            case "coin":
                drawn = set(rng.sample(range(len(chains)), sum(c.qualified for c in chains)))
                return [c for i, c in enumerate(chains) if i in drawn]
            case "majority":
                return [c for c in chains if c.answers[0].reward == 1.0]
            case "none":
                return list(chains)

    def example(self, chain: Chain) -> Trajectory:
        """The chain's final answer, under the prompt alone."""
        prompt = self.policy.render(chain.final.task.messages)
        return relabelled(chain.final, prompt, kind="self", refinements=len(chain.answers) - 1, qualified=chain.qualified)

    def told(self, groups: Sequence[Group]) -> Metrics:
        """Record attempts, let the curriculum hear of them, and report what is defined of them."""
        self.run.save_trajectories(self.run.step, self._sampled_records(groups))
        self.remember([g for g in groups if WRITTEN not in g.trajectories[0].task.info])
        return {name: value for name, value in (rollout_metrics(groups) | monitors(groups)).items() if not math.isnan(value)}

    def label(self, answers: Sequence[Trajectory]) -> None:
        """Judge answers by labels, for reports alone. Nobody knows the answer to a prompt that the model wrote."""
        known = [a for a in answers if WRITTEN not in a.task.info]
        judge(known, self.task_set)
        for answer in answers:
            if WRITTEN in answer.task.info:
                answer.rewards = {"correct": math.nan}

    def write(self, asked: Sequence[Task]) -> list[str]:
        """What the policy answers to requests for prompts, those left out that it cannot read whole."""
        requests = [EpisodeRequest(task, 0, self.run.stream(self.run.step, task.id)) for task in self.with_room(asked)]
        return [t.text for t in self.attempt(requests)]

    def with_room(self, tasks: Sequence[Task]) -> list[Task]:
        return [t for t in tasks if has_room(self.policy, t, self.params.max_new_tokens)]

    def judge_probe(self, groups: Sequence[Group]) -> None:
        super().judge(groups)
        chains = self.refined(trajectories_of(groups), 0, lambda t, role, turn: stream_key("probe", role, turn, t.task.id, t.sample))
        opinion(groups, chains, self.config.keep, self.task_set.answer_in)

    # Measuring

    def evaluation(self) -> Evaluation:
        evaluation = super().evaluation()
        if self.config.eval_refine and self.config.skills:
            evaluation.metrics |= self.refined_too(evaluation.trajectories)
        return evaluation

    def refined_too(self, rows: Sequence[Sequence[Trajectory]]) -> Metrics:
        """What becomes of the judged held-out answers when they are refined until they qualify."""
        judged = [[t for t in row if not math.isnan(t.correct)] for row in rows]
        most, heat = max(1, self.config.refinements), self.config.evaluation.eval_temperature
        chains = self.refined(
            [t for row in judged for t in row],
            most,
            lambda t, role, turn: stream_key("evaluation", role, turn, t.task.id, t.sample),
            last_word=False,
            temperature=heat,
        )
        judge([a for c in chains for a in c.answers[1:]], self.task_set)
        rest = iter(chains)
        return refined_metrics([[next(rest) for _ in row] for row in judged], most, self.task_set.answer_in)

    # Saving

    def state(self) -> State:
        state = super().state()
        return replace(state, plain=state.plain | {"written": self.instruct.texts})

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.instruct.texts = list(state.plain["written"])


def plainly(params: SamplingParams, temperature: float) -> SamplingParams:
    """As evaluations draw: from the whole distribution."""
    return replace(params, temperature=temperature, top_p=1.0, top_k=0)


def opinion(groups: Sequence[Group], chains: Sequence[Chain], keep: str, answer_in: Callable[[str], str | None]) -> None:
    """The reward of first answers as training sees them, without labels: 1 for those that qualify at once, or whose chain ends in their group's majority; all where
    nothing chooses."""
    if keep != "majority":
        for chain in chains:
            chain.answers[0].reward = float(not chain.feedback or chain.verdicts[0] is True)
        return
    rest = iter(chains)
    for group in groups:
        row = [next(rest) for _ in group.trajectories]
        winners = majority(answers_of([c.final for c in row], answer_in), Random(group.key)).winners
        for chain, won in zip(row, winners, strict=True):
            chain.answers[0].reward = float(won)
