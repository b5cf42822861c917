"""Whether the tokens of pictures come one out of the other: their entropies by place, in order and shuffled in strides.

Selftok's test (arXiv:2505.07538, section 3) on three tokenizers: small language models learn the sequences, and what is left to guess at each place is
compared with the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from etude.config import AtLeastOne
from etude.errors import InputError, nearest
from etude.evals.token_order import STRIDES, entropies_by_place, order_correlation, strided
from etude.experiments.study import Findings, Table
from etude.images.sources import World
from etude.models.picture_language import code_beside
from etude.types import mean
from etude.viewer.charts import Chart, Line
from etude.viewer.numbers import number

MEASURED = 1024


@dataclass(frozen=True)
class TokenOrderSettings:
    """tokenizer: whose tokens, a model that writes pictures. pictures: how many are learnt from. steps: of each language model."""

    tokenizer: str = "tiny-selftok"
    pictures: int = 8192
    steps: int = 300


def token_order(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """`correlation`, Spearman's, of place and entropy in order, `correlation_2` and `correlation_3` within the parts of sequences shuffled in strides of 2 and 3;
    `entropy`, nats per token in order, `fall`, by how many nats the last quarter of the places lies below the first, and `entropy@k` by place.

    The budget is not looked at: what is compared is trained alike. Raises InputError for unknown settings.
    """
    known = [f.name for f in fields(TokenOrderSettings)]
    for name in settings:
        if name not in known:
            raise InputError(f"token_order has no setting {name!r}.{nearest(name, known)} Expected {', '.join(known)}")
    found = entropies(seed, TokenOrderSettings(**settings))
    first = found[1]
    quarter = max(1, len(first) // 4)
    values = {"correlation" + ("" if stride == 1 else f"_{stride}"): order_correlation(own, stride) for stride, own in found.items()}
    values |= {"entropy": mean(first), "fall": mean(first[:quarter]) - mean(first[-quarter:])}
    return values | {f"entropy@{place + 1}": value for place, value in enumerate(first)}


def entropies(seed: int, settings: TokenOrderSettings) -> dict[int, list[float]]:
    """Entropies by place of the sequence as it was read, for each stride."""
    torch.set_num_threads(1)
    code, source = code_beside(settings.tokenizer), World()
    learnt = source.batch(settings.pictures, np.random.default_rng([seed, 0]))[0]
    measured = source.batch(MEASURED, np.random.default_rng([seed, 1]))[0]
    with torch.no_grad():
        tokens = [torch.cat([code.encode(part) for part in pictures.split(512)]) for pictures in (learnt, measured)]
    found: dict[int, list[float]] = {}
    for stride in STRIDES:
        order = list(chain.from_iterable(strided(code.count, stride)))
        found[stride] = entropies_by_place(tokens[0][:, order], tokens[1][:, order], code.codes, seed=seed, steps=settings.steps)
    return found


# As a study


@dataclass(frozen=True)
class StudySettings:
    """The same test for several tokenizers."""

    tokenizers: tuple[str, ...] = ("tiny-selftok", "tiny-flowmo", "tiny-spatial")
    """Models whose tokens are looked at: shipped ones, or folders."""
    pictures: Annotated[int, Ge(64)] = 8192
    """Pictures of the drawn world that language models learn from."""
    steps: AtLeastOne = 300
    """Steps of each language model."""
    seeds: AtLeastOne = 1
    """Seeds, counted from 0."""


def study(settings: StudySettings) -> Findings:
    """Entropies by place and their correlations with it, means over seeds."""
    values: dict[str, dict[str, list[float]]] = {}
    for tokenizer in settings.tokenizers:
        runs = [entropies(seed, TokenOrderSettings(tokenizer, settings.pictures, settings.steps)) for seed in range(settings.seeds)]
        values[tokenizer] = {f"stride {stride}": _averaged([run[stride] for run in runs]) for stride in STRIDES}
    rows = [
        [name, *(f"{order_correlation(own[f'stride {stride}'], stride):+.2f}" for stride in STRIDES), f"{mean(own['stride 1']):.2f}"]
        for name, own in values.items()
    ]
    title = "Spearman's correlation of place and entropy: in order, and within the parts of strides"
    table = Table(title, ("tokens of", *(f"stride {stride}" for stride in STRIDES), "nats per token"), rows)
    lines = [Line(name, [float(i + 1) for i in range(len(own["stride 1"]))], own["stride 1"]) for name, own in values.items()]
    chart = Chart("Entropy by token", "nats, given the tokens before it", lines, number, from_zero=True, x_name="token")
    return Findings(values=values, tables=(table,), charts={"entropy-by-token": chart})


def _averaged(rows: Sequence[Sequence[float]]) -> list[float]:
    return [mean(column) for column in zip(*rows, strict=True)]
