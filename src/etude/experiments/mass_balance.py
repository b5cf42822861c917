"""Where a policy-gradient step moves probability, and what the number of draws has to do with it.

One state, V tokens with probabilities p = softmax(z), of which some are right. A step draws N tokens, rewards the right ones among them with `right` >= 0 and
the wrong ones with `wrong` <= 0, and follows the gradient of (1/N) sum_i R_i p_i. To first order the mass Q of all right tokens then changes by eta/N times
three terms (BroRL, arXiv:2510.01180): right tokens that were drawn gain, wrong tokens that were drawn lose, and what was *not* drawn moves with the mean
reward. Only that third part can take mass from right tokens. The squares that it is made of fade with N, since a token is missed with probability (1 - p)^N;
the mean reward that multiplies them grows meanwhile, so that its share of a step may rise before it falls.

The simulation trains the logits of one state with AdamW. It is read in two ways. At equal updates more draws are better, as in the paper. At equal draws in
all, with the learning rate in proportion to the square root of N, they are not: many small updates move more mass than few large ones. Width helps an update;
it does not make up for what it costs in draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from etude.config import AtLeastOne, Count, NonNegative
from etude.errors import InputError, nearest
from etude.experiments.study import Findings, Table
from etude.ledger import Budget
from etude.types import mean
from etude.viewer.charts import Chart, Line

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


# The balance of one step


@dataclass(frozen=True)
class MassBalance:
    """The change of the right tokens' mass in one step, in units of eta/N. `drawn_right` and `drawn_wrong` are >= 0; `coupling` may be negative."""

    drawn_right: float
    drawn_wrong: float
    coupling: float

    @property
    def total(self) -> float:
        return self.drawn_right + self.drawn_wrong + self.coupling


def mass_balance(p_V: Floats, right_V: Bools, drawn_V: Bools, *, right: float = 1.0, wrong: float = -1.0) -> MassBalance:
    """The three terms of dQ N/eta for one step, to first order in eta (BroRL, theorem 1).

    p_V: probabilities; right_V: which tokens are right; drawn_V: which were drawn. With the mean reward S = sum_drawn R p and Q the mass of the right:
    (right - S)(1 - Q) A2 + (S - wrong) Q B2 + S (Q U2wrong - (1 - Q) U2right), where A2 and B2 are the sums of p^2 over the drawn right and wrong tokens and U2 those over
    the undrawn. Raises InputError unless right >= 0 >= wrong.
    """
    if not right >= 0 >= wrong:
        raise InputError(f"right is {right} and wrong {wrong}; expected right >= 0 >= wrong")
    squares_V = p_V**2
    mass = float(p_V[right_V].sum())
    shift = float(right * p_V[right_V & drawn_V].sum() + wrong * p_V[~right_V & drawn_V].sum())
    missed_right, missed_wrong = float(squares_V[right_V & ~drawn_V].sum()), float(squares_V[~right_V & ~drawn_V].sum())
    return MassBalance(
        drawn_right=(right - shift) * (1 - mass) * float(squares_V[right_V & drawn_V].sum()),
        drawn_wrong=(shift - wrong) * mass * float(squares_V[~right_V & drawn_V].sum()),
        coupling=shift * (mass * missed_wrong - (1 - mass) * missed_right),
    )


def logit_step(p_V: Floats, rewards_V: Floats) -> Floats:
    """dz N/eta of one step: p_j (R_j - S) with S = sum_j p_j R_j, where R is 0 for tokens that were not drawn. Returns [V]."""
    return p_V * (rewards_V - float((p_V * rewards_V).sum()))


def probability_step(p_V: Floats, step_V: Floats) -> Floats:
    """What a small change of the logits does to the probabilities: p_j (dz_j - sum_k p_k dz_k). Returns [V], which sums to 0."""
    return p_V * (step_V - float((p_V * step_V).sum()))


def expected_missed(p_V: Floats, draws: int) -> float:
    """The expected sum of p^2 over the tokens that `draws` draws miss: sum_j p_j^2 (1 - p_j)^N. What the coupling term can be made of."""
    return float((p_V**2 * (1 - p_V) ** draws).sum())


# The simulation


@dataclass(frozen=True)
class State:
    """One simulated state and how it is trained: the paper's, at a 64th of its vocabulary."""

    vocabulary: AtLeastOne = 2000
    """Tokens."""
    right_tokens: AtLeastOne = 160
    """How many of them are right."""
    right_logit: float = 3.0
    """Logit of the right ones at the start; the others' is 0."""
    anchor_logit: float = 5.0
    """Logit of one wrong token at the start."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of AdamW."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay."""


@dataclass(frozen=True)
class MassBalanceSettings(State):
    """A state with the number of draws a step (N).

    lr_draws: draws a step that `lr` is for: with N draws it is multiplied by sqrt(N / lr_draws) (0: `lr` as it is).
    """

    draws: AtLeastOne = 16
    lr_draws: Count = 0


