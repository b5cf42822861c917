"""Self-correction in two formats, measured: items, rounds, and everything that is counted over them (after arXiv:2511.09381).

The same questions are answered freely and by choosing among options, several times in a row, with no word on whether an answer was right. The comparison shows what a format
does to correction: free answers can drift away from right ones, and a choice can stay where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from etude.config import SelfCorrectionConfig
from etude.errors import InputError
from etude.evals.asking_again import Answered, Arm, Verdicts, ask_again, settle
from etude.evals.intervals import percentile_ends, resampled_items
from etude.evals.option_trace import trace
from etude.evals.revision import Array, Ratio, Rounds, shares, transitions
from etude.evals.statistics import mcnemar
from etude.evals.stop_policies import stop_rounds
from etude.models.responders import Responder
from etude.models.sampling import SamplingParams, stream_key
from etude.tasks.base import TaskSet
from etude.tasks.paired import PairedItem, paired_items
from etude.tasks.paired_prompts import script_of
from etude.tasks.revisions import RevisionEnvironment
from etude.types import mean

STANDARD_TOKENS = 256
"""Tokens that an answer to standard prompts may have at least, unless somebody says otherwise."""


@dataclass(frozen=True)
class Curve:
    """A share by round (or once), with the ends of its 95 % interval over items. NaN where nothing was counted."""

    value: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Stop:
    """What a stop policy reaches: accuracy with its interval, mean rounds used after the first answer, and mean generated tokens an item. oracle: it knows the answers."""

    name: str
    accuracy: Curve
    rounds: float
    tokens: float
    oracle: bool = False


@dataclass
class ArmReport:
    """One format and method over all items.

    logs: [repeats][items][rounds + 1]. curves: by the names of `etude.evals.revision.shares`, and those of `etude.evals.option_trace`. matrices: transitions [rounds, 3, 3] in
    the order of STATES. p_values: of accuracy in each round against round 0, exact over items. tokens, prompt_tokens: means an item and round. dropped: share of asked
    rounds that left early ones out, because the context was full.
    """

    arm: Arm
    logs: list[list[list[Answered]]]
    curves: dict[str, Curve]
    matrices: NDArray[np.int64]
    p_values: list[float]
    tokens: list[float]
    prompt_tokens: list[float]
    dropped: float
    stops: list[Stop]

    @property
    def name(self) -> str:
        return f"{self.arm.form}, {self.arm.way}"

    def value(self, curve: str, round_: int = -1) -> float:
        """A curve's value in a round, by default the last one."""
        return self.curves[curve].value[round_]


@dataclass
class Report:
    """All arms on the same items. differences: generation less choice, by method and share, over resampled items."""

    items: list[PairedItem]
    arms: list[ArmReport]
    differences: dict[str, dict[str, Curve]] = field(default_factory=dict)


def items_of(task_set: TaskSet, config: SelfCorrectionConfig) -> list[PairedItem]:
    """The items that a configuration asks for. Raises InputError where there are none, or tasks need an environment."""
    environment = task_set.environment()
    if environment is not None:
        environment.close()
        if not isinstance(environment, RevisionEnvironment):
            raise InputError(
                f"the task set {task_set.name} is practised in an environment; --protocol self-correction holds the conversation itself and expects single turns"
            )
    tasks = list(task_set.held_out())[: config.tasks_limit]
    if not tasks:
        raise InputError(f"the task set {task_set.name} has no held-out tasks; expected at least one to measure on")
    return paired_items(task_set, tasks, options=config.options, seed=config.seed)


def arms_of(task_set: TaskSet, config: SelfCorrectionConfig) -> list[Arm]:
    """Every method in every format. Raises InputError for settings that contradict each other."""
    for name, values in (("formats", config.formats), ("methods", config.methods)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name} is {list(values)}; expected one or more different ones")
    script = script_of(config.prompts, config.request, config.methods)
    tokens = config.max_new_tokens or max(task_set.max_new_tokens, STANDARD_TOKENS if config.prompts == "standard" else 0)
    return [
        Arm(
            form,
            way,
            config.rounds,
            script,
            SamplingParams(tokens, config.sc_temperature if way == "sc" else config.temperature, config.top_p, config.top_k, tuple(task_set.stop)),
            samples=config.samples,
            append=config.append,
            history=config.history,
            option_logits=config.option_logits,
            pick=config.pick,
            seed=config.seed,
        )
        for way in config.methods
        for form in config.formats
    ]


def measure_self_correction(
    responder: Responder, task_set: TaskSet, config: SelfCorrectionConfig, *, done: Callable[[str, int], None] = lambda arm, rounds: None
) -> Report:
    """Ask, judge and count. `done` hears of an arm's name and how many of its rounds are complete, all repeats together.

    Raises InputError for tasks and settings that cannot be used, before anything is asked.
    """
    items, arms = items_of(task_set, config), arms_of(task_set, config)
    if config.settle and "generation" not in config.formats:
        raise InputError("--settle chooses among generated answers; add generation to --formats")
    verdicts = Verdicts(task_set)
    return report_of(items, [(arm, *_asked(items, arm, responder, verdicts, config, done)) for arm in arms], config)


def _asked(
    items: Sequence[PairedItem], arm: Arm, responder: Responder, verdicts: Verdicts, config: SelfCorrectionConfig, done: Callable[[str, int], None]
) -> tuple[list[list[list[Answered]]], list[list[tuple[float, float]]] | None]:
    """An arm's logs, repeat by repeat, and what settling gave."""
    logs, settled = [], []
    for repeat in range(config.repeats):
        again = Arm(**{**vars(arm), "seed": arm.seed if repeat == 0 else stream_key(arm.seed, "repeat", repeat) % 2**31})
        before = repeat * (arm.rounds + 1)
        logs.append(ask_again(items, again, responder, verdicts, done=lambda rounds, before=before: done(f"{arm.form}, {arm.way}", before + rounds)))
        if config.settle and arm.form == "generation":
            settled.append(settle(items, logs[-1], again, responder))
    return logs, settled or None


