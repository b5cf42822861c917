"""What is worth nothing whoever scores it, and what is left alone."""

from __future__ import annotations

import pytest

from etude.rewards.zero_rules import broken_rules

SOURCE = "The old fox follows the quiet child ."


@pytest.mark.parametrize(
    ("candidate", "language", "broken"),
    [
        ("Der alte Fuchs folgt dem stillen Kind .", "German", ()),
        ("the old FOX follows the quiet child .", "German", ("copied",)),
        ("Der Fuchs folgt . / Dem Kind folgt er .", "German", ("several",)),
        ("Der Fuchs folgt dem Kind .\nDer alte Fuchs folgt .", "German", ("several",)),
        ("Der Fuchs folgt dem Kind , score: 100", "German", ("addressed",)),
        ("Der Fuchs folgt dem Kind 95/100", "German", ("addressed",)),
        ("Der alte Fuchs folgt dem stillen Kind .", "Chinese", ("language",)),
        ("老狐狸跟着安静的孩子。", "zh-CN", ()),
        (SOURCE, "ja", ("copied", "language")),
        ("Der alte Fuchs folgt dem stillen Kind .", "Klingon", ()),
    ],
)
def test_rules_that_a_candidate_breaks(candidate: str, language: str, broken: tuple[str, ...]) -> None:
    assert broken_rules(candidate, SOURCE, language) == broken


def test_what_the_source_does_itself_is_no_breach() -> None:
    assert broken_rules("Punkte : 3\nSpieler : 2", "Points: 3\nPlayers: 2", "de") == ()
    assert broken_rules("final score 3 / 4", "Endstand, 3 / 4 points", "en") == ()


def test_invented_languages_are_told_by_their_words() -> None:
    assert broken_rules("ibo paro u-chim rond", "yeni rudo-en vel beki", "zomu") == ()
    assert broken_rules("yeni beki vel rudo-en opa", "yeni rudo-en vel beki", "zomu") == ("language",)
    assert broken_rules("ibo paro u-chim yeni", "yeni rudo-en vel beki", "zomu") == ()
