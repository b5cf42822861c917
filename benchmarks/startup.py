"""How long `etude --help` and `etude list` take, and that they and `import etude` load no torch.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import etude": [sys.executable, "-c", "import etude"],
    "etude --help": [sys.executable, "-m", "etude", "--help"],
    "etude list": [sys.executable, "-m", "etude", "list"],
}
STATEMENTS = ("import etude", "from etude.catalogue import entries; entries()")
HEAVY = ("torch", "transformers", "numpy", "scipy")
LIMIT = 0.5


def seconds_of(command: list[str]) -> float:
    """Wall time of one run of a command that has to succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def loaded_by(statement: str) -> list[str]:
    """Which of the heavy packages a statement imports."""
    code = f"{statement}\nimport sys\nprint(*(n for n in {HEAVY!r} if n in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    repetitions = parser.parse_args().repetitions
    for command in COMMANDS.values():
        seconds_of(command)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repetitions):
        for name, command in COMMANDS.items():
            times[name].append(seconds_of(command))
    for name, values in times.items():
        print(f"{name:16} median {statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f})")
    heavy = {statement: loaded_by(statement) for statement in STATEMENTS}
    for statement, loaded in heavy.items():
        print(f"{statement} loads: {', '.join(loaded) or 'none of ' + ', '.join(HEAVY)}")
    slow = [name for name in ("etude --help", "etude list") if statistics.median(times[name]) > LIMIT]
    if slow or any(heavy.values()):
        sys.exit(f"expected `etude --help` and `etude list` within {LIMIT} s each, and no heavy package")


if __name__ == "__main__":
    main()
