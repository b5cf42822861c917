"""An evaluation as a JSON file: settings, numbers, every attempt, and what it was made with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from etude.config import MeasureConfig
from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.provenance import environment
from etude.run import plain

if TYPE_CHECKING:
    from etude.evals.evaluate import Evaluation


def require_writable(path: Path) -> None:
    """Raise InputError for a file that cannot be written, before anything is computed for it."""
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"--out {path} cannot be written; expected a file in a folder that can be")


def write_evaluation(path: Path, evaluation: Evaluation, model: str, config: MeasureConfig) -> None:
    """Write `model`, `settings`, `metrics`, `attempts` and `environment`, replacing an older file at once. Raises InputError when the disk does not take it."""
    from etude.evals.evaluate import record_of

    attempts = [record_of(trajectory) for row in evaluation.trajectories for trajectory in row]
    content = {"model": model, "settings": plain(config), "metrics": evaluation.metrics, "attempts": attempts, "environment": environment(config.threads)}
    try:
        replace_file(path, json.dumps(json_safe(content), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"--out {path} cannot be written: {error.strerror}") from error