def report_of(
    items: Sequence[PairedItem],
    asked: Sequence[tuple[Arm, list[list[list[Answered]]], list[list[tuple[float, float]]] | None]],
    config: SelfCorrectionConfig,
) -> Report:
    """The numbers of what was asked: of each arm its logs [repeats][items][rounds + 1], and the (verdict, tokens) of settling [repeats][items], where it was done."""
    weights = resampled_items(len(items), config.repeats, resamples=config.resamples, seed=config.seed)
    counted: list[tuple[ArmReport, dict[str, Ratio]]] = [_counted(items, *each, config, weights) for each in asked]
    report = Report(list(items), [arm for arm, _ in counted])
    by_way: dict[str, dict[str, dict[str, Ratio]]] = {}
    for arm, ratios in counted:
        by_way.setdefault(arm.arm.way, {})[arm.arm.form] = ratios
    for way, pair in by_way.items():
        if len(pair) == 2:
            report.differences[way] = {
                name: _between(free, pair["choice"][name], weights) for name, free in pair["generation"].items() if name in pair["choice"]
            }
    return report


def rounds_of(rows: Sequence[Sequence[Answered]]) -> Rounds:
    """Conversations as what is counted."""
    right = np.array([[a.right for a in row] for row in rows], dtype=np.float64)
    return Rounds(right, [[a.answer for a in row] for row in rows], [[a.text for a in row] for row in rows])


def _counted(
    items: Sequence[PairedItem],
    arm: Arm,
    logs: list[list[list[Answered]]],
    settled: list[list[tuple[float, float]]] | None,
    config: SelfCorrectionConfig,
    weights: Array,
) -> tuple[ArmReport, dict[str, Ratio]]:
    # Repeats of one item are neighbours, so that the items can be resampled whole.
    rows = [log[i] for i in range(len(items)) for log in logs]
    rounds = rounds_of(rows)
    repeats = len(logs)
    options = np.repeat([float(len(item.options)) for item in items], repeats) if arm.form == "choice" else None
    ratios = shares(rounds, options)
    traced = _traced([item for item in items for _ in logs], rows) if arm.option_logits and arm.form == "choice" else {}
    ones = np.ones(rounds.right.shape)
    with_trace = ratios | {name: Ratio(np.nan_to_num(values), ones * ~np.isnan(values)) for name, values in traced.items()}
    tokens, prompts = (np.array([[getattr(a, name) for a in row] for row in rows]) for name in ("tokens", "prompt_tokens"))
    confidence = traced.get("confidence", np.array([[a.agreed for a in row] for row in rows]) if arm.drawn > 1 else None)
    return ArmReport(
        arm,
        logs,
        {name: _curve(ratio, weights) for name, ratio in with_trace.items()},
        transitions(rounds),
        _p_values(rounds.right, repeats),
        [mean(column) for column in tokens.T.tolist()],
        [mean(column) for column in prompts.T.tolist()],
        mean([float(a.dropped > 0) for row in rows for a in row[1:]]),
        _stops(rounds, tokens, confidence, [row[i] for i in range(len(items)) for row in settled] if settled else None, config, weights),
    ), ratios


def _curve(ratio: Ratio, weights: Array) -> Curve:
    low, high = percentile_ends(ratio.value(weights))
    return Curve(ratio.value().tolist(), low.tolist(), high.tolist())


def _between(one: Ratio, other: Ratio, weights: Array) -> Curve:
    low, high = percentile_ends(one.value(weights) - other.value(weights))
    return Curve((one.value() - other.value()).tolist(), low.tolist(), high.tolist())


def _p_values(right: Array, repeats: int) -> list[float]:
    """McNemar's test of every round against round 0; of several repeats an item counts once, by the direction in which most of them went."""
    net = (right - right[:, :1]).reshape(-1, repeats, right.shape[1]).sum(axis=1)
    return [mcnemar(int((column > 0).sum()), int((column < 0).sum())) for column in net.T]


def _traced(items: Sequence[PairedItem], rows: Sequence[Sequence[Answered]]) -> Mapping[str, Array]:
    found = []
    for item, row in zip(items, rows, strict=True):
        first = item.letters.index(row[0].answer) if row[0].answer is not None else -1
        found.append(trace(np.array([[a.likelihoods for a in row]], dtype=np.float64), np.array([first])))
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _stops(
    rounds: Rounds, tokens: Array, confidence: Array | None, settled: Sequence[tuple[float, float]] | None, config: SelfCorrectionConfig, weights: Array
) -> list[Stop]:
    count, columns = rounds.right.shape
    spent = tokens.cumsum(axis=1)

    def stop(name: str, verdicts: Array, used: NDArray[np.int64], cost: Array, *, oracle: bool = False) -> Stop:
        ratio = Ratio(verdicts[:, None], np.ones((count, 1)))
        return Stop(name, _curve(ratio, weights), float(used.mean()), float(cost.mean()), oracle)

    every = np.arange(count)
    found = [stop(name, rounds.right[every, at], at, spent[every, at]) for name, at in stop_rounds(rounds, confidence, config.confident).items()]
    if settled is not None:
        verdicts, extra = (np.array(column) for column in zip(*settled, strict=True))
        found.append(stop("choose among own answers", verdicts, np.full(count, columns - 1), spent[:, -1] + extra))
    best = rounds.right.argmax(axis=1)
    found.append(stop("oracle", rounds.right.max(axis=1), best, spent[every, best], oracle=True))
    return found
