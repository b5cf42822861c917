"""Measure what a model draws for held-out captions: does it fit, is it like real pictures, and are pictures of one caption different?"""

from __future__ import annotations

from torch import Tensor

from etude.evals.pictures import diversity, frechet_distance, kernel_distance, precision_and_recall
from etude.images.sources import Source
from etude.types import Metrics

NEIGHBOURS = 3


def picture_metrics(source: Source, pictures: Tensor, captions: Tensor, real: Tensor, *, variants: int = 1) -> Metrics:
    """Measures of pictures [N, 3, S, S] for captions [N, W] against real ones [M, 3, S, S], keyed `eval/...`.

    variants: pictures of each caption, side by side, at least 2 for `diversity`. `distance` depends on N: compare equal N only. `closeness` is 1 / (1 + distance), which is
    higher for better pictures.
    """
    made, like = source.features(pictures), source.features(real)
    distance = frechet_distance(made, like)
    found: Metrics = {"eval/distance": distance, "eval/closeness": 1 / (1 + max(0.0, distance)), "eval/kernel_distance": kernel_distance(made, like)}
    if min(len(made), len(like)) > NEIGHBOURS:
        found["eval/precision"], found["eval/recall"] = precision_and_recall(made, like, neighbours=NEIGHBOURS)
    fit = source.alignment(pictures, captions)
    if fit is not None:
        found |= {"eval/alignment": float(fit.soft.mean()), "eval/strict": float(fit.strict.mean())}
    opinion = source.second_opinion(pictures, captions)
    if opinion is not None:
        found["eval/second_opinion"] = float(opinion.mean())
    if variants > 1:
        found["eval/diversity"] = diversity(made.unflatten(0, (-1, variants)))
    return found
