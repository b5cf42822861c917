"""SAR's two passes: what the second one reads, what it aims at, and what it costs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from etude.models.picture_tokens import ScaleTokenizer, TokenizerShape
from etude.models.scales import ScalesShape, ScaleTransformer, token_cross_entropy
from etude.objectives.student_forcing import StudentForcing, forcing_loss

CAPTIONS = torch.tensor([[1, 0, 0, 21], [0, 5, 0, 0]])


@pytest.fixture(scope="module")
def models() -> tuple[ScaleTransformer, ScaleTokenizer, list[Tensor]]:
    torch.manual_seed(0)
    tokenizer, model = ScaleTokenizer(TokenizerShape(codes=16, hidden=8)), ScaleTransformer(ScalesShape(codes=16, width=32, layers=2))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model, tokenizer, tokenizer.tokens(torch.randn(2, 3, 16, 16))


def test_without_a_second_pass_it_is_teacher_forcing(models: tuple[ScaleTransformer, ScaleTokenizer, list[Tensor]]) -> None:
    model, tokenizer, tokens = models
    found = forcing_loss(model, tokenizer, CAPTIONS, tokens, torch.Generator(), settings=StudentForcing(weight=0))
    known = [tokenizer.next_input(tokens[: i + 1]) for i in range(3)]
    torch.testing.assert_close(found.loss, token_cross_entropy(model(CAPTIONS, known), tokens))
    assert (found.student, found.tokens) == (0, 89)


@pytest.mark.parametrize(("stagger", "tokens"), [("last", 89 + 4 + 1 + 64), ("all", 89 + 89)])
def test_the_second_pass_reads_and_aims_at_what_the_first_predicted(
    models: tuple[ScaleTransformer, ScaleTokenizer, list[Tensor]], stagger: str, tokens: int
) -> None:
    model, tokenizer, real = models
    settings = dataclasses.replace(StudentForcing(weight=0.1), **{"stagger": stagger})
    found = forcing_loss(model, tokenizer, CAPTIONS, real, torch.Generator(), settings=settings)
    own = [each.argmax(-1) for each in model(CAPTIONS, [tokenizer.next_input(real[: i + 1]) for i in range(3)])]
    scales = [3] if stagger == "last" else [1, 2, 3]
    answers = model(CAPTIONS, [tokenizer.next_input(own[:scale]) for scale in scales], which=[0, *scales])[1:]
    assert found.student == pytest.approx(token_cross_entropy(answers, [own[scale] for scale in scales]).item(), rel=1e-5)
    assert found.loss.item() == pytest.approx(found.teacher + 0.1 * found.student, rel=1e-5)
    assert found.tokens == tokens


def test_controls_read_or_aim_at_the_truth(models: tuple[ScaleTransformer, ScaleTokenizer, list[Tensor]]) -> None:
    model, tokenizer, real = models
    own = [each.argmax(-1) for each in model(CAPTIONS, [tokenizer.next_input(real[: i + 1]) for i in range(3)])]

    def student(settings: StudentForcing) -> float:
        return forcing_loss(model, tokenizer, CAPTIONS, real, torch.Generator(), settings=settings).student

    def expected(read: list[Tensor], aim: Tensor) -> float:
        return token_cross_entropy(model(CAPTIONS, [tokenizer.next_input(read[:3])], which=[0, 3])[1:], [aim]).item()

    assert student(StudentForcing(aim="truth")) == pytest.approx(expected(own, real[3]), rel=1e-5)
    assert student(StudentForcing(context="truth")) == pytest.approx(expected(real, own[3]), rel=1e-5)
    assert expected(own, own[3]) != pytest.approx(expected(real, own[3]), rel=1e-4)


def test_no_gradient_flows_through_what_is_read(models: tuple[ScaleTransformer, ScaleTokenizer, list[Tensor]]) -> None:
    model, tokenizer, real = models
    found = forcing_loss(model, tokenizer, CAPTIONS, real, torch.Generator().manual_seed(0), settings=StudentForcing(stagger="random", sample=True))
    found.loss.backward()
    assert model.enter.weight.grad is not None
    assert all(parameter.grad is None for parameter in tokenizer.parameters())
    model.zero_grad()