@dataclass(frozen=True)
class Trained:
    """What a simulation gave. mass: that of the right tokens before each update and after the last. improved: share of the right tokens above their first probability.
    worst: the most that one of them lost, relative to its first probability (positive when all gained)."""

    mass: list[float]
    improved: float
    worst: float


def starting_logits(settings: State) -> tuple[Floats, Bools]:
    """Logits and which tokens are right, both [V]: right ones first, then the anchor."""
    if settings.right_tokens >= settings.vocabulary - 1:
        raise InputError(
            f"right_tokens is {settings.right_tokens} of a vocabulary of {settings.vocabulary}; expected fewer, for the anchor and others that are wrong"
        )
    right_V = np.arange(settings.vocabulary) < settings.right_tokens
    logits_V = np.where(right_V, settings.right_logit, 0.0)
    logits_V[settings.right_tokens] = settings.anchor_logit
    return logits_V, right_V


def simulate(settings: MassBalanceSettings, updates: int, seed: int) -> Trained:
    """Train one state: N draws, rewards +1 and -1 centred by their mean, loss -(1/N) sum_j r_j p_j, AdamW with betas 0.9 and 0.999."""
    logits_V, right_V = starting_logits(settings)
    random = np.random.default_rng(seed)
    rate = settings.lr * (math.sqrt(settings.draws / settings.lr_draws) if settings.lr_draws else 1.0)
    reward_V = np.where(right_V, 1.0, -1.0)
    first_V = p_V = softmax(logits_V)
    momentum_V, squares_V = np.zeros_like(logits_V), np.zeros_like(logits_V)
    mass = [float(p_V[right_V].sum())]
    for number in range(1, updates + 1):
        drawn_V = draw_counts(p_V, settings.draws, random)
        centred_V = drawn_V * (reward_V - float((drawn_V * reward_V).sum()) / settings.draws)
        gradient_V = -logit_step(p_V, centred_V) / settings.draws
        momentum_V = 0.9 * momentum_V + 0.1 * gradient_V
        squares_V = 0.999 * squares_V + 0.001 * gradient_V**2
        logits_V = logits_V * (1 - rate * settings.weight_decay)
        logits_V = logits_V - rate * (momentum_V / (1 - 0.9**number)) / (np.sqrt(squares_V / (1 - 0.999**number)) + 1e-8)
        p_V = softmax(logits_V)
        mass.append(float(p_V[right_V].sum()))
    change_V = (p_V / first_V - 1)[right_V]
    return Trained(mass, improved=float((change_V > 0).mean()), worst=float(change_V.min()))


def draw_counts(p_V: Floats, draws: int, random: np.random.Generator) -> NDArray[np.intp]:
    """How often each token comes up in some draws. Returns [V]."""
    cumulative_V = p_V.cumsum()
    # Up to the last sum, which may be a little below 1: no draw falls behind the last token.
    tokens_N = np.searchsorted(cumulative_V, random.random(draws) * cumulative_V[-1], side="right")
    return np.bincount(tokens_N, minlength=len(p_V))


def softmax(logits_V: Floats) -> Floats:
    """Probabilities of logits. Returns [V]."""
    powers_V = np.exp(logits_V - logits_V.max())
    return powers_V / powers_V.sum()


