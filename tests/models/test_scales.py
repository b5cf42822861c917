"""Pictures as tokens at several scales: the tokenizer's codes, and the transformer that predicts them, against small cases by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from etude.errors import InputError
from etude.images.captions import draw_captions
from etude.images.drawing import draw
from etude.models.picture_tokens import ScaleTokenizer, TokenizerShape
from etude.models.scales import ScalesShape, ScaleTransformer, token_cross_entropy, truncated

CAPTIONS = torch.tensor([[1, 0, 0, 21], [0, 5, 0, 0]])


def tokenizer(*, residual: bool = False, decay: float = 0.98) -> ScaleTokenizer:
    torch.manual_seed(0)
    return ScaleTokenizer(TokenizerShape(codes=16, hidden=8, residual=residual, decay=decay))


def transformer() -> ScaleTransformer:
    torch.manual_seed(1)
    model = ScaleTransformer(ScalesShape(codes=16, width=32, layers=2))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def pictures(count: int = 4) -> Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(draw(draw_captions(count, "uniform", random), random))


def test_a_map_is_looked_up_by_the_nearest_direction_at_each_scale() -> None:
    small = tokenizer()
    chosen = torch.randint(16, (2, 64), generator=torch.Generator().manual_seed(0))
    looked = small.look_up(3 * small.embed(chosen))
    assert torch.equal(looked.tokens[-1], chosen)
    assert [t.shape[1] for t in looked.tokens] == [1, 4, 16, 64]
    # One code everywhere is that code at every scale, and decoding uses the last scale alone.
    assert all((t == 5).all() for t in small.look_up(small.embed(torch.full((1, 64), 5))).tokens)
    other = [torch.zeros_like(t) for t in looked.tokens[:-1]]
    torch.testing.assert_close(small.decode([*other, looked.tokens[-1]]), small.decode(looked.tokens))


def test_residual_scales_say_what_is_left_over() -> None:
    residual = tokenizer(residual=True)
    maps = F.normalize(torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    tokens = residual.look_up(maps).tokens
    coarse = F.interpolate(residual.embed(tokens[0]), size=(8, 8), mode="bicubic")
    assert torch.equal(tokens[1], residual.nearest(F.adaptive_avg_pool2d(maps - coarse, 2).flatten(2).transpose(1, 2)))
    # What is known of the second scale is the first one's map; of the third the sum of both.
    both = coarse + F.interpolate(residual.embed(tokens[1]), size=(8, 8), mode="bicubic")
    torch.testing.assert_close(residual.next_input(tokens[:2]), F.adaptive_avg_pool2d(both, 4))
    changed = [tokens[0] * 0, *tokens[1:]]
    assert not torch.equal(residual.decode(changed), residual.decode(tokens))


def test_training_lowers_the_error_and_moves_idle_codes(tmp_path: Path) -> None:
    small = tokenizer(decay=0.5)
    generator = torch.Generator().manual_seed(0)
    before = small.codebook.clone()
    optimiser = torch.optim.Adam(small.parameters(), lr=5e-3)
    losses = []
    for step in range(12):
        loss = small.loss(pictures(16), squeeze=4 if step % 3 == 2 else None, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    torch.testing.assert_close(small.codebook.norm(dim=1), torch.ones(16))
    assert (small.codebook - before).norm(dim=1).gt(1e-3).all()
    small.save(tmp_path)
    again = ScaleTokenizer.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.tokens(pictures()), small.tokens(pictures()), strict=True))
    with pytest.raises(InputError, match="holds no tokenizer of pictures"):
        ScaleTokenizer.load(tmp_path / "nowhere")


def test_tokens_see_their_own_scale_and_coarser_ones() -> None:
    model, source = transformer(), tokenizer()
    tokens = source.tokens(pictures(2))
    known = [source.next_input(tokens[: i + 1]) for i in range(3)]
    logits = model(CAPTIONS, known)
    assert [each.shape for each in logits] == [(2, 1, 16), (2, 4, 16), (2, 16, 16), (2, 64, 16)]
    changed = [known[0], known[1].clone(), known[2]]
    changed[1][:, :, 0, 0] += 1
    others = model(CAPTIONS, changed)
    moved = [(a - b).abs().amax((0, 2)) for a, b in zip(logits, others, strict=True)]
    assert moved[0].max() < 1e-5
    assert moved[1].max() < 1e-5
    assert moved[2].min() > 1e-4
    assert moved[3].min() > 1e-4
    torch.testing.assert_close(model(CAPTIONS, known[:2])[2], logits[2])


def test_some_scales_alone_see_nothing_of_the_others() -> None:
    model, source = transformer(), tokenizer()
    tokens = source.tokens(pictures(2))
    last = source.next_input(tokens[:3])
    alone = model(CAPTIONS, [last], which=[0, 3])
    assert [each.shape[1] for each in alone] == [1, 64]
    torch.testing.assert_close(model(CAPTIONS, [last], which=[3])[0].shape, alone[1].shape)
    full = model(CAPTIONS, [source.next_input(tokens[: i + 1]) for i in range(3)])
    torch.testing.assert_close(alone[0], full[0])
    assert (alone[1] - full[3]).abs().max() > 1e-3


def test_sampling_draws_from_what_is_predicted_and_keeps_what_is_given() -> None:
    model, source = transformer(), tokenizer()
    drawn = model.sample(source, CAPTIONS, torch.Generator().manual_seed(0))
    known = [source.next_input(drawn.tokens[: i + 1]) for i in range(3)]
    predicted = [each.log_softmax(-1) for each in model(CAPTIONS, known)]
    for tokens, logprobs, entropies, expected in zip(drawn.tokens, drawn.logprobs, drawn.entropies, predicted, strict=True):
        torch.testing.assert_close(logprobs, expected.gather(-1, tokens[..., None])[..., 0])
        torch.testing.assert_close(entropies, -(expected.exp() * expected).sum(-1))
    given = model.sample(source, CAPTIONS, torch.Generator().manual_seed(1), given=drawn.tokens[:2])
    assert all(torch.equal(a, b) for a, b in zip(given.tokens[:2], drawn.tokens[:2], strict=True))
    assert len(given.logprobs) == 2
    greedy = model.sample(source, CAPTIONS, torch.Generator().manual_seed(2), top_k=1)
    assert all(logprobs.abs().max() < 1e-6 for logprobs in greedy.logprobs)
    assert source.decode(drawn.tokens).shape == (2, 3, 16, 16)


def test_guidance_rises_with_the_scale() -> None:
    model, source = transformer(), tokenizer()
    with_caption, without = model(CAPTIONS, [])[0], model(torch.full_like(CAPTIONS, 25), [])[0]
    drawn = model.sample(source, CAPTIONS, torch.Generator().manual_seed(0), guidance=5.0)
    # A quarter of the way at the first of four scales: weight 2.
    expected = (without + 2 * (with_caption - without)).log_softmax(-1)
    torch.testing.assert_close(drawn.logprobs[0], expected.gather(-1, drawn.tokens[0][..., None])[..., 0])


def test_truncation_by_hand() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert truncated(logits, 2, 1.0).isfinite().tolist() == [True, True, False, False]
    assert truncated(logits, 0, 0.75).isfinite().tolist() == [True, True, False, False]
    assert truncated(logits, 0, 0.9).isfinite().tolist() == [True, True, True, False]
    assert truncated(logits, 0, 1.0).isfinite().all()


def test_the_loss_is_a_mean_over_tokens_and_not_over_scales() -> None:
    certain, even = torch.tensor([[[50.0, 0.0]]]), torch.zeros(1, 3, 2)
    loss = token_cross_entropy([certain, even], [torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 3, dtype=torch.long)])
    assert loss.item() == pytest.approx(0.75 * np.log(2))


def test_models_are_saved_and_loaded(tmp_path: Path) -> None:
    model = transformer()
    model.save(tmp_path)
    torch.testing.assert_close(ScaleTransformer.load(tmp_path)(CAPTIONS, [])[0], model(CAPTIONS, [])[0])
    (tmp_path / "config.json").write_text('{"kind": "flow"}')
    with pytest.raises(InputError, match="no scale-wise transformer"):
        ScaleTransformer.load(tmp_path)
