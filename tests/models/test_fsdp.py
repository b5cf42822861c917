"""The sharded learner on two processes of a CPU, against the learner of one."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import build
from test_learner import Units, moving, units_of

from etude.config import LearnerConfig
from etude.errors import CheckpointError, InputError, LearnerLost, NonFiniteError
from etude.models.fsdp.checks import check_fsdp, check_sendable
from etude.models.fsdp.learner import FsdpLearner
from etude.models.fsdp.ranks import Ranks
from etude.models.fsdp.sharded import dealt
from etude.models.learner import Learner
from etude.objectives import Objective, PolicyObjective, PreferenceObjective, ppo_surrogate

POLICY = PolicyObjective(ppo_surrogate(0.2, 0.2), kl_coefficient=0.1, entropy_coefficient=0.01)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    started = Ranks(2, "cpu")
    yield started
    started.close()


def pairs() -> Units:
    return [[chosen, rejected] for unit in units_of(tasks=3) for chosen, rejected in zip(unit[::2], unit[1::2], strict=True)]


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    return get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def trained(learner: Learner | FsdpLearner, units: Units, objective: Objective) -> list[dict[str, float]]:
    learner.freeze_reference()
    return [learner.update(units, objective) for _ in range(2)]


def weights_of(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize(
    ("objective", "units", "lora", "config"),
    [
        # Five units in micro-batches of at most 60 tokens: the ranks have different numbers of them.
        (POLICY, units_of(tasks=5), False, moving(micro_batch_tokens=60, epochs=2, mini_batches=2, gradient_checkpointing=True)),
        (PreferenceObjective(), pairs(), False, moving()),
        (POLICY, units_of(tasks=1, attempts=1), True, moving()),
    ],
    ids=["policy", "preferences", "lora-and-an-idle-rank"],
)
def test_two_ranks_do_what_one_process_does(ranks: Ranks, objective: Objective, units: Units, lora: bool, config: LearnerConfig) -> None:
    models = [adapted(build("llama")) if lora else build("llama") for _ in range(2)]
    one, two = Learner(models[0], config), FsdpLearner(models[1], config, ranks=ranks)
    for expected, found in zip(trained(one, units, objective), trained(two, units, objective), strict=True):
        # The gradient's norm and the loss stand among the metrics.
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    flat = [t for unit in units for t in unit]
    for reference in (False, True):
        for a, b in zip(one.logprobs(flat, reference=reference), two.logprobs(flat, reference=reference), strict=True):
            assert b == pytest.approx(a, abs=1e-4)
    torch.testing.assert_close(weights_of(models[1]), weights_of(models[0]), atol=1e-5, rtol=0)
