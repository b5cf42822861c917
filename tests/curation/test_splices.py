"""Episodes that turn back: which pairs, what both begin with, what is read and what is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.curation import Turn, continuation, contrasting, spliced_conversation
from etude.curation.splices import shared
from etude.errors import InputError
from etude.tasks.reflections import SHORT, STANDARD, reflections_named
from etude.types import Message

OK, NO = (Message("user", "ok"),), (Message("user", "no"),)
GOOD = [Turn("a", OK), Turn("b", OK), Turn("c", OK), Turn("end")]
BAD = [Turn("a", OK), Turn("x", NO), Turn("x")]


def test_pairs_are_far_apart_and_the_good_one_is_good() -> None:
    assert contrasting([1.0, 0.5, 0.9, 0.75], gap=0.2, above=0.8) == [(0, 1), (0, 3), (2, 1)]
    assert contrasting([0.4, 0.0], gap=0.2, above=0.5) == []


def test_the_continuation_begins_where_the_episodes_part() -> None:
    assert shared(GOOD, BAD) == 1
    assert continuation(BAD[:2], GOOD) == GOOD[1:]
    # Cut inside of what both begin with, all that follows is missing still.
    assert continuation([Turn("a", OK)], [Turn("a", OK), Turn("b", OK), Turn("end")]) == [Turn("b", OK), Turn("end")]
    assert continuation(GOOD, GOOD[:2]) == []
    assert shared([Turn("a", NO)], GOOD) == 0


@pytest.mark.parametrize("inline", [False, True])
def test_what_was_wrong_is_read_and_the_rest_is_learnt(inline: bool) -> None:
    opening, ok = [Message("user", "task")], Message("user", "ok")
    messages, learn = spliced_conversation(opening, BAD, "hm", GOOD[2:], acknowledged=ok, inline=inline)
    said = [m.content for m in messages]
    if inline:
        assert said == ["task", "a", "ok", "x", "no", "x", "ok", "hm\nc", "ok", "end"]
        assert learn == [False, False, False, True, True]
    else:
        assert said == ["task", "a", "ok", "x", "no", "x", "ok", "hm", "ok", "c", "ok", "end"]
        assert learn == [False, False, False, True, True, True]
    assert [m.role for m in messages[1:]] == ["assistant", "user"] * (len(learn) - 1) + ["assistant"]


def test_changes_of_mind_are_named_or_read(tmp_path: Path) -> None:
    assert (reflections_named("auto", 256), reflections_named("auto", 4096)) == (SHORT, STANDARD)
    (tmp_path / "mine.txt").write_text("no\n\n wait \n")
    assert reflections_named(str(tmp_path / "mine.txt"), 256) == ("no", "wait")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        reflections_named(str(tmp_path / "empty.txt"), 256)
    with pytest.raises(InputError, match="--reflections is 'nothing'"):
        reflections_named("nothing", 256)
