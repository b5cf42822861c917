"""What repeated self-correction does to free answers and to choices, in models whose behaviour is known: whether the protocol sees what is there.

`etude eval MODEL --protocol self-correction` counts answers that are mended and spoilt from round to round (arXiv:2511.09381). Before its numbers are believed for a real
model, it has to give back those of models that were made to mend and spoil at known rates: one that drifts like free generation, one that stays put like a choice among
options, one that never changes its mind, and one that tosses a coin. A small real model without history shows whether anything leaks from one round to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from etude.claim import Arm as ClaimArm
from etude.claim import Claim, Comparison, Precondition
from etude.config import AtLeastOne, SelfCorrectionConfig
from etude.errors import InputError, nearest
from etude.evals.asking_again import Arm, Verdicts, ask_again
from etude.evals.measures import Final
from etude.evals.revision import Rounds, shares, transitions
from etude.evals.self_correction import arms_of, items_of, rounds_of
from etude.experiments.study import Findings, Table
from etude.ledger import Budget
from etude.method import MethodCard
from etude.models.replies import Reply
from etude.models.responders import Asked
from etude.models.sampling import SamplingParams, stream_key
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.tasks.paired import Form, PairedItem
from etude.types import Message, mean
from etude.viewer.charts import Chart, Line
from etude.viewer.numbers import percent

FAR = 1e6
"""Standard errors of what is impossible: results are finite numbers."""


@dataclass(frozen=True)
class Planted:
    """How a scripted model behaves: right at first with `start`; then, in round k from 1, a wrong answer is mended with fix[k - 1] and a right one spoilt with broke[k - 1].

    A spoilt answer becomes a wrong one at random. Wrong answers that are not mended stay as they are.
    """

    form: Form
    start: float
    fix: tuple[float, ...]
    broke: tuple[float, ...]

    def course(self, wrong_options: float) -> tuple[list[float], float]:
        """Expected accuracy of every round, and expected inertia, with so many wrong answers to land on (infinitely many where they are free)."""
        accuracy = [self.start]
        # Of items wrong at first: still (or again) at the same answer, at another wrong one, right.
        same, other, right = 1.0, 0.0, 0.0
        for fix, broke in zip(self.fix, self.broke, strict=True):
            accuracy.append(accuracy[-1] * (1 - broke) + (1 - accuracy[-1]) * fix)
            back = broke * right / wrong_options
            same, other, right = same * (1 - fix) + back, other * (1 - fix) + broke * right - back, right * (1 - broke) + (same + other) * fix
        return accuracy, same


SCRIPTED: Mapping[str, Planted] = {
    "generation": Planted("generation", 0.45, (0.35, 0.15, 0.06, 0.03, 0.02), (0.02, 0.04, 0.06, 0.08, 0.10)),
    "choice": Planted("choice", 0.55, (0.05,) * 5, (0.01,) * 5),
    "copies": Planted("choice", 0.5, (0.0,) * 5, (0.0,) * 5),
    "coin": Planted("choice", 0.5, (0.5,) * 5, (0.5,) * 5),
}


@dataclass
class ScriptedModel:
    """A model that reads the conversation, finds its own last answer in it, and then does what was planted."""

    items: Mapping[str, PairedItem]
    planted: Planted
    calls: int = 0

    def replies(self, asked: Sequence[Asked], params: SamplingParams, *, samples: int, key: Sequence[int | str]) -> list[list[Reply]]:
        """`samples` answers to each conversation."""
        self.calls += len(asked) * samples
        return [[Reply(self._answer(each, Random(stream_key(*key, each.id, sample))), 2.0, True, 0.0) for sample in range(samples)] for each in asked]

    def fits(self, messages: Sequence[Message], new_tokens: int) -> bool:
        """Always: a script has no context that could be full."""
        return True

    def likelihoods(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        """None: a script has no probabilities."""
        raise InputError("a scripted model has no log-probabilities")

    def _answer(self, asked: Asked, random: Random) -> str:
        item = self.items[asked.id]
        before = [m.content for m in asked.messages if m.role == "assistant"]
        choosing = self.planted.form == "choice"
        right = f"answer: {item.letters[item.gold] if choosing else item.task.answer}"
        chance = self.planted.start
        if before:
            was_right = before[-1] == right
            chance = 1 - self.planted.broke[len(before) - 1] if was_right else self.planted.fix[len(before) - 1]
        if random.random() < chance:
            return right
        if before and before[-1] != right:
            return before[-1]
        wrong = random.choice([letter for letter in item.letters if letter != item.letters[item.gold]]) if choosing else f"{random.getrandbits(40) + 10**6}"
        return f"answer: {wrong}"


def planted_rates(name: str, seed: int, items: int) -> tuple[dict[str, float], Rounds]:
    """What the protocol measures of a scripted model, and how far that is from what was planted, in standard errors.

    `rate_error`, `accuracy_error`: the largest over rounds, of fix and break rates and of accuracy; `inertia_error`. `flips`: share of steps that mended or spoilt.
    `imbalance`: the largest difference of mended and spoilt items in a round, in standard errors of a fair coin. Also `inertia`,
    `best_round`, `late_loss` and `gain`, last less first.
    """
    planted = SCRIPTED[name]
    task_set = load_tasks(f"arithmetic:held_out_tasks={items}")
    config = SelfCorrectionConfig(tasks_limit=items, prompts="short", formats=(planted.form,), seed=seed, rounds=len(planted.fix))
    paired, (arm,) = items_of(task_set, config), arms_of(task_set, config)
    rounds = rounds_of(ask_again(paired, arm, ScriptedModel({item.task.id: item for item in paired}, planted), Verdicts(task_set)))
    matrices, found, count = transitions(rounds), shares(rounds), len(paired)
    accuracy, inertia = planted.course(config.options - 1 if planted.form == "choice" else math.inf)
    rates = [
        _error(int(matrix[state, 1 - state]), int(matrix[state].sum()), given[k])
        for k, matrix in enumerate(matrices)
        for state, given in ((0, planted.fix), (1, planted.broke))
    ]
    mended, spoilt = matrices[:, 0, 1], matrices[:, 1, 0]
    stays = found["inertia"]
    return {
        "rate_error": max(rates),
        "accuracy_error": max(_error(round(value * count), count, expected) for value, expected in zip(rounds.accuracy, accuracy, strict=True)),
        "inertia_error": _error(int(stays.over.sum()), int(stays.of.sum()), inertia),
        "flips": float((mended + spoilt).sum()) / (count * len(matrices)),
        "imbalance": float(np.max(np.abs(mended - spoilt) / np.sqrt(np.maximum(mended + spoilt, 1)))),
        "inertia": float(stays.value()[0]),
        "best_round": float(rounds.accuracy.argmax()),
        "late_loss": float(rounds.accuracy.max() - rounds.accuracy[-1]),
        "gain": float(rounds.accuracy[-1] - rounds.accuracy[0]),
    }, rounds


def _error(seen: int, of: int, chance: float) -> float:
    """How many standard errors a share is from its chance: FAR where what cannot happen has happened, or the reverse."""
    spread = math.sqrt(chance * (1 - chance) * of)
    return abs(seen - chance * of) / spread if spread else (0.0 if seen == chance * of else FAR)


def fresh_draws(policy: Any, task_set: TaskSet, seed: int, items: int, *, history: bool) -> dict[str, float]:
    """Both formats on a real model. With each format's name in front: `inertia`, `change_rate`, `drift`, `unread`, `first` and `last` accuracy, and `reviewed`, its mean over
    the rounds after the first.

    `leak`: without history the last answer is one more independent draw, so that staying with a wrong first answer should be as frequent as giving it again in another run;
    the difference, in standard errors. `imbalance`: as many items should be mended as spoilt in every round; the largest difference, in standard errors. A share of answers
    of which there is none is 0.
    """
    from etude.models.responders import LocalResponder

    config = SelfCorrectionConfig(tasks_limit=items, prompts="short", seed=seed, history=history)
    paired, responder, verdicts = items_of(task_set, config), LocalResponder(policy), Verdicts(task_set)
    found: dict[str, float] = {}
    for arm in arms_of(task_set, config):
        rounds = rounds_of(ask_again(paired, arm, responder, verdicts))
        counted = shares(rounds)
        once = Arm(**{**vars(arm), "rounds": 0, "seed": stream_key(seed, "another run") % 2**31})
        other = rounds_of(ask_again(paired, once, responder, verdicts))
        wrong = [i for i, row in enumerate(rounds.answers) if rounds.right[i, 0] < 0.5 and row[0] is not None]
        extra = np.array([float(rounds.answers[i][-1] == rounds.answers[i][0]) - float(other.answers[i][0] == rounds.answers[i][0]) for i in wrong])
        spread = float(extra.std(ddof=1)) / math.sqrt(len(extra)) if len(extra) > 1 else 0.0
        mended, spoilt = (np.array([rounds.flips(k - 1, k)[way].sum() for k in range(1, config.rounds + 1)]) for way in (0, 1))
        measured = {
            "inertia": float(counted["inertia"].value()[0]),
            "change_rate": float(counted["change_rate"].value()[0]),
            "drift": float(counted["drift"].value()[0]),
            "unread": float(counted["unread"].over.mean()),
            "first": float(rounds.accuracy[0]),
            "last": float(rounds.accuracy[-1]),
            "reviewed": float(rounds.accuracy[1:].mean()),
            "leak": abs(float(extra.mean())) / spread if spread else (0.0 if not extra.any() else FAR),
            "imbalance": float(np.max(np.abs(mended - spoilt) / np.sqrt(np.maximum(mended + spoilt, 1)))),
        }
        found |= {f"{arm.form}_{name}": value if math.isfinite(value) else 0.0 for name, value in measured.items()}
    return found


WARM_TASKS = "check-and-fix:looks=5,choices=0.7,slips=0.1"
"""What teaches the embedded model both formats and what a request to check asks of it, in conversations as long as those of the protocol: longer ones confuse it."""


def gen_vs_mc(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Of a scripted model (`model`, one of SCRIPTED) what `planted_rates` gives; with `model` `tiny` what `fresh_draws` gives, after imitation of `warm_tasks`.

    The budget, in calls, says how many items are asked: it holds all rounds, formats and runs. `items`: fewer of them. `history`: as of the protocol. Settings that begin
    with `warm_` are the imitation's. Raises InputError for another model, and a budget for fewer than ten items.
    """
    limit = Budget.parse(budget)
    name = str(settings.get("model", ""))
    if name not in (*SCRIPTED, "tiny"):
        raise InputError(f"there is no model {name!r} here.{nearest(name, SCRIPTED)} Expected tiny, or a scripted one: {', '.join(SCRIPTED)}")
    calls = 2 * 7 if name == "tiny" else 6
    items = int(min(limit.amount // calls, settings.get("items", math.inf)))
    if limit.unit != "calls" or items < 10:
        raise InputError(f"the budget is {budget}, which is enough for {items} items of {calls} calls; expected calls, for ten items at least")
    if name in SCRIPTED:
        return planted_rates(name, seed, items)[0]
    import torch

    from etude.experiments.imitate_first import WARM_UP, shared_folder, warm_start
    from etude.models.language import LanguageModel

    torch.set_num_threads(1)
    taught = {"tasks": WARM_TASKS, "model": "tiny", "seed": seed, **WARM_UP}
    taught |= {key.removeprefix("warm_"): value for key, value in settings.items() if key.startswith("warm_")}
    with shared_folder() as folder:
        policy = LanguageModel.load(str(warm_start(taught, folder)), device="cpu", dtype="float32")
    return fresh_draws(policy, load_tasks(f"check-and-fix:held_out_tasks={items}"), seed, items, history=bool(settings.get("history", True)))


CARD = MethodCard(
    slug="gen-vs-mc",
    name="Generation versus choice",
    family="self_correction",
    paper="2511.09381",
    title="Self-Correcting Large Language Models: Generation vs. Multiple Choice",
    summary="measures repeated self-correction of free answers and of choices on the same questions",
    evolves="nothing",
    rollouts="none",
    claim=Claim(
        statement="Repeated self-correction depends on the space of answers: free answers gain for a round or two and are then spoilt, while a choice among options changes "
        "slowly and is rarely left when it is wrong.",
        expectation="The protocol gives back, within three standard errors, the rates at which scripted models mend and spoil, and with them the rise and fall of the one and "
        "the inertia of the other; without history a real model's rounds are independent draws. This is about the instrument, not about real models.",
        arms=(
            ClaimArm("generation", "gen-vs-mc", {"model": "generation"}),
            ClaimArm("choice", "gen-vs-mc", {"model": "choice"}),
            ClaimArm("copies", "gen-vs-mc", {"model": "copies"}),
            ClaimArm("coin", "gen-vs-mc", {"model": "coin"}),
            ClaimArm("tiny", "gen-vs-mc", {"model": "tiny", "items": 300}),
            ClaimArm("tiny, no history", "gen-vs-mc", {"model": "tiny", "items": 300, "history": False}),
        ),
        experiment="etude.experiments.gen_vs_mc:gen_vs_mc",
        budget="24k-calls",
        common={"warm_steps": 240, "warm_tasks_per_step": 12, "warm_lr": 3e-3, "warm_schedule": "linear"},
        tests=(
            Comparison("rates of free answers given back", "generation", None, Final("rate_error"), better="lower", margin=-3.0),
            Comparison("rates of choices given back", "choice", None, Final("rate_error"), better="lower", margin=-3.0),
            Comparison("free answers are spoilt late", "generation", "choice", Final("late_loss"), margin=0.05),
            Comparison("choices stay where they were wrong", "choice", "generation", Final("inertia"), margin=0.15),
            Comparison("free answers without history stay by chance", "tiny, no history", None, Final("generation_leak"), better="lower", margin=-3.0),
            Comparison("choices without history stay by chance", "tiny, no history", None, Final("choice_leak"), better="lower", margin=-3.0),
            Comparison("history and free answers", "tiny", "tiny, no history", Final("generation_inertia"), role="ablation"),
            Comparison("history and choices", "tiny", "tiny, no history", Final("choice_inertia"), role="ablation"),
            Comparison(
                "free answers of tiny change more", "tiny", None, Final("generation_change_rate") - Final("choice_change_rate"), role="ablation", margin=0.1
            ),
            Comparison("choices of tiny are better than chance", "tiny", None, Final("choice_reviewed"), role="ablation", margin=0.25),
        ),
        preconditions=(
            Precondition("copies never flip", "copies", Final("flips"), at_most=0.0, otherwise="the protocol makes flips out of answers that stayed the same"),
            Precondition("a coin is fair", "coin", Final("imbalance"), at_most=3.0, otherwise="mended and spoilt answers are not counted alike"),
            Precondition("tiny answers freely", "tiny", Final("generation_reviewed"), at_least=0.3, otherwise="the model was not taught to work an answer out"),
            Precondition("tiny can be read", "tiny", Final("choice_unread"), at_most=0.2, otherwise="the model was not taught to choose a letter"),
        ),
        tried="Seed 0 of the scripted models with 4,000 questions: all rates within 2.5 standard errors; nothing was tuned there. What lessons teach tiny was tried on "
        "seed 0 with 60 questions. 120 steps of 64 conversations with three looks, slips 0.3: free answers 7 % right at first, 38 to 47 % after one to four looks, "
        "23 % after the fifth, which makes a longer conversation than any lesson. With lessons of five looks and slips 0.1 they stay at 60 to 80 % in all rounds. "
        "Choices were at chance (17 to 35 %, four options) in every trial, although the work before them is mostly right. tiny has never met capital letters, and "
        "their embeddings are all but equal (cosine 0.995): it could not even repeat the letter that it had just looked up. With small letters it can, in nine of "
        "ten. What it does not learn in 2,800 to 8,400 lessons is to find the letter by its value, also where options have the value first; where the first letter "
        "of a lesson is mostly right it learns to keep that one. First letters of lessons are guesses since.",
        quick={"warm_steps": 2, "items": 20},
        quick_budget="600-calls",
    ),
)


# As a study


@dataclass(frozen=True)
class StudySettings:
    """Scripted models under the protocol."""

    items: Annotated[int, Ge(10)] = 4000
    """Questions, each asked in six rounds."""
    seeds: AtLeastOne = 1
    """Seeds, counted from 0, over which the numbers are means."""
    models: tuple[str, ...] = field(default=tuple(SCRIPTED))
    """Scripted models: `generation`, `choice`, `copies`, `coin`."""


def study(settings: StudySettings) -> Findings:
    """Accuracy over rounds of each scripted model, and how far every rate is from what was planted."""
    unknown = [name for name in settings.models if name not in SCRIPTED]
    if unknown:
        raise InputError(f"there is no scripted model {unknown[0]!r}.{nearest(unknown[0], SCRIPTED)} Expected some of {', '.join(SCRIPTED)}")
    found: dict[str, dict[str, Any]] = {}
    for name in settings.models:
        runs = [planted_rates(name, seed, settings.items) for seed in range(settings.seeds)]
        found[name] = {key: mean([values[key] for values, _ in runs]) for key in runs[0][0]}
        found[name]["accuracy"] = np.mean([rounds.accuracy for _, rounds in runs], axis=0).tolist()
    columns = ("model", "first", "best", "last", "inertia", "rates off by", "accuracy off by", "inertia off by")
    rows = [
        [
            name,
            *(f"{value:.3f}" for value in (values["accuracy"][0], max(values["accuracy"]), values["accuracy"][-1], values["inertia"])),
            *(f"{values[key]:.1f} SE" for key in ("rate_error", "accuracy_error", "inertia_error")),
        ]
        for name, values in found.items()
    ]
    asked = f"{settings.items} questions, six rounds, {settings.seeds} seed{'s' if settings.seeds > 1 else ''}"
    lines = [Line(name, list(range(len(values["accuracy"]))), values["accuracy"]) for name, values in found.items()]
    return Findings(
        values=found,
        tables=(Table(f"{asked}; SE: standard errors, the largest over rounds", columns, rows),),
        charts={"gen-vs-mc-accuracy": Chart("Accuracy by round", f"scripted models, {asked}", lines, percent, share=True, x_name="round")},
    )
