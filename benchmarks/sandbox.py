"""How fast code that a model wrote is run: calls a second and the time of a call, on both back ends.

python benchmarks/sandbox.py
python benchmarks/sandbox.py --calls 5000 --workers 8 --out sandbox.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from etude.errors import InputError
from etude.sandbox import Limits, Sandbox, open_sandbox

SIEVE = """\
n = 10_000
sieve = [True] * n
for i in range(2, n):
    if sieve[i]:
        for j in range(i * i, n, i):
            sieve[j] = False
sum(sieve)
"""
CODES = {"a product, printed": "print(37 * 84)", "a sieve up to 10,000": SIEVE, "an error": "1 / 0"}


def measure(sandbox: Sandbox, code: str, calls: int) -> dict[str, float]:
    """Calls a second over one batch, and times of single calls one after another."""
    sandbox.run([code] * 8)
    begun = time.perf_counter()
    results = sandbox.run([code] * calls)
    seconds = time.perf_counter() - begun
    if len({(r.status, r.text) for r in results}) != 1:
        raise RuntimeError(f"equal calls gave different results: { {r.status for r in results} }")
    single = []
    for _ in range(min(calls, 100)):
        begun = time.perf_counter()
        sandbox.run([code])
        single.append(time.perf_counter() - begun)
    return {"calls_per_second": calls / seconds, "median_ms": 1e3 * statistics.median(single), "p95_ms": 1e3 * sorted(single)[int(0.95 * len(single))]}


def start(backend: str, workers: int, preload: Sequence[str]) -> tuple[Sandbox, float]:
    """A sandbox and the milliseconds until its first result."""
    begun = time.perf_counter()
    sandbox = open_sandbox(backend, limits=Limits(seconds=10), workers=workers, preload=preload)
    sandbox.run(["1"])
    return sandbox, 1e3 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="calls in a batch")
    parser.add_argument("--workers", type=int, default=0, help="interpreters at once (0: the back end's own choice)")
    parser.add_argument("--preload", nargs="*", default=(), help="modules that the jail imports before any call")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    table = Table("back end", "code", "calls/s", "one call, median", "95 %", "start", title=f"batches of {arguments.calls} calls")
    rows: list[dict[str, Any]] = []
    for backend in ("safe", "jail"):
        try:
            sandbox, started = start(backend, arguments.workers, arguments.preload if backend == "jail" else ())
        except InputError as error:
            table.add_row(backend, f"not measured: {error}")
            continue
        with sandbox:
            for name, code in CODES.items():
                row = {"backend": backend, "code": name, "start_ms": started, **measure(sandbox, code, arguments.calls)}
                rows.append(row)
                table.add_row(
                    backend, name, f"{row['calls_per_second']:.0f}", f"{row['median_ms']:.1f} ms", f"{row['p95_ms']:.1f} ms", f"{row['start_ms']:.0f} ms"
                )
    Console().print(table)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
