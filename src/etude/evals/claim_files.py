"""What `etude reproduce` found, as a JSON file a claim: everything that the tables say, and everything that is needed to run it again.

In the source tree these files are `docs/claims/SLUG.json`. An installed package has no `docs/`; the verdicts alone travel with it (`etude.catalogue.SHIPPED`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.catalogue import CLAIMS, REPOSITORY
from etude.claim import VERDICTS, Claim
from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.evals.measures import Record
from etude.method import MethodCard

if TYPE_CHECKING:
    from etude.evals.verdict import Judgement, TestResult

FORMAT = 1
CURVE_POINTS = 60


def is_source_tree() -> bool:
    """Whether this package is imported from a checkout of Étude (or an editable install of one)."""
    return (REPOSITORY / "pyproject.toml").is_file() and CLAIMS.parent.is_dir()


def result_of(
    card: MethodCard,
    judgement: Judgement,
    records: Mapping[str, Sequence[Record]],
    *,
    claim: Claim,
    seeds: Sequence[int],
    configurations: Mapping[str, Mapping[str, Any]],
    command: str,
    environment: Mapping[str, Any],
    quick: bool = False,
) -> dict[str, Any]:
    """The file's content as plain JSON values.

    claim: as it was run, which for a quick check is a reduced form of the card's. configurations: the whole configuration of each arm, without folder and seed.
    """
    arms = {}
    for arm in claim.arms:
        runs = records[arm.name]
        arms[arm.name] = {
            "method": arm.method,
            "settings": {**claim.common, **arm.settings},
            "configuration": configurations.get(arm.name, {}),
            "spent": [record.spent() for record in runs] if runs[0].budget is not None else None,
            "ledgers": [record.ledger.to_plain() for record in runs] if runs[0].budget is not None else None,
            "measured": [{name: rounded(value) for name, value in record.last_values().items()} for record in runs],
        }
    return json_safe(
        {
            "format": FORMAT,
            "slug": card.slug,
            "name": card.name,
            "family": card.family,
            "paper": card.paper,
            "title": card.title,
            "quick": quick,
            "verdict": judgement.verdict,
            "reasons": judgement.reasons,
            "p_value": judgement.p_value,
            "statement": claim.statement,
            "expectation": claim.expectation,
            "tried": claim.tried,
            "seeds": seeds,
            "tests": [_test(result) for result in judgement.tests],
            "preconditions": [
                {
                    "name": p.precondition.name,
                    "arm": p.precondition.arm,
                    "measure": str(p.precondition.measure),
                    "at_least": p.precondition.at_least,
                    "at_most": p.precondition.at_most,
                    "otherwise": p.precondition.otherwise,
                    "values": p.values,
                    "mean": p.mean,
                    "holds": p.holds,
                }
                for p in judgement.preconditions
            ],
            "curves": curves_of(claim, records, seeds),
            "command": command,
            "environment": {k: v for k, v in environment.items() if k != "command"},
            "arms": arms,
            "design": claim.design(),
        }
    )


def rounded(value: float) -> float:
    """A number to the five digits that a file keeps of what was measured."""
    return float(f"{value:.5g}")


def _test(result: TestResult) -> dict[str, Any]:
    test, outcome = result.comparison, result.outcome
    difference = outcome.difference
    return {
        "name": test.name,
        "role": test.role,
        "treatment": test.treatment,
        "control": test.control,
        "measure": str(test.measure),
        "better": test.better,
        "margin": test.margin,
        "difference": {"estimate": difference.estimate, "low": difference.low, "high": difference.high, "level": difference.level, "method": difference.method},
        "p_value": outcome.p_value,
        "adjusted_p_value": result.adjusted_p_value,
        "verdict": result.verdict,
        "ablation": result.ablation_says if test.role == "ablation" else None,
        "detectable": outcome.detectable,
        "seeds_to_settle": outcome.seeds_to_settle,
        "treatment_values": result.treatment,
        "control_values": result.control if test.control is not None else None,
    }


def plotted_metric(claim: Claim) -> str | None:
    """The metric that the claim's picture shows."""
    return claim.plot or next((name for test in claim.tests for name in test.measure.metrics()), None)


def curves_of(claim: Claim, records: Mapping[str, Sequence[Record]], seeds: Sequence[int]) -> dict[str, Any] | None:
    """The plotted metric of every arm and seed over the budget, thinned to CURVE_POINTS points. None where there is nothing to draw a curve of."""
    metric = plotted_metric(claim)
    first = next(iter(records.values()))[0]
    if metric is None or first.budget is None:
        return None
    arms = {}
    for name, runs in records.items():
        arms[name] = []
        for seed, record in zip(seeds, runs, strict=True):
            try:
                x, y = record.curve(metric)
            except InputError:
                continue  # This arm does not have the metric (imitation has no reward).
            arms[name].append({"seed": seed, "x": thinned(x), "y": [rounded(v) for v in thinned(y)]})
    return {"metric": metric, "unit": first.budget.unit, "budget": first.budget.amount, "arms": arms}


def thinned(values: Sequence[float], most: int = CURVE_POINTS) -> list[float]:
    """At most `most` of the values, evenly spaced, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """Write SLUG.json into a folder, which is made where it is missing; returns the file's path.

    Raises InputError when a quick check is to be written among the claims of the documentation, or the folder cannot be written.
    """
    if result["quick"] and folder.resolve() == CLAIMS:
        raise InputError(f"a quick check says nothing about the claim and does not belong into {CLAIMS}; choose another folder with --to")
    path = folder / f"{result['slug']}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder with --to") from error
    return path


def read_result(path: Path) -> dict[str, Any]:
    """What `write_result` wrote.

    Raises InputError when the file is not one of this format, and for a quick check, which is no evidence.
    """
    try:
        result = json.loads(path.read_text())
        known = result["format"] == FORMAT and result["verdict"] in VERDICTS and result["slug"] == path.stem
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no result of a claim: {error!r}; make it again with: etude reproduce {path.stem}") from error
    if not known:
        raise InputError(f"{path} is of another format or method than this version writes; make it again with: etude reproduce {path.stem}")
    if result["quick"]:
        raise InputError(f"{path} is a quick check, which is no evidence; make it with: etude reproduce {path.stem}")
    return result


def read_results(folder: Path = CLAIMS) -> dict[str, dict[str, Any]]:
    """Every result in a folder by its method's slug. Raises InputError for a file that is none."""
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}


def is_current(result: Mapping[str, Any], claim: Claim) -> bool:
    """Whether a result is of the claim as the card has it now: the same arms, settings, budget and tests. Words may have changed."""
    return result["design"] == json.loads(json.dumps(json_safe(claim.design())))


def shipped_verdicts(results: Iterable[Mapping[str, Any]]) -> str:
    """The content of the file that travels with the package: verdicts by slug."""
    return json.dumps({r["slug"]: r["verdict"] for r in results}, indent=1, sort_keys=True) + "\n"
