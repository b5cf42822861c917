"""Measure what the statistics promise, on simulated seeds, and write the tables in docs/statistics.md.

    python scripts/measure_statistics.py             # a few minutes on one core
    python scripts/measure_statistics.py null --trials 500 --only-print

Every number goes through the functions that `etude compare` and `etude reproduce` call. The draws are fixed by --seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from etude.evals.statistics import judge_difference, paired_difference, pass_at_k_interval, seeds_needed

PAGE = Path(__file__).parent.parent / "docs" / "statistics.md"
Draw = Callable[[Generator, tuple[int, int]], NDArray[np.float64]]


def accuracy(generator: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Difference of two accuracies on 32 tasks, both 70 % in truth."""
    return (generator.binomial(32, 0.7, shape) - generator.binomial(32, 0.7, shape)) / 32


def collapse(generator: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Two accuracies of about 70 %, of which each falls to 0 in a tenth of the seeds."""
    arms = generator.normal(0.7, 0.05, (2, *shape)) * (generator.random((2, *shape)) > 0.1)
    return arms[0] - arms[1]


NULLS: dict[str, Draw] = {
    "normal": lambda g, shape: g.normal(size=shape),
    "heavy tails (t with 3 degrees of freedom)": lambda g, shape: g.standard_t(3, shape),
    "accuracies on 32 tasks": accuracy,
    "each arm collapses in a tenth of the seeds": collapse,
    "long tail upwards (exponential)": lambda g, shape: g.exponential(size=shape) - 1,
    "long tail downwards (exponential)": lambda g, shape: 1 - g.exponential(size=shape),
}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def null_table(generator: Generator, trials: int) -> Iterator[str]:
    counts = (3, 5, 10, 20)
    yield "| differences over seeds (true mean 0) | " + " | ".join(f"{n} seeds" for n in counts) + " |"
    yield "|---|" + "---|" * len(counts)
    for name, draw in NULLS.items():
        cells = []
        for n in counts:
            outcomes = [judge_difference(row, np.zeros(n)) for row in draw(generator, (trials, n))]
            covered = np.mean([o.difference.low <= 0 <= o.difference.high for o in outcomes])
            cells.append(f"{percent(float(covered))}, {percent(float(np.mean([o.verdict == 'supported' for o in outcomes])))}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def bootstrap_table(generator: Generator, trials: int) -> Iterator[str]:
    counts = (15, 20, 40)
    yield "| differences over seeds | " + " | ".join(f"{n} seeds: BCa, t" for n in counts) + " |"
    yield "|---|" + "---|" * len(counts)
    for name in ("normal", "long tail upwards (exponential)"):
        cells = []
        for n in counts:
            rows = NULLS[name](generator, (trials, n))
            both = [[paired_difference(row, np.zeros(n), method=method, resamples=1999) for row in rows] for method in ("bootstrap", "t")]
            cells.append(", ".join(percent(float(np.mean([i.low <= 0 <= i.high for i in intervals]))) for intervals in both))
        yield f"| {name} | " + " | ".join(cells) + " |"


def pass_at_k_table(generator: Generator, trials: int) -> Iterator[str]:
    yield "| rates of tasks | tasks | samples | pass@1 | pass@4 |"
    yield "|---|---|---|---|---|"
    for a, b, tasks, samples in ((0.5, 0.5, 40, 8), (2.0, 6.0, 200, 8), (0.3, 2.7, 20, 4), (5.0, 2.0, 15, 16), (0.2, 8.0, 200, 8)):
        correct = generator.binomial(samples, generator.beta(a, b, (trials, tasks)))
        cells = []
        for k in (1, 4):
            truth = 1 - np.prod([(b + i) / (a + b + i) for i in range(k)])
            intervals = [pass_at_k_interval(row, samples, k) for row in correct]
            cells.append(percent(float(np.mean([i.low <= truth <= i.high for i in intervals]))))
        yield f"| Beta({a:g}, {b:g}) | {tasks} | {samples} | {cells[0]} | {cells[1]} |"


def planted_table(generator: Generator, trials: int) -> Iterator[str]:
    """Gains of 0, half and the whole of the smallest effect worth having, judged with the seeds that this effect takes; then looked at once more."""
    worth = 1.0
    seeds = seeds_needed(worth, 1.0, alternative="two-sided")
    assert seeds is not None
    yield f"| true gain, in standard deviations ({seeds} seeds, `smallest_effect` 1) | supported | not supported | inconclusive |"
    yield "|---|---|---|---|"
    for gain in (0.0, 0.5, 1.0):
        verdicts = [judge_difference(row, np.zeros(seeds), smallest_effect=worth).verdict for row in generator.normal(gain, 1, (trials, seeds))]
        yield f"| {gain:g} | " + " | ".join(percent(verdicts.count(v) / trials) for v in ("supported", "not supported", "inconclusive")) + " |"


def second_look_table(generator: Generator, trials: int) -> Iterator[str]:
    yield "| first look | supported at the first | after going on once to `seeds_to_settle` (at most 100) | after looking at every seed up to 30 |"
    yield "|---|---|---|---|"
    for n in (3, 5):
        first = second = always = 0
        for row in generator.normal(size=(trials, 100)):
            outcome = judge_difference(row[:n], np.zeros(n))
            supported = outcome.verdict == "supported"
            first += supported
            more = min(outcome.seeds_to_settle or n, 100)
            second += supported or (more > n and judge_difference(row[:more], np.zeros(more)).verdict == "supported")
            means = np.cumsum(row[:30]) / np.arange(1, 31)
            always += supported or any(means[m - 1] > 0 and paired_difference(row[:m], np.zeros(m)).low > 0 for m in range(n + 1, 31))
        yield f"| {n} seeds | {percent(first / trials)} | {percent(second / trials)} | {percent(always / trials)} |"


TABLES = {"null": null_table, "bootstrap": bootstrap_table, "pass-at-k": pass_at_k_table, "planted": planted_table, "second-look": second_look_table}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the statistics promise, on simulated seeds, and write the tables in docs/statistics.md.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which to make: {', '.join(TABLES)}; all unless named")
    parser.add_argument("--trials", type=int, default=2000, help="simulated comparisons behind every number (the bootstrap: a quarter)")
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--only-print", action="store_true", help="leave the page as it is")
    given = parser.parse_args()
    if unknown := set(given.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for name in given.tables or TABLES:
        table = TABLES[name]
        trials = given.trials // 4 if table is bootstrap_table else given.trials
        lines = "\n".join(table(np.random.default_rng([given.seed, *name.encode()]), trials))
        print(f"\n{name}\n{lines}", flush=True)
        if not given.only_print:
            page = PAGE.read_text(encoding="utf-8")
            before, rest = page.split(f"<!-- {name}:start -->\n")
            after = rest[rest.index(f"<!-- {name}:end -->") :]
            PAGE.write_text(f"{before}<!-- {name}:start -->\n{lines}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
