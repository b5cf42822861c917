import json
import math
import os
import stat
from pathlib import Path

import pytest

from etude.durable import JsonLines, clear_drafts, json_safe, replace_file
from etude.errors import CheckpointError


def filled(path: Path, count: int = 5, width: int = 10) -> tuple[JsonLines, list[int]]:
    """A log of `count` steps, and its size after each."""
    log, sizes = JsonLines(path), [0]
    for step in range(1, count + 1):
        log.append([{"step": step, "text": "é" * width}])
        sizes.append(log.sync())
    return log, sizes


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    assert list(log) == []
    assert log.sync() == 0
    log.append([{"step": 1, "x": 0.1 + 0.2}, {"step": 1, "x": math.nan}])
    log.append([{"step": 2, "x": -math.inf, "nested": {"list": (1, math.nan)}}])
    log.append([])
    assert list(log) == [{"step": 1, "x": 0.1 + 0.2}, {"step": 1, "x": None}, {"step": 2, "x": None, "nested": {"list": [1, None]}}]


def test_array_scalars_are_numbers() -> None:
    import numpy as np

    assert json_safe({"a": np.float32(0.5), "b": np.int64(3), "c": np.float64("nan")}) == {"a": 0.5, "b": 3, "c": None}
    with pytest.raises(TypeError, match="a set cannot be written"):
        json_safe({"a": {1}})


def test_a_line_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    log, _ = filled(tmp_path / "log.jsonl")
    with open(log.path, "ab") as file:
        file.write(b'{"step": 6, "te')
    assert [r["step"] for r in log] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("width", [10, 5000])
def test_rewind_takes_the_file_back_to_a_recorded_size(tmp_path: Path, width: int) -> None:
    log, sizes = filled(tmp_path / "log.jsonl", width=width)
    content = log.path.read_bytes()
    with open(log.path, "ab") as file:
        file.write(b'{"step": 6, "te')
    log.rewind(sizes[3], 3)
    assert log.path.read_bytes() == content[: sizes[3]]
    log.rewind(0, 0)
    assert log.path.read_bytes() == b""


def test_rewind_of_a_file_that_was_changed_keeps_complete_lines_up_to_the_step(tmp_path: Path) -> None:
    log, sizes = filled(tmp_path / "log.jsonl")
    with pytest.warns(UserWarning, match="not as the checkpoint at step 3 recorded"):
        log.rewind(sizes[3] - 4, 3)
    assert [r["step"] for r in log] == [1, 2, 3]
    with pytest.warns(UserWarning, match="recorded"):
        log.rewind(10**6, 2)
    assert [r["step"] for r in log] == [1, 2]


def test_rewind_does_not_trust_a_size_that_reaches_past_the_step(tmp_path: Path) -> None:
    log, sizes = filled(tmp_path / "log.jsonl")
    with pytest.warns(UserWarning, match="recorded"):
        log.rewind(sizes[4], 2)
    assert [r["step"] for r in log] == [1, 2]


def test_rewind_of_a_missing_file_warns_only_when_something_is_lost(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.rewind(0, 0)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="missing"):
        log.rewind(10, 3)


@pytest.mark.skipif(not (os.path.exists("/dev/full") and stat.S_ISCHR(os.stat("/dev/full").st_mode)), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"log\.jsonl: No space left on device"):
        JsonLines(path).append([{"step": 1}])


def test_a_failed_replacement_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    replace_file(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, json.dumps("new" * 100))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_drafts_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".step-4.tmp-99").mkdir()
    (tmp_path / ".step-4.tmp-99" / "state.json").touch()
    (tmp_path / ".best.json.tmp-99").touch()
    (tmp_path / ".lock").touch()
    (tmp_path / "best.json").touch()
    clear_drafts(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "best.json"]
