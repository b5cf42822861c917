"""Co-Reward: the answer that another wording of the question leads to is the label (arXiv:2508.00410).

Every question is asked in two wordings that have the same answer, and the model attempts both. Each wording's attempts vote, and the winner of one is the label of
the other. A model that votes for itself makes whatever it says most often more likely still, right or wrong. Here an answer earns something only if both
wordings lead to it: where a mistake belongs to one wording, the other's vote is an answer that is never given to this one, nobody earns anything, and nothing
is learnt. What the crossing cannot see is a mistake that both wordings share, in the end one and the same answer to everything: hence the labelled probe, which asks
both wordings too, and the alarm on how much of a batch says the same.

Differs from GRPO in the tasks, which come as pairs (`tasks_per_step` of them, `group_size` attempts at each wording), and in the reward. Each wording's group is
normalised by itself, and the loss is the sum of the two wordings' losses, each averaged over its own tokens, with a divergence to the starting policy.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Gt

from etude.claim import ON_TINY, Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, NonNegative, Share
from etude.errors import InputError
from etude.evals.measures import Final
from etude.ledger import Ledger
from etude.memory import Curriculum, PairedCurriculum, RoundsCurriculum, UniformCurriculum
from etude.method import State, register
from etude.methods.baselines.grpo import GRPO, GRPOConfig
from etude.models.averaged import AveragedModel, annealed
from etude.models.language import LanguageModel
from etude.models.learner import SUMMAND
from etude.models.remote import Endpoint, is_endpoint
from etude.models.rewriting import Writer, endpoint_writer, local_writer, rewrite_once
from etude.models.sampling import SamplingParams
from etude.objectives import Aggregation
from etude.rewards.linked_votes import Labelling, LinkedVotes, crossed, linked_metrics, matches, own, pooled
from etude.rewards.votes import answers_of, majority
from etude.rollouts import group_rollouts
from etude.tasks.rewriters import FieldRewriter, FunctionRewriter, RewriteCache, Rewriter, RuleRewriter, automatic
from etude.tasks.twins import is_twin, paired, twin_of, without_twin
from etude.tasks.unlabelled import PartlyLabelled
from etude.types import Group, Metrics, Task, Trajectory

LABELLINGS: dict[str, Labelling] = {"crossed": crossed, "own": own, "pooled": pooled}
LOOKED_AT = 64
"""Training tasks of which one has to have another wording, for a run to begin."""


@dataclass
class CoRewardConfig(GRPOConfig):
    """Options of Co-Reward."""

    aggregation: Aggregation = "token_mean"
    """How per-token losses become one number."""
    dual_clip: NonNegative = 3.0
    """Bound on the loss of bad tokens whose ratio grew large, in advantages (0: none; 3 is usual)."""
    kl_coefficient: NonNegative = 0.005
    """Weight of the divergence from the starting policy in the loss."""
    label: Literal["crossed", "own", "pooled", "teacher", "truth"] = "crossed"
    """Whose vote is the label: the other wording's, each one's own, that of both, that of a slow average of the policy; or, as a ceiling, the tasks' verdict."""
    rewriter: str = "auto"
    """Who puts questions in other words: `rules`, `words`, `field`, `file.py:function`, `self`, a model's folder or an endpoint; `auto`: a field `twin`, else rules."""
    twins: Literal["rewrite", "copy"] = "rewrite"
    """Second question of a pair: the other wording or, as a control, a copy: then each pair asks one of its wordings, drawn for each task, twice."""
    sum_wordings: bool = True
    """Average the loss over each wording's tokens and add the two up; otherwise average over all tokens."""
    rewrite_tasks: AtLeastOne = 512
    """Training tasks that a model rewrites before the first step; the run goes round them."""
    rewrite_tokens: AtLeastOne = 512
    """Tokens that a model may write for each."""
    rewrite_temperature: NonNegative = 0.7
    """Temperature of rewriting by a model."""
    rewrite_top_p: Annotated[float, Gt(0)] = 0.8
    """The same for its nucleus."""
    teacher_rate: Share = 0.01
    """With `--label teacher`: how far the average moves towards the policy in the first step; falls along a cosine."""
    teacher_last_rate: Share = 1e-5
    """The same in the last step."""
    answer_alarm: Share = 0.5
    """Warn when one answer is given to everything: how far its share has to be on the way from what is usual to all (1: never)."""
    eval_twins: bool = False
    """Evaluate the other wordings of the held-out tasks as well."""


