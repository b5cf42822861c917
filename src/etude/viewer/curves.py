"""Which curves a report shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from etude.viewer.changes import measured
from etude.viewer.charts import Chart, DrawnChart, Line, draw
from etude.viewer.numbers import is_share, number, percent, title_of
from etude.viewer.record import RunRecord

MOST_COMPONENTS = 4
LENGTHS = {"rollout/length": "rollouts", "eval/length": "held-out", "eval/length_right": "held-out, right", "eval/length_wrong": "held-out, wrong"}


def main_charts(record: RunRecord) -> list[DrawnChart]:
    """The curves that every reader looks at."""
    k, votes = record.largest_k(), record.largest_k("maj")
    held_out = {"eval/pass@1": "pass@1"}
    held_out |= {f"eval/pass@{k}": f"pass@{k}"} if k else {}
    held_out |= {f"eval/maj@{votes}": f"maj@{votes}"} if votes else {}
    charts = [_over_steps(record, "Held-out accuracy", "bands: 95 % intervals", held_out, share=True)]
    if record.primary and record.primary not in held_out:
        title = title_of(record.primary)
        charts.append(_over_steps(record, f"Held-out {title}", "band: 95 % interval", {record.primary: title}, share=is_share(record.primary)))
    signal = {"signal/groups_with_spread": "groups with spread", "rollout/truncated": "truncated"}
    charts += [
        _by_k(record),
        _over_steps(record, "Training reward", "mean over a step’s rollouts", _rewards(record)),
        _over_steps(record, "Learning signal", "groups whose rewards differ; rollouts cut off", signal, share=True),
        _over_steps(record, "Response length", "tokens", LENGTHS),
        _exploration(record),
        _exploitation(record),
        *_balance(record),
        *_search(record),
        *_by_token(record),
        *_by_scale(record),
        _over_steps(record, "Entropy", "nats per token", {"rollout/entropy": "rollouts", "eval/entropy": "held-out"}, from_zero=True),
        _over_steps(record, "KL to the start", "nats per token, on held-out tasks", {"eval/kl_to_start": "KL"}, from_zero=True),
    ]
    return [d for d in map(draw, charts) if d is not None]


def probe_charts(record: RunRecord) -> list[DrawnChart]:
    """What the probe saw: the reward against the truth first. A reward that leaves [0, 1] is drawn on a scale of its own, which the note gives."""
    spread = {
        "probe/top_answer": "most common answer",
        "probe/top_reference": "as common in the references",
        "probe/unanswered": "no answer",
        "probe/positive": "positive verdicts",
    }
    charts = [
        _reward_and_truth(record),
        _over_steps(record, "Answers and verdicts", "shares of the probe’s attempts", spread, share=True),
        _over_steps(record, "Response length on the probe", "tokens", {"probe/length": "length"}, from_zero=True),
        _over_steps(record, "Entropy on the probe", "nats per token", {"probe/entropy": "entropy"}, from_zero=True),
    ]
    return [d for d in map(draw, charts) if d is not None]


def _reward_and_truth(record: RunRecord) -> Chart:
    names = {"probe/accuracy": "accuracy, by the labels", "probe/proxy": "reward that is trained on"}
    chart = _over_steps(record, "Reward against truth", "on the probe; bands: 95 % intervals", names, share=True)
    proxy = next((line for line in chart.lines if line.label == names["probe/proxy"]), None)
    if proxy is None or (min(proxy.y) >= 0 and max(proxy.y) <= 1):
        return chart
    least, most = min(proxy.y), max(proxy.y)
    span = (most - least) or 1.0
    chart.lines[chart.lines.index(proxy)] = Line(f"{proxy.label}, scaled", proxy.x, [(v - least) / span for v in proxy.y])
    chart.note = f"on the probe; the reward from 0 % ({number(least)}) to 100 % ({number(most)})"
    return chart


def learner_charts(record: RunRecord) -> list[DrawnChart]:
    """The learner's own curves, which only matter when something went wrong."""
    seconds = {"time/step": "step", "time/rollout": "rollouts", "time/update": "update"}
    charts = [
        _over_steps(record, "Loss", "as minimised", {"loss/total": "loss"}),
        _over_steps(record, "Gradient norm", "before clipping", {"loss/grad_norm": "norm"}, from_zero=True),
        _over_steps(record, "Clip fraction", "tokens whose ratio was clipped", {"loss/clip_fraction": "clipped"}, share=True),
        _over_steps(record, "Drift within a step", "KL to the policy that sampled, nats per token", {"loss/kl_old": "KL"}),
        _over_steps(record, "Learning rate", "", {"loss/lr": "rate"}, from_zero=True),
        _over_steps(record, "Reward spread", "standard deviation of rewards", {"reward/std": "deviation"}, from_zero=True),
        _over_steps(record, "Seconds a step", "", seconds, from_zero=True),
    ]
    return [d for d in map(draw, charts) if d is not None]


