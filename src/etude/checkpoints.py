"""Checkpoints that are either whole or not there: plain JSON and safetensors, with a manifest of hashes; nothing is unpickled.

A checkpoint is written under a temporary name, forced to disk and renamed. `step-N/` holds `state.json`, `state.safetensors` where there are tensors, `shards/` with
what lies in several processes (a safetensors file of each), and `manifest.json` with the size and SHA-256 of all of them, written last. Reading checks the manifest
and falls back to an older checkpoint when the newest is damaged.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.durable import clear_drafts, replace_file, sync_folder, write_synced
from etude.errors import CheckpointError
from etude.method import State

if TYPE_CHECKING:
    import torch

FORMAT = 1
SHARDS = "shards"
"""Folder in a checkpoint of what several processes wrote, each its own."""
_NAME = re.compile(r"step-(\d+)")


def _require_plain(value: Any, where: str) -> None:
    """Refuse what JSON would change or cannot hold, naming the place. Tuples are let through: they come back as lists."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; a method's plain state needs text keys, which JSON keeps as they are")
            _require_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            _require_plain(entry, f"{where}[{i}]")
    else:
        raise TypeError(f"{where} is a {type(value).__name__}; a method's plain state holds JSON values only, tensors belong into State.tensors")


def _distinct(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors that share no memory, and for every other name the one it is tied to. Views of larger or shared buffers are copied."""
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    owner: dict[tuple[Any, ...], str] = {}
    buffers: set[tuple[Any, int]] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        storage = tensor.untyped_storage()
        buffer = (tensor.device, storage.data_ptr())
        place = (*buffer, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in owner:
            aliases[name] = owner[place]
            continue
        owner[place] = name
        shared = tensor.numel() > 0 and buffer in buffers
        buffers.add(buffer)
        # A tensor whose storage is larger than itself is a view; safetensors refuses views that overlap.
        partial = storage.nbytes() != tensor.numel() * tensor.element_size()
        kept[name] = tensor.contiguous().clone() if shared or partial else tensor.contiguous()
    return kept, aliases


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors that share no memory, and wait until the disk has them. Raises OSError when it does not take them."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        # The writer reports what the system said only as text.
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number) if code else str(error)) from error
    _sync(path)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose files are as they were written. `progress` is the run's part, `score` its evaluation's, None where it had none."""

    step: int
    path: Path
    progress: dict[str, Any]
    score: float | None
    files: tuple[str, ...]

    def state(self) -> State:
        """The method's part, tensors on the CPU. Names that were tied give one tensor.

        Raises CheckpointError when the tensor file is not one.
        """
        document = json.loads((self.path / "state.json").read_text())
        tensors: dict[str, torch.Tensor] = {}
        if "state.safetensors" in self.files:
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                tensors = load_file(self.path / "state.safetensors")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{self.path / 'state.safetensors'} cannot be read: {error}") from error
        for name, owner in document["aliases"].items():
            tensors[name] = tensors[owner]
        shards = self.path / SHARDS
        return State(plain=document["method"], tensors=tensors, shards=shards if shards.is_dir() else None)


class Checkpoints:
    """The checkpoints of one run: the `keep_last` newest, the one with the best score, and the one that is `held`."""

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.held: int | None = None
        """Step of a checkpoint that is kept because the run may go back to it."""

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first; their files are not checked."""
        if not self.folder.is_dir():
            return []
        return sorted(int(m[1]) for entry in self.folder.iterdir() if entry.is_dir() and (m := _NAME.fullmatch(entry.name)))

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def save(self, step: int, state: State, *, progress: Mapping[str, Any], score: float | None = None) -> Path:
        """Write the checkpoint of `step`, point `best.json` at it when its score is the highest so far, and drop older ones that are no longer kept.

        A whole checkpoint of that step that is there already stays, and may become the best.
        Raises CheckpointError when the disk does not take it; earlier checkpoints are then as they were. Raises TypeError for state that is not plain.
        """
        _require_plain(state.plain, "State.plain")
        best = self.best()
        self._place(step, state, progress, score)
        if score is not None and (best is None or score > best[1]):
            self._mark_best(step, score)
        self._prune()
        return self.path(step)

    def _place(self, step: int, state: State, progress: Mapping[str, Any], score: float | None) -> None:
        target = self.path(step)
        if target.exists():
            try:
                self.load(step)
            except CheckpointError:
                self._set_aside(step)
            else:
                return
        draft = self.folder / f".step-{step}.tmp-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            clear_drafts(self.folder)
            draft.mkdir()
            self._write(draft, step, state, progress, score)
            os.rename(draft, target)
            sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(self._complaint(step, error)) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _write(self, draft: Path, step: int, state: State, progress: Mapping[str, Any], score: float | None) -> None:
        tensors, aliases = _distinct(state.tensors)
        if tensors:
            _write_tensors(draft / "state.safetensors", tensors)
        if state.write_shards is not None:
            (draft / SHARDS).mkdir()
            state.write_shards(draft / SHARDS)
            for path in (draft / SHARDS).iterdir():
                _sync(path)
            sync_folder(draft / SHARDS)
        document = {"progress": dict(progress), "method": state.plain, "aliases": aliases}
        write_synced(draft / "state.json", json.dumps(document).encode())
        written = sorted(p for p in draft.rglob("*") if p.is_file())
        files = {p.relative_to(draft).as_posix(): {"size": p.stat().st_size, "sha256": _digest(p)} for p in written}
        manifest = {"format": FORMAT, "step": step, "score": score, "files": files}
        write_synced(draft / "manifest.json", json.dumps(manifest, indent=1).encode())
        sync_folder(draft)

    def _complaint(self, step: int, error: OSError) -> str:
        earlier = self.steps()
        left = (
            f"The checkpoint of step {earlier[-1]} is intact: free space or fix the folder, then resume from it"
            if earlier
            else "There is no earlier checkpoint"
        )
        return f"could not write the checkpoint of step {step} in {self.folder}: {error.strerror or error}. {left}"

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of one step, its files checked against the manifest.

        Raises CheckpointError naming what is wrong.
        """
        path = self.path(step)
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            if manifest["format"] != FORMAT:
                raise CheckpointError(f"{path} has format {manifest['format']}, and this version of etude reads {FORMAT}; use the version that wrote it")
            for name, entry in manifest["files"].items():
                size = (path / name).stat().st_size
                if size != entry["size"]:
                    raise CheckpointError(f"{path / name} has {size} bytes, expected {entry['size']}: it was cut off or changed")
                if _digest(path / name) != entry["sha256"]:
                    raise CheckpointError(f"{path / name} does not have the SHA-256 that its manifest records: it was damaged or changed")
            strange = {f"{SHARDS}/{p.name}" for p in (path / SHARDS).glob("*")} - set(manifest["files"])
            if strange:
                raise CheckpointError(f"{path} holds {min(strange)}, which its manifest does not list: it was changed")
            if "state.json" not in manifest["files"]:
                raise CheckpointError(f"{path / 'manifest.json'} does not list state.json: it was changed")
            document = json.loads((path / "state.json").read_text())
            return Checkpoint(step, path, document["progress"], manifest["score"], tuple(manifest["files"]))
        except OSError as error:
            raise CheckpointError(f"{path} is incomplete: {error.strerror} ({error.filename})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}") from error

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are whole, or None when none was ever written. Damaged ones are passed over with a warning.

        Raises CheckpointError when there are checkpoints and all are damaged.
        """
        found = self.steps()
        for step in reversed(found):
            try:
                return self.load(step)
            except CheckpointError as error:
                warnings.warn(f"{error}. It is passed over, and the one before it used", stacklevel=2)
        if found:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be used (steps {', '.join(map(str, found))} are damaged); start a new run in another folder"
            )
        return None

    def recover(self, step: int) -> None:
        """Put the folder in order for a run that goes on from `step`, whatever a kill left undone.

        Later checkpoints, which could not be used, become `damaged-step-N`, half-written ones are removed, and `best.json` names the best of the rest.
        """
        for later in self.steps():
            if later > step:
                self._set_aside(later)
        clear_drafts(self.folder)
        best = self.best()
        if best is not None:
            self._mark_best(*best)
        else:
            (self.folder / "best.json").unlink(missing_ok=True)
        self._prune()

    def _set_aside(self, step: int) -> None:
        aside = self.folder / f"damaged-step-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(self.path(step), aside)

    def _pointed(self) -> tuple[int, float] | None:
        try:
            pointer = json.loads((self.folder / "best.json").read_text())
            return int(pointer["step"]), float(pointer["score"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def best(self) -> tuple[int, float] | None:
        """Step and score of the best checkpoint that is there (the earliest of equals), or None while nothing was scored."""
        scored: dict[int, float] = {}
        for step in self.steps():
            try:
                score = json.loads((self.path(step) / "manifest.json").read_text())["score"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if score is not None:
                scored[step] = score
        pointed = self._pointed()
        if pointed is not None and self.path(pointed[0]).exists():
            scored[pointed[0]] = pointed[1]
        if not scored:
            return None
        return max(scored.items(), key=lambda entry: (entry[1], -entry[0]))

    def _mark_best(self, step: int, score: float) -> None:
        try:
            replace_file(self.folder / "best.json", json.dumps({"step": step, "score": score}))
        except OSError as error:
            raise CheckpointError(f"could not write {self.folder / 'best.json'}: {error.strerror}. Free space or fix the folder, then resume") from error

    def _prune(self) -> None:
        steps, best = self.steps(), self.best()
        keep = {*steps[-self.keep_last :], *([best[0]] if best else []), self.held}
        for step in steps:
            if step not in keep:
                self.drop(step)

    def drop(self, step: int) -> None:
        """Remove the checkpoint of a step, where there is one."""
        if not self.path(step).exists():
            return
        # Renamed first: a kill half-way through the removal must not leave something that looks like a damaged checkpoint.
        doomed = self.folder / f".step-{step}.tmp-{os.getpid()}"
        os.rename(self.path(step), doomed)
        shutil.rmtree(doomed, ignore_errors=True)
