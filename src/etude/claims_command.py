"""`etude reproduce` and `etude claims`: flags to runs and pages, and back to the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from etude.cli import parsed, say
from etude.settings import check_config

DESCRIPTION = (
    "Check what a paper says of its METHOD: run the claim's arms at equal budget over paired seeds, judge the differences, and write the evidence down. The same "
    "command goes on where it was stopped."
)


@dataclass
class ReproduceFlags:
    """Options of `etude reproduce`."""

    all: bool = False
    """Every claim."""
    family: str | None = None
    """Every claim of this family of methods."""
    quick: bool = False
    """A reduced version in a minute or so, which checks that everything works and says nothing about the claim."""
    seeds: Annotated[int, Ge(0)] = 0
    """Reported seeds, from 1000 on (0: as many as the claim asks for)."""
    workers: Annotated[int, Ge(0)] = 0
    """Runs at a time (0: one a core)."""
    out: Path = Path("runs") / "claims"
    """Folder for the runs, one a method in it. Finished runs in it are reused, interrupted ones go on. Quick checks go into METHOD-quick."""
    to: Path | None = None
    """Folder for METHOD.json and METHOD.svg. Default: docs/claims in Étude's own source tree, else ./claims; for --quick the folder of the runs."""


@dataclass
class ClaimsFlags:
    """Options of `etude claims`."""

    check: bool = False
    """Write nothing; exit with 1 when a page is out of date."""


def reproduce_command(given: list[str]) -> int:
    """Run the command; returns its exit code: 0 when every claim was judged, whatever the verdict; 1 when runs crashed, 130 when the user stopped it."""
    count = next((i for i, argument in enumerate(given) if argument.startswith("-")), len(given))
    slugs, rest = given[:count], given[count:]
    flags = parsed(ReproduceFlags, rest, prog="etude reproduce METHOD …", description=DESCRIPTION, default=ReproduceFlags())
    check_config(flags, "flag")
    from etude.evals.reproduce import Options, chosen_slugs
    from etude.provenance import environment

    chosen = chosen_slugs(slugs, family=flags.family, everything=flags.all)
    # Before the first result is written: writing it changes the source tree.
    provenance = environment()
    options = Options(flags.seeds, flags.workers, flags.out, flags.to, flags.quick)
    try:
        judged = [_reproduced(slug, options, provenance) for slug in chosen]
    except KeyboardInterrupt:
        say("stopped. ", f"What was done is kept in {flags.out}; the same command goes on", "yellow")
        return 130
    return 0 if all(judged) else 1


def _reproduced(slug: str, options: Any, provenance: Mapping[str, Any]) -> bool:
    """Run, judge and show one claim; says whether it could be judged. A crash is told and leaves the other claims to go on."""
    from rich.console import Console

    from etude.evals.reproduce import CrashedArms, reproduce
    from etude.viewer.claim import claim_report
    from etude.viewer.live_arms import LiveArms

    try:
        done = reproduce(slug, options, watcher=LiveArms(metric="eval/pass@1", title=f"the claim of {slug}"), provenance=provenance)
    except CrashedArms as error:
        say("error: ", str(error), "bold red")
        return False
    console = Console()
    console.print(claim_report(done.result))
    console.print(f"written to {done.path}\n", highlight=False, soft_wrap=True)
    return True


def claims_command(given: list[str]) -> int:
    """Run the command; returns its exit code: 1 when a page is out of date and was only to be checked."""
    description = "Bring the tables of claims in README.md and docs/claims.md, and the pictures of claims, up to date with docs/claims/*.json."
    flags = parsed(ClaimsFlags, given, prog="etude claims", description=description, default=ClaimsFlags())
    from etude.claims_page import outdated_pages, write_pages

    if not flags.check:
        for path in write_pages():
            print(f"written: {path}")
        return 0
    outdated = outdated_pages()
    for path in outdated:
        say("error: ", f"{path} is out of date; run: etude claims", "bold red")
    return 1 if outdated else 0
