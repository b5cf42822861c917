"""Agent-R: learn to turn back in the middle of an episode, from one's own wrong turns (Yuan et al., arXiv:2501.11425).

An agent that imitates perfect episodes has never seen what to do once something has gone wrong: it repeats what failed. So a round begins with a tree search over the
turns of some tasks, with the policy of now, which gives good and bad episodes that begin alike. The bad one is cut behind the first step that the policy itself, asked
step by step, calls bad; there a change of mind is put in ("that was a mistake"), and the good one goes on. What was wrong is only read; the change of mind and what
follows are learnt. Good episodes are imitated besides. A better policy then searches better, is harder to please (the threshold rises), and cuts earlier.

Differs from ReST-EM in how attempts are made (a search), and in the spliced episodes. `--cut end` splices behind the whole bad episode (direct revision), `--learn good`
leaves splices out, and `--cut random` cuts anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, JudgeConfig, NonNegative, SamplerConfig
from etude.curation import Turn, capped, continuation, contrasting, conversation_example, demonstrated, distinct, rewarded, spliced_conversation, with_origin
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.loops import actions_of, revision_delays, run_length
from etude.evals.measures import Final
from etude.evals.recovery import failed_prefixes, recovery
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.method import State, register
from etude.rewards.judges import open_judge
from etude.rewards.step_verdicts import StepJudge, Walk
from etude.rollouts.plain import task_from_plain, task_to_plain
from etude.search import EnvironmentSearch, Limits, grow, uct
from etude.search.environment import messages_of
from etude.tasks.base import TaskSet
from etude.tasks.begun import play
from etude.tasks.first_error import FLAWLESS
from etude.tasks.loading import load_tasks
from etude.tasks.reflections import reflections_named
from etude.tasks.step_judging import TakenStep
from etude.types import Group, Message, Metrics, Task, Trajectory, mean, trajectories_of

TURNS = "turns"
"""Tag of an episode of a search: its turns, with what was answered to each."""
ACKNOWLEDGED = Message("user", "ok")
"""What stands behind a turn that nothing was answered to: a change of mind, and the end of an episode that failed."""
JUDGE = "judge"
"""What the judge's tensors are called by in a checkpoint."""


@dataclass
class AgentRConfig(IteratedConfig):
    """Options of Agent-R."""

    group_size: AtLeastOne = 4
    """Turns that the search tries at a state; equal ones count once."""
    round: RoundConfig = field(default_factory=lambda: RoundConfig(rounds=3, tasks_per_round=64, steps_per_round=40, start_from="newest"))
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(max_turns=32))
    iterations: AtLeastOne = 4
    """Descents of the search from the root of a tree, each to the end of an episode."""
    exploration: NonNegative = 0.25
    """Weight of what was tried little in the search (c of UCT)."""
    good_above: tuple[float, ...] = (0.5, 0.7, 0.9)
    """Value above which an episode is good, by round; the last one also for later rounds."""
    value_gap: NonNegative = 0.2
    """How far the values of a good and a bad episode have to lie apart."""
    cut: Literal["judge", "end", "random", "exact"] = "judge"
    """Behind which turn a bad episode is cut: the first that the judge calls bad; the last (direct revision), or with `replay_check` the last one behind which a good
    episode still fits into the turns that there are; any; or the first wrong one by the task set's checker."""
    learn: Literal["both", "good", "revisions"] = "both"
    """What is imitated: good episodes, spliced ones, or both."""
    revisions_per_task: Count = 10
    """Spliced episodes of one task at most (0: all): there are as many pairs as good times bad episodes, and easy tasks have most."""
    good_per_task: Count = 3
    """Good episodes of one task at most (0: all)."""
    reflections: str = "auto"
    """Changes of mind, one drawn for each splice: `standard`, `short`, `auto` (by what the model can read), or a text file with one a line."""
    inline: bool = False
    """Write the change of mind at the head of the turn that follows it, not as a turn of its own: for environments in which every turn is an action."""
    replay_check: bool = False
    """Play spliced episodes to the environment, with its answers in place of the recorded ones, and drop those that end too early or are not good. Costs its steps."""
    step_prompt: str = "auto"
    """How the judge is asked: `standard`, with instructions; `short`, for models that were taught the form; a text file with {problem}, {history}, {action} and
    {observation}; or `auto`."""
    judging: JudgeConfig = field(default_factory=lambda: JudgeConfig(judge_tokens=128))
    general_tasks: str | None = None
    """Another task set, whose demonstrations are imitated besides, so that the policy keeps what it knew."""
    agent_share: Annotated[float, Gt(0), Le(1)] = 0.2
    """Share of a round's examples that are the search's, where there are general ones."""
    prefix_turns: Count = 4
    """Turns of failed held-out episodes after which the policy takes over, to see whether it finds back (0: leave that out)."""