def mass_balance_experiment(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """For claims: `mass` and `gain` of the right tokens, `improved`, `worst` after a budget in steps (updates) or rollouts (draws in all)."""
    known = [f.name for f in fields(MassBalanceSettings)]
    for name in settings:
        if name not in known:
            raise InputError(f"mass_balance has no setting {name!r}.{nearest(name, known)} Expected {', '.join(known)}")
    options = MassBalanceSettings(**settings)
    limit = Budget.parse(budget)
    if limit.unit not in ("steps", "rollouts"):
        raise InputError(f"the budget is {budget}; expected steps (updates) or rollouts (draws in all)")
    trained = simulate(options, updates_within(options.draws, limit), seed)
    return {"mass": trained.mass[-1], "gain": trained.mass[-1] - trained.mass[0], "improved": trained.improved, "worst": trained.worst}


def updates_within(draws: int, budget: Budget) -> int:
    """Updates of N draws that a budget in steps or rollouts allows. Raises InputError where it is not even one."""
    updates = int(budget.amount) // (draws if budget.unit == "rollouts" else 1)
    if updates < 1:
        raise InputError(f"the budget of {budget.amount:g} {budget.unit} allows no update of {draws} draws; expected at least {draws}")
    return updates


# The study

TERMS = ("drawn_right", "drawn_wrong", "coupling")


@dataclass(frozen=True)
class StudySettings:
    """Both readings of the simulation, and the terms at its first step."""

    widths: tuple[AtLeastOne, ...] = (4, 8, 16, 64, 512)
    """Draws a step that are compared."""
    updates: AtLeastOne = 300
    """Updates, in the reading at equal updates."""
    total_draws: AtLeastOne = 30_720
    """Draws in all, in the reading at equal draws."""
    lr_width: AtLeastOne = 16
    """Draws a step that the learning rate is for, in the reading at equal draws: others' is multiplied by the square root of the ratio."""
    seeds: AtLeastOne = 5
    """Seeds, counted from 0."""
    state: State = field(default_factory=State)


def study(settings: StudySettings) -> Findings:
    """Train the state at every width and seed, at equal updates and at equal draws, and average the terms of the first step."""
    widths = sorted(set(settings.widths))
    by_updates = {n: [simulate(_at(settings.state, n), settings.updates, seed) for seed in range(settings.seeds)] for n in widths}
    per_draws = {
        n: [
            simulate(_at(settings.state, n, lr_draws=settings.lr_width), updates_within(n, Budget(settings.total_draws, "rollouts")), seed)
            for seed in range(settings.seeds)
        ]
        for n in widths
    }
    terms = {n: first_terms(_at(settings.state, n), seed=0) for n in widths}
    columns = ("draws a step", "updates", "mass of the right", "right tokens that gained", "worst change of one")
    note = f"mean of {settings.seeds} seeds"
    return Findings(
        values={
            "equal_updates": {str(n): _summary(runs) for n, runs in by_updates.items()},
            "equal_draws": {str(n): _summary(runs) for n, runs in per_draws.items()},
            "first_step": {str(n): {name: getattr(found, name) for name in TERMS} for n, found in terms.items()},
        },
        tables=(
            Table(f"At equal updates ({settings.updates}), mass at the start {by_updates[widths[0]][0].mass[0]:.3f}", columns, _rows(by_updates)),
            Table(f"At equal draws ({settings.total_draws:,}), learning rate with the square root of the draws", columns, _rows(per_draws)),
            Table(
                "The first step: what moves the right tokens' mass, in units of eta/N, mean of 200 steps",
                ("draws a step", "right, drawn", "wrong, drawn", "coupling", "in all", "coupling takes"),
                [
                    [
                        str(n),
                        *(f"{value:+.2e}" for value in (found.drawn_right, found.drawn_wrong, found.coupling, found.total)),
                        f"{-100 * found.coupling / (found.drawn_right + found.drawn_wrong):.1f} %",
                    ]
                    for n, found in terms.items()
                ],
            ),
        ),
        charts={
            "mass-balance-updates": Chart(
                "Mass of the right tokens at equal updates", note, [_line(n, runs, 1) for n, runs in by_updates.items()], "{:.3f}".format, x_name="updates"
            ),
            "mass-balance-draws": Chart(
                "Mass of the right tokens at equal draws", note, [_line(n, runs, n) for n, runs in per_draws.items()], "{:.3f}".format, x_name="draws in all"
            ),
        },
    )


def first_terms(settings: MassBalanceSettings, *, seed: int, steps: int = 200) -> MassBalance:
    """The terms at the starting policy, averaged over steps of N draws each."""
    logits_V, right_V = starting_logits(settings)
    p_V, random = softmax(logits_V), np.random.default_rng(seed)
    found = [mass_balance(p_V, right_V, draw_counts(p_V, settings.draws, random) > 0) for _ in range(steps)]
    return MassBalance(*(mean([getattr(one, name) for one in found]) for name in TERMS))


def _at(state: State, draws: int, lr_draws: int = 0) -> MassBalanceSettings:
    return MassBalanceSettings(**asdict(state), draws=draws, lr_draws=lr_draws)


def _summary(runs: Sequence[Trained]) -> dict[str, float]:
    return {
        "updates": len(runs[0].mass) - 1,
        "mass": mean([r.mass[-1] for r in runs]),
        "improved": mean([r.improved for r in runs]),
        "worst": mean([r.worst for r in runs]),
    }


def _rows(found: Mapping[int, Sequence[Trained]]) -> list[list[str]]:
    rows = []
    for n, runs in found.items():
        s = _summary(runs)
        rows.append([str(n), f"{s['updates']:,.0f}", f"{s['mass']:.3f}", f"{100 * s['improved']:.0f} %", f"{100 * s['worst']:+.1f} %"])
    return rows


def _line(draws: int, runs: Sequence[Trained], scale: int, points: int = 60) -> Line:
    """The mean over seeds at some of the updates; `scale` turns updates into what the chart counts."""
    last = len(runs[0].mass) - 1
    places = sorted({round(last * i / points) for i in range(points + 1)})
    return Line(f"{draws} draws a step", [place * scale for place in places], [mean([run.mass[place] for run in runs]) for place in places])
