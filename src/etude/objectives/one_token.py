"""Every token of a given text as an episode of one token: candidates are drawn where it stands, and the one that was given is the right answer.

OTR (arXiv:2509.26313). Let pi = softmax(z) be the policy at a position, q = softmax(z / temperature) what candidates are drawn from, x the given token and beta the
reward of any other one. Over all draws the gradient with respect to the logits z is

    (1 - beta) q(x) (pi - e_x)  +  beta (pi - q)

that is imitation of x, weighted by how likely x was to be drawn, and a term that sharpens the policy where beta < 0 and temperature > 1. Other losses are cases of it:
temperature 1 and beta 0 weigh the negative log-likelihood by sg[pi(x)], which is DFT (arXiv:2508.05629), and `least_pull` 1 with beta 0 is SFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from etude.models.drawing import draw_several, uniforms
from etude.models.output_head import proposal_logprobs, row_blocks, token_logprobs
from etude.models.sampling import stream_key
from etude.objectives.batch import Aggregation, Statistics, TokenBatch

DEAD = 0.01
"""Where a token is imitated with less than this share of SFT's weight, it is as good as not learnt."""


class Look(NamedTuple):
    """What is seen at N positions, without gradient: candidates [N, K] or None, the probability q(x) that a draw hits the given token, the policy's entropy in nats,
    and the lengths of the gradients' two directions, e_x - pi and q - pi. All but the first [N]."""

    drawn_NK: Tensor | None
    hit_N: Tensor
    entropy_N: Tensor
    pull_N: Tensor
    drift_N: Tensor


@torch.no_grad()
def look(logits_NV: Tensor, targets_N: Tensor, *, temperature: float = 1.0, uniforms_NK: Tensor | None = None) -> Look:
    """Look at the policy softmax(logits) and at q = softmax(logits / temperature), a few rows at a time.

    uniforms_NK: numbers in [0, 1), each of which draws a candidate from q.
    """
    parts: list[Look] = []
    for block in row_blocks(logits_NV):
        logits, targets = logits_NV[block], targets_N[block, None]
        logp = logits.log_softmax(-1)
        p = logp.exp()
        q = p if temperature == 1.0 else (logits / temperature).softmax(-1)
        # |e_x - pi|^2 = 1 - 2 pi(x) + |pi|^2; rounding may take it below 0 where pi(x) is all but 1.
        pull = (1 - 2 * p.gather(1, targets).squeeze(1) + p.square().sum(-1)).clamp_min(0).sqrt()
        drawn = None if uniforms_NK is None else draw_several(q, uniforms_NK[block])
        # exp and log of a token of probability 0 are 0 and -inf.
        parts.append(Look(drawn, q.gather(1, targets).squeeze(1), -(p * logp.clamp_min(-1e4)).sum(-1), pull, (q - p).norm(dim=-1)))
    drawn_NK = None if uniforms_NK is None else torch.cat([part.drawn_NK for part in parts if part.drawn_NK is not None])
    hit, entropy, pull, drift = (torch.cat(values) for values in list(zip(*parts, strict=True))[1:])
    return Look(drawn_NK, hit, entropy, pull, drift)


