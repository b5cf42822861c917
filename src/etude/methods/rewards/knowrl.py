"""KnowRL: the model finds out what it can do by asking itself, again and again (arXiv:2510.11407).

*Introspection*: the model writes tasks under the claim that it can do them, and others under the claim that it cannot, with a few verified examples before it.
*Self-analysis*: without being shown the claim it is asked several times of each task whether it could do it. *Consensus*: a verdict that agrees with most of the others
earns the reward. Tasks of which nearly all verdicts agree, and agree with the claim, become examples for the next cycle. Nobody solves anything: what is trained
are verdicts, and nothing but the first examples was ever checked.

Agreement is at its largest when every verdict is "feasible", whatever the task, and models that are over-confident to begin with go there. What keeps them from it are
guards, each of which can be switched off: the claim has to agree with the majority before a group is learnt from (`claim_gate`); both claims weigh the same
(`class_balance`); a share of every batch are verified tasks, rewarded by what is known (`seed_share`); and the policy stays near its start (`kl_coefficient`).

Differs from REINFORCE++ in where tasks come from and in the reward. The tasks that the run is given are not trained on: what the model really solves of them measures
its self-knowledge, and provides the verified examples where no labelled ones are given.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Le

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, Share
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.measures import Final
from etude.evals.probe import Probe
from etude.evals.self_knowledge import Opinion, alarms, ask, flip_rate, self_knowledge
from etude.ledger import Ledger
from etude.memory.introspection import Introspection
from etude.method import State, register
from etude.methods.baselines.reinforce_pp import ReinforcePP, ReinforcePPConfig
from etude.methods.rewards._introspected import introspection_metrics, verdicts_on
from etude.models.sampling import SamplingParams, stream_key
from etude.rewards import judge as judge_attempts
from etude.rewards.consensus import consensus_of, consensus_rewards
from etude.rollouts import EpisodeRequest, group_rollouts, run_episodes
from etude.tasks.base import TaskSet
from etude.tasks.feasibility import LABELS, Example, Label, Prompts, Verdicts, balanced, plain, read_examples
from etude.tasks.loading import load_tasks
from etude.types import Group, Message, Metrics, Task, Trajectory, mean

WINDOW = 128
"""Newest verdicts on verified tasks that the alarms look at."""
LOOKED_AT = 4
"""Tasks tried, for each verified example that is wanted, before fewer have to do."""


@dataclass
class KnowRLConfig(ReinforcePPConfig):
    """Options of KnowRL."""

    group_size: AtLeastOne = 8
    """Self-analyses of each task."""
    prompts: str = "auto"
    """How the model is asked: `standard`, `short` (the default for models that read fewer than 1,024 tokens), or a YAML file with prompts of your own."""
    seed_tasks: str | None = None
    """Verified examples: a JSONL file whose answers are `feasible` or `infeasible`, or `built-in`. Default: measured, by trying training tasks."""
    seed_size: AtLeastOne = 50
    """Verified examples of each class at most."""
    solve_attempts: AtLeastOne = 8
    """Attempts by which it is measured whether the model can do a task, where that is not known."""
    solved_at: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of them that has to be right."""
    introspection_runs: AtLeastOne = 12
    """Times that the model is asked to write tasks, in one cycle."""
    introspection_rounds: AtLeastOne = 4
    """Cycles in one step at most, where too few new tasks are written."""
    verified_shots: Count = 6
    """Verified examples in a request to write."""
    written_shots: Count = 2
    """Written ones, from the second cycle on (0: none are fed back)."""
    kept_examples: AtLeastOne = 64
    """Written examples of each class that are kept, the newest."""
    keep_at: Share = 0.875
    """Share of a task's verdicts that have to agree, with each other and the claim, for it to become an example."""
    similar_tasks: Share = 0.7
    """Likeness to a known task (ROUGE-L over words) above which a written one is a duplicate (1: only the same text is)."""
    write_temperature: Annotated[float, Gt(0)] = 0.8
    """Temperature at which tasks are written."""
    write_top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """They are drawn from the most likely tokens that together have this probability."""
    feasible_share: Share = 0.5
    """Share of the requests to write that ask for feasible tasks."""
    consensus_reward: Literal["match", "graded"] = "match"
    """Reward of a verdict that agrees with the majority, and of one that does not: 1 and 0, or the share that agrees and the rest."""
    band_low: Share = 0.2
    """Lowest mean reward of a written task's verdicts to learn from them."""
    band_high: Share = 0.8
    """Highest one: where all agree there is nothing to learn."""
    claim_gate: bool = True
    """Guard: learn from a written task only if the majority agrees with the claim it was written under."""
    class_balance: bool = True
    """Guard: learn from as many tasks claimed feasible as claimed infeasible, and keep as many examples."""
    seed_share: Share = 0.2
    """Guard: share of verified tasks in each batch, rewarded by what is known of them."""
    claims: Literal["written", "shuffled"] = "written"
    """Which claim a task has: that under which it was written, or, as a control, that of any task of its cycle."""


