"""Files that survive being killed: atomic replacement, and JSON lines that only grow and can be taken back to an earlier point."""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etude.errors import CheckpointError


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or the new one, never a part."""
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        write_synced(draft, text.encode())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def clear_drafts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder. Only for whoever holds the run: another process's drafts look the same."""
    for entry in folder.glob(".*.tmp-*"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def json_safe(value: Any) -> Any:
    """The same value with NaN and infinities as None, which is how JSON says that there is no number, and numbers of array libraries as plain ones."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(v) for v in value]
    if hasattr(value, "item"):
        return json_safe(value.item())
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON; expected text, numbers, booleans, None, lists and mappings of these")


class JsonLines:
    """A file of one JSON object a line. Lines are appended; `rewind` takes the file back to where a checkpoint saw it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records in one write.

        Raises CheckpointError when the disk does not take them.
        """
        data = b"".join(json.dumps(json_safe(r), ensure_ascii=False).encode() + b"\n" for r in records)
        if not data:
            return
        try:
            with open(self.path, "ab") as file:
                file.write(data)
        except OSError as error:
            raise CheckpointError(f"could not write to {self.path}: {error.strerror}. Free space or fix the folder, then resume the run") from error

    def sync(self) -> int:
        """Wait until the disk has every line; returns the file's size in bytes."""
        if not self.path.exists():
            return 0
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All complete records. A last line that is still being written, or was cut off, is left out."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                record = _parsed(line)
                if record is None:
                    return
                yield record

    def rewind(self, size: int, step: int) -> None:
        """Drop everything after the first `size` bytes, which a checkpoint at `step` recorded.

        When the file is not what the checkpoint saw (shorter, or cut elsewhere), its complete lines up to `step` are kept instead, with a warning.
        """
        if not self.path.exists():
            if size:
                warnings.warn(f"{self.path} is missing; its earlier lines are lost and the run goes on without them", stacklevel=2)
            return
        if size and not self._ends_a_record(size, step):
            warnings.warn(f"{self.path} is not as the checkpoint at step {step} recorded it; its complete lines up to that step are kept", stacklevel=2)
            kept = [r for r in self if isinstance(r.get("step"), int) and r["step"] <= step]
            replace_file(self.path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))
            return
        with open(self.path, "r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def _ends_a_record(self, size: int, step: int) -> bool:
        """Whether a complete record of `step` or earlier ends at byte `size`."""
        with open(self.path, "rb") as file:
            if file.seek(0, os.SEEK_END) < size:
                return False
            # The last line is found by reading backwards in growing windows: files of sampled trajectories can be large.
            window = 4096
            while True:
                start = max(0, size - window)
                file.seek(start)
                data = file.read(size - start)
                if data.count(b"\n") > 1 or start == 0:
                    break
                window *= 4
        record = _parsed(data[data.rfind(b"\n", 0, -1) + 1 :])
        return record is not None and isinstance(record.get("step"), int) and record["step"] <= step


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