@register(
    slug="co-reward",
    name="Co-Reward",
    family="rewards",
    paper="2508.00410",
    title="Co-Reward: Self-supervised Reinforcement Learning for Large Language Model Reasoning via Contrastive Agreement",
    summary="the majority's answer to another wording of the question is the label",
    config=CoRewardConfig,
    signal="agreement",
    claim=Claim(
        statement="Taking the majority's answer to a paraphrase of the question as the label trains without answers, keeps labels right where a majority that judges "
        "itself makes them worse, and comes close to training on the true answers.",
        expectation="From a model whose mistakes depend on the wording, on the same number of generated tokens, held-out accuracy over both wordings ends more than 10 "
        "points above that of votes within each wording and at most 10 points below that of true answers, and the share of right labels rises. With a copy in the "
        "paraphrase's place the gain over votes within a wording is lost. One vote of all attempts of both wordings is shown beside it.",
        experiment="etude.experiments.wording_errors:wording_errors",
        arms=(
            Arm("co-reward"),
            Arm("own vote", "co-reward", {"label": "own"}),
            Arm("copied question", "co-reward", {"twins": "copy"}),
            Arm("pooled vote", "co-reward", {"label": "pooled"}),
            Arm("true answers", "co-reward", {"label": "truth"}),
        ),
        common={
            **ON_TINY,
            "method": "co-reward",
            "tasks": "two-views",
            "rewriter": "words",
            "warm_tasks": "two-views:both=1,slant=1,constant=0.07",
            "warm_steps": 50,
            "tasks_per_step": 8,
            "group_size": 8,
            "lr": 3e-4,
            "eval_tasks": 96,
            "eval_samples": 4,
            "evaluate_every": 0,
            "probe": "never",
        },
        budget="90k-tokens",
        seeds=reported_seeds(8),
        tests=(
            Comparison("over votes within a wording", "co-reward", "own vote", Final("accuracy"), margin=0.1),
            Comparison("close to true answers", "co-reward", "true answers", Final("accuracy"), margin=-0.1),
            Comparison("labels get better", "co-reward", None, Final("label") - Final("label_first")),
            Comparison("the other wording", "co-reward", "copied question", Final("accuracy"), margin=0.1, role="ablation"),
            Comparison("crossing instead of pooling", "co-reward", "pooled vote", Final("accuracy"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "a majority is right about half of the time",
                "co-reward",
                Final("majority_first"),
                at_least=0.3,
                at_most=0.75,
                otherwise="votes within a wording are nearly all right or nearly all wrong, and there is nothing to choose between",
            ),
            Precondition(
                "the wordings' mistakes differ",
                "co-reward",
                Final("wrong_alike_first"),
                # A step has few pairs: 1 in 16 was seen over 32 of them.
                at_most=0.2,
                otherwise="both wordings are wrong in the same way, which no agreement can show",
            ),
        ),
        quick={"warm_steps": 1, "warm_tasks_per_step": 8, "eval_tasks": 4, "eval_samples": 1},
        tried="The start. After 60 steps of imitation of demonstrations that are right in 55 % of cases where a wording is the strong one, on seed 0: pass@1 31 % in "
        "symbols and 25 % in words, the majority of 8 attempts right in 39 % of the groups, both wordings' votes wrong alike in 6 % of the pairs, the most common answer "
        "10 % of all. That share was then raised to 65 %, so that more votes are right. The budget, from 27.9 % on seed 0: with 30k tokens co-reward ended at 51.8 %, own "
        "votes at 44.5 %, true answers at 60.7 %; with 90k at 67.9 %, 52.4 % and 71.7 %, and right labels went from 63 % to 69 %, by own votes to 55 %. The margin was then "
        "lowered from 15 points to 10. The learning rate was not tuned. Three reported seeds then "
        "were 25 points ahead of own votes on average, all of them ahead, and too few to tell. So eight are run.",
    ),
)
class CoReward(GRPO):
    """Differs from GRPO in the tasks, the reward and the loss's average."""

    config: CoRewardConfig

    def setup(self) -> None:
        self.kept = RewriteCache(self.run.folder / "rewrites.jsonl")
        self.usual_answer: float | None = None
        self.alarmed = False
        self.teacher: AveragedModel | None = None
        super().setup()
        if self.config.label == "truth":
            self.require_answers()
        if self.config.label == "teacher":
            self.teacher = AveragedModel(self.policy)
        if self.config.eval_twins:
            self.held_out_twins = [twin_of(task) for task in self.rewritten(self.held_out)]
            if not self.held_out_twins:
                raise InputError("--eval-twins: none of the held-out tasks has another wording; leave it out, or give another --rewriter")
        if self.probe is not None:
            pairs = [wording for task in self.rewritten(self.probe.tasks) for wording in self.wordings(task)]
            # Without their twins they still show what is right, and only the reward stays unknown.
            self.probe = replace(self.probe, tasks=pairs) if pairs else self.probe

    def require_answers(self) -> None:
        """Refuse tasks without reference answers where these are the reward."""
        if isinstance(self.task_set, PartlyLabelled):
            missing = [task for task in (self.task_set.train_task(self.run.seed, i) for i in range(LOOKED_AT)) if task.answer is None]
            if missing:
                raise InputError(
                    f"--label truth rewards right answers, and task {missing[0].id!r} has none to compare with; add answers, or choose another --label"
                )

    # Pairs

    def make_curriculum(self) -> Curriculum:
        spec = self.config.rewriter
        uniform = UniformCurriculum(self.task_set, self.run.seed)
        if spec in ("auto", "rules", "words", "field") or ".py:" in spec:
            self.rewriter = self.free_rewriter(spec)
            self.require_a_pair()
            return PairedCurriculum(uniform, self.rewriter, fits=self.fits)
        asked = self.first_tasks()
        others = [*(self.probe.tasks if self.probe is not None else ()), *(self.held_out if self.config.eval_twins else ())]
        turned = rewrite_once([*asked, *others], self.writer(spec), self.kept, told=self.tell)
        self.rewriter = self.kept.rewritten
        if "rewriter" not in self.run.ledger.model_calls:
            # A run that goes on has paid for them already.
            self.run.ledger.restore(self.run.ledger + self.kept.spent)
        if not any(self.fits(task) for task in turned[: len(asked)]):
            raise InputError(
                f"{spec} put none of {len(asked)} questions in other words in the form that was asked for, with room for an answer; "
                "name a model that follows instructions as --rewriter, or a function of your own: my_rewrites.py:rewrite"
            )
        return PairedCurriculum(RoundsCurriculum(asked, self.run.seed), self.rewriter, fits=self.fits)

    def free_rewriter(self, spec: str) -> Rewriter:
        """A rewriter that asks no model of ours."""
        if spec == "auto":
            return automatic(self.task_set.train_task(self.run.seed, 0))
        if spec == "field":
            return FieldRewriter()
        return FunctionRewriter.load(spec, self.kept) if ".py:" in spec else RuleRewriter(words=spec == "words")

    def writer(self, spec: str) -> Writer:
        """What writes for `--rewriter`: the policy as it starts, another model, or an endpoint."""
        config = self.config
        params = SamplingParams(config.rewrite_tokens, temperature=config.rewrite_temperature, top_p=config.rewrite_top_p)
        if is_endpoint(spec):
            endpoint = Endpoint.parse(spec)
            endpoint.check()
            return endpoint_writer(endpoint, params, self.run.stream("rewriter"))
        model = self.policy if spec == "self" else LanguageModel.load(spec, device=self.inputs.device, dtype=self.inputs.dtype)
        return local_writer(model, params, self.run.stream("rewriter"))

    def first_tasks(self) -> list[Task]:
        """The different tasks among the first `rewrite_tasks` training tasks."""
        first = (self.task_set.train_task(self.run.seed, i) for i in range(self.config.rewrite_tasks))
        return list({task.id: task for task in first}.values())

    def tell(self, count: int) -> None:
        if not self.run.config.quiet:
            print(f"{self.config.rewriter} puts {count} questions in other words", file=sys.stderr, flush=True)

    def require_a_pair(self) -> None:
        """Refuse task sets of which nothing is rewritten."""
        task = None
        for i in range(LOOKED_AT):
            task = self.task_set.train_task(self.run.seed, i)
            turned = self.rewriter(task)
            if turned is not None and self.fits(turned):
                return
        assert task is not None
        raise InputError(
            f"--rewriter {self.config.rewriter} gives none of the first {LOOKED_AT} tasks of {self.task_set.name} another wording that leaves room for an answer "
            f'({task.prompt[:60]!r}); give JSONL lines a field "twin", or --rewriter my_rewrites.py:rewrite, `self` or another model'
        )

    def fits(self, task: Task) -> bool:
        """Whether both wordings leave room for an answer."""
        return all(len(self.policy.render(t.messages)) < self.policy.context_length for t in (task, twin_of(task)))

    def rewritten(self, tasks: Sequence[Task]) -> list[Task]:
        """Those of some tasks that have another wording, with it."""
        turned = [self.rewriter(task) for task in tasks]
        return [task for task in turned if task is not None and self.fits(task)]

    def wordings(self, task: Task) -> tuple[Task, Task]:
        """The two questions of a pair, the second known as the first one's twin."""
        first, second = without_twin(task), twin_of(task)
        if self.config.twins == "rewrite":
            return first, second
        if self.run.rng("copied", task.id).random() < 0.5:
            return first, replace(second, messages=first.messages)
        return replace(first, messages=second.messages), second

    # The loop

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        groups = self.tried([wording for task in tasks for wording in self.wordings(task)])
        pairs = paired(groups)
        answers = [(self.answers(a), self.answers(b)) for a, b in pairs]
        votes: list[LinkedVotes] = [first.tags["linked"] for first, _ in pairs]
        self.counted = linked_metrics(pairs, answers, votes)
        self.counted["votes/one_answer"] = self.one_answer(self.counted["votes/top_answer"], len(pairs))
        curriculum = self.curriculum
        assert isinstance(curriculum, PairedCurriculum)
        self.counted["pairs/left_out"] = float(curriculum.left_out)
        return groups

    def answers(self, group: Group) -> list[str | None]:
        return answers_of(group.trajectories, self.task_set.answer_in)

    def judge(self, groups: Sequence[Group]) -> None:
        """Verdicts for the log, and rewards by the label. A group whose twin is missing has none."""
        super().judge(groups)
        for group in groups:
            for trajectory in group.trajectories:
                if self.config.sum_wordings:
                    trajectory.tags[SUMMAND] = "twin" if is_twin(trajectory.task) else "original"
                if self.config.label != "truth":
                    trajectory.reward = float("nan")
        labelling = LABELLINGS.get(self.config.label, own)
        pairs = paired(groups)
        taught = self.taught(pairs) if self.teacher is not None else {}
        for first, second in pairs:
            answers = self.answers(first), self.answers(second)
            linked = labelling(*answers, self.run.rng(self.run.step, "vote", first.key))
            if taught:
                linked = replace(linked, labels=(taught[first.key], taught[second.key]))
            first.tags["linked"] = linked
            if self.config.label == "truth":
                continue
            for group, row, label in zip((first, second), answers, linked.labels, strict=True):
                group.tags["label"] = label
                for trajectory, reward in zip(group.trajectories, matches(row, label), strict=True):
                    trajectory.rewards["agreement"] = trajectory.reward = reward

    def taught(self, pairs: Sequence[tuple[Group, Group]]) -> dict[str, str | None]:
        """By group, the answer that most of the teacher's own attempts at its question give; as many attempts as there are for a group."""
        assert self.teacher is not None
        spent = Ledger()
        groups = group_rollouts(
            self.teacher.model,
            [group.trajectories[0].task for pair in pairs for group in pair],
            self.task_set,
            self.params,
            group_size=self.config.group_size,
            stream=lambda task, place, sample: self.run.stream(self.run.step, "teacher", place, task.id, sample),
            max_turns=self.max_turns,
            ledger=spent,
        )
        spent.model_calls = {"teacher": spent.calls}
        self.run.ledger.restore(self.run.ledger + spent)
        return {group.key: majority(self.answers(group), self.run.rng(self.run.step, "teacher's vote", group.key)).answer for group in groups}

    def one_answer(self, share: float, pairs: int) -> float:
        """How far the most common answer's share is on the way from what is usual to all, in [0, 1]; warns once above `answer_alarm`.

        Usual is what the first step showed or, where that is more, what it would be if each pair had an answer of its own.
        """
        if self.usual_answer is None:
            self.usual_answer = share
        usual = max(self.usual_answer, 1 / pairs)
        way = max(0.0, (share - usual) / (1 - usual)) if usual < 1 else 0.0
        if way > self.config.answer_alarm and not self.alarmed:
            self.alarmed = True
            warnings.warn(
                f"step {self.run.step}: {share:.0%} of all attempts give one and the same answer, which was {self.usual_answer:.0%} at the start: "
                "both wordings may have come to agree on it whatever is asked. Look at the probe, and at --on-collapse",
                stacklevel=2,
            )
        return way

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | self.counted

    def units(self, groups: Sequence[Group]) -> list[list[Trajectory]]:
        """Both wordings of a pair stay in one mini-batch."""
        return [[*first.trajectories, *second.trajectories] for first, second in paired(groups)]

    def update(self, groups: Sequence[Group]) -> Metrics:
        if self.teacher is None:
            return super().update(groups)
        rate = annealed(self.config.teacher_rate, self.config.teacher_last_rate, self.run.progress)
        self.teacher.follow(rate)
        return super().update(groups) | {"teacher/rate": rate}

    # Measuring and saving

    def evaluate(self) -> Metrics:
        metrics = super().evaluate()
        if not self.config.eval_twins:
            return metrics
        found = self.attempts_at(self.task_set, self.held_out_twins).metrics
        return metrics | {"eval/twin_pass@1": found["eval/pass@1"], "eval/both_pass@1": (metrics["eval/pass@1"] + found["eval/pass@1"]) / 2}

    def state(self) -> State:
        state = super().state()
        state.plain["usual_answer"] = self.usual_answer
        if self.teacher is not None:
            state.tensors |= {f"teacher.{name}": value for name, value in self.teacher.state().items()}
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.usual_answer = state.plain["usual_answer"]
        if self.teacher is not None:
            self.teacher.load_state(state.part_of("teacher"))
