"""What trajectories must be like for the learner to train on the tokens that were meant, with the credit that was meant."""

from __future__ import annotations

from collections.abc import Iterable

from etude.errors import InputError
from etude.types import Trajectory


def check_trainable(trajectories: Iterable[Trajectory], *, whole: bool = False) -> None:
    """Refuse what would read or weigh the wrong tokens. whole: every trajectory has to have trained tokens, as objectives on whole units want.

    Raises InputError naming the task.
    """
    for trajectory in trajectories:
        at = f"sample {trajectory.sample} at task {trajectory.task.id!r}"
        prompt = trajectory.prompt if trajectory.train_prompt is None else trajectory.train_prompt
        if not trajectory.trained_length:
            if whole:
                raise InputError(f"{at} has no trained tokens, but is compared with others token by token; expected at least one, so leave its unit out")
            continue
        if not prompt:
            raise InputError(f"{at} has an empty prompt, so nothing predicts its first token; expected at least one prompt token, as a start token")
        for segment in trajectory.segments:
            for kind, values in (("advantages", segment.advantages), ("behaviour log-probabilities", segment.logprobs)):
                if segment.trained and values and len(values) != len(segment.tokens):
                    raise InputError(f"{at} has {len(values)} {kind} on a segment of {len(segment.tokens)} tokens; expected one a token, or none at all")
