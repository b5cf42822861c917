"""What a search over an agent's actions can be told, and the search that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from etude.config import AtLeastOne, Count, EndpointConfig, NonNegative
from etude.ledger import Ledger
from etude.models.responders import CountedResponder, Responder
from etude.models.sampling import SamplingParams
from etude.rewards.judges import ResponderJudge
from etude.search.acting import Actor
from etude.search.action_search import ActionSearch, Ends, Hindsight, How
from etude.search.best_first import Exploit, Weights
from etude.search.discriminator import By, Debate
from etude.search.hindsight import From, Say
from etude.search.value_agent import Source, ValueAgent
from etude.searching import SearchConfig


@dataclass
class ScriptConfig:
    """The scripted agent and judge (--model none), for tasks that have one."""

    noise: NonNegative = 30.0
    """Standard deviation of the scripted judge's values."""
    obedience: Annotated[float, Ge(0), Le(1)] = 0.8
    """How often the scripted agent listens to hindsight."""


@dataclass
class ValueJudgeConfig:
    """Which model judges actions."""

    judge: str = "live"
    """Judge: `live` (whoever acts), a model that runs here, or an endpoint (`http://host:port/v1#model`, or `openai:NAME`)."""
    judge_tokens: AtLeastOne = 512
    """Tokens a judgement may have."""
    judge_temperature: NonNegative = 0.0
    """Temperature of judgements (0: greedy)."""


@dataclass
class SWESearchConfig(SearchConfig):
    """Options of SWE-Search."""

    parallel: AtLeastOne = 16
    """Tasks that are searched side by side; an iteration is one action more in each of them."""
    search_tasks: AtLeastOne = 20
    """Tasks that are searched, a tree each."""
    split: Literal["held-out", "train"] = "held-out"
    """Where they are from."""
    how: How = "best-first"
    """Which node is gone on from: the best one of the tree; or, as baselines, the newest one and the start again when that attempt has ended, or one attempt alone."""
    preset: Literal["plain", "development", "refactored"] = "plain"
    """Weights of the terms of a node's score: the plain rule, or the heuristics of one of the paper's two code bases."""
    weights: str = ""
    """Weights over the preset, as `exploration=30,good_leaf=20`; 0 leaves a term out."""
    exploit: Exploit = "own"
    """What a node is worth: its own value, the mean over its path, or the mean of all values below it (W / N)."""
    tree_iterations: AtLeastOne = 100
    """Actions tried in a tree."""
    tree_steps: Count = 0
    """Environment steps of a tree (0: no limit)."""
    tree_tokens: Count = 0
    """Tokens that all models together may read and write for a tree (0: no limit)."""
    most_children: AtLeastOne = 3
    """Actions tried at one node."""
    most_depth: AtLeastOne = 20
    """Actions of an attempt."""
    most_finished: Count = 5
    """Attempts that have ended after which a tree is done (0: no limit)."""
    stop_value: Annotated[float, Gt(-100), Le(101)] = 101.0
    """Value of a finished attempt that ends a tree once `least_finished` have ended (101: none does)."""
    least_finished: AtLeastOne = 2
    """Attempts that must have ended for that."""
    temperature: NonNegative = 0.7
    """Temperature of the agent."""
    action_tokens: Count = 0
    """Tokens of a turn (0: what the task set asks for, and 128 more where turns are objects)."""
    structured: bool = False
    """Ask for turns as JSON objects with a thought and an action."""
    guided: bool = False
    """Tell the agent of the phases of the work: search, identify, plan, edit, test, and that it may go back to an earlier one."""
    value: Source = "judge"
    """Who values actions: the judge; the judge with a rule's value as a hint; the rule alone; or, as controls, random numbers, everywhere or but for the ends of attempts."""
    opinions: AtLeastOne = 1
    """Judgements of an action, whose mean counts."""
    judged: Literal["all", "ends"] = "all"
    """Which actions are valued; restarts can do with those that end an attempt."""
    judge_style: Literal["json", "lines"] = "json"
    """Form of a judgement; `lines` for small models."""
    judge_sees_tree: bool = False
    """Show the judge all attempts so far with their values."""
    hindsight: Say = "feedback"
    """What the agent is told of other branches: nothing, why they were valued so, or the judge's advice."""
    hindsight_from: From = "all"
    """Of which branches: the worst, the latest, or all."""
    hindsight_below: Annotated[float, Ge(-100), Le(100)] = 100.0
    """Only branches of at most this value are told of."""
    pick: By = "path"
    """Which finished attempt is taken: that of the highest mean value on its path, or of the highest last value; or what a debate comes to."""
    pick_opinions: Count = 0
    """Further judgements of each action on the candidates' paths, whose means then take the place of the values (0: none)."""
    agents: AtLeastOne = 5
    """Agents of a debate."""
    rounds: AtLeastOne = 3
    """Rounds of a debate."""
    hand_in: str = "submit"
    """Action that hands in what an unfinished attempt has made, when it is measured and nothing better is there (empty: it counts as wrong)."""
    script: ScriptConfig = field(default_factory=ScriptConfig)
    judging: ValueJudgeConfig = field(default_factory=ValueJudgeConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)


PHASES = (
    "Work in phases: search for where the cause may be, identify the place by reading it, plan the change, make it, and run tests. "
    "You may go back to an earlier phase at any time, and run tests whenever they tell you something."
)


def make_search(
    config: SWESearchConfig, acting: Responder, judging: Responder, params: SamplingParams, ledger: Ledger, key: Sequence[int | str]
) -> ActionSearch:
    """The search that a configuration says, for who acts (with `params`) and who judges. Raises InputError for options that do not go together."""
    judge_params = SamplingParams(config.judging.judge_tokens, config.judging.judge_temperature)
    agent = ValueAgent(config.value, ResponderJudge(judging, "the judge", judge_params, ledger), config.judge_style, config.opinions, config.judge_sees_tree)
    return ActionSearch(
        actor=Actor(CountedResponder(acting, ledger), params, config.structured, PHASES if config.guided else ""),
        agent=agent,
        ledger=ledger,
        key=key,
        how=config.how,
        weights=Weights.preset(config.preset, config.weights),
        exploit=config.exploit,
        ends=Ends(
            iterations=config.tree_iterations,
            depth=config.most_depth,
            children=config.most_children,
            steps=config.tree_steps,
            tokens=config.tree_tokens,
            finished=config.most_finished,
            value=config.stop_value,
            least_finished=config.least_finished,
        ),
        told=Hindsight(config.hindsight, config.hindsight_from, config.hindsight_below),
        judged=config.judged,
        by=config.pick,
        debate=Debate(CountedResponder(judging, ledger, "debate"), judge_params, config.agents, config.rounds) if config.pick == "debate" else None,
        again=replace(agent, opinions=config.pick_opinions) if config.pick_opinions else None,
    )
