"""OTR: learn from demonstrations as if each of their tokens had been tried out (arXiv:2509.26313).

SFT makes every token of a demonstration likelier with the same force, however absurd it is to the model. OTR walks along the demonstration and, at every position, lets
the model draw a few next tokens: an episode of one token, in which the demonstrated token earns 1 and any other a little less than 0. What the policy gradient of
these episodes teaches is, on average, SFT with each token weighted by how likely the model was to draw it. Tokens that the model finds implausible (noise, but also
whatever is really new to it) pull on the weights hardly at all, so that less is forgotten and less noise is learnt, and less that is new as well.

Differs from SFT in the loss. Nothing is generated and no second forward is needed: the draws come from the logits that the loss has anyway. With `--token-draws 0` the
average over all draws is taken in closed form; at `--draw-temperature 1` and `--miss-reward 0` that is DFT (arXiv:2508.05629).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Lt

from etude.config import Count, Share
from etude.errors import InputError
from etude.method import register
from etude.methods.baselines.sft import SFT, SFTConfig
from etude.objectives import Aggregation, Objective, OneTokenObjective


@dataclass
class OTRConfig(SFTConfig):
    """Options of OTR."""

    token_draws: Count = 256
    """Next tokens drawn at each position of a demonstration (0: the exact mean over all draws)."""
    draw_temperature: Annotated[float, Gt(0)] = 1.3
    """Temperature at which they are drawn. A very large one draws from the whole vocabulary alike."""
    miss_reward: Annotated[float, Lt(1)] = -0.1
    """Reward of a drawn token that is not the demonstrated one, whose reward is 1."""
    centre_draws: bool = False
    """Take the mean reward of a position's other draws off each reward."""
    least_pull: Share = 0.0
    """Weight that a demonstrated token has at least, drawn or not, as a share of its weight in SFT: what lets new tokens be learnt."""
    aggregation: Aggregation = "seq_mean_token_mean"
    """How per-token losses become one number."""


@register(
    slug="otr",
    name="OTR",
    family="rewards",
    paper="2509.26313",
    title="One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient",
    summary="imitate demonstrations by trying out each of their tokens",
    config=OTRConfig,
    signal="demonstrations",
    rollouts="none",
)
class OTR(SFT):
    """Differs from SFT in the loss."""

    config: OTRConfig

    def setup(self) -> None:
        config = self.config
        if config.aggregation in ("dr_grpo", "constant"):
            raise InputError(f"--aggregation {config.aggregation} divides by a constant that OTR does not have; expected seq_mean_token_mean or token_mean")
        if config.centre_draws and config.token_draws == 1:
            raise InputError(
                "--centre-draws compares the draws of a position with each other, and --token-draws is 1; expected 2 or more, or 0 for the exact mean"
            )
        super().setup()

    def objective(self) -> Objective:
        config = self.config
        return OneTokenObjective(
            draws=config.token_draws,
            temperature=config.draw_temperature,
            miss_reward=config.miss_reward,
            centred=config.centre_draws,
            least_pull=config.least_pull,
            seed=self.run.stream("one-token"),
            aggregation=config.aggregation,
        )
