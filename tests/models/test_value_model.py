"""The value model: what it reads, what it learns, and that it comes back as it was."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.value_model import ValueModel, reading
from etude.search.step_settings import ValueConfig

POLICY = LanguageModel.load("tiny", device="cpu")
PROMPT, GOOD, BAD = [5, 6, 7], [8, 9], [10, 11]


def test_it_learns_values_behind_steps_and_is_read_as_it_was_taught(tmp_path: Path) -> None:
    ledger = Ledger()
    before = next(POLICY.model.parameters()).detach().clone()
    model = ValueModel.open(ValueConfig(value_lr=1e-3, value_epochs=60, value_batch=2), POLICY, ledger)
    assert model.values([PROMPT, PROMPT], [GOOD, BAD]) == [0.5, 0.5]
    # Equal contexts are read once.
    assert (ledger.judged_tokens, ledger.task_evaluations, ledger.model_calls) == (3 + 2 + 2, 2, {"value": 2})
    lessons = [reading(PROMPT, [GOOD, GOOD], [None, 0.6, 0.9]), reading(PROMPT, [GOOD, BAD], [0.3, None, 0.1])]
    metrics = model.fit(lessons, Random(0))
    assert metrics["value/samples"] == 4
    assert metrics["value/accuracy"] == 1.0
    assert model.values([PROMPT, [*PROMPT, *GOOD], [*PROMPT, *GOOD]], [GOOD, GOOD, BAD]) == pytest.approx([0.6, 0.9, 0.1], abs=0.1)
    # The policy is another model.
    assert next(POLICY.model.parameters()).equal(before)

    model.save(tmp_path / "value")
    again = ValueModel.open(ValueConfig(value_model=str(tmp_path / "value")), POLICY, ledger)
    contexts, steps = [PROMPT, [*PROMPT, *GOOD]], [GOOD, BAD]
    assert again.values(contexts, steps) == model.values(contexts, steps)
    fresh = ValueModel.open(ValueConfig(), POLICY, ledger)
    fresh.load_state(model.state())
    assert fresh.values(contexts, steps) == model.values(contexts, steps)
    assert LanguageModel.load(str(tmp_path / "value"), device="cpu").parameters == POLICY.parameters


def test_values_have_to_fit_the_steps() -> None:
    with pytest.raises(ValueError, match="1 steps have 1 values"):
        reading(PROMPT, [GOOD], [0.5])
    with pytest.raises(InputError, match="no model folder"):
        ValueModel.open(ValueConfig(value_model="./nowhere"), POLICY, Ledger())
    with pytest.raises(InputError, match="has no value_head"):
        ValueModel.open(ValueConfig(value_model="tiny"), POLICY, Ledger(), trained=True)
