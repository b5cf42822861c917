"""Answers of an endpoint, kept on disk, so that a run can be played again without network and without cost.

A file an answer: plain JSON with the request as it was and what came back, under a name that is the hash of the request. Files are written whole or not at all, so that
several processes may share a folder, and a damaged one costs one answer.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from etude.durable import json_safe, replace_file
from etude.errors import InputError
from etude.models.replies import Reply

CacheMode = Literal["off", "use", "only", "refresh"]
"""`use`: what is kept is taken, what is not is asked and kept. `only`: what is not kept is an error, and the network is never touched. `refresh`: everything is asked
anew, and replaces what was kept. `off`: no cache."""


class ReplyCache:
    """Replies by request: a mapping of plain JSON values that holds whatever the answer may depend on (address, model, messages, parameters, seed, number of the sample).

    Raises InputError for a folder that cannot be made, and in mode `only` for one that is not there.
    """

    def __init__(self, folder: Path, mode: CacheMode = "use") -> None:
        if mode not in get_args(CacheMode):
            raise InputError(f"the cache's mode is {mode!r}; expected one of {', '.join(get_args(CacheMode))}")
        self.folder, self.mode = folder.expanduser(), mode
        self.hits = 0
        if mode == "only" and not self.folder.is_dir():
            raise InputError(f"there is no cache of answers in {self.folder}; name the folder of the run that is played again, or use another mode than `only`")
        if mode != "off":
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"the cache's folder {self.folder} cannot be made: {error.strerror}; name another") from error
        self._written: set[str] = set()
        self._asking: dict[str, tuple[threading.Lock, int]] = {}
        self._lock = threading.Lock()

    def path(self, request: Mapping[str, Any]) -> Path:
        """The file of a request's answer."""
        name = _digest(request)
        return self.folder / name[:2] / f"{name}.json"

    def get(self, request: Mapping[str, Any]) -> Reply | None:
        """The answer that is kept, or None. In mode `refresh` only what was kept since this cache was opened counts.

        A file that cannot be read is None with a warning. In mode `only` it is an InputError, as is an answer that is not there.
        """
        path = self.path(request)
        if self.mode == "off" or (self.mode == "refresh" and path.stem not in self._written):
            return None
        try:
            reply = _read(path, request)
        except FileNotFoundError:
            if self.mode != "only":
                return None
            raise InputError(
                f"no answer is kept for {_named(request)} (it would be {path}), and the mode `only` asks nobody; use the mode `use`, or the settings of the run that was kept"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            if self.mode == "only":
                raise InputError(f"the kept answer in {path} cannot be read: {error}; delete it and use the mode `use` once") from error
            warnings.warn(f"the kept answer in {path} cannot be read ({error}); it is asked for again", stacklevel=2)
            return None
        with self._lock:
            self.hits += 1
        return reply

    def put(self, request: Mapping[str, Any], reply: Reply, details: Mapping[str, Any]) -> None:
        """Keep an answer. details: what else came with it, for a reader. Raises InputError when the disk does not take it."""
        if self.mode == "off":
            return
        path = self.path(request)
        content = json_safe({"request": request, "reply": asdict(reply), "details": details})
        try:
            path.parent.mkdir(exist_ok=True)
            replace_file(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise InputError(f"the answer could not be kept in {path}: {error.strerror}; free space, or name another folder for the cache") from error
        with self._lock:
            self._written.add(path.stem)

    @contextmanager
    def one_at_a_time(self, request: Mapping[str, Any]) -> Iterator[None]:
        """Equal requests go through here one after the other, so that the second finds the first one's answer instead of drawing another."""
        name = _digest(request)
        with self._lock:
            lock, users = self._asking.get(name, (threading.Lock(), 0))
            self._asking[name] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._asking.pop(name)
                if users > 1:
                    self._asking[name] = lock, users - 1


def _digest(request: Mapping[str, Any]) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _read(path: Path, request: Mapping[str, Any]) -> Reply:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["request"] != json.loads(json.dumps(request)):
        raise ValueError("it holds another request")
    kept = content["reply"]
    if not isinstance(kept["text"], str) or not isinstance(kept["finished"], bool):
        raise ValueError("its answer is no text, or does not say whether it is whole")
    lengths = [math.nan if kept[name] is None else float(kept[name]) for name in ("length", "prompt_length")]
    return Reply(kept["text"], lengths[0], kept["finished"], lengths[1])


def _named(request: Mapping[str, Any]) -> str:
    asked = str(request["messages"][-1]["content"]) if request.get("messages") else ""
    return f"sample {request.get('sample')} of {request.get('model')} to {asked[:60]!r}"
