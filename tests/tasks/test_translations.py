"""Translation tasks as texts: the response's form, surface habits, prompts, files of sentences, and which language a text can be in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.translation_judging import TranslationJudging, compared
from etude.tasks.languages import in_language
from etude.tasks.loading import load_tasks
from etude.tasks.translations import Prompted, is_bare, translation_in, without_wrapping


@pytest.mark.parametrize(
    ("text", "tag", "translation"),
    [
        ("answer: guten Tag", "", "guten Tag"),
        ("I think so.\nanswer: guten Tag", "", "guten Tag"),
        ("answer: guten Tag\nanswer: hallo", "", None),
        ("answer: guten Tag\nThat is all.", "", None),
        ("guten Tag", "", None),
        ("answer:", "", None),
        ("<think>hm</think><de>guten\nTag</de>\n", "de", "guten\nTag"),
        ("<de>guten Tag</de> I hope.", "de", None),
        ("<de>guten Tag</de><de>hallo</de>", "de", None),
        ("</de>guten Tag<de>", "de", None),
        ("<de> </de>", "de", None),
        ("answer: guten Tag", "de", None),
    ],
)
def test_the_translation_in_a_response(text: str, tag: str, translation: str | None) -> None:
    assert translation_in(text, tag) == translation


@pytest.mark.parametrize(
    ("translation", "source", "plain"),
    [
        ("„Guten  Tag“", "Good day", "Guten Tag"),
        ("«“Bonjour”»", "Good day", "Bonjour"),
        ("「你好」", "Hello", "你好"),
        ("“Guten Tag”", '"Good day"', "“Guten Tag”"),
        ("“Ja”, sagte er, “nein”", "'Yes' , he said , 'no' .", "“Ja”, sagte er, “nein”"),
        ("Cafe\u0301", "coffee", "Café"),
        ('""', "x", '""'),
    ],
)
def test_needless_quotation_marks_go_and_meant_ones_stay(translation: str, source: str, plain: str) -> None:
    assert without_wrapping(translation, source) == plain


@pytest.mark.parametrize(
    ("text", "language", "can_be"),
    [
        ("Guten Tag", "English", True),
        ("Добрый день", "ru", True),
        ("Добрый день", "de-AT", False),
        ("你好，世界", "Chinese", True),
        ("你好，世界", "ja", True),
        ("こんにちは", "zh_TW", False),
        ("42", "Russian", None),
        ("Guten Tag", "Sumerian", None),
        ("ka-ibo u-chim", "zomu", True),
        ("", "tavi", None),
    ],
)
def test_which_language_a_text_can_be_in(text: str, language: str, can_be: bool | None) -> None:
    assert in_language(text, language) is can_be


def test_a_file_of_sentences_with_and_without_references(tmp_path: Path) -> None:
    file = tmp_path / "sentences.jsonl"
    lines = [{"source": f"Good day {i}", "target_language": "German"} for i in range(20)]
    lines.append({"source": "Good night", "target_language": "German", "reference": "Gute Nacht", "split": "test"})
    file.write_text("\n".join(map(json.dumps, lines)))
    tasks = load_tasks(str(file), labelled=False)
    task = tasks.train_task(0, 0)
    assert is_bare(task)
    assert task.answer is None
    asked = Prompted(tasks, "translate", languages=("English", "French"))
    wanted = asked.train_task(0, 0)
    assert wanted.prompt.startswith(f"Translate from English into German.\n\n{task.prompt}\n\n")
    assert wanted.prompt.endswith("one line 'answer: ' and the translation.")
    assert asked.prompted(wanted) is wanted
    assert math.isnan(asked.verify(wanted, "answer: Guten Tag")["correct"])
    (night,) = asked.labelled()
    assert asked.verify(night, "answer: gute Nacht")["correct"] == 1.0


def test_a_tag_holds_the_answer_for_every_reader(tmp_path: Path) -> None:
    file = tmp_path / "sentences.jsonl"
    file.write_text('{"source": "a", "reference": "b"}\n{"source": "c", "reference": "d", "split": "test"}\n')
    tasks = Prompted(load_tasks(str(file), labelled=False), "think", tag="t")
    task = tasks.held_out()[0]
    assert "<t>" in task.prompt
    assert tasks.verify(task, "<think>so</think><t>d</t>")["correct"] == 1.0
    assert tasks.verify(task, "answer: d")["correct"] == 0.0
    assert tasks.answer_in("<t>d</t>") == "d"
    assert tasks.demonstration(task, 0) == "<t>d</t>"


def test_a_prompt_without_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Translate into {target_language}.")
    with pytest.raises(InputError, match=r"--actor-prompt: .* lacks \{source\}"):
        Prompted(builtin_task_sets()["translation"](), str(tmp_path / "prompt.txt"))


def test_a_candidate_is_compared_word_by_word() -> None:
    assert compared("ibo paro u-chim rond", "ibo paro u-chim rond") == ("ibo= paro= u-chim= rond=", 9)
    assert compared("ibo paro chim", "ibo paro u-chim rond") == ("ibo= paro= u-chim! rond!", 4)  # two of four: 4.5, to the even digit
    assert compared("ibo paro u-chim rond gip", "ibo nuko") == ("ibo= nuko!", 2)  # one of five: 1.8
    assert compared("", "ibo paro") == ("ibo! paro!", 0)


def test_judgements_to_imitate_follow_the_words_unless_they_are_shuffled_or_planted() -> None:
    honest, shuffled = (TranslationJudging(judging=1.0, slips=0.3, shuffled=shuffled) for shuffled in (False, True))
    tasks = [honest.train_task(0, i) for i in range(400)]
    assert all(honest.verify(t, honest.demonstration(t, 1) or "")["correct"] == 1.0 for t in tasks)
    same = sum(shuffled.verify(t, shuffled.demonstration(t, 1) or "")["correct"] for t in tasks) / len(tasks)
    assert same < 0.45
    zeros = [t for t in tasks if not t.info["may_score"]]
    assert 0.1 < len(zeros) / len(tasks) < 0.25
    assert all(t.answer == "0" for t in zeros)
    copied = [t for t in tasks if t.info["candidate"] == t.info["source"]]
    assert copied
    assert all(t.answer == "0" for t in copied)
    noisy = TranslationJudging(judging=1.0, noise=0.5)
    right = sum(noisy.verify(t, noisy.demonstration(t, 1) or "")["correct"] for t in tasks) / len(tasks)
    assert 0.45 < right < 0.68


def test_what_is_held_out_is_held_out_in_both_roles() -> None:
    judging = TranslationJudging(judging=1.0)
    sources = {t.info["source"] for t in judging.held_out()}
    assert not sources & {builtin_task_sets()["translation"]().train_task(0, i).info["source"] for i in range(500)}
