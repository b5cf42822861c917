"""Self-E's weights and targets by hand, and its loss against models whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from etude.images.captions import MADE_BY_MODEL, NO_CAPTION
from etude.models.flow import FlowModel, FlowShape
from etude.objectives.self_evaluation import SelfEvaluation, distillation_loss, draw_jumps, jump_weight, merged_target, own_pictures, self_evaluation_loss

CAPTIONS = torch.tensor([[1, 0, 0, 21], [7, 5, 3, 2]])
SMALL = FlowShape(width=32, layers=1, heads=2)


class Certain(FlowModel):
    """Sees the picture `value` everywhere: `with_caption` where it is told one, `without` where not, `own` for its own pictures."""

    with_caption, without, own = 0.5, 0.2, 0.0

    def forward(self, pictures: Tensor, times: Tensor, captions: Tensor, until: Tensor | None = None) -> Tensor:
        value = torch.where((captions == NO_CAPTION).all(1), self.without, torch.where((captions == MADE_BY_MODEL).any(1), self.own, self.with_caption))
        return (pictures - value[:, None, None, None]) / times[:, None, None, None]


def loss(settings: SelfEvaluation, times: list[float], until: list[float], captions: Tensor = CAPTIONS) -> tuple[float, float, float, int]:
    model, pictures = Certain(SMALL), torch.full((2, 3, 16, 16), 1.0)
    found = self_evaluation_loss(
        model, model, pictures, captions, torch.tensor(times), torch.tensor(until), torch.Generator().manual_seed(0), settings=settings
    )
    return found.fit, found.fake, found.judgement, found.judged


def test_the_weight_of_a_jump() -> None:
    weights = jump_weight(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([0.5, 0.25, 0.5]))
    assert weights.tolist() == pytest.approx([0.0, 1 - 1 / 3, 999 - 1], rel=1e-4)


def test_the_merged_target_keeps_the_energy_of_the_real_picture() -> None:
    real, own = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    assert merged_target(real, own, torch.tensor([3.0]), renormalise=False).tolist() == [[1.5, 1.0]]
    # (6, 4) with the norm 5.
    merged = merged_target(real, own, torch.tensor([3.0]))
    assert merged[0].tolist() == pytest.approx([6 * 5 / 52**0.5, 4 * 5 / 52**0.5])
    assert merged_target(real, own, torch.tensor([0.0])).tolist() == [[3.0, 4.0]]


def test_jumps_are_local_half_of_the_time_and_reach_as_far_as_they_may() -> None:
    times = torch.full((4000,), 0.8)
    until = draw_jumps(times, 0.5, torch.Generator().manual_seed(0))
    assert (until == times).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert until.min().item() == pytest.approx(0.4, abs=0.01)
    assert torch.equal(draw_jumps(times, 0.0, torch.Generator().manual_seed(0)), times)


def test_own_pictures_are_marked_in_a_free_place() -> None:
    assert own_pictures(CAPTIONS).tolist() == [[1, MADE_BY_MODEL, 0, 21], [7, 5, 3, MADE_BY_MODEL]]


def test_without_a_jump_it_is_flow_matching() -> None:
    # The model sees 0.5 where the picture is 1: 0.25 / t^2.
    fit, fake, judgement, judged = loss(SelfEvaluation(), [0.5, 0.25], [0.5, 0.25])
    assert (fit, fake, judgement, judged) == (pytest.approx((1 + 4) / 2), 0, 0, 0)
    dropped = torch.full_like(CAPTIONS, NO_CAPTION)
    # Without a caption it sees 0.2; a row whose caption was dropped is not judged.
    assert loss(SelfEvaluation(), [0.5, 0.5], [0.25, 0.25], dropped)[0::3] == (pytest.approx(0.64 / 0.25), 0)
    assert loss(SelfEvaluation(pull=0), [0.5, 0.5], [0.25, 0.25])[0::3] == (pytest.approx(1.0), 0)


def test_a_jump_is_pulled_towards_where_its_caption_is_recognised() -> None:
    # It predicts 0.5 and would see 0.5 with and 0.2 without the caption: its own target is 0.5 + 0.3. Weight 1 - 1/3.
    weight = 2 / 3
    target = (1 + weight * 0.8) / (1 + weight)
    fit, _, judgement, judged = loss(SelfEvaluation(renormalise=False), [0.5, 0.5], [0.25, 0.25])
    assert (fit, judged) == (pytest.approx((0.5 - target) ** 2 / 0.25, rel=1e-5), 2)
    assert judgement == pytest.approx(weight * 0.3 * (3 * 16 * 16) ** 0.5, rel=1e-5)
    # Of one grey, the merged target has the real picture's energy when it is the real picture.
    assert loss(SelfEvaluation(), [0.5, 0.5], [0.25, 0.25])[0] == pytest.approx(1.0, rel=1e-5)


def test_the_branch_for_own_pictures_is_trained_on_them_and_pulls_away() -> None:
    settings = SelfEvaluation(fake=True, fake_share=0.5, renormalise=False)
    fit, fake, _, _ = loss(settings, [0.5, 0.5], [0.25, 0.25])
    # Away is half of 0.2 - 0.5 and half of 0.0 - 0.5: the own target is 0.5 + 0.4. The branch sees 0 where the model drew 0.5.
    target = (1 + 2 / 3 * 0.9) / (1 + 2 / 3)
    assert (fit, fake) == (pytest.approx((0.5 - target) ** 2 / 0.25, rel=1e-5), pytest.approx(0.25))


def test_gradients_reach_the_model_only_through_what_it_predicted() -> None:
    torch.manual_seed(0)
    model, average = FlowModel(SMALL), FlowModel(SMALL)
    found = self_evaluation_loss(
        model, average, torch.randn(2, 3, 16, 16), CAPTIONS, torch.tensor([0.8, 0.6]), torch.tensor([0.3, 0.6]), torch.Generator(), settings=SelfEvaluation()
    )
    found.loss.backward()
    assert found.judged == 1
    assert model.leave.weight.grad is not None
    assert model.leave.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in average.parameters())


class Growing(FlowModel):
    """A velocity that is the picture itself, so that small steps and one jump lead to different places."""

    def forward(self, pictures: Tensor, times: Tensor, captions: Tensor, until: Tensor | None = None) -> Tensor:
        return pictures


def distilled(model: FlowModel, teacher: FlowModel, steps: int, times: list[float], until: list[float]) -> tuple[float, int]:
    pictures = torch.full((2, 3, 16, 16), 1.0)
    found = distillation_loss(
        model, teacher, pictures, CAPTIONS, torch.tensor(times), torch.tensor(until), torch.Generator().manual_seed(0), teacher_steps=steps
    )
    return found.fit, found.forwards


def test_a_jump_learns_where_the_small_steps_of_the_teacher_lead() -> None:
    model, teacher = Certain(SMALL), Certain(SMALL)
    # Its way is straight: any number of steps is one. The student sees 0.5 where the teacher sees 0.8: a difference of 0.3 / t of the velocity.
    teacher.with_caption = 0.8
    assert distilled(model, teacher, 4, [0.5, 0.5], [0.25, 0.0]) == (pytest.approx(0.36, rel=1e-4), 8)
    # Without a jump it is flow matching, and the teacher is not asked.
    assert distilled(model, teacher, 4, [0.5, 0.25], [0.5, 0.25]) == (pytest.approx((1 + 4) / 2, rel=1e-4), 0)


def test_the_teachers_steps_are_walked_one_after_the_other() -> None:
    # v = x: two steps of 0.2 lead from x to 0.8 * 0.8 x, a mean velocity of 0.36 x / 0.4 = 0.9 x. One step would be 1.0 x, what the student says itself.
    model = Growing(SMALL)
    assert distilled(model, Growing(SMALL), 1, [0.8, 0.8], [0.4, 0.4])[0] == pytest.approx(0.0, abs=1e-10)
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mixed = 0.2 + 0.8 * noise
    assert distilled(model, Growing(SMALL), 2, [0.8, 0.8], [0.4, 0.4])[0] == pytest.approx(0.01 * mixed.square().mean().item(), rel=1e-4)