@register(
    slug="agent-r",
    name="Agent-R",
    family="self_correction",
    paper="2501.11425",
    title="Agent-R: Training Language Model Agents to Reflect via Iterative Self-Training",
    summary="searches episodes, and learns to turn back right behind the first step that the policy itself calls bad",
    config=AgentRConfig,
    rollouts="tree",
    claim=Claim(
        statement="An agent that imitates episodes which turn back behind the first step that it calls bad itself gets out of failures in which others go round in circles, "
        "and does better on the whole.",
        expectation="From a model that imitated experts who err and then repeat themselves, after two rounds from the same trees, the share of failed episodes that are still "
        "brought to a success after their first four turns is more than 8 points above that of direct revision, which is itself above imitation of good episodes alone; "
        "held-out success is more than 5 points above the latter, and actions are repeated less.",
        arms=(
            Arm("agent-r"),
            Arm("direct revision", "agent-r", {"cut": "end"}),
            Arm("good only", "agent-r", {"learn": "good"}),
            Arm("random cut", "agent-r", {"cut": "random"}),
        ),
        common={
            "method": "agent-r",
            "tasks": "crafting:directions=true,shallow=true,partial=true",
            "skill_tasks": "crafting:directions=true,shallow=true,slips=0.02,thoughts=0.3,lessons=0.25,lesson_noise=0.05",
            "skill_steps": 240,
            "skill_tasks_per_step": 24,
            "skill_lr": 3e-3,
            "warm_tasks": "crafting:directions=true,shallow=true,slips=0.25,stuck=0.95,thoughts=0.1,lessons=0.25,lesson_noise=0.05",
            "warm_steps": 60,
            "warm_tasks_per_step": 24,
            "warm_lr": 2e-3,
            "rounds": 2,
            "tasks_per_round": 60,
            "group_size": 3,
            "iterations": 4,
            "good_above": (0.9,),
            "revisions_per_task": 3,
            "replay_check": True,
            "steps_per_round": 30,
            "tasks_per_step": 24,
            "lr": 2e-3,
            "judge_tokens": 4,
            "eval_tasks": 100,
            "eval_samples": 2,
            "evaluate_every": 30,
        },
        experiment="etude.experiments.recovery:recovery",
        budget="60-steps",
        tests=(
            Comparison("recovery, over direct revision", "agent-r", "direct revision", Final("recovered"), margin=0.08),
            Comparison("success, over good episodes alone", "agent-r", "good only", Final("success"), margin=0.05),
            Comparison("repeated actions", "agent-r", "good only", Final("run_length"), better="lower"),
            Comparison("direct revision, over good episodes alone", "direct revision", "good only", Final("recovered"), role="ablation"),
            Comparison("the judged cut", "agent-r", "random cut", Final("recovered"), margin=0.08, role="ablation"),
        ),
        preconditions=(
            Precondition(
                "room to learn", "agent-r", Final("success_first"), at_least=0.2, at_most=0.6, otherwise="the start solves almost nothing, or almost everything"
            ),
            Precondition(
                "it does not find back by itself", "agent-r", Final("recovered_first"), at_most=0.25, otherwise="there is little to learn about turning back"
            ),
            Precondition(
                "a judge that knows", "agent-r", Final("cut_precision"), at_least=0.6, otherwise="cuts that the judge makes are as good as random ones"
            ),
        ),
        tried="Seed 0, each number from one run. Recipes to be looked up: 208 steps of imitation (24 a step, 2e-3) solved 1 of 48 and found back from none of 46 failures, "
        "with 22 % of cuts behind the first wrong step; repeating an error is learnt long before recipes are. Two recipes as directions without numbers (no option any more; "
        "slips 0.18, stuck 0.92, thoughts 0.1, 280 steps of 24 at 3e-3): start 32 % success, 4 % recovered, 76 % of cuts right. From there two rounds of 30 steps of 24 at "
        "1e-3 gave 60 % and 9 %; one round of 40 steps at 2e-3 79 % and 17 %. After an error that model mostly writes a change of mind (151 of 206 turns), but 44 of the 141 "
        "turns after one were right: it does not know how far it has come. Without `thoughts` it could not spell a change of mind. Numbers in directions and answers, but "
        "not in answers to thoughts: 140 steps of imitation at slips of 0.3 solved 3 of 100, hence two stages; after a first stage of 140 steps with thoughts in 15 % of the "
        "turns, agent-r had 44 % success and 24 % recovered, direct revision 62 and 16 %, good only 81 and 16 %: it counted turns and did not read the numbers. With the "
        "number told after a thought too, spliced episodes as the world would answer them (`replay_check`), fewer of them, and a first stage of 240 steps with thoughts in "
        "30 %: start 44 % success, 7 % recovered, 75 % of cuts right, and agent-r ends at 94 and 67 %, runs of equal actions at 1.06 from 1.92. Direct revision from there: "
        "88 and 40 %. Three reported seeds were begun: their starts solved 26, 19 and 14 %, below the precondition on the mean, so that they count for nothing (agent-r "
        "ended at 91 and 45 %, direct revision at 85 and 34 %, good only, on two of them, at 84 and 35 %). With slips of 0.25 in place of 0.3 starts solve 28 and 57 % "
        "(seeds 1 and 2), recovering 8 and 12 %; from there agent-r ended at 93 and 49 % on seed 1, good only at 79 and 35 %. On the six seeds direct revision had no "
        "revisions at all in a first run: replayed behind the end of an episode none can pass, so that it gave what good only gives (as did the 88 and 40 % of seed 0). That "
        "arm alone was run again, with revisions as late as leaves room for the rest.",
        seeds=reported_seeds(6),
        quick={
            "skill_steps": 2,
            "skill_tasks_per_step": 8,
            "warm_steps": 2,
            "warm_tasks_per_step": 8,
            "rounds": 1,
            "steps_per_round": 2,
            "tasks_per_round": 2,
            "tasks_per_step": 2,
            "iterations": 1,
            "eval_tasks": 8,
            "evaluate_every": 1,
        },
    ),
)
class AgentR(IteratedImitation):
    """Differs from ReST-EM in the search, and in the episodes that turn back."""

    config: AgentRConfig

    # Before the first step

    def setup(self) -> None:
        config = self.config
        if not config.good_above:
            raise InputError("--good-above is empty; expected a value for each round, or one for all")
        super().setup()
        self.reflections = reflections_named(config.reflections, self.policy.context_length)
        self.step_judge = StepJudge(open_judge(config.judging, self.policy, self.run.ledger), config.step_prompt)
        environment = self.task_set.environment()
        self.in_turns = environment is not None
        if environment is not None:
            environment.close()
        elif config.replay_check:
            raise InputError(
                f"--replay-check plays episodes to an environment, and {self.task_set.name} has none; leave it out, or choose tasks that are played in turns"
            )
        task = self.task_set.train_task(self.run.seed, 0)
        if config.cut == "exact" and self.task_set.first_wrong_step(task, ["x"]) is None:
            raise InputError(
                f"--cut exact asks for the first wrong step, and {self.task_set.name} can't tell; expected tasks that can, as crafting, or --cut judge"
            )
        self.general: TaskSet | None = load_tasks(config.general_tasks, seed=self.run.seed) if config.general_tasks is not None else None
        if self.general is not None:
            demonstrated(self.policy, self.general, self.general.train_task(self.run.seed, 0), self.run.seed)
        self.begun: list[Task] | None = None

    # One round

    @property
    def threshold(self) -> float:
        """The value above which an episode is good in this round."""
        return self.config.good_above[min(max(1, self.round), len(self.config.good_above)) - 1]

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        config = self.config
        groups, metrics = self.attempted(tasks)
        good = [] if config.learn == "revisions" else distinct(rewarded(trajectories_of(groups), self.threshold))
        good = [with_origin(replace(t, tags={}), kind="good", reward=t.reward) for t in capped(good, config.good_per_task, self.run.rng("good", self.round))]
        revisions, spliced = ([], {}) if config.learn == "good" else self.revisions(groups)
        made = [*good, *revisions]
        general = self.general_examples(len(made))
        counted = {"round/good": len(good), "round/revisions": len(revisions), "round/general": len(general), "round/threshold": self.threshold}
        return [*made, *general], metrics | self.searched | spliced | {name: float(value) for name, value in counted.items()}

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        """Judged episodes of a tree search, one group a tree."""
        config, run = self.config, self.run
        steps = run.ledger.environment_steps
        search = EnvironmentSearch(
            self.policy,
            self.task_set,
            self.params,
            tries=config.group_size,
            max_turns=self.max_turns,
            ledger=run.ledger,
            stream=lambda task, place, node, i: run.stream(run.step, "search", place, task.id, node, i),
        )
        with search:
            trees = search.plant(tasks, lambda place: run.rng(run.step, "ties", place))
            grow(trees, search.expand, search.evaluate, limits=Limits(config.iterations, self.max_turns), rule=uct(config.exploration))
        groups: list[Group] = []
        for task, grown, attempts in zip(tasks, trees, search.attempts, strict=True):
            for number, attempt in attempts.items():
                attempt.tags[TURNS] = [Turn(node.state["text"], messages_of(node.state)) for node in grown.tree.path(number)[1:]]
            groups.append(Group(task.id, list(attempts.values())))
        if run.config.save_trajectories and trees:
            view = trees[0].tree.view(
                lambda node: f"{node.state['text']!r} -> {[m['content'] for m in node.state['messages']]}" if node.parent is not None else "task"
            )
            run.save_trees(run.step, [{"task_id": tasks[0].id, "prompt": tasks[0].prompt, "answer": tasks[0].answer, "view": view}])
        self.searched: Metrics = {
            "search/nodes": mean([float(len(grown.tree)) for grown in trees]),
            "search/episodes": mean([float(len(group)) for group in groups]),
            "search/value": mean([grown.tree.root.statistics.value for grown in trees]),
            "search/environment_steps": float(run.ledger.environment_steps - steps),
        }
        return groups

    def revisions(self, groups: Sequence[Group]) -> tuple[list[Trajectory], Metrics]:
        """Episodes that turn back: a bad one up to where it is cut, a change of mind, and what a good one of the same task has in place of the rest."""
        config, rng = self.config, self.run.rng("revisions", self.round)
        pairs: list[tuple[Trajectory, Trajectory]] = []
        for group in groups:
            judged = [t for t in group.trajectories if not math.isnan(t.reward)]
            found = contrasting([t.reward for t in judged], gap=config.value_gap, above=self.threshold)
            chosen = found if not config.revisions_per_task or len(found) <= config.revisions_per_task else rng.sample(found, config.revisions_per_task)
            pairs += [(judged[g], judged[b]) for g, b in chosen]
        lengths, metrics = self.cuts([bad for _, bad in pairs])
        if config.cut == "end" and config.replay_check:
            # An episode that has ended cannot be gone on with.
            lengths = [last_with_room(bad.tags[TURNS], good.tags[TURNS], self.max_turns - (not config.inline)) for good, bad in pairs]
        made: list[Trajectory] = []
        for (good, bad), length in zip(pairs, lengths, strict=True):
            read = bad.tags[TURNS][:length]
            following = continuation(read, good.tags[TURNS])
            if not read or not following:
                continue
            opening = good.task.opening
            messages, learn = spliced_conversation(opening, read, rng.choice(self.reflections), following, acknowledged=ACKNOWLEDGED, inline=config.inline)
            if config.replay_check:
                played = play(self.task_set, good.task, [m.content for m in messages if m.role == "assistant"])
                self.run.ledger.environment_steps += played.turns
                if played.turns < len(learn) or played.reward <= self.threshold:
                    continue
                messages = list(played.messages)
            example = conversation_example(self.policy, good.task, messages, learn=learn, kind="revision", read=length, value=good.reward)
            if any(segment.trained for segment in example.segments):
                made.append(example)
        metrics |= {"round/pairs": float(len(pairs))}
        if pairs:
            metrics |= {"cut/turns": mean([float(length) for length in lengths]), "cut/dropped": 1 - len(made) / len(pairs)}
        return made, metrics

    def cuts(self, bad: Sequence[Trajectory]) -> tuple[list[int], Metrics]:
        """How many turns of each bad episode are read, and what there is to say of the judge."""
        whole = [len(t.tags[TURNS]) for t in bad]
        cut = self.config.cut
        if cut == "end":
            return whole, {}
        if cut == "random":
            rng = self.run.rng("cuts", self.round)
            return [rng.randint(1, length) for length in whole], {}
        right = [self.task_set.first_wrong_step(t.task, [turn.text for turn in t.tags[TURNS]]) for t in bad]
        if cut == "exact":
            return [length if first is None or first == FLAWLESS else first + 1 for first, length in zip(right, whole, strict=True)], {}
        walks = [Walk(t.task, tuple(TakenStep(turn.text, " ".join(m.content for m in turn.answers)) for turn in t.tags[TURNS])) for t in bad]
        named = self.step_judge.first_bad(walks, lambda task, asked: self.run.stream(self.run.step, "judge", task.id, asked))
        wanted = self.run.config.save_trajectories
        transcripts = self.step_judge.transcripts
        if wanted and transcripts:
            self.run.save_judgements(self.run.step, transcripts[:: max(1, len(transcripts) // wanted)][:wanted])
        metrics = self.step_judge.metrics()
        known = [(first, at) for first, at in zip(right, named, strict=True) if at is not None and first is not None]
        if bad:
            metrics["judge/found"] = mean([float(at is not None) for at in named])
        if known:
            metrics["judge/precision"] = mean([float(first == at) for first, at in known])
        return [length if at is None else at + 1 for at, length in zip(named, whole, strict=True)], metrics

    # Examples from elsewhere

    def general_examples(self, count: int) -> list[Trajectory]:
        """As many of the other task set's demonstrations as make `count` examples the share of all that was asked for."""
        if self.general is None:
            return []
        wanted = round(count * (1 - self.config.agent_share) / self.config.agent_share)
        seed = self.run.stream("general", self.round)
        return [demonstrated(self.policy, self.general, self.general.train_task(seed, i), seed, kind="general") for i in range(wanted)]

    def update(self, groups: Sequence[Group]) -> Metrics:
        metrics = super().update(groups)
        self.step_judge.judge.follow()
        return metrics

    # Measuring

    def evaluation(self) -> Evaluation:
        config = self.config
        evaluation = super().evaluation()
        attempts = [t for row in evaluation.trajectories for t in row]
        evaluation.metrics["eval/run_length"] = run_length([actions_of(t) for t in attempts])
        delays = revision_delays(attempts, self.task_set, lambda text: any(reflection in text for reflection in self.reflections))
        evaluation.metrics |= {"eval/revised_after": mean([float(d) for d in delays])} if delays else {}
        if self.begun is None:
            # The policy that the run starts with fails for all that come after it.
            count = config.prefix_turns if self.in_turns else 0
            self.begun = failed_prefixes(evaluation.trajectories, self.task_set, count, "the policy at the start") if count else []
        if self.begun:
            params = replace(self.params, temperature=config.evaluation.eval_temperature, top_p=1.0, top_k=0)
            left = max(1, self.max_turns - config.prefix_turns)
            found = recovery(self.policy, self.begun, self.task_set, params, max_turns=left, seed=self.evaluation_seed, ledger=self.run.ledger)
            evaluation.metrics |= {f"eval/{name}": value for name, value in found.items()}
        return evaluation

    # Saving

    def state(self) -> State:
        state = super().state()
        plain: dict[str, Any] = {"begun": None if self.begun is None else [task_to_plain(task) for task in self.begun]}
        return replace(state, plain=state.plain | plain).with_part(JUDGE, self.step_judge.judge.state())

    def load_state(self, state: State) -> None:
        super().load_state(state)
        begun = state.plain["begun"]
        self.begun = None if begun is None else [task_from_plain(task) for task in begun]
        self.step_judge.judge.load_state(state.part_of(JUDGE))

    def close(self) -> None:
        super().close()
        step_judge = getattr(self, "step_judge", None)
        if step_judge is not None:
            step_judge.judge.close()


def last_with_room(bad: Sequence[Turn], good: Sequence[Turn], turns: int) -> int:
    """How many turns of a bad episode can be read so that what a good one has behind what both begin with still fits into `turns`; 0 where not even one."""
    return max((length for length in range(1, len(bad) + 1) if length + len(continuation(bad[:length], good)) <= turns), default=0)
