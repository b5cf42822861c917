"""Python files of the user's own: `file.py:name` becomes the object that it names, and what goes wrong in it is told in the user's terms."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.errors import InputError, nearest


def load_object(spec: str, option: str) -> Any:
    """The object that `file.py:name` names.

    The file need not be on `sys.path`; modules beside it can be imported by it. A file that changed since it was last loaded is loaded again.
    `option` is what the user gave it to (`--reward`), for messages.
    Raises InputError for a malformed spec, a missing file or name, and code that does not run.
    """
    location, colon, name = spec.rpartition(":")
    if not colon or not location.endswith(".py") or not name.isidentifier():
        raise InputError(f"{option} is {spec!r}; expected file.py:name, for example my_code.py:score")
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"{option} is {spec!r}, but there is no file {path}; expected a Python file (relative paths start at {Path.cwd()})")
    module = _load_module(path, option)
    if not hasattr(module, name):
        own = [n for n, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == module.__name__]
        defined = f" It defines: {', '.join(own)}." if own else " It defines no function and no class."
        raise InputError(f"{option} is {spec!r}, but {path.name} has nothing called {name!r}.{nearest(name, own)}{defined}")
    return getattr(module, name)


def where(error: BaseException, file: str | None) -> str:
    """Where an error came up: 'my_reward.py, line 12, in score', the innermost place in `file` if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if file is not None and f.filename == file] or frames
    if isinstance(error, SyntaxError) and error.lineno is not None and (file is None or error.filename == file or not inside):
        return f"{Path(error.filename or file or '?').name}, line {error.lineno}"
    return f"{Path(inside[-1].filename).name}, line {inside[-1].lineno}, in {inside[-1].name}" if inside else "unknown place"


def describe(error: BaseException) -> str:
    """'ValueError: the message', shortened to a line."""
    text = " ".join(str(error).split())
    return type(error).__name__ + (f": {text[:300]}" if text else "")


def describe_value(value: Any) -> str:
    """A value and its type in at most a line: 'None', '"yes" (str)'."""
    if value is None:
        return "None"
    shown = repr(value)
    return f"{shown if len(shown) <= 80 else shown[:77] + '...'} ({type(value).__name__})"


def finite_number(value: Any) -> float | None:
    """The value as a float when it is a finite number (also of NumPy or torch) or a bool, else None."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, (bool, int, float)) and math.isfinite(value) else None


def source_file(thing: Any) -> str | None:
    """The file that a function, class or callable instance was defined in, where it can be told."""
    module = sys.modules.get(getattr(thing, "__module__", None) or type(thing).__module__)
    return getattr(module, "__file__", None)


def _load_module(path: Path, option: str) -> ModuleType:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be read: {error.strerror}") from error
    # Named by path and content: reward and environment of one file share a module, and an edited file is a new one.
    name = "etude_user_" + hashlib.blake2b(bytes(path) + b"\0" + content, digest_size=8).hexdigest()
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # At the end of the path, so that a file beside it cannot stand in for an installed module.
    added = str(path.parent) not in sys.path
    if added:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"{option}: {path} could not be imported: {describe(error)} ({where(error, str(path))}); expected code that runs") from error
    finally:
        if added and str(path.parent) in sys.path:
            sys.path.remove(str(path.parent))
    return module