def _exploration(record: RunRecord) -> Chart:
    names = {"explore/solved": "tasks solved at least once", "explore/several_ways": "solved in four ways or more", "explore/pass_gap": "pass@k − pass@1"}
    return _over_steps(record, "Exploration", "within a step’s groups of rollouts", names, share=True)


def _exploitation(record: RunRecord) -> Chart:
    """Nothing where the reward is the verdict itself, which finds the right attempts by definition."""
    names = {"exploit/auc": "right before wrong (AUC)", "exploit/best_by_reward": "best by reward is right", "reward/correct": "any attempt is right"}
    telling = any(value < 1 for value in record.series("exploit/auc")[1])
    return _over_steps(record, "Exploitation", "how well the reward finds right attempts", names if telling else {}, share=True)


def _balance(record: RunRecord) -> list[Chart]:
    """What a search over temperatures and thresholds chose at the start of each round, and how many and how good examples that gave."""
    shares = {"balance/score": "balance score", "balance/quantity": "right examples, of those wanted", "balance/quality": "right among those kept"}
    return [
        _over_steps(record, "Balance", "of what a round kept, a task", shares, share=True),
        _over_steps(record, "Chosen settings", "at the start of a round", {"balance/temperature": "temperature", "balance/threshold": "reward threshold"}),
    ]


def _search(record: RunRecord) -> list[Chart]:
    """How a search over agents grew, and how sure it is of the best."""
    best = {"search/best_rate": "share of its trials that succeeded", "search/best_at_least": "with confidence, more than"}
    return [
        _over_steps(record, "The agent that would be taken", "by the search’s own trials", best, share=True),
        _over_steps(record, "Agents", "in the archive, and changes that gave none", {"search/agents": "agents", "search/failed_changes": "failed"}),
    ]


def _by_token(record: RunRecord) -> list[Chart]:
    """Of pictures that are written as tokens: how open each token is, at the first and the last evaluation, and what of a picture some tokens alone keep, at the last."""
    kept = {"tokens/psnr_first": "the first tokens alone", "tokens/psnr_last": "the last ones alone"}
    known = [(name, label) for name, label in kept.items() if _places(record, name)]
    rate = [_by_place(record, name, record.series(f"{name}@{_places(record, name)[0]}")[0][-1], label) for name, label in known]
    charts = [Chart("Reconstruction by rate", "decibels (PSNR) of held-out pictures, by how many of their tokens are kept", rate, number, x_name="tokens")]
    openness = {
        "tokens/entropy": ("Entropy by token", "nats, along the tokens of a picture, while drawing"),
        "tokens/surprise": ("Surprise by token", "nats, of the tokens of held-out pictures under the language model"),
    }
    for name, (title, note) in openness.items():
        places = _places(record, name)
        steps = record.series(f"{name}@{places[0]}")[0] if places else []
        lines = [_by_place(record, name, step, f"step {step}") for step in dict.fromkeys([*steps[-1:], *steps[:1]])]
        charts.append(Chart(title, note, lines, number, from_zero=True, x_name="token"))
    return charts


