"""RISE: learn to solve and to judge one's own solutions in the same step (arXiv:2505.13445).

Rewards for answers make a model better at answering and leave it a poor judge of what it wrote. Yet whoever knows the reward of a solution knows what a judge of it should
have said. So each step has two phases. The policy solves tasks; a few of the solutions, at most one more of one task than of another, become tasks themselves, which
ask for the score that the verifier gave; the same weights answer those. Both kinds are scored by the same three cases (right, wrong, no answer), and one update
learns from all of them. What is judged is always the policy's own newest work.

Differs from GRPO in the second phase, in the three scores, and in that the divergence from the start is a part of the reward, token by token. `advantage` says
whether attempts are measured within their group or whitened over solutions and verifications together. At an evaluation the policy rates its own held-out solutions,
each once: that gives its accuracy as a judge, and a vote in which answers count for more that it stands by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge

from etude.advantages import assign_tokens, group_relative_returns, returns_to_go, rewards_with_kl, whiten, whiten_tokens
from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import Count, NonNegative
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.measures import Final
from etude.evals.verification import mentions, verification_metrics, weighted_maj
from etude.ledger import FORWARD
from etude.method import State, register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.models.sampling import stream_key
from etude.objectives import Aggregation, Objective, PolicyObjective
from etude.rewards import judge
from etude.rewards.votes import answers_of
from etude.rollouts import EpisodeRequest, follow_up_rollouts, has_room, of_kind, run_episodes
from etude.rollouts.plain import trajectory_from_plain, trajectory_to_plain
from etude.rollouts.stratified import balanced, stratified
from etude.tasks.follow_up import transcript
from etude.tasks.templates import read_template
from etude.tasks.verification import LONG, SHORT, Scale, Verification, rating_in, same
from etude.types import Group, Metrics, Task, Trajectory, mean, trajectories_of

VERIFY = "verify"
"""The kind of second-phase groups."""


@dataclass
class RISEConfig(GRPOConfig):
    """Options of RISE."""

    group_size: Annotated[int, Ge(2)] = 8
    """Solutions of each task."""
    verify_share: NonNegative = 0.125
    """Solutions to verify in a step, for each of its tasks (0: none, which is plain reinforcement learning)."""
    critiques: Count = 0
    """Verifications of each of those solutions (0: as many as `group_size`)."""
    balance_classes: bool = False
    """Verify as many right solutions as others, as far as there are; by default they come as they fall."""
    verify_source: Literal["fresh", "start"] = "fresh"
    """Solutions to verify: this step's, or, as a control, for ever those of the first step."""
    permute_truths: bool = False
    """As a control, exchange the scores between a step's solutions to verify: all of the practice, none of the information."""
    scores: tuple[float, float, float] = (1.0, -0.5, -1.0)
    """Score of a right answer, of a wrong one, and of none, for solutions and verifications alike."""
    verify_prompt: str = "auto"
    """What a verification is asked: `long`, `short`, or a text file with {question} and {response} in it. `auto`: long where the model's context has room."""
    verify_tokens: Count = 0
    """Tokens a verification may have (0: as many as a solution)."""
    advantage: Literal["group", "whitened"] = "group"
    """Measure attempts within their group, or take the group's mean off and whiten over all tokens of solutions and verifications together."""
    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""
    kl_coefficient: NonNegative = 0.01
    """Weight of the divergence from the starting policy, token by token in the reward."""
    check_words: tuple[str, ...] = ("verify", "check", "double-check", "recheck", "re-evaluate", "confirm", "make sure", "let me see if")
    """Words whose share among solutions is logged, as a sign of checking within a solution."""
    eval_verification: bool = True
    """Let the policy rate its held-out solutions at an evaluation, once each."""


