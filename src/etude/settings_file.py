"""Configurations in files: what `--config` reads, what a run saves, and what a resumed run may change.

flags and keywords > --config YAML > defaults
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etude.config import TrainConfig
from etude.errors import InputError
from etude.method import known_methods
from etude.run import load_config, plain
from etude.settings import OBJECTS, Source, default_config, flag, is_object, leaves, merged

HOW_ONLY = ("learner", "ranks", "engine", "samplers", "env_workers", "learners", "ray_address", "worker_threads", "sampler_gpus")
"""Options of a method that say where it is computed and not what, so that a resumed run may change them."""
OBJECT_MARK = "python:"
"""How a saved configuration names a Python object, which it cannot hold."""


def read_settings(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The method that a YAML file names (None where it names none) and the settings in it.

    The method is `method: SLUG`, or `slug` in the section `method`, as saved configurations have it.
    Raises InputError when the file is missing, is not YAML, or is not a mapping.
    """
    values = load_config(path)
    method = values.get("method")
    if method is None or isinstance(method, str):
        return method, {k: v for k, v in values.items() if k != "method"}
    if not isinstance(method, dict):
        raise InputError(f"{path}: method is {method!r}; expected a method's name or a mapping of its options")
    slug = method.get("slug")
    if slug is not None and not isinstance(slug, str):
        raise InputError(f"{path}: the method's slug is {slug!r}; expected one of {', '.join(known_methods())}")
    return slug, {**values, "method": {k: v for k, v in method.items() if k != "slug"}}


def file_config(path: Path, slug: str | None = None) -> tuple[str, TrainConfig[Any]]:
    """The method and configuration that a YAML file describes; `slug` says the method where the file does not.

    Raises InputError when neither does or they differ, and for whatever in the file cannot be used.
    """
    named, values = read_settings(path)
    if named is not None and slug is not None and named != slug:
        raise InputError(f"{path} is a configuration of {named}, not of {slug}; ask for `etude train {named}`, or use a file without a method in it")
    chosen = slug or named
    if chosen is None:
        raise InputError(f"{path} names no method; put one before it, as in `etude train grpo --config {path}`, or add a line `method: grpo`")
    return chosen, merged(default_config(chosen), values, str(path))


def saved_form(slug: str, config: TrainConfig[Any]) -> dict[str, Any]:
    """A whole configuration as plain values with the method's slug, as `config.yaml` holds it. Python objects are named, not kept."""
    values = plain(config)
    for name in OBJECTS:
        value = getattr(config.inputs, name)
        if is_object(value):
            values["inputs"][name] = OBJECT_MARK + _title(value)
    values["method"] = {"slug": slug, **values["method"]}
    return values


def _title(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def tasks_title(tasks: Any) -> str:
    """A short name of what is practised, fit for a folder's name."""
    text = tasks if isinstance(tasks, str) else str(getattr(tasks, "name", "tasks"))
    if ".jsonl" in text.lower() or ".py:" in text:
        text = Path(text.split(",")[0].split(":")[0]).stem
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).strip("-.") or "tasks"


def saved_config(folder: Path) -> tuple[str, TrainConfig[Any]]:
    """The method and configuration of a run. Raises InputError when the folder holds no run or its configuration cannot be used."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder} holds no run: there is no config.yaml in it; expected a folder that `etude train` wrote")
    return file_config(path)


def check_resumable(saved: TrainConfig[Any], wanted: TrainConfig[Any], source: Source = "keyword") -> bool:
    """Refuse what would change a run's past; says whether anything was changed at all.

    Settings of the run may change (steps, budget, how often to evaluate …), but for its seed and folder; so may where the learner computes. Model, tasks and method may
    not, except that an object given from Python stands for the one that the run was begun with.
    Raises InputError naming what differs.
    """
    before, after = leaves(saved), leaves(wanted)
    changed = [name for name in before if before[name].value != after[name].value]
    for name in OBJECTS:
        old, new = getattr(saved.inputs, name), getattr(wanted.inputs, name)
        if not (isinstance(old, str) and old.startswith(OBJECT_MARK)):
            continue
        if not is_object(new):
            raise InputError(
                f"this run's {name} is the Python object {old.removeprefix(OBJECT_MARK)}, which no file holds; "
                f"go on from Python with etude.train(resume=..., {name}=...)"
            )
        changed.remove(name)
    refused = [name for name in changed if name not in HOW_ONLY and (before[name].sections != ("run",) or name in ("seed", "out"))]
    if refused:
        name = refused[0]
        shown = flag(name) if source == "flag" else name
        raise InputError(
            f"a resumed run keeps its {shown}: it was begun with {_shown(before[name].value)}, not {_shown(after[name].value)}. "
            "Only settings of the run (steps, budget, …) can change; start a new run for anything else"
        )
    return bool(changed)


def _shown(value: Any) -> str:
    return _title(value) if is_object(value) and not isinstance(value, (tuple, list)) else repr(value)
