"""Scripted models under the protocol, and the card of a study that trains nothing."""

from __future__ import annotations

import math

import pytest

from etude.cards import card_of, is_own, known_cards, listings, studies
from etude.cli import main
from etude.errors import InputError
from etude.evals.experiment import load_experiment
from etude.evals.reproduce import chosen_slugs, quick_version
from etude.experiments.gen_vs_mc import SCRIPTED, Planted, gen_vs_mc, planted_rates


def test_the_course_of_a_planted_model() -> None:
    # 0.5 -> 0.5 * 0.8 + 0.5 * 0.4 = 0.6 -> 0.6 * 0.9 + 0.4 * 0.1 = 0.58.
    planted = Planted("choice", 0.5, (0.4, 0.1), (0.2, 0.1))
    accuracy, inertia = planted.course(math.inf)
    assert accuracy == pytest.approx([0.5, 0.6, 0.58])
    assert inertia == pytest.approx(0.6 * 0.9)
    # Of those mended in the first round (0.4) a tenth is spoilt in the second, and one in two of these comes back to the first answer.
    assert planted.course(2)[1] == pytest.approx(0.54 + 0.4 * 0.1 / 2)
    assert SCRIPTED["generation"].course(math.inf)[0] == pytest.approx([0.45, 0.6335, 0.663135, 0.643559, 0.602768, 0.550437], abs=1e-5)


@pytest.mark.parametrize("name", ["generation", "choice"])
def test_what_was_planted_is_found(name: str) -> None:
    found, rounds = planted_rates(name, 1, 400)
    assert max(found["rate_error"], found["accuracy_error"], found["inertia_error"]) < 4
    assert rounds.right.shape == (400, 6)


def test_copies_never_flip_and_other_rates_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = planted_rates("copies", 0, 100)
    assert (found["flips"], found["inertia"], found["rate_error"]) == (0.0, 1.0, 0.0)
    # The check can fail: a model that mends more than it is said to is found out.
    monkeypatch.setattr(Planted, "course", lambda self, options: ([0.5] * 6, 0.5))
    assert planted_rates("choice", 0, 400)[0]["inertia_error"] > 4


@pytest.mark.parametrize(("settings", "budget", "said"), [({"model": "huge"}, "600-calls", "no model 'huge'"), ({"model": "coin"}, "30-calls", "ten items")])
def test_bad_settings_are_named(settings: dict, budget: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        gen_vs_mc(0, settings, budget)


def test_a_study_with_a_card_is_listed_and_claims_but_does_not_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert studies() == {"gen-vs-mc": "etude.experiments.gen_vs_mc"}
    card = card_of("gen-vs-mc")
    listing = next(each for each in listings() if each.card.slug == "gen-vs-mc")
    assert (listing.card.summary, listing.has_claim, is_own("gen-vs-mc"), "gen-vs-mc" in known_cards()) == (card.summary, True, True, True)
    assert card.claim is not None
    assert chosen_slugs(["gen-vs-mc"]) == ["gen-vs-mc"]
    assert quick_version(card.claim).experiment is not None
    load_experiment(str(card.claim.experiment))
    assert main(["train", "gen-vs-mc"]) == 2
    assert "gen-vs-mc trains nothing" in capsys.readouterr().err
    assert main(["train", "--help"]) == 0
    assert "gen-vs-mc" not in capsys.readouterr().out