@register(
    slug="rise",
    name="RISE",
    family="rewards",
    paper="2505.13445",
    title="Trust, But Verify: A Self-Verification Approach to Reinforcement Learning with Verifiable Rewards",
    summary="solve, and judge one's own fresh solutions, in one update",
    config=RISEConfig,
    rollouts="follow-up",
    claim=Claim(
        statement="Rewards for answers leave a model a poor judge of its own solutions. Training it in the same step to give them the verifier's scores makes it a good "
        "judge, and no worse at solving.",
        expectation="From a model that rates its own solutions hardly better than chance, on the same number of generated tokens, verifications counted, the balanced "
        "accuracy of its ratings ends more than 10 points above that of a model trained on solutions alone, and held-out pass@1 at most 5 points below. With the "
        "scores exchanged between solutions it ends more than 10 points lower.",
        arms=(
            Arm("rise", settings={"method": "rise"}),
            Arm("plain RL", "rise", {"method": "rise", "verify_share": 0.0}),
            Arm("permuted truths", "rise", {"method": "rise", "permute_truths": True}),
        ),
        common={
            "tasks": "arithmetic:limit=40",
            "warm_tasks": "rating:limit=40,honest=0.3,solving=0.3,slips=0.1",
            "warm_steps": 120,
            "warm_tasks_per_step": 32,
            "warm_lr": 2e-3,
            "warm_schedule": "linear",
            "lr": 2e-4,
            "tasks_per_step": 8,
            "verify_share": 0.5,
            "verify_tokens": 32,
            "balance_classes": True,
            "eval_tasks": 96,
            "eval_samples": 4,
            "evaluate_every": 20,
        },
        experiment="etude.experiments.rated_solutions:rated_solutions",
        budget="80k-tokens",
        tests=(
            Comparison("judging its own solutions", "rise", "plain RL", Final("balanced"), margin=0.1),
            Comparison("solving is kept", "rise", "plain RL", Final("pass_rate"), margin=-0.05),
            Comparison("the scores", "rise", "permuted truths", Final("balanced"), margin=0.1, role="ablation"),
            Comparison("the vote with ratings", "rise", None, Final("rated_vote") - Final("vote"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "room to learn", "rise", Final("pass_rate_first"), at_least=0.1, at_most=0.75, otherwise="the model solves almost nothing, or almost everything"
            ),
            Precondition(
                "a poor judge to begin with",
                "rise",
                Final("balanced_first"),
                at_least=0.4,
                at_most=0.7,
                otherwise="it judges well before it is taught to, or does not know the form",
            ),
        ),
        tried="On seed 0, but for one. The form of an honest check decides. Where it set two numbers side by side, `91, 90`, the model did not learn to see whether "
        "they are one: balanced accuracy 48.5 %, and 49.2 % after 45k tokens of RISE; at best 61 % after 200 steps of honest lessons alone. With the one taken "
        "from the other, `91-90=1`, the verdict followed the difference without a mistake after 30 steps of 32 lessons: `tiny` can subtract small numbers, so "
        "`limit=40`. With that, RISE drives guesses out within 8 steps. What is left depends on the learning rate. From a start at 81 % pass@1 (slips=0.05, "
        "honest=0.4), 40k tokens at 2e-4 gave 87.5 % and balanced accuracy 55 to 73 %; at 5e-4 pass@1 fell to 72 % and the ratings stayed at 64 %: wrong "
        "solutions were then no slips but what the model always says, and a check says it too. Expressions of two numbers at 1e-3, of which many were never "
        "learnt right: 62 to 53 %. With honest=0.45, slips=0.1 and 0.75 solutions to verify a task, over 41k tokens: pass@1 70 to 86 %, balanced accuracy 57 to "
        "82 %; plain RL, over 45k, 70 to 89 % and 57 to 53 %. That was run on the reported seeds, on 60k tokens, and was inconclusive: 12.6 points of balanced "
        "accuracy more (9.2 to 15.9), pass@1 4.4 points lower (3.1 to 5.6). The start checked too often to be a poor judge, and verification took too many of "
        "the tokens. With 0.5 to verify, on seed 0 and 62k tokens: 89 % and 74 %. So fewer honest lessons, 0.5, and a larger budget. Eight reported seeds "
        "left open whether solving is kept (pass@1 2.7 points lower, 0.2 to 5.2, against a limit of 5); sixteen, of which they are the first, settle it.",
        seeds=reported_seeds(16),
        quick={"warm_steps": 2, "warm_tasks_per_step": 8, "tasks_per_step": 2, "group_size": 4, "eval_tasks": 8, "evaluate_every": 1},
    ),
)
class RISE(GRPO):
    """Differs from GRPO in the second phase, the scores, and where the divergence enters."""

    config: RISEConfig

    # Before the first step

    def setup(self) -> None:
        config = self.config
        self.scale = Scale(*config.scores)
        template = named_template(config.verify_prompt)
        if config.critiques == 1:
            raise InputError(
                "--critiques is 1; verifications of a solution are compared with each other, so expected at least 2, or 0 for as many as --group-size"
            )
        super().setup()
        if config.kl_coefficient:
            self.learner.freeze_reference()
        self.pool: list[Group] = []
        tokens = config.verify_tokens or self.params.max_new_tokens
        self.verification_params = replace(self.params, max_new_tokens=tokens, stop=())
        if template is None:
            template = LONG if self.leaves_room(LONG, self.params.max_new_tokens) else SHORT
        if not self.leaves_room(template, 0):
            raise InputError(
                f"the verification prompt and {tokens} tokens of rating do not fit into the {self.policy.context_length} tokens that {self.policy.name} reads, even "
                "without a response; shorten it (--verify-prompt short), or lower --verify-tokens"
            )
        self.verification = self.asking(template)

    def asking(self, template: str) -> Verification:
        """Verifications asked for by a prompt."""
        return Verification(scale=self.scale, template=template, max_new_tokens=self.verification_params.max_new_tokens)

    def leaves_room(self, template: str, response: int) -> bool:
        """Whether a verification of a response of that many tokens fits into the model's context, by the first held-out task."""
        asked = self.asking(template).about(self.held_out[0], "", self.scale.right)
        return has_room(self.policy, asked, response + self.verification_params.max_new_tokens)

    def objective(self) -> Objective:
        objective = super().objective()
        assert isinstance(objective, PolicyObjective)
        objective.kl_coefficient = 0.0
        return objective

    # One step

    def judge(self, groups: Sequence[Group]) -> None:
        super().judge(groups)
        for attempt in trajectories_of(groups):
            attempt.rewards["outcome"] = attempt.reward = self.outcome(attempt)

    def outcome(self, attempt: Trajectory) -> float:
        """The score of a solution that the verifier has judged."""
        return self.scale.outcome(attempt.correct, answered=self.task_set.answer_in(attempt.last_text) is not None)

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        solved = super().collect(tasks)
        if self.config.verify_source == "start" and not self.pool:
            self.pool = [Group(g.key, judged) for g in solved if (judged := [t for t in g.trajectories if not math.isnan(t.reward)])]
        verified, self.counted = self.verify(self.pool or solved)
        self.counted |= kind_metrics("solve", solved) | kind_metrics("verify", verified)
        self.counted["solve/check_words"] = mentions([t.text for t in trajectories_of(solved)], self.config.check_words)
        return [*solved, *verified]

    def verify(self, solved: Sequence[Group]) -> tuple[list[Group], Metrics]:
        """Verifications of some of the solutions, judged, and what they show."""
        config = self.config
        wanted = max(1, round(config.verify_share * config.tasks_per_step)) if config.verify_share else 0
        if not wanted:
            return [], {}
        rng = self.run.rng(self.run.step, "solutions to verify")
        rows, unfit = self.verifiable(solved)
        if config.balance_classes:
            classes = [[same(self.scale.right, attempt.reward) for attempt in row] for row in rows]
            chosen = balanced(rows, classes, wanted, rng)
        else:
            chosen = stratified(rows, wanted, rng)
        tasks = [self.verification.follow(attempt) for attempt in chosen]
        if config.permute_truths:
            truths = [task.answer for task in tasks]
            rng.shuffle(truths)
            tasks = [replace(task, answer=truth) for task, truth in zip(tasks, truths, strict=True)]
        groups = follow_up_rollouts(
            self.policy,
            chosen,
            tasks,
            self.verification,
            self.verification_params,
            kind=VERIFY,
            group_size=config.critiques or config.group_size,
            stream=lambda task, place, sample: self.run.stream(self.run.step, VERIFY, place, task.id, sample),
            ledger=self.run.ledger,
        )
        verifications = trajectories_of(groups)
        judge(verifications, self.verification)
        total = sum(len(group) for group in solved)
        return groups, {**judged_by(verifications, self.scale, "verify/"), "verify/left_out": unfit / max(1, total)}

    def verifiable(self, solved: Sequence[Group]) -> tuple[list[list[Trajectory]], int]:
        """The judged solutions of each group that can be shown whole, and how many can't. What the probe watches with is not among them."""
        rows, unfit = [], 0
        for group in solved:
            if self.probe is not None and self.probe.holds_back(group.trajectories):
                continue
            judged = [t for t in group.trajectories if not math.isnan(t.reward)]
            rows.append([t for t in judged if has_room(self.policy, self.verification.follow(t), self.verification.max_new_tokens)])
            unfit += len(judged) - len(rows[-1])
        return rows, unfit

    def credit(self, groups: Sequence[Group]) -> Metrics:
        config = self.config
        judged = [[t for t in group.trajectories if not math.isnan(t.reward)] for group in groups]
        flat = [t for row in judged for t in row]
        divergences = self.divergences(flat)
        for trajectory in trajectories_of(groups):
            trajectory.set_advantage(0.0)
        position = 0
        for row in judged:
            returns = [returns_of(t.reward, kl, config.kl_coefficient) for t, kl in zip(row, divergences[position : position + len(row)], strict=True)]
            position += len(row)
            scores = torch.tensor([t.reward for t in row], dtype=torch.float64)
            advantages = group_relative_returns(returns, scores, scale=config.advantage == "group")
            assign_tokens(row, [values.tolist() for values in advantages])
        if config.advantage == "whitened":
            whiten_tokens(groups, whiten)
        metrics = {"signal/degenerate": mean([float(not g.has_spread) for g in groups])} | self.counted
        if config.kl_coefficient:
            metrics["reward/kl"] = mean([float(kl.sum()) for kl in divergences])
        size, of_verify = (sum(abs(a) for t in trajectories_of(part) for s in t.segments for a in s.advantages) for part in (groups, of_kind(groups, VERIFY)))
        return metrics | ({"verify/advantage_share": of_verify / size} if size and of_kind(groups, VERIFY) else {})

    def divergences(self, trajectories: Sequence[Trajectory]) -> list[torch.Tensor]:
        """log pi_old - log pi_ref of every trained token (k1), one [T] a trajectory; zeros where the divergence has no weight."""
        own = [torch.tensor([v for s in t.segments if s.trained for v in s.logprobs], dtype=torch.float64) for t in trajectories]
        if not self.config.kl_coefficient:
            return [torch.zeros_like(values) for values in own]
        start = self.learner.logprobs(trajectories, reference=True)
        self.run.ledger.forward_equivalents += FORWARD * sum(map(len, start))
        return [values - torch.tensor(reference, dtype=torch.float64) for values, reference in zip(own, start, strict=True)]

    def remember(self, groups: Sequence[Group]) -> None:
        super().remember(of_kind(groups, None))

    # Measuring

    def evaluation(self) -> Evaluation:
        evaluation = super().evaluation()
        attempts = [t for row in evaluation.trajectories for t in row]
        evaluation.metrics["eval/check_words"] = mentions([t.text for t in attempts], self.config.check_words)
        if self.config.eval_verification:
            evaluation.metrics |= self.rate(evaluation.trajectories)
        return evaluation

    def rate(self, rows: Sequence[Sequence[Trajectory]]) -> Metrics:
        """The policy's ratings of its judged held-out solutions, one each, and the vote that they weigh. One that can't be shown whole gets none."""
        judged = [[t for t in row if not math.isnan(t.correct)] for row in rows]
        shown, requests = [], []
        for attempt in (t for row in judged for t in row):
            task = self.verification.about(attempt.task, transcript(attempt), self.outcome(attempt), attempt.sample)
            if has_room(self.policy, task, self.verification.max_new_tokens):
                shown.append(attempt)
                requests.append(EpisodeRequest(task, attempt.sample, stream_key("evaluation", 0, VERIFY, task.id)))
        params = replace(self.verification_params, temperature=self.config.evaluation.eval_temperature, top_p=1.0, top_k=0)
        ratings = run_episodes(self.policy, requests, self.verification, params, max_turns=1, ledger=self.run.ledger)
        accepted = {id(solution) for solution, rating in zip(shown, ratings, strict=True) if same(rating_in(rating.text), self.scale.right)}
        metrics = judged_by(ratings, self.scale, "eval/verify_") | weighted_maj(
            [answers_of(row, self.task_set.answer_in) for row in judged],
            [[id(t) in accepted for t in row] for row in judged],
            [[t.correct for t in row] for row in judged],
        )
        return metrics | ({"eval/verify_length": mean([float(t.generated_length) for t in ratings])} if ratings else {})

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain["pool"] = [[trajectory_to_plain(t) for t in group.trajectories] for group in self.pool]
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        rows: list[list[dict[str, Any]]] = state.plain["pool"]
        pool = [[trajectory_from_plain(t) for t in row] for row in rows]
        self.pool = [Group(row[0].task.id, row) for row in pool]


def named_template(name: str) -> str | None:
    """The verification prompt that an option names; None for `auto`. Raises InputError for a file that is not there or lacks a field."""
    if name in ("auto", "long", "short"):
        return {"auto": None, "long": LONG, "short": SHORT}[name]
    return read_template(name, "--verify-prompt", names=("auto", "long", "short"), needs=("question", "response"), may=("right", "wrong", "unanswered"))


def returns_of(score: float, kl_T: torch.Tensor, beta: float) -> torch.Tensor:
    """The reward from each token to the end: the score, less the divergence from there on. Returns [T]."""
    return returns_to_go(rewards_with_kl(score, kl_T, beta=beta)) if len(kl_T) else kl_T


def judged_by(ratings: Sequence[Trajectory], scale: Scale, prefix: str) -> Metrics:
    """What ratings are worth by the solutions' own scores, whatever they were rewarded by."""
    return verification_metrics([t.task.info["truth"] for t in ratings], [rating_in(t.text) for t in ratings], scale, prefix)


def kind_metrics(kind: str, groups: Sequence[Group]) -> Metrics:
    """Reward, length and signal of one kind of attempts; empty without any."""
    attempts = trajectories_of(groups)
    scored = [t.reward for t in attempts if not math.isnan(t.reward)]
    if not scored:
        return {}
    return {
        f"{kind}/reward": mean(scored),
        f"{kind}/length": mean([float(t.generated_length) for t in attempts]),
        f"{kind}/groups_with_spread": mean([float(g.has_spread) for g in groups]),
    }
