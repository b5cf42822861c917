"""A plan as tables for a terminal: every number with the arithmetic that it comes from."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etude.planning.plan import Outcome, Plan
from etude.planning.rates import UNITS
from etude.planning.room import gpus_text
from etude.viewer.numbers import count, duration, number, percent

Line = tuple[str, str, str]
"""What, how much, and how that comes about."""


def tables(plan: Plan) -> RenderableType:
    """The answer first, all schedules side by side; then what it rests on: memory, rates, lengths; then the arithmetic of each schedule."""
    parts: list[RenderableType] = [_answer(plan), Text()]
    parts += [Text(f"{outcome.mode}: {bound(outcome, plan)}") for outcome in plan.outcomes]
    sections: dict[str, list[Line]] = {
        "learner, a rank": list(_learner(plan)),
        "sampler, a rank": list(_sampler(plan)),
        "work of an update": list(_work(plan)),
        "seconds": list(_rates(plan)),
    }
    sections |= {outcome.mode: list(_arithmetic(outcome, plan)) for outcome in plan.outcomes}
    for title, lines in sections.items():
        parts += [Text(), _section(title, lines)]
    parts += [Text()] + [Text(f"note: {note}", style="yellow") for note in plan.notes] if plan.notes else []
    return Group(*parts)


def _section(title: str, lines: list[Line]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title)
    table.add_column("", justify="right")
    table.add_column("from", overflow="fold")
    for what, value, how in lines:
        table.add_row(what, value, how)
    return table


def _answer(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("")
    for outcome in plan.outcomes:
        table.add_column(outcome.mode, justify="right")
    split = plan.pools.kind == "split"
    rows: list[tuple[str, list[str]]] = []
    if plan.total_tokens or plan.total_updates:
        rows.append(("the run", [duration(plan.run_seconds(o) or 0.0) for o in plan.outcomes]))
        rows.append(("GPU hours", [number((plan.run_seconds(o) or 0.0) * plan.pools.gpus / 3600) for o in plan.outcomes]))
    rows += [
        ("an update", [seconds(o.seconds) for o in plan.outcomes]),
        ("updates an hour", [number(3600 / o.seconds) for o in plan.outcomes]),
        ("trained tokens a second", [number(o.tokens_per_second) for o in plan.outcomes]),
        ("samplers idle" if split else "GPUs idle", [percent(idle(o, plan)) for o in plan.outcomes]),
        ("slots empty while decoding", [percent(o.slots_empty) for o in plan.outcomes]),
    ]
    if split:
        rows.append(("learner idle", [percent(1 - o.learning) for o in plan.outcomes]))
    rows += [
        ("tokens of older weights", [percent(o.stale) for o in plan.outcomes]),
        ("lag, mean and most", [f"{o.lag:.2f}, {o.most_lag}" for o in plan.outcomes]),
    ]
    for name, values in rows:
        table.add_row(name, *values)
    return table


def idle(outcome: Outcome, plan: Plan) -> float:
    """Share of the time in which a sampling GPU does nothing: neither samples nor, where the pools are colocated, learns, nor takes new weights."""
    busy = outcome.sampling + outcome.syncing + (outcome.learning if plan.pools.kind == "colocated" else 0.0)
    return max(0.0, 1 - busy)


def bound(outcome: Outcome, plan: Plan) -> str:
    """What the time of an update goes into, in words."""
    if outcome.mode == "asynchronous":
        sides = {"the samplers": outcome.sampling, "the learner": outcome.learning}
        side = max(sides, key=lambda name: sides[name])
        if sides[side] >= 0.9:
            return f"bound by {side}, busy {percent(sides[side])} of the time"
        return (
            f"neither side is busy all the time (samplers {percent(outcome.sampling)}, learner {percent(outcome.learning)}): groups in flight are limited by "
            "--max-staleness, and updates wait for the longest of them"
        )
    waiting = 1 - outcome.learning - outcome.syncing
    parts = {"sampling": waiting, "training": outcome.learning, "new weights": outcome.syncing}
    longest = max(parts, key=lambda name: parts[name])
    tail = f"; while it decodes, {percent(outcome.slots_empty)} of its slots stand empty" if longest == "sampling" else ""
    return f"{percent(parts[longest])} of an update is {longest}{tail}"


def _learner(plan: Plan) -> Iterator[Line]:
    learner = plan.learner
    for part in (*learner.resident, *learner.working):
        yield part.name, gigabytes(part.bytes), part.how
    options = plan.choices.config.memory
    usable = f"of {gigabytes(plan.usable)} that may be used: {options.gpu_memory:g} GB x {options.memory_share:g}"
    yield "together", gigabytes(learner.bytes), f"{usable}; fits on {plan.learner_from} or more ranks, has {learner.ranks}"


def _sampler(plan: Plan) -> Iterator[Line]:
    sampler, pools = plan.sampler, plan.pools
    beside = f", less {gigabytes(plan.learner.resident_bytes)} of the learner between updates" if pools.kind == "colocated" else ""
    room = plan.usable - (plan.learner.resident_bytes if pools.kind == "colocated" else 0.0)
    context = round(sampler.sequence / sampler.token.bytes)
    yield "weights", gigabytes(sampler.weights.bytes), sampler.weights.how
    yield "a token", f"{sampler.token.bytes / 1e3:.3g} kB", sampler.token.how
    yield "a sequence", gigabytes(sampler.sequence), f"{context:,} tokens, the longest, x {sampler.token.bytes / 1e3:.3g} kB"
    left = f"({gigabytes(plan.usable)}{beside}, less {gigabytes(sampler.weights.bytes)} of weights) / {gigabytes(sampler.sequence)}"
    yield "sequences that fit", f"{sampler.fits:,}", left if room > 0 else ""
    yield "slots", f"{pools.slots:,}", plan.choices.source("slots")
    how = f"{gpus_text(pools.sampler_gpus)} / {sampler.ranks} a sampler" + (f"; {pools.how}" if pools.how else "")
    yield "samplers", f"{pools.samplers}", how


def _work(plan: Plan) -> Iterator[Line]:
    choices, tasks, group = plan.choices, plan.choices.get("tasks_per_step"), plan.choices.get("group_size")
    mean = plan.lengths.mean()
    yield "attempts", f"{tasks * group:,}", f"{tasks} tasks ({choices.source('tasks_per_step')}) x {group} attempts ({choices.source('group_size')})"
    yield "tokens of one", number(mean), f"the mean; {plan.lengths_text}"
    yield "prompt", number(choices.get("prompt_length")), f"tokens ({choices.source('prompt_length')}), read once a group"
    if (turns := choices.get("turns")) > 1 or plan.rates.environment:
        yield "turns", f"{turns}", f"{choices.source('turns')}; the environment works {choices.get('environment')} ({choices.source('environment')})"


def _rates(plan: Plan) -> Iterator[Line]:
    for name, what in UNITS.items():
        yield what, seconds(getattr(plan.rates, name)), plan.rates.sources[name]
    yield "a pass that reads, besides", seconds(plan.rates.reading), plan.rates.sources["reading"]
    yield "groups that are trained on", percent(plan.rates.active), plan.rates.sources["active"]
    yield "new weights for the samplers", seconds(plan.rates.sync), plan.rates.sources["sync"]


def _arithmetic(outcome: Outcome, plan: Plan) -> Iterator[Line]:
    spent, schedule, updates, pools = outcome.spent, outcome.schedule, outcome.updates, plan.pools
    each = schedule.samplers * updates
    setting = {
        "synchronous": "",
        "partial": f"; {schedule.over_provision:g} times as many groups in flight"
        + (f", none older than {schedule.max_staleness} updates" if schedule.max_staleness else ""),
        "asynchronous": f"; no group older than {schedule.max_staleness} updates",
    }[outcome.mode]
    yield "simulated", f"{updates} updates", f"{spent.seconds:,.4g} s, after a warm-up{setting}"
    yield "an update", seconds(outcome.seconds), f"{spent.seconds:,.4g} s / {updates}"
    yield (
        "decode steps",
        number(spent.steps / each),
        f"of one sampler an update, {seconds(spent.decoding / each)}: {seconds(spent.decoding / max(1, spent.steps))} a step",
    )
    running = spent.busy_slot_seconds / spent.decoding if spent.decoding else 0.0
    yield (
        "sequences that run",
        number(running),
        f"of {schedule.slots} slots, over the time of these steps; by steps {percent(1 - outcome.slots_empty)} of slots are busy",
    )
    if spent.prefilling:
        passes = f" and {seconds(outcome.costs.reading)} a pass" if outcome.costs.reading else ""
        how = f"{spent.prefilled / each:,.0f} tokens x {seconds(outcome.costs.prefill_token)}, first tokens x {seconds(outcome.costs.decode_token)}{passes}"
        yield "reading", seconds(spent.prefilling / each), how
    if spent.environment:
        yield "environment", seconds(spent.environment / each), f"of all turns an update, on one sampler; {plan.choices.get('environment')} it"
    batch = outcome.tokens_per_update + schedule.prompt * schedule.batch
    active = f" x {percent(plan.rates.active)}" if plan.rates.active < 1 else ""
    train = f"{seconds(outcome.costs.update)} + {batch:,.0f} tokens{active} x {seconds(plan.rates.train_token)}{_over(pools.learner_gpus)}"
    yield "training", seconds(spent.learning / updates), train
    yield "tokens a second", number(outcome.tokens_per_second), f"{outcome.tokens_per_update:,.0f} trained tokens / {seconds(outcome.seconds)}"
    if plan.pools.kind == "split":
        yield "samplers idle", percent(idle(outcome, plan)), f"1 - {percent(outcome.sampling)} sampling - {percent(outcome.syncing)} new weights"
        yield "learner idle", percent(1 - outcome.learning), f"1 - {seconds(spent.learning / updates)} / {seconds(outcome.seconds)}"
    else:
        parts = f"1 - {percent(outcome.sampling)} sampling - {percent(outcome.learning)} training - {percent(outcome.syncing)} new weights"
        yield "GPUs idle", percent(idle(outcome, plan)), parts
    if outcome.stale:
        shares = ", ".join(f"{lag}: {percent(tokens / outcome.tokens)}" for lag, tokens in sorted(outcome.lags.items()))
        yield "lag", f"{outcome.lag:.2f}", f"updates between sampling and training, of trained tokens: {shares}"
    if (whole := plan.run_seconds(outcome)) is not None:
        how = (
            f"{count(plan.total_tokens)} tokens / {number(outcome.tokens_per_second)} a second"
            if plan.total_tokens
            else f"{plan.total_updates} x {seconds(outcome.seconds)}"
        )
        yield "the run", duration(whole), how


def _over(ranks: int) -> str:
    return f" / {ranks} ranks" if ranks > 1 else ""


def gigabytes(size: float) -> str:
    """Bytes as '15.2 GB', small ones as '3.1 MB'."""
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def seconds(value: float) -> str:
    """Seconds with the unit that suits them: '12.3 ms', '4.5 µs', '41.2 s'."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return f"{value / size:,.3g} {unit}" if value < 1000 else f"{value:,.0f} s"
    return f"{value / 1e-9:.3g} ns" if value else "0"
