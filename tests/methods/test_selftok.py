"""Selftok: what a folder of pictures and a reward of one's own need, which policy the divergence is from, and that a reward that a few tokens decide is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import etude
from etude.errors import InputError
from etude.objectives.batch import TokenBatch
from etude.objectives.policy import PolicyObjective, ppo_surrogate

SMALL = {"tasks_per_step": 4, "group_size": 8, "eval_tasks": 8, "eval_samples": 2, "evaluate_every": 0, "quiet": True, "threads": 1}
REWARD = "def score(task, text):\n    return text.count('<v1>') / 16\n"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of captioned pictures, and what a short pretraining on it leaves."""
    folder = tmp_path_factory.mktemp("mine")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(20):
        name = ("a red one", "the blue one")[number % 2]
        Image.new("RGB", (20, 24), (200, 10, 10) if number % 2 == 0 else (10, 10, 200)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(name)
    sizes = {"tokenizer_steps": 2, "renderer_steps": 1, "pool": 32, "codes": 4, "code_width": 16, "width": 16, "layers": 1, "batch": 4, "eval_pictures": 4}
    settings = {"evaluate_every": 0, "quiet": True, "threads": 1, "tasks": f"images:{pictures}"}
    etude.train("selftok-pretrain", out=folder / "run", steps=4, **sizes, **settings)
    with pytest.raises(InputError, match="what is left is the language model's"):
        etude.train("selftok-pretrain", out=folder / "short", steps=3, **sizes, **settings)
    return folder


def test_a_folder_of_pictures_needs_a_reward_and_learns_from_it(mine: Path) -> None:
    settings = {**SMALL, "model": str(mine / "run" / "model"), "tasks": f"images:{mine / 'pictures'}"}
    with pytest.raises(InputError, match="nobody can tell whether pictures"):
        etude.train("selftok", out=mine / "unjudged", steps=1, **settings)
    with pytest.raises(InputError, match="does not write pictures"):
        etude.train("selftok", out=mine / "text", steps=1, **{**settings, "model": "tiny"})
    (mine / "judge.py").write_text(REWARD)
    summary = etude.train("selftok", out=mine / "rl", steps=12, lr=1e-2, kl_coefficient=0.0, reward=f"{mine / 'judge.py'}:score", **settings)
    # One of four codes everywhere is rewarded.
    assert summary.before["eval/reward"] < 0.6 < summary.after["eval/reward"] - 0.1
    # Whole, and not cut off.
    assert summary.after["eval/truncated"] == 0
    assert (mine / "rl" / "drawings" / "step-000012.png").exists()
    assert (mine / "rl" / "model" / "picture-code" / "code.json").exists()


def test_the_divergence_is_from_the_policy_that_it_is_told() -> None:
    one = torch.tensor([[0.0, -1.0]])
    values = {"advantages": torch.zeros(1, 2), "mask": torch.ones(1, 2), "weights": torch.full((1, 2), 0.5), "unit": torch.zeros(1), "units": 1, "tokens": 2}
    batch = TokenBatch(logprobs=one, old_logprobs=one, behaviour_logprobs=one, reference_logprobs=one - torch.tensor([[0.0, 1.0]]), **values)
    from_start = PolicyObjective(ppo_surrogate(0.2, 0.2), kl_coefficient=1.0)
    # k3 of a log-ratio of -1 is exp(-1) + 1 - 1, of which the batch has the half.
    assert float(from_start(batch)[0]) == pytest.approx(0.5 * torch.tensor(-1.0).exp())
    from_old = PolicyObjective(ppo_surrogate(0.2, 0.2), kl_coefficient=1.0, kl_to_old=True)
    assert not from_old.needs_reference
    assert not from_old.silent_without_advantage
    batch.reference_logprobs = None
    assert float(from_old(batch)[0]) == 0
    batch.logprobs = one + torch.tensor([[0.0, 1.0]])
    assert float(from_old(batch)[0]) == pytest.approx(0.5 * torch.tensor(-1.0).exp())