def _by_scale(record: RunRecord) -> list[Chart]:
    """Of pictures that are drawn scale by scale: how hard each scale is to predict, from real coarser scales and from the model's own, first and last."""
    sides = sorted(int(n.removeprefix("eval/scale_")) for n in record.names if n.startswith("eval/scale_"))
    steps = record.series(f"eval/scale_{sides[0]}")[0] if sides else []
    lines = [
        Line(f"{label}, step {step}", [float(side) for side in sides], [measured(record, f"eval/{name}_{side}", step)[0] for side in sides])
        for step in dict.fromkeys([*steps[-1:], *steps[:1]])
        for name, label in (("scale", "from real ones"), ("own_scale", "from its own"))
    ]
    return [
        Chart(
            "Difficulty by scale",
            "nats a token, of held-out pictures, by the side of the scale, given coarser ones",
            lines,
            number,
            from_zero=True,
            x_name="side",
        )
    ]


def _places(record: RunRecord, name: str) -> list[int]:
    """The numbers behind the @ of a metric's names, in order."""
    return sorted(int(n.rpartition("@")[2]) for n in record.names if n.startswith(f"{name}@"))


def _by_place(record: RunRecord, name: str, step: int, label: str) -> Line:
    places = _places(record, name)
    return Line(label, [float(place) for place in places], [measured(record, f"{name}@{place}", step)[0] for place in places])


def _rewards(record: RunRecord) -> dict[str, str]:
    """The total reward and its components, the verifier's first; a component that is the whole reward is not drawn twice."""
    total = record.series("reward/mean")
    components = sorted(
        (n for n in record.names if n.startswith("reward/") and n not in ("reward/mean", "reward/std")), key=lambda n: (n != "reward/correct", n)
    )
    different = [n for n in components if record.series(n) != total]
    return {"reward/mean": "total", **{n: n.removeprefix("reward/") for n in different[:MOST_COMPONENTS]}}


def _over_steps(record: RunRecord, title: str, note: str, names: dict[str, str], *, share: bool = False, from_zero: bool = False) -> Chart:
    """A chart of some metrics (name -> label) over the whole run, with the intervals that were recorded."""
    lines = []
    for name, label in names.items():
        steps, values = record.series(name)
        if not steps:
            continue
        ends = [measured(record, name, step)[1:] for step in steps]
        known = any(math.isfinite(low) and math.isfinite(high) for low, high in ends)
        low, high = ([low for low, _ in ends], [high for _, high in ends]) if known else (None, None)
        lines.append(Line(label, steps, values, low, high, dense=not name.startswith(("eval/", "probe/"))))
    x_range = (min(record.steps), max(record.steps)) if record.steps else None
    return Chart(title, note, lines, percent if share else number, share=share, from_zero=from_zero, x_range=x_range)


def _by_k(record: RunRecord) -> Chart:
    """pass@k against k, first and last evaluation: whether more tasks came within reach, or the same ones became surer. Needs three k and two evaluations."""
    ks = record.ks()
    steps = record.series(f"eval/pass@{ks[-1]}")[0] if len(ks) > 2 else []
    lines = [_by_k_line(record, ks, step) for step in ([steps[-1], steps[0]] if len(steps) > 1 else [])]
    labels = {math.log2(k): str(k) for k in ks}
    return Chart(
        "pass@k by number of tries", f"last and first evaluation; legend: k = {ks[-1] if ks else 0}", lines, percent, share=True, x_name="k =", x_labels=labels
    )


def _by_k_line(record: RunRecord, ks: Sequence[int], step: int) -> Line:
    points = [(math.log2(k), *measured(record, f"eval/pass@{k}", step)) for k in ks]
    points = [p for p in points if math.isfinite(p[1])]
    x, y, low, high = ([p[i] for p in points] for i in range(4))
    return Line(f"step {step}", x, y, low, high)
