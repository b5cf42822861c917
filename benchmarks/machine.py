"""What the benchmarks ran on, and how fast its matrix products can be."""

from __future__ import annotations

import platform
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch


def describe(threads: int) -> dict[str, Any]:
    """Processor, threads and versions: what a number needs beside it."""
    import transformers

    return {
        "processor": _processor(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def headline(machine: dict[str, Any], peer: str, versions: object) -> str:
    """One line that says what the numbers below it were measured on."""
    ours = f"{machine['threads']} threads, float32, torch {machine['torch']}, transformers {machine['transformers']}"
    return f"{machine['processor']}, {ours}; {peer}: {versions or 'not measured'}"


def matmul_peak(seconds: float = 2.0, size: int = 2048) -> float:
    """The best rate of a square float32 matrix product, in floating-point operations a second, over about `seconds`."""
    a, b, out = (torch.randn(size, size) for _ in range(3))
    torch.mm(a, b, out=out)
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def peak_memory() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median_and_range(values: list[float]) -> str:
    """'median (smallest to largest)' of some seconds or rates."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
