"""ReST-MCTS*: search for solutions led by a value model, and train both the policy and the value model on what was found (arXiv:2406.03816).

Whoever keeps every attempt with a right answer learns wrong ways that ended right by luck. Here attempts are steps of a tree search. A value model says after each step how
good the partial solution is, so that tokens go where a sound solution is likely; and of a tree whose ends are judged, each step's value follows: how far it is from a
right answer, and whether it leads to one at all. So final answers alone give a target for every step. Each round searches with the policy and the value model of now,
trains the value model on the values of all trees with a right end, and the policy on the right solution of each task that had the highest value.

Differs from ReST-EM in how attempts are made, and in which of the right ones are learnt. `--gather samples` makes plain attempts in place of the search, and `--targets
shuffled` deals a tree's values out to other steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, JudgeConfig, NonNegative, Share
from etude.curation import rewarded, with_origin
from etude.curation.examples import written as written_tokens
from etude.errors import InputError
from etude.evals.judged_values import told_apart
from etude.evals.measures import Final
from etude.evals.soundness import audited, newest_right
from etude.iterated import IteratedConfig, IteratedImitation, RoundConfig
from etude.method import State, register
from etude.models.value_model import ValueModel, reading
from etude.rewards import judge
from etude.rollouts import EpisodeRequest
from etude.search.mcts_star import StepSearch
from etude.search.solved import SolvedCritic
from etude.search.step_settings import StepSearchConfig, ValueConfig
from etude.search.steps import Ask, StepWriter, step_params
from etude.search.tree import Tree
from etude.search.value_targets import Targets, Way, judged_ends, merged, split_tokens, targets_of, ways
from etude.types import Group, Metrics, Task, Trajectory, trajectories_of

VALUE = "value"
"""Tag of an attempt: what the value model made of it. Also what its tensors are called by in a checkpoint, and its folder beside the exported policy."""
AT_ONCE = 64
"""Trees that grow side by side."""
KEPT_WAYS = 4096
"""Ways through trees that are remembered, to be learnt again: of more, so many that are drawn."""


@dataclass
class ReSTMCTSConfig(IteratedConfig):
    """Options of ReST-MCTS*."""

    group_size: AtLeastOne = 8
    """Plain attempts at a task, where the value model is first taught by attempts, and with `--gather samples`; steps drawn beside each of a demonstration's."""
    round: RoundConfig = field(default_factory=lambda: RoundConfig(rounds=2, start_from="newest"))
    search: StepSearchConfig = field(default_factory=StepSearchConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    judging: JudgeConfig = field(default_factory=lambda: JudgeConfig(judge_tokens=64))
    gather: Literal["search", "samples"] = "search"
    """How a round's solutions are found: by search, or as plain attempts."""
    value_seed: Literal["attempts", "demonstrations", "none"] = "attempts"
    """What teaches the value model before the first search: judged plain attempts at other tasks; the task set's demonstrations, with the policy's own different steps beside
    theirs as wrong ones; or nothing, for a value model that was trained before."""
    seed_tasks: Count = 0
    """Tasks that this is made from (0: as many as --tasks-per-round)."""
    targets: Targets = "tree"
    """Values that the value model learns: by the whole tree; from one right solution of it (`trace`); or, as controls, shuffled among its steps, or drawn (`chance`)."""
    value_replay: NonNegative = 1.0
    """Earlier ways through trees that the value model learns again, for each new one. A good search leaves few wrong steps to learn from, and without any it forgets them."""
    right_above: float = 0.5
    """A solution with a reward above this is right."""
    keep_value: Share = 0.2
    """Imitate right solutions with a value from this on (0: whatever the value)."""
    keep_length: Count = 0
    """Imitate right solutions of so many characters at least; the paper's code has 50."""
    keep_per_task: Count = 1
    """Solutions of one task to imitate at most, those with the highest values (0: all)."""


SEARCHING = {
    "method": "rest-mcts",
    "group_size": 4,
    "value_seed": "demonstrations",
    "search_tokens": 240,
    "branch": 3,
    "step_retries": 0,
    "roll_steps": 1,
    "max_steps": 10,
    "exploration": 0.02,
    "unvisited": 0.05,
    "value_lr": 6e-4,
    "value_batch": 8,
    "value_epochs": 3,
}
"""The claim's search, and its value model."""


@register(
    slug="rest-mcts",
    name="ReST-MCTS*",
    family="search",
    paper="2406.03816",
    title="ReST-MCTS*: LLM Self-Training via Process Reward Guided Tree Search",
    summary="searches solutions step by step with a value model, and trains both on the trees",
    config=ReSTMCTSConfig,
    rollouts="tree",
    claim=Claim(
        statement="Self-training on solutions that a value-guided tree search found, with step values inferred from the trees, beats self-training on all attempts with a "
        "right answer; and a search by these values makes more of the same tokens than choosing among whole solutions does.",
        expectation="From a model that imitated chains of eight steps, about one in seven of them wrong: after two rounds, at no more generated tokens, held-out accuracy at "
        "temperature 1 is more than 5 points above ReST-EM, and less of what is imitated has a wrong step. With the value model of the end and the policy of the start, "
        "MCTS* finds a solution whose every step is right for more than 10 points more questions than the best of whole solutions by the same values, and than majority "
        "votes, at the same tokens. (One answer in three is right by chance.)",
        arms=(
            Arm("rest-mcts", settings={**SEARCHING, "searched_tasks": 100, "searched_tokens": 240}),
            Arm("rest-em", settings={"method": "rest-em", "group_size": 8}),
            Arm("self-rewarding", settings={"method": "self-rewarding", "score": "mean-logprob", "group_size": 8, "lr": 3e-4, "probe": "never"}),
            Arm("shuffled values", "rest-mcts", {**SEARCHING, "targets": "shuffled", "searched_tasks": 100, "searched_tokens": 240}),
        ),
        common={
            "tasks": "register-chain:operations=8,modulus=3",
            "warm_tasks": "register-chain:operations=8,modulus=3,slips=0.15",
            "warm_steps": 40,
            "warm_tasks_per_step": 40,
            "warm_lr": 2e-3,
            "rounds": 2,
            "steps_per_round": 20,
            "start_from": "newest",
            "tasks_per_step": 24,
            "tasks_per_round": 80,
            "lr": 1e-3,
            "eval_tasks": 200,
            "eval_samples": 4,
            "evaluate_every": 40,
        },
        experiment="etude.experiments.step_search:step_search",
        budget="40-steps",
        tests=(
            Comparison("accuracy, over ReST-EM", "rest-mcts", "rest-em", Final("pass_rate"), margin=0.05),
            Comparison("wrong steps in what is imitated", "rest-mcts", "rest-em", Final("flawed"), better="lower"),
            Comparison("search, over the best of whole solutions", "rest-mcts", None, Final("search_mcts_sound") - Final("search_best_of_n_sound"), margin=0.1),
            Comparison("search, over votes", "rest-mcts", None, Final("search_mcts_sound") - Final("search_votes_sound"), margin=0.1),
            Comparison("search, by answers alone, over the best", "rest-mcts", None, Final("search_mcts") - Final("search_best_of_n"), role="ablation"),
            Comparison("search, by answers alone, over votes", "rest-mcts", None, Final("search_mcts") - Final("search_votes"), role="ablation"),
            Comparison("accuracy, over self-rewarding", "rest-mcts", "self-rewarding", Final("pass_rate"), role="ablation"),
            Comparison("values of the tree, not shuffled", "rest-mcts", "shuffled values", Final("pass_rate"), role="ablation"),
            Comparison("search by them", "rest-mcts", "shuffled values", Final("search_mcts_sound"), role="ablation"),
            Comparison("search, over a beam", "rest-mcts", None, Final("search_mcts") - Final("search_beam"), role="ablation"),
            Comparison("ReST-EM wrote no less", "rest-em", "rest-mcts", Final("generated"), role="ablation"),
            Comparison("Self-Rewarding wrote no less", "self-rewarding", "rest-mcts", Final("generated"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "values that tell steps apart",
                "rest-mcts",
                Final("told_apart"),
                at_least=0.7,
                otherwise="the value model cannot tell a right step from a wrong one, and a search by it finds nothing",
            ),
            Precondition(
                "room to learn",
                "rest-mcts",
                Final("pass_rate_first"),
                at_least=0.1,
                at_most=0.7,
                otherwise="the start solves almost nothing, or almost everything",
            ),
            Precondition(
                "right by wrong steps", "rest-em", Final("flawed"), at_least=0.15, otherwise="right answers come by right steps, and there is little to filter"
            ),
        ),
        tried="Seed 0, chains modulo 3. The start, after 40 steps of imitation of 40 chains each with 15 % slips: a step is right with about 0.76, an attempt with 0.375, and "
        "soundly with 0.14. The value model was what failed: at first it learnt how far a solution has come, and not whether its newest step is right (area under the curve "
        "of right against wrong steps at equal depth 0.3 to 0.7 after 52 to 106 optimiser steps, on attempts and on demonstrations). Taught by 600 demonstrations with 30 % "
        "slips and a value behind every step, batches of 8, it got there: 0.96 after 150 steps at 1e-3, 1.0 after 100 at 6e-4, 0.80 after 125 at 3e-4, 0.78 after 200 of 12 "
        "at 2e-3. So three things were wrong: each value of a tree was learnt once, on the first way through it, so that most ways taught a single value; 1e-3 was too high; "
        "and there were too few steps. With all values of each way, 100 demonstrations with the policy's steps beside them and 174 steps at 6e-4 give 1.0 in 16 CPU seconds "
        "(0.65 with each value once, 0.80 in 261 steps at 1e-3). No use were: trees of attempts judged by their answers alone (0.5 after 400 steps at 1e-3, each value "
        "once), wrong attempts laid over demonstrations in place of single steps (0.55 after 204 at 5e-4), a longer start (0.5 after 125), modulo 7 with small additions "
        "alone (0.6 after 125). A round's trees took it from 1.0 to 0.83 in 16 steps, and with an earlier way learnt again for each new one to 0.98 in 90. The search, 240 "
        "tokens a task, by that value model before any round: best solutions right in 0.48 with exploration 0.1 and 0.2 for the unvisited, in 0.83 with 0.05 and 0.1 (40 "
        "tasks); on 40 others 0.68, 0.73 with 0.02 and 0.05, 0.75 with neither. The arms with 0.05 and 0.1: rest-mcts from 0.375 to 0.58 (sound 0.14 to 0.50), told apart "
        "0.87, flawed 0.34, 59k generated tokens; ReST-EM with 7 attempts to 0.386 (0.18), flawed 0.71, 57k. With the value model of the end MCTS* was right in 0.44, the "
        "best of whole solutions in 0.36, votes in 0.41, beam in 0.04: by the trees of one round the same search had fallen to 0.38 (40 tasks), though steps were told apart "
        "at 0.96. Perhaps because trees of a weak policy teach that right steps end wrong, so that values rise less from step to step; hence less for what is untried, 0.02 "
        "and 0.05. With these, three passes over 80 demonstrations and 8 attempts in the other arms: rest-mcts from 0.375 to 0.744 (sound 0.65, flawed 0.24, told apart "
        "0.86, 55k tokens), ReST-EM to 0.384 (0.10, 0.77, 65k), Self-Rewarding at 3e-4 to 0.254 (56k), shuffled values to 0.334 (0.01, told apart 0.51). The search at the "
        "end was right in 0.52 and soundly in 0.43, the best of whole solutions in 0.49 and 0.15, votes in 0.46 and 0.16: they are right by wrong steps, which is why the "
        "tests of the search ask for sound solutions. The value model sees demonstrations that ReST-EM does not, as the paper's first one sees annotated solutions.",
        seeds=reported_seeds(6),
        quick={
            "warm_steps": 2,
            "warm_tasks_per_step": 8,
            "rounds": 1,
            "steps_per_round": 2,
            "tasks_per_round": 3,
            "tasks_per_step": 4,
            "searched_tasks": 2,
            "eval_tasks": 8,
            "evaluate_every": 1,
        },
    ),
)
class ReSTMCTS(IteratedImitation):
    """Rounds of: search, learn values, imitate the best right solutions."""

    config: ReSTMCTSConfig

    # Before the first step

    def setup(self) -> None:
        super().setup()
        config = self.config
        self.step_params = step_params(self.task_set, self.params, delimiter=config.search.delimiter, step_tokens=config.search.step_tokens)
        self.delimiter = self.step_params.stop[0]
        task = self.task_set.train_task(self.run.seed, 0)
        if config.value_seed == "demonstrations" and (task.answer is None or self.task_set.demonstration(task, 0) is None):
            raise InputError(f"--value-seed demonstrations: {self.task_set.name} has no worked answers; expected tasks that have, or --value-seed attempts")
        self.value = ValueModel.open(config.value, self.policy, self.run.ledger)
        self.critic: SolvedCritic | None = None
        if config.search.critic != "off":
            self.critic = SolvedCritic.of(config.judging, self.policy, self.run.ledger, hints=config.search.critic == "common")
        self.trees: list[tuple[Tree, list[int]]] = []
        """Of this round, with the nodes that attempts end in, group by group."""
        self.learnt: list[Way] = []
        """What the value model has learnt so far."""
        self.steps: list[tuple[int, bool, float]] = []
        """Of the steps that the round's search tried: depth, whether it is right, and what it was valued at first."""

    # One round

    def examples(self, tasks: Sequence[Task]) -> tuple[list[Trajectory], Metrics]:
        seeded = self.teach_values() if self.round == 1 else {}
        groups, metrics = self.attempted(tasks)
        learnt = self.learn_values(groups, "values")
        kept = self.kept(groups)
        return kept, seeded | metrics | self.told() | learnt | {"round/tasks_kept": float(len({t.task.id for t in kept}))} | audited(self.task_set, kept)

    def collect(self, tasks: Sequence[Task]) -> list[Group]:
        """Judged solutions of each task, valued, with the trees that they are the ends of."""
        self.trees, self.steps = [], []
        groups: list[Group] = []
        for at in range(0, len(tasks), AT_ONCE):
            groups += self.searched(tasks[at : at + AT_ONCE], at) if self.config.gather == "search" else self.sampled(tasks[at : at + AT_ONCE], at)
        return groups

    def searched(self, tasks: Sequence[Task], first: int) -> list[Group]:
        """Solutions that trees end in. first: the number of the first task among the round's."""
        run = self.run
        with StepWriter(self.policy, self.step_params, run.ledger) as writer:
            search = StepSearch(writer, self.value, self.config.search, stream=lambda *parts: run.stream(run.step, "search", first, *parts), critic=self.critic)
            trees = search.plant(tasks, lambda place: run.rng(run.step, "ties", first, place))
            search.grow(trees)
        groups = []
        for task, grown in zip(tasks, trees, strict=True):
            found = search.solutions(grown)
            for sample, (node, attempt) in enumerate(found):
                attempt.sample, attempt.tags[VALUE] = sample, node.own.value
            groups.append(Group(task.id, [attempt for _, attempt in found], {"tokens": grown.tokens}))
            self.trees.append((grown.tree, [node.number for node, _ in found]))
            self.steps += self.checked(task, grown.tree)
        judge(trajectories_of(groups), self.task_set)
        if first == 0 and run.config.save_trajectories:
            view = trees[0].tree.view(lambda node: f"{node.state['text']!r} first {node.own.value:.2f}" if node.parent is not None else "task")
            run.save_trees(run.step, [{"task_id": tasks[0].id, "prompt": tasks[0].prompt, "answer": tasks[0].answer, "view": view}])
        return groups

    def checked(self, task: Task, tree: Tree) -> list[tuple[int, bool, float]]:
        """The steps of a tree that come after right ones alone. Only looked at: nothing is trained by it."""
        found = []
        for node in tree.nodes[1:]:
            texts = [step.state["text"] for step in tree.path(node.number)[1:]]
            right = newest_right(self.task_set, task, "\n".join(texts[:-1]), "\n".join(texts))
            found += [] if right is None else [(node.depth, right, node.own.value)]
        return found

    def told(self) -> Metrics:
        """`value/told_apart`: how well the values that the round's search went by tell right steps from wrong ones. Empty where that is not known."""
        area = told_apart(self.steps)
        return {"value/told_apart": area} if area == area else {}

    def sampled(self, tasks: Sequence[Task], first: int, name: str = "sample") -> list[Group]:
        """Plain attempts, laid over each other as a tree for each task."""
        requests = [(task, i, self.run.stream(self.run.step, name, first, task.id, i)) for task in tasks for i in range(self.config.group_size)]
        attempts = self.attempt([EpisodeRequest(*request) for request in requests])
        judge(attempts, self.task_set)
        values = self.value.values([t.prompt for t in attempts], [t.tokens for t in attempts]) if name == "sample" else [0.0] * len(attempts)
        for attempt, value in zip(attempts, values, strict=True):
            attempt.tags[VALUE] = value
        groups = [Group(task.id, attempts[i * self.config.group_size : (i + 1) * self.config.group_size]) for i, task in enumerate(tasks)]
        for group in groups:
            rows = [split_tokens(self.policy, t.tokens, self.delimiter) for t in group.trajectories]
            self.trees.append(merged(group.trajectories[0].prompt, rows))
        return groups

    def learn_values(self, groups: Sequence[Group], name: str) -> Metrics:
        """Train the value model on the trees of some judged groups."""
        random = self.run.rng(name, self.round)
        found: list[Way] = []
        for (tree, ends), group in zip(self.trees, groups, strict=True):
            right = judged_ends(ends, group.trajectories, self.config.right_above)
            found += ways(tree, targets_of(tree, right, self.config.targets, random))
        again = random.sample(self.learnt, min(len(self.learnt), round(self.config.value_replay * len(found))))
        metrics = self.value.fit([reading(*way) for way in (*found, *again)], random)
        self.learnt += found
        self.learnt = random.sample(self.learnt, min(len(self.learnt), KEPT_WAYS))
        return metrics

    def teach_values(self) -> Metrics:
        """What the value model learns before the first search."""
        config = self.config
        if config.value_seed == "none":
            return {}
        tasks = self.curriculum.next(config.seed_tasks or config.round.tasks_per_round)
        self.trees = []
        groups = self.sampled(tasks, 0, "value seed") if config.value_seed == "attempts" else self.demonstrated(tasks)
        return {f"seed/{name.removeprefix('value/')}": value for name, value in self.learn_values(groups, "value seed").items()}

    def demonstrated(self, tasks: Sequence[Task]) -> list[Group]:
        """Demonstrations, and beside each of their steps those that the policy would have written there and that are others: these count as wrong."""
        run, policy, count = self.run, self.policy, self.config.group_size
        groups: list[Group] = []
        for first in range(0, len(tasks), AT_ONCE):
            part = tasks[first : first + AT_ONCE]
            prompts, shown, asked = [policy.render(task.opening) for task in part], list[list[list[int]]](), list[Ask]()
            for task, prompt in zip(part, prompts, strict=True):
                text = self.task_set.demonstration(task, run.stream("demonstration", task.id)) or ""
                steps = split_tokens(policy, written_tokens(policy, text), self.delimiter)
                shown.append(steps)
                for k in range(len(steps)):
                    context = [*prompt, *(token for step in steps[:k] for token in step)]
                    asked.append(Ask((task.id, k), context, [run.stream(run.step, "beside", task.id, k, i) for i in range(count)]))
            with StepWriter(policy, self.step_params, run.ledger) as writer:
                written = iter(writer.write(asked, keep=False))
            for task, prompt, steps in zip(part, prompts, shown, strict=True):
                beside = [[*steps[:k], step.tokens] for k in range(len(steps)) for step in next(written) if step.tokens != steps[k]]
                self.trees.append(merged(prompt, [steps, *beside]))
                rewards = [1.0, *(0.0 for _ in beside)]
                groups.append(Group(task.id, [Trajectory(task, prompt, [], "environment", reward=reward) for reward in rewards]))
        return groups

    def kept(self, groups: Sequence[Group]) -> list[Trajectory]:
        """The solutions that are imitated: right ones with a value, the highest of each task first."""
        config, found = self.config, []
        for group in groups:
            right = rewarded(group.trajectories, config.right_above)
            good = [t for t in right if t.tags[VALUE] >= config.keep_value and len(t.last_text) >= config.keep_length]
            best = sorted(good, key=lambda t: -t.tags[VALUE])
            found += [with_origin(t, reward=t.reward, value=t.tags[VALUE]) for t in best[: config.keep_per_task or None]]
        return found

    # Saving

    def state(self) -> State:
        state = super().state()
        return replace(state, plain=state.plain | {"learnt": self.learnt}).with_part(VALUE, self.value.state())

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.learnt = [(prompt, steps, values) for prompt, steps, values in state.plain["learnt"]]
        self.value.load_state(state.part_of(VALUE))

    def export(self, folder: Any) -> None:
        """The policy, and the value model under `value`."""
        super().export(folder)
        self.value.save(Path(folder) / VALUE)
