"""`etude plan`: how long a run takes and what bounds it, from rates that are stated or were measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from etude.errors import InputError

DESCRIPTION = (
    "How long does a run take, what bounds it, and does it fit? Sampling, training and the waiting between them are simulated on a clock of decode steps. Rates are stated "
    "below, or measured: --from RUN … takes them, with lengths and settings, from folders that `etude train` wrote or JSON files of the benchmarks; several of different "
    "sizes tell more than one. --config FILE.yaml takes options from a file; flags go before it. --out FILE.json writes the numbers to a file."
)


def plan_command(given: list[str]) -> int:
    """Run the command; returns its exit code."""
    from etude.cli import console, parsed, path_options
    from etude.evaluation_file import require_writable
    from etude.planning.plan import make_plan
    from etude.planning.settings import PlanConfig
    from etude.run import load_config
    from etude.settings import check_config, merged

    (file, out), rest = path_options(given, "config", "out", command="plan")
    parser = argparse.ArgumentParser(prog="etude plan", add_help=False, allow_abbrev=False)
    parser.add_argument("--from", dest="sources", nargs="+", type=Path, default=[])
    known, rest = parser.parse_known_args(rest)
    default = merged(PlanConfig(), load_config(file), str(file)) if file else PlanConfig()
    config = parsed(PlanConfig, rest, prog="etude plan", description=DESCRIPTION, default=default)
    check_config(config, "flag")
    if out is not None:
        require_writable(out)
    with console(stderr=True).status("simulating"):
        plan = make_plan(config, known.sources)
    from etude.planning.room import gpus_text
    from etude.viewer.plan_tables import tables

    screen = console()
    model, pools = plan.shape, plan.pools
    screen.print(f"{model.name}, {model.parameters:,} parameters, on {gpus_text(pools.gpus)}, {pools.kind}\n", markup=False, highlight=False, soft_wrap=True)
    screen.print(tables(plan))
    if out is not None:
        from etude.durable import replace_file
        from etude.planning.record import as_plain

        try:
            replace_file(out, json.dumps(as_plain(plan), indent=1) + "\n")
        except OSError as error:
            raise InputError(f"--out {out} cannot be written: {error.strerror}") from error
        screen.print(f"\nwritten: {out}", markup=False, highlight=False, soft_wrap=True)
    return 0
