"""How likely given continuations of given contexts are: nothing is sampled, and no cache is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from etude.errors import InputError
from etude.models.output_head import logits_at


def score(model: PreTrainedModel, contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], *, tokens_at_once: int) -> list[list[float]]:
    """Log-probability of each token of option i after context i (temperature 1).

    tokens_at_once: of one forward, padding included. Raises InputError where there are not as many of each, or one is empty.
    """
    check_scorable(contexts, options)
    results: list[list[float]] = [[] for _ in contexts]
    # Similar lengths together: padding is computed for nothing.
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]) + len(options[i]))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * (len(contexts[i]) + len(options[i])) <= tokens_at_once:
            batches[-1].append(i)
        else:
            batches.append([i])
    for batch in batches:
        for i, values in zip(batch, _scored(model, [contexts[i] for i in batch], [options[i] for i in batch]), strict=True):
            results[i] = values
    return results


def check_scorable(contexts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> None:
    """Raises InputError where there are not as many contexts as options, or one is empty."""
    if len(contexts) != len(options):
        raise InputError(f"score got {len(contexts)} contexts and {len(options)} options; expected as many of each")
    if not all(map(len, contexts)) or not all(map(len, options)):
        raise InputError("score got an empty context or option; expected at least one token in each")


def _scored(model: PreTrainedModel, contexts: list[Sequence[int]], options: list[Sequence[int]]) -> list[list[float]]:
    device = next(model.parameters()).device
    inputs = [[*c, *o][:-1] for c, o in zip(contexts, options, strict=True)]
    width = max(map(len, inputs))
    ids = torch.zeros((len(inputs), width), dtype=torch.long)
    seen = torch.zeros((len(inputs), width), dtype=torch.long)
    for i, tokens in enumerate(inputs):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        seen[i, : len(tokens)] = 1
    rows = torch.cat([torch.full((len(o),), i) for i, o in enumerate(options)]).to(device)
    columns = torch.cat([torch.arange(len(c) - 1, len(c) - 1 + len(o)) for c, o in zip(contexts, options, strict=True)]).to(device)
    targets = torch.cat([torch.tensor(list(o)) for o in options]).to(device)
    with logits_at(model, rows, columns):
        logits = model(input_ids=ids.to(device), attention_mask=seen.to(device), use_cache=False).logits[0]
    values = logits.float().log_softmax(dim=-1).gather(1, targets[:, None]).squeeze(1)
    return [part.tolist() for part in values.split([len(o) for o in options])]
