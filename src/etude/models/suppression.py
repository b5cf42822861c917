"""Tokens that a model never writes: those that its generation settings list under `suppress_tokens`, as Hugging Face's own `generate` reads them.

They are taken out of the distribution itself, by a hook behind the output layer, so that the sampler and the learner agree on what is left. That is how a model that
also reads words is kept to writing visual tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etude.errors import InputError

NEVER = -1e4
"""Logit of a suppressed token: its probability is exactly 0, and its logarithm is a number."""
HOOKED = "_etude_suppresses"


def suppress(model: Any, name: str = "the model") -> None:
    """Take the suppressed tokens of a model's generation settings out of its logits, from now on and in copies of it. Raises InputError for numbers that are no tokens."""
    listed = getattr(getattr(model, "generation_config", None), "suppress_tokens", None)
    head = model.get_output_embeddings()
    if not listed or getattr(head, HOOKED, False):
        return
    size = model.config.get_text_config().vocab_size
    wrong = [token for token in listed if not 0 <= token < size]
    if wrong or len(set(listed)) >= size:
        raise InputError(
            f"the generation settings of {name} suppress " + (f"token {wrong[0]}" if wrong else "every token") + f"; expected some of its {size} tokens, from 0"
        )
    suppressed = torch.zeros(size, dtype=torch.bool)
    suppressed[listed] = True
    head.register_buffer("suppressed", suppressed.to(head.weight.device), persistent=False)
    head.register_forward_hook(_without_suppressed)
    setattr(head, HOOKED, True)


def _without_suppressed(head: Any, _arguments: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return logits.masked_fill(head.suppressed, NEVER)