@dataclass
class OneTokenObjective:
    """The policy gradient of one-token episodes along given texts; see the module.

    draws: candidates at each position; 0 takes the mean over all draws in closed form. temperature: of the draws. miss_reward: beta. centred: rewards less the mean of
    the position's other candidates, which changes no mean at temperature 1. least_pull: given tokens are imitated with at least this share of SFT's weight, drawn or
    not. seed: of the draws.

    Statistics are means over trained tokens: `nll` and `entropy` of the policy; `hit_rate`, the share of candidates that are the given token; `weight` of the given
    tokens, where SFT's is 1; `dead`, the share of tokens whose weight is below DEAD; and `miss_share`, how much of the gradients' length is due to beta.
    """

    draws: int = 0
    temperature: float = 1.0
    miss_reward: float = 0.0
    centred: bool = False
    least_pull: float = 0.0
    seed: int = 0
    aggregation: Aggregation = "seq_mean_token_mean"
    normal_length: int = 0
    needs_reference: bool = False
    differentiates_entropy: bool = False
    silent_without_advantage: bool = False
    whole_units: bool = False

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, Statistics]:
        at = batch.logits
        assert at is not None, "the learner gives the logits"
        given_N = batch.logprobs[at.row_N, at.place_N]
        seen = look(at.logits_NV, at.targets_N, temperature=self.temperature, uniforms_NK=self._uniforms(batch) if self.draws else None)
        if seen.drawn_NK is None:
            hits_N = seen.hit_N
            loss_N = self._mean_loss(at.logits_NV, given_N, hits_N)
        else:
            hit_NK = (seen.drawn_NK == at.targets_N[:, None]).to(given_N.dtype)
            hits_N = hit_NK.mean(1)
            loss_N = self._drawn_loss(at.logits_NV, seen.drawn_NK, hit_NK)
        pull_N = (1 - self.miss_reward) * hits_N
        if self.least_pull:
            lacking_N = (self.least_pull - pull_N).clamp_min(0)
            loss_N = loss_N - lacking_N * given_N
            pull_N = pull_N + lacking_N
        total = (loss_N * batch.weights[at.row_N, at.place_N]).sum()
        count = torch.tensor(float(len(given_N)))
        by_beta = (self._tilt(hits_N) * seen.drift_N).abs().sum()
        return total, {
            "nll": (-given_N.detach().sum(), count),
            "entropy": (seen.entropy_N.sum(), count),
            "hit_rate": (hits_N.sum(), count),
            "weight": (pull_N.sum(), count),
            "dead": ((pull_N < DEAD).sum(), count),
            "miss_share": (by_beta, (pull_N * seen.pull_N).sum() + by_beta),
        }

    def _mean_loss(self, logits_NV: Tensor, given_N: Tensor, hits_N: Tensor) -> Tensor:
        """What `_drawn_loss` is on average over all draws. Returns [N]."""
        loss_N = -(1 - self.miss_reward) * hits_N * given_N
        if self.miss_reward or self.centred:
            loss_N = loss_N - self._tilt(hits_N) * proposal_logprobs(logits_NV, self.temperature)
        return loss_N

    def _drawn_loss(self, logits_NV: Tensor, drawn_NK: Tensor, hit_NK: Tensor) -> Tensor:
        """-R log pi of each candidate, R being 1 for the given token and `miss_reward` for any other; mean over candidates. Returns [N]."""
        reward_NK = self.miss_reward + (1 - self.miss_reward) * hit_NK
        if self.centred:
            # Reward less the mean of the others: K / (K - 1) times what is over the mean of all.
            reward_NK = (reward_NK - reward_NK.mean(1, keepdim=True)) * (self.draws / (self.draws - 1))
        return -(reward_NK * token_logprobs(logits_NV, drawn_NK)).mean(1)

    def _tilt(self, hits_N: Tensor) -> Tensor:
        """The weight of q - pi in the gradient: beta, less the mean reward where rewards are centred. Returns [N]."""
        tilt_N = torch.full_like(hits_N, self.miss_reward)
        return tilt_N - (self.miss_reward + (1 - self.miss_reward) * hits_N) if self.centred else tilt_N

    def _uniforms(self, batch: TokenBatch) -> Tensor:
        """One number in [0, 1) for each candidate: a function of the row's name and the place in it, whatever else is in the micro-batch. Returns [N, K]."""
        at = batch.logits
        assert at is not None
        keys_B = np.array([stream_key(self.seed, *name) for name in batch.names], dtype=np.uint64)
        keys_N = np.repeat(keys_B[at.row_N.cpu().numpy()], self.draws)
        place_N = at.place_N.cpu().numpy().astype(np.uint64)
        counters_NK = place_N[:, None] * np.uint64(self.draws) + np.arange(self.draws, dtype=np.uint64)
        return torch.from_numpy(uniforms(keys_N, counters_NK.reshape(-1)).reshape(-1, self.draws)).to(at.logits_NV.device)
