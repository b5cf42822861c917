"""Metrics from outside: sacrebleu's and the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.errors import InputError
from etude.rewards.text_metrics import text_metric


def test_chrf_and_bleu_are_sacrebleus_in_shares() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    for name, score in {"chrf": sacrebleu.sentence_chrf, "bleu": sacrebleu.sentence_bleu}.items():
        metric = text_metric(name, "--external-metric")
        assert metric("egal", "the old fox sees a boat", "the old fox saw a boat") == pytest.approx(
            score("the old fox sees a boat", ["the old fox saw a boat"]).score / 100
        )
        assert metric("egal", "the old fox saw a boat", "the old fox saw a boat") == pytest.approx(1.0)
        assert metric("egal", "", "the old fox saw a boat") == 0.0


def test_a_metric_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "metric.py"
    file.write_text(
        "def brief(source, candidate, reference):\n    return len(candidate) < len(source)\n\n"
        "def broken(source, candidate, reference):\n    return reference + candidate\n\n"
        "def vague(source, candidate, reference):\n    return 'good'\n\n"
        "def one(source):\n    return 1.0\n"
    )
    assert text_metric(f"{file}:brief", "--external-metric")("abc", "a", None) == 1.0
    with pytest.raises(InputError, match="failed on 'a': TypeError"):
        text_metric(f"{file}:broken", "--external-metric")("abc", "a", None)
    with pytest.raises(InputError, match="returned 'good'"):
        text_metric(f"{file}:vague", "--external-metric")("abc", "a", None)
    with pytest.raises(InputError, match="cannot be called with"):
        text_metric(f"{file}:one", "--external-metric")
    with pytest.raises(InputError, match="expected none, chrf, bleu"):
        text_metric("comet", "--external-metric")