ACCURACY, F1 = Final("balanced_accuracy"), Final("f1")


@register(
    slug="knowrl",
    name="KnowRL",
    family="rewards",
    paper="2510.11407",
    title="KnowRL: Teaching Language Models to Know What They Know",
    summary="verdicts on what the model can do, rewarded for agreeing with each other",
    config=KnowRLConfig,
    rollouts="introspection",
    signal="agreement",
    claim=Claim(
        statement="A model that writes tasks which it calls feasible or infeasible, and is rewarded for judging them alike again and again, comes to know its own limits.",
        expectation="From an over-confident start, verdicts on unseen tasks, compared with what the model really solves and with both kinds of task weighed alike, become "
        "right at least 10 points more often, and more often than without guards.",
        arms=(
            Arm("knowrl"),
            Arm("no guards", "knowrl", {"claim_gate": False, "class_balance": False, "seed_share": 0.0, "kl_coefficient": 0.0}),
            Arm("shuffled claims", "knowrl", {"claims": "shuffled"}),
        ),
        common={
            "model": "tiny",
            "tasks": "can-and-cannot",
            "warm_tasks": "can-and-cannot:lessons=optimistic",
            "warm_steps": 60,
            "warm_lr": 1e-3,
            "lr": 3e-4,
            "similar_tasks": 1.0,
            "eval_tasks": 100,
            "evaluate_every": 0,
            "probe": "never",
        },
        experiment="etude.experiments.self_knowledge:trained_self_knowledge",
        budget="40-steps",
        seeds=reported_seeds(4),
        tests=(
            Comparison("gain in accuracy", "knowrl", None, ACCURACY - Final("balanced_accuracy_first"), margin=0.1),
            Comparison("accuracy over no guards", "knowrl", "no guards", ACCURACY),
            Comparison("F1 on infeasible over no guards", "knowrl", "no guards", F1),
            Comparison("accuracy over shuffled claims", "knowrl", "shuffled claims", ACCURACY, role="ablation"),
        ),
        preconditions=(
            Precondition("over-confident", "knowrl", Final("overconfidence_first"), at_least=0.45, otherwise="there is no over-confidence to be corrected"),
            Precondition(
                "can and cannot", "knowrl", Final("solvable_first"), at_least=0.15, at_most=0.65, otherwise="the model can do nearly all, or nearly nothing"
            ),
        ),
        tried="One run with guards and one without, on seed 0, with 40 steps and evaluations at 20: classes weighed alike 38.6 % before, 84.4 % with guards, 50.0 % "
        "without; F1 0.12, 0.91 and 0. The start solves 27 % of the tasks half of the time, for which accuracy over all tasks would favour refusing. Nothing was tuned.",
        quick={
            "warm_steps": 2,
            "warm_tasks_per_step": 8,
            "eval_samples": 2,
            "solve_attempts": 2,
            "introspection_runs": 2,
            "introspection_rounds": 1,
            "seed_size": 2,
        },
    ),
)
class KnowRL(ReinforcePP):
    """Differs from REINFORCE++ in the tasks, the reward and the groups that are learnt from."""

    config: KnowRLConfig
    curriculum: Introspection
    minimum_group: ClassVar[int] = 2

    # Before the first step

    def setup(self) -> None:
        config, inputs = self.config, self.inputs
        if config.band_low > config.band_high:
            raise InputError(f"--band-low is {config.band_low} and --band-high {config.band_high}; expected a range, the lower end first")
        given = read_examples(config.seed_tasks) if config.seed_tasks is not None else None
        self.known, self.benchmark = given if given is not None else ([], [])
        task_set = self._task_set = self._task_set or load_tasks(inputs.tasks, reward=inputs.reward, env=inputs.env, seed=self.run.seed, labelled=False)
        if given is None and not is_judged(task_set):
            raise InputError(
                f"{task_set.name} has no answers by which to see what the model can do; add answers or a --reward, or give verified examples with --seed-tasks"
            )
        # The prompts depend on the model, and what the probe's tasks are worth on what it solves, so that it comes first here.
        self._policy = self.load_policy()
        self.verdicts = Verdicts(Prompts.load(config.prompts, self._policy.context_length))
        self.sounded: set[str] = set()
        self.seed_verdicts: deque[tuple[Label, Label | None]] = deque(maxlen=WINDOW)
        super().setup()

    def sampling_params(self) -> SamplingParams:
        own = self.config.sampler.max_new_tokens
        return replace(super().sampling_params(), max_new_tokens=own or self.verdicts.prompts.verdict_tokens, stop=())

    def make_curriculum(self) -> Introspection:
        config = self.config
        return Introspection(
            prompts=self.verdicts.prompts,
            seeds=self.verified,
            write=self.write,
            rng=self.run.rng,
            capacity=config.kept_examples,
            seed_share=config.seed_share,
            runs=config.introspection_runs,
            rounds=config.introspection_rounds,
            verified_shots=config.verified_shots,
            written_shots=config.written_shots,
            feasible_share=config.feasible_share,
            balanced=config.class_balance,
            similar=config.similar_tasks,
            keep_at=config.keep_at,
            forbidden={plain(text) for text in [*(t.prompt for t in self.held_out), *(e.text for e in self.benchmark)]},
            shuffled=config.claims == "shuffled",
        )

    # What is known from outside

    def verified(self) -> dict[Label, list[str]]:
        """The verified examples: those that were given, or training tasks of which it is measured whether the model can do them. What that costs is in the accounts."""
        found: dict[Label, list[str]] = {label: [] for label in LABELS}
        wanted = self.config.seed_size
        for example in self.known:
            found[example.label] = [*found[example.label], example.text][:wanted]
        if self.known:
            return found
        index = 0
        while index < 2 * LOOKED_AT * wanted and min(map(len, found.values())) < wanted:
            tasks = [self.task_set.train_task(self.run.seed, index + i) for i in range(2 * wanted)]
            index += len(tasks)
            for example in self.tried_out(tasks, self.run.ledger, self.run.seed):
                if example.text not in found[example.label] and len(found[example.label]) < wanted:
                    found[example.label].append(example.text)
        for label in LABELS:
            if not found[label]:
                warnings.warn(
                    f"of {index} tasks of {self.task_set.name} none is {label} for {self.policy.name}; give verified examples of both kinds with --seed-tasks",
                    stacklevel=2,
                )
        return found

    def tried_out(self, tasks: Sequence[Task], ledger: Ledger, seed: int) -> list[Example]:
        """Tasks with their labels by what the policy solves of them now. Those that could not be judged are left out."""
        policy = self._policy
        assert policy is not None
        config, task_set = self.config, self.task_set
        params = SamplingParams(
            max_new_tokens=config.sampler.max_new_tokens or task_set.max_new_tokens, temperature=config.evaluation.eval_temperature, stop=tuple(task_set.stop)
        )
        requests = [EpisodeRequest(task, sample, stream_key("tried-out", seed, task.id, sample)) for task in tasks for sample in range(config.solve_attempts)]
        attempts = run_episodes(policy, requests, task_set, params, max_turns=self.max_turns, ledger=ledger)
        judge_attempts(attempts, task_set)
        examples = []
        for i, task in enumerate(tasks):
            rate = mean([t.correct for t in attempts[i * config.solve_attempts : (i + 1) * config.solve_attempts] if not math.isnan(t.correct)])
            if not math.isnan(rate):
                examples.append(Example(task.prompt, "feasible" if rate >= config.solved_at else "infeasible"))
        return examples

    def make_probe(self) -> Probe | None:
        """Labelled requests for a verdict: of `--probe-tasks` or the verified examples' held-out part where there are any, else of held-out tasks that are tried out."""
        watch = self.config.watch
        if watch.probe == "never":
            return super().make_probe()
        if watch.probe_tasks is not None:
            learnt, held_out = read_examples(watch.probe_tasks)
            examples = [*held_out, *learnt]
        elif self.benchmark:
            examples = self.benchmark
        else:
            rest = list(self.task_set.held_out())[self.config.evaluation.eval_tasks :]
            before = self.run.ledger.copy()
            examples = self.tried_out([*rest, *self.held_out][: watch.probe_size], self.run.ledger, 0)
            if self.run.step:
                # A run that goes on has this in its accounts.
                self.run.ledger.restore(before)
            else:
                self.run.ledger.set_apart_evaluation(before)
        verdicts = Verdicts(self.verdicts.prompts, balanced(examples, watch.probe_size))
        return Probe(verdicts.held_out(), verdicts, verdicts, watch.probe_samples, watch.probe_positive)

    # One step

    def write(self, requests: Sequence[tuple[Message, ...]], cycle: int) -> list[str]:
        """What the policy writes to each request. Written under its weights of now, and never trained on."""
        config, prompts = self.config, self.verdicts.prompts
        params = SamplingParams(
            max_new_tokens=min(config.sampler.max_new_tokens or prompts.write_tokens, prompts.write_tokens),
            temperature=config.write_temperature,
            top_p=config.write_top_p,
        )
        tasks = [Task(f"write/{cycle}-{i}", messages) for i, messages in enumerate(requests)]
        attempts = [EpisodeRequest(task, 0, self.run.stream("write", cycle, i)) for i, task in enumerate(tasks)]
        written = run_episodes(self.policy, attempts, self.verdicts, params, max_turns=1, ledger=self.run.ledger)
        return [t.last_text for t in written]

    def rollout(self, tasks: Sequence[Task], round_: int = 0) -> list[Group]:
        return group_rollouts(
            self.policy,
            tasks,
            self.verdicts,
            self.params,
            group_size=self.attempts_per_task,
            stream=lambda task, place, sample: self.stream(task, place, sample, round_),
            max_turns=1,
            ledger=self.run.ledger,
        )

    def judge(self, groups: Sequence[Group]) -> None:
        """Agreement for written tasks; for verified ones what is known of them."""
        self.judge_probe(groups)
        for group in groups:
            if group.trajectories[0].task.answer is None:
                continue
            for trajectory in group.trajectories:
                trajectory.reward = trajectory.rewards["correct"] = self.verdicts.verify(trajectory.task, trajectory.last_text)["correct"]

    def judge_probe(self, groups: Sequence[Group]) -> None:
        """Agreement alone: what is trained on must not be told from what is true by looking at the labels."""
        for group in groups:
            verdicts = self.verdicts_of(group.trajectories)
            group.tags |= {"verdicts": verdicts, "consensus": consensus_of(verdicts)}
            rewards = consensus_rewards(verdicts, graded=self.config.consensus_reward == "graded")
            for trajectory, verdict, reward in zip(group.trajectories, verdicts, rewards, strict=True):
                trajectory.rewards = {"consensus": reward, "format": float(verdict is not None)}
                trajectory.reward = reward

    def verdicts_of(self, attempts: Sequence[Trajectory]) -> list[Label | None]:
        return [self.verdicts.prompts.verdict(t.last_text) for t in attempts]

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        groups = super().collect(tasks)
        self.counted = self.curriculum.counted | self.introspected(groups)
        return groups

    def select(self, groups: list[Group]) -> list[Group]:
        """The groups that teach: verified tasks all of them; written ones with a majority, within the band and past the guards."""
        config = self.config
        verified = [g for g in groups if g.trajectories[0].task.answer is not None]
        by_claim: dict[str, list[Group]] = {label: [] for label in LABELS}
        for group in groups:
            task, found = group.trajectories[0].task, group.tags["consensus"]
            if task.answer is not None or found.majority is None or (config.claim_gate and found.majority != task.info["claim"]):
                continue
            if config.band_low - 1e-9 <= mean(group.rewards) <= config.band_high + 1e-9:
                by_claim[task.info["claim"]].append(group)
        most = min(map(len, by_claim.values())) if config.class_balance else None
        written = [group for label in LABELS for group in by_claim[label][:most]]
        self.counted |= {"signal/groups_trained": float(len(written) + len(verified)), "signal/written_trained": float(len(written))}
        return written + verified

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | self.counted

    # Measuring

    def introspected(self, groups: Sequence[Group]) -> Metrics:
        """What a step's verdicts show, and whether it is a warning. Each sign is said once."""
        self.seed_verdicts.extend((task.answer, v) for task, verdicts in verdicts_on(groups) if task.answer in LABELS for v in verdicts)
        signs = alarms(seeds=list(self.seed_verdicts), verdicts=[v for _, verdicts in verdicts_on(groups) for v in verdicts])
        if all(task.answer in LABELS for task, _ in verdicts_on(groups)):
            signs["nothing written"] = (
                f"{self.policy.name} wrote no task that could be read as one; expected what the prompts ask for (see --prompts), which a small model has to be taught first"
            )
        for name in sorted(signs.keys() - self.sounded):
            warnings.warn(f"step {self.run.step}: {signs[name]}; the verdicts say little about what the model can do, or have collapsed", stacklevel=2)
        self.sounded |= signs.keys()
        return introspection_metrics(groups) | {"intrinsic/alarms": float(len(signs))}

    def evaluation(self) -> Evaluation:
        """Held-out attempts as ever, and beside them the verdicts on the same tasks: `eval/self_...` against what was solved, `eval/known_...` against labels."""
        evaluation = super().evaluation()
        rates = [mean([t.correct for t in row if not math.isnan(t.correct)]) for row in evaluation.trajectories]
        known = [(task.prompt, rate) for task, rate in zip(evaluation.tasks, rates, strict=True) if not math.isnan(rate)]
        evaluation.metrics |= self.known_of("eval/self", known)
        evaluation.metrics |= self.known_of("eval/known", [(e.text, float(e.label == "feasible")) for e in self.benchmark])
        return evaluation

    def known_of(self, name: str, known: Sequence[tuple[str, float]]) -> Metrics:
        """Self-knowledge on tasks with known solve rates, and how often a verdict depends on which word the request names first."""
        if not known:
            return {}

        def opinions(*, swapped: bool = False) -> list[Opinion]:
            texts = [text for text, _ in known]
            given = ask(self.policy, self.verdicts, texts, samples=self.config.group_size, params=self.params, ledger=self.run.ledger, swapped=swapped)
            return [Opinion(verdicts, rate) for verdicts, (_, rate) in zip(given, known, strict=True)]

        asked = opinions()
        found = self_knowledge(asked, solved_at=self.config.solved_at)
        if self.verdicts.prompts.names_both and not math.isnan(rate := flip_rate(asked, opinions(swapped=True))):
            found["flips"] = rate
        return {f"{name}_{entry}": value for entry, value in found.items()}

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain["seed_verdicts"] = [list(pair) for pair in self.seed_verdicts]
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.seed_verdicts = deque(((label, verdict) for label, verdict in state.plain["seed_verdicts"]), maxlen=WINDOW)


def is_judged(task_set: TaskSet) -> bool:
    """Whether attempts at the training tasks get a verdict: with an environment or an answer, or from a reward."""
    environment = task_set.environment()
    if environment is not None:
        environment.close()
        return True
    return not math.isnan(task_set.verify(task_set.train_task(0, 0), "").get("correct", math.nan))
