"""Tokens in the order of diffusion: the schedule on worked numbers, what the decoder sees, where gradients go, and folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from etude.errors import InputError
from etude.models.ordered_tokens import OrderedShape, OrderedTokenizer, first_visible, gone, token_times
from etude.models.picture_code import load_picture_code
from etude.models.spatial_tokens import SpatialShape, SpatialTokenizer

SEGMENTS = (1, 3)
SMALL = OrderedShape(codes=8, width=16, encoder_layers=1, decoder_layers=1, heads=2, segments=SEGMENTS)


def test_tokens_disappear_from_noise_to_picture() -> None:
    times = torch.tensor([1.0, 0.75, 0.5, 0.4, 0.25, 0.0])
    # Two spans of half each: one token over the first, three over the second.
    assert gone(times, SEGMENTS).tolist() == pytest.approx([0.0, 0.5, 1.0, 1.6, 2.5, 4.0])
    assert first_visible(times, SEGMENTS).tolist() == [1, 1, 2, 2, 3, 5]
    assert token_times(SEGMENTS).tolist() == pytest.approx([0.5, 1 / 3, 1 / 6, 0.0])
    # A uniform schedule is k(t) = floor((1 - t) K) + 1.
    assert first_visible(torch.tensor([0.9, 0.1]), (1, 1, 1, 1)).tolist() == [1, 4]


def test_the_decoder_sees_a_suffix_and_only_that() -> None:
    torch.manual_seed(0)
    code = OrderedTokenizer(SMALL)
    for parameter in code.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    times, noise = torch.tensor([0.4]), torch.randn(1, 3, 16, 16)
    visible = code.visible_at(times)
    assert visible.tolist() == [[False, True, True, True]]
    vectors = torch.randn(1, 4, 8, requires_grad=True)
    code.decoder(vectors, visible, noise, times).square().sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum(-1)[0].gt(0).tolist() == [False, True, True, True]
    assert OrderedTokenizer(OrderedShape(codes=8, width=16, segments=SEGMENTS, ordered=False)).visible_at(times).all()


def test_a_tokenizer_learns_to_say_which_of_two_pictures_it_is() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.cat([torch.full((8, 3, 16, 16), -0.8), torch.full((8, 3, 16, 16), 0.8)])
    code = OrderedTokenizer(SMALL)
    optimiser = torch.optim.Adam(code.parameters(), lr=3e-3)
    for step in range(100):
        if step == 50:
            code.begin_rendering()
            assert torch.equal(code.renderer.slots.weight, code.decoder.slots.weight)
        loss = code.loss(pictures, generator).total(diversity=0.1) if step < 50 else code.rendering_loss(pictures)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tokens = code.encode(pictures)
    assert not torch.equal(tokens[0], tokens[-1])
    with torch.no_grad():
        drawn = code.render(tokens)
    assert float((drawn - pictures).square().mean()) < 0.2 < float((drawn - pictures.flip(0)).square().mean())


@pytest.mark.parametrize("code", [OrderedTokenizer(SMALL), SpatialTokenizer(SpatialShape(codes=8, hidden=8))], ids=["ordered", "spatial"])
def test_tokenizers_come_back_from_their_folders(code: OrderedTokenizer | SpatialTokenizer, tmp_path: Path) -> None:
    code.loss(torch.randn(4, 3, 16, 16).clamp(-1, 1), torch.Generator().manual_seed(0))
    code.save(tmp_path)
    again, pictures = load_picture_code(tmp_path), torch.randn(2, 3, 16, 16)
    tokens = code.encode(pictures)
    assert tokens.shape == (2, code.count)
    assert torch.equal(again.encode(pictures), tokens)
    assert torch.equal(again.render(tokens), code.render(tokens))
    kept = torch.ones(code.count, dtype=torch.bool)
    assert code.sketch(tokens, kept, torch.Generator().manual_seed(0)).shape == pictures.shape
    (tmp_path / "code.json").write_text('{"kind": "other"}')
    with pytest.raises(InputError, match="of the kind 'other'"):
        load_picture_code(tmp_path)


def test_tokens_of_places_say_what_is_in_their_place() -> None:
    torch.manual_seed(0)
    code = SpatialTokenizer(SpatialShape(codes=8, hidden=8))
    picture = torch.zeros(1, 3, 16, 16)
    changed = picture.clone()
    changed[..., :2, :2] = 1.0
    moved = (code.vectors(changed) - code.vectors(picture)).abs().sum(-1)[0].view(4, 4)
    assert moved[0, 0] > 0
    assert moved[3].tolist() == moved[:, 3].tolist() == [0.0] * 4


class Blank(nn.Module):
    """A decoder that sees nothing in the noise."""

    def forward(self, codes: Tensor, visible: Tensor, pictures: Tensor, times: Tensor) -> Tensor:
        return torch.zeros_like(pictures)


def test_errors_weigh_as_those_of_the_velocity() -> None:
    code = OrderedTokenizer(SMALL)
    code.add_module("decoder", Blank())
    found = code.loss(torch.ones(64, 3, 16, 16), torch.Generator().manual_seed(0))
    times = torch.rand(64, generator=torch.Generator().manual_seed(0))
    assert (times < 0.1).any()
    # An error of 1 everywhere: 1 / t^2, of 100 at most.
    assert float(found.reconstruction) == pytest.approx(float((1 / times**2).clamp(max=100).mean()), rel=1e-5)
