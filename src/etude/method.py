"""What a method is, what it says of itself, and where methods are found."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from etude.claim import Claim
from etude.errors import InputError, nearest
from etude.types import Metrics

if TYPE_CHECKING:
    import torch

    from etude.run import Run
    from etude.watch import Watch

LABELLED = frozenset({"verifier", "demonstrations", "preferences"})
"""Signals that rest on labels: on known answers, given examples or somebody's choices. All others (`votes`, `agreement`, `self-judge`, `judge`, `confidence`,
`entropy` ...) are the model's own or another model's opinion, which can be pleased without being right."""


@dataclass(frozen=True)
class MethodCard:
    """What a method says of itself.

    `evolves` is what the judgement changes (weights, memory, skills, code; `nothing` for a study, which only measures); `signal` where the judgement comes from
    (verifier, demonstrations, preferences; votes, agreement, self-judge, judge, confidence, entropy); `rollouts` how experience is gathered (group, partial, adaptive,
    tree, follow-up, search, none). A method whose rollouts are a `search` changes no weights: `etude search` runs it.
    """

    slug: str
    name: str
    family: str
    paper: str
    title: str
    summary: str
    evolves: str = "weights"
    signal: str = "verifier"
    rollouts: str = "group"
    claim: Claim | None = None

    @property
    def label_free(self) -> bool:
        """Whether nothing but models' opinions says what is good, so that the reward may part from the truth."""
        return self.signal not in LABELLED

    @property
    def searches(self) -> bool:
        """Whether the method only searches, and changes no weights."""
        return self.rollouts == "search"


@dataclass
class State:
    """What a method saves: plain JSON values and named tensors. Nothing else is ever written to, or read from, a checkpoint."""

    plain: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    write_shards: Callable[[Path], None] | None = None
    """Writes what no single process holds into a folder, as safetensors files; None where all of it is in `tensors`."""
    shards: Path | None = None
    """The folder where such files can be read, of a state that was loaded from a checkpoint."""

    def with_part(self, part: str, tensors: Mapping[str, torch.Tensor]) -> State:
        """This state and the tensors of a part of the method, which `part_of` gives back by the same name."""
        return replace(self, tensors=self.tensors | {f"{part}.{name}": tensor for name, tensor in tensors.items()})

    def part_of(self, part: str) -> dict[str, torch.Tensor]:
        """The tensors that `with_part` was given, by their own names; none where there were none."""
        return {name.removeprefix(f"{part}."): tensor for name, tensor in self.tensors.items() if name.startswith(f"{part}.")}


class Method(ABC):
    """One way of self-improvement. `setup` once, then `step` until the budget is spent; `state` and `load_state` around a crash."""

    card: ClassVar[MethodCard]
    Config: ClassVar[type]
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Options of the inputs and of the run, by flat name, that are otherwise for this method when nothing is said."""
    watch: Watch | None = None
    """What watches the run for a collapse, set in `setup`; None where nothing does."""
    memory_relief: ClassVar[str] = "lower what it works on at a time"
    """What to do when a GPU's memory runs out."""
    spends: ClassVar[frozenset[str] | None] = None
    """Units of a budget that the method can spend, besides steps and seconds; None where it does not say."""

    def __init__(self, config: Any, run: Run) -> None:
        self.config = config
        self.run = run

    @abstractmethod
    def setup(self) -> None:
        """Load what is acted with and learnt from. Everything that can be wrong with the input is found here, before compute is spent."""

    @abstractmethod
    def step(self) -> Metrics:
        """One turn of the loop. Returns what was measured; keys are `group/name`."""

    @abstractmethod
    def evaluate(self) -> Metrics:
        """Measure on the held-out split. Does not change the method's state, and spends from no budget."""

    @abstractmethod
    def state(self) -> State:
        """Everything that the next step depends on."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Go back to a saved state. Called after `setup`."""

    def done(self) -> str | None:
        """Why the method has nothing left to do, where it knows; None while it goes on. Asked between steps."""
        return None

    def export(self, folder: Any) -> None:
        """Write what a user takes away (for a language model: a Hugging Face folder)."""

    def close(self) -> None:
        """Let go of what is held between steps (environments of unfinished episodes). Called once, however the run ended."""


M = TypeVar("M", bound=type[Method])

_registered: dict[str, type[Method]] = {}


def register(
    *,
    slug: str,
    name: str,
    family: str,
    paper: str,
    title: str,
    summary: str,
    config: type,
    claim: Claim | None = None,
    **taxonomy: str,
) -> Callable[[M], M]:
    """Class decorator: give a method its card and put it into the registry."""

    def decorate(cls: M) -> M:
        cls.card = MethodCard(slug=slug, name=name, family=family, paper=paper, title=title, summary=summary, claim=claim, **taxonomy)
        cls.Config = config
        previous = _registered.get(slug)
        if previous is not None and previous.__qualname__ != cls.__qualname__:
            raise InputError(f"two methods call themselves {slug!r}: {previous.__module__} and {cls.__module__}; rename one")
        _registered[slug] = cls
        return cls

    return decorate


def adopt(cls: type[Method]) -> None:
    """Put a class that has its card already into the registry: how another process learns of a method that this one was given."""
    _registered.setdefault(cls.card.slug, cls)


def is_installed(slug: str) -> bool:
    """Whether every process finds the method by its slug: it is built in, or an installed package offers it."""
    return slug in {*built_in_methods(), *_from_entry_points()}


def built_in_methods() -> Mapping[str, str]:
    """slug -> module, from file names alone: no method is imported to list them. What methods of a family share is in files whose names begin with `_`."""
    import etude.methods as package

    found: dict[str, str] = {}
    for family in pkgutil.iter_modules(package.__path__, "etude.methods."):
        if family.ispkg:
            module = importlib.import_module(family.name)
            for entry in pkgutil.iter_modules(module.__path__, family.name + "."):
                name = entry.name.rsplit(".", 1)[1]
                if not name.startswith("_"):
                    found[name.replace("_", "-")] = entry.name
    return found


def _from_entry_points() -> Mapping[str, str]:
    return {e.name: e.value for e in importlib.metadata.entry_points(group="etude.methods")}


def method_modules() -> dict[str, str]:
    """slug -> name of the module that registers it, for all methods that are built in or come with an installed package. Imports none of them."""
    modules = {**_from_entry_points(), **built_in_methods()}
    return {slug: module.split(":")[0] for slug, module in modules.items()}


def registered_methods() -> Mapping[str, type[Method]]:
    """slug -> class of the methods whose module has been imported already."""
    return _registered


def known_methods() -> list[str]:
    """Slugs of all methods that can be asked for, built in or from installed packages."""
    return sorted({*method_modules(), *_registered})


def get_method(slug: str) -> type[Method]:
    """The method class of a slug.

    Raises InputError for an unknown slug, naming the nearest ones.
    """
    modules = method_modules()
    if slug not in _registered:
        if slug not in modules:
            from etude.cards import studies

            if slug in studies():
                raise InputError(f"{slug} trains nothing: it is a way of measuring models; `etude reproduce {slug}` checks its claim")
            raise InputError(f"there is no method {slug!r}.{nearest(slug, known_methods())} `etude list` shows all of them.")
        importlib.import_module(modules[slug])
    if slug not in _registered:
        raise InputError(f"the module {modules[slug]!r} was imported but registers no method {slug!r}; expected @register(slug={slug!r}, ...) in it")
    return _registered[slug]
