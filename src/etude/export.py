"""What a run leaves to be taken away: `RUN/model`, with the best weights by held-out score or the last ones.

The best is chosen by the same scores that are then shown for it, so its score flatters it: of several noisy measurements the highest is usually lucky. What is
to be quoted should be measured anew, on draws or tasks that had no part in the choice.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from etude.checkpoints import Checkpoint
from etude.errors import CheckpointError
from etude.method import Method
from etude.run import Run
from etude.summary import Exported, Summary

MODEL = "model"
"""Folder inside a run's that the improved model is exported to."""


def export_model(method: Method, run: Run, summary: Summary, *, ready: bool) -> None:
    """Write `RUN/model`, whole or not at all, and note in the summary and `result.json` which step it is from.

    ready: the method stands at the run's last step. Otherwise (the run had ended before) it is set up only if the folder does not hold what it should.
    The method may stand at another step afterwards. A method with nothing to take away leaves nothing.
    """
    if type(method).export is Method.export:
        return
    scores = run.scores(summary.score_key)
    step = wanted_step(scores, summary.best, last=run.step, best_wanted=run.config.export == "best")
    if not ready and summary.exported is not None and summary.exported["step"] == step and (run.folder / MODEL).is_dir():
        return
    if not ready or step != run.step:
        checkpoint = _whole(run, step)
        step = checkpoint.step if checkpoint is not None else run.step
        if not ready:
            checkpoint = checkpoint or run.checkpoints.load(step)
            method.setup()
        if checkpoint is not None:
            method.load_state(checkpoint.state())
    written = _write(method, run.folder)
    if not ready:
        method.close()
    if written:
        summary.exported = Exported(step=step, score=scores.get(step), last_step=run.step, last_score=scores.get(run.step), evaluations=len(scores))
        summary.write()


def wanted_step(scores: dict[int, float], best: dict[str, float] | None, *, last: int, best_wanted: bool = True) -> int:
    """The step whose weights are taken away.

    scores: step -> held-out score. best: `step` and `score` of the best checkpoint. last: the last step that was done.
    The last one, unless an earlier one scored higher. It also is where nothing after the start was measured: then there was nothing to choose from.
    """
    if not best_wanted or best is None or not any(step > 0 for step in scores):
        return last
    return last if scores.get(last, float("-inf")) >= best["score"] else int(best["step"])


def _whole(run: Run, step: int) -> Checkpoint | None:
    try:
        return run.checkpoints.load(step)
    except CheckpointError as error:
        warnings.warn(f"{error}. The model is exported from step {run.step}, the last, instead", stacklevel=4)
        return None


def _write(method: Method, folder: Path) -> bool:
    """Says whether the method had anything to take away."""
    draft = folder / f".{MODEL}.tmp-{os.getpid()}"
    target = folder / MODEL
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        method.export(draft)
        if not any(draft.iterdir()):
            return False
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        return True
    finally:
        shutil.rmtree(draft, ignore_errors=True)
