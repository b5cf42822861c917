"""Cards of methods, and of studies that make a claim without training anything, read from source text: listing them imports none, and with them no torch.

A card is mostly literals in the call of `@register(...)`, so that the syntax tree has it. What is not written so (a name made at run time, an argument that is
no literal) is found by importing the module, as training does.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from etude.method import MethodCard, built_in_methods, get_method, known_methods, method_modules, registered_methods

STUDY_CARD = "CARD"
"""What the card of a study is called in its module under `experiments/`: a `MethodCard(slug=..., ...)` whose slug is the file's name with hyphens."""

_TEXTS = tuple(f.name for f in fields(MethodCard) if f.name != "claim")
_REQUIRED = frozenset(f.name for f in fields(MethodCard) if f.name != "claim" and f.default is MISSING)
_OTHERS = frozenset({"claim", "config"})
"""Arguments of `register` that may be anything: what they are is not looked at."""


@dataclass(frozen=True)
class Listing:
    """A card without its claim, of which only the existence is known: reading it may take an import."""

    card: MethodCard
    has_claim: bool


def listings() -> list[Listing]:
    """The cards of all methods and studies that can be asked for, by slug.

    A method of another package that cannot be imported is left out with a warning: one broken package must not hide all the methods.
    """
    modules = method_modules()
    found = (_listing(slug, modules.get(slug, "")) for slug in sorted({*modules, *registered_methods()}))
    methods = [listing for listing in found if listing is not None]
    return sorted([*methods, *(listing for _, listing in _studies().values())], key=lambda listing: listing.card.slug)


def studies() -> Mapping[str, str]:
    """slug -> module of the studies that have a card: what they claim is checked like a method's claim, and nothing is trained. None is imported."""
    return {slug: module for slug, (module, _) in _studies().items()}


def known_cards() -> list[str]:
    """Slugs of all methods and studies."""
    return sorted({*known_methods(), *studies()})


def card_of(slug: str) -> MethodCard:
    """The whole card of a method or a study, claim included. Raises InputError for an unknown slug."""
    module = studies().get(slug)
    return getattr(importlib.import_module(module), STUDY_CARD) if module is not None else get_method(slug).card


def is_own(slug: str) -> bool:
    """Whether it is one of Étude's own, and not of another package."""
    return slug in built_in_methods() or slug in studies()


@cache
def _studies() -> dict[str, tuple[str, Listing]]:
    import etude.experiments as package

    found: dict[str, tuple[str, Listing]] = {}
    for folder in package.__path__:
        for entry in pkgutil.iter_modules([folder]):
            for node in ast.parse((Path(folder) / f"{entry.name}.py").read_text()).body:
                if not isinstance(node, ast.Assign) or [t.id for t in node.targets if isinstance(t, ast.Name)] != [STUDY_CARD]:
                    continue
                card = _card_of(node.value) if isinstance(node.value, ast.Call) else None
                if card is not None:
                    found[card.card.slug] = (f"{package.__name__}.{entry.name}", card)
    return found


def _listing(slug: str, module: str) -> Listing | None:
    method = registered_methods().get(slug)
    if method is None:
        source = _source_of(module)
        written = written_card(source, slug) if source is not None else None
        if written is not None:
            return written
        try:
            method = get_method(slug)
        except Exception as error:
            warnings.warn(f"the method {slug!r} is left out, because its module cannot be used: {type(error).__name__}: {error}", stacklevel=3)
            return None
    card = method.card
    return Listing(replace(card, claim=None), card.claim is not None)


def _source_of(module: str) -> str | None:
    """The text of a module that is found but not run; None where there is none. Its parent packages are imported."""
    try:
        spec = importlib.util.find_spec(module)
        return Path(spec.origin).read_text() if spec is not None and spec.origin is not None and spec.origin.endswith(".py") else None
    except (ImportError, ValueError, OSError):
        return None


def written_card(source: str, slug: str) -> Listing | None:
    """The card that exactly one `@register(slug=SLUG, ...)` over a class of this source gives, or None when its text does not say."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    calls = [d for node in tree.body if isinstance(node, ast.ClassDef) for d in node.decorator_list if isinstance(d, ast.Call) and _is_register(d.func)]
    cards = [card for call in calls if (card := _card_of(call)) is not None and card.card.slug == slug]
    return cards[0] if len(cards) == 1 else None


def _is_register(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "register") or (isinstance(function, ast.Attribute) and function.attr == "register")


def _card_of(call: ast.Call) -> Listing | None:
    texts: dict[str, Any] = {}
    has_claim = False
    for keyword in call.keywords:
        if keyword.arg in _TEXTS:
            value = _literal(keyword.value)
            if not isinstance(value, str):
                return None
            texts[keyword.arg] = value
        elif keyword.arg == "claim":
            has_claim = not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None)
        elif keyword.arg not in _OTHERS:
            return None
    if call.args or not texts.keys() >= _REQUIRED:
        return None
    return Listing(MethodCard(**texts), has_claim)


def _literal(node: ast.expr) -> object:
    """The value of a literal; None for any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
