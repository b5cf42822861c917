"""What exploration and exploitation cost a step of GRPO on tiny, in processor time: `python benchmarks/monitors.py [STEPS]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from etude.config import RunConfig
from etude.evals.monitors import monitors
from etude.method import get_method
from etude.run import Run
from etude.settings import build_config


def main(steps: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        method: Any = get_method("grpo")(build_config("grpo"), Run(Path(folder), RunConfig()))
        method.setup()
        spent = 0.0
        kept = method.collect

        def collect(tasks: Any) -> Any:
            nonlocal spent
            groups = kept(tasks)
            began = time.process_time()
            monitors(groups)
            spent += time.process_time() - began
            return groups

        method.collect = collect
        began = time.process_time()
        for step in range(1, steps + 1):
            method.run.step = step
            method.step()
        # The step measured here holds the monitors twice: its own, and those that are timed.
        whole = time.process_time() - began - spent
    print(f"{1000 * spent / steps:.2f} ms of {1000 * whole / steps:.0f} ms a step: {100 * spent / whole:.2f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
