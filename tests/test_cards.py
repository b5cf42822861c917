"""Cards read from source text are those that importing gives; what text does not say is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import etude.method
from etude.cards import Listing, listings, written_card
from etude.cli import main
from etude.method import MethodCard, get_method, method_modules

CARD = 'slug="mine", name="Mine", family="own", paper="", title="T", summary="S", config=int'
MODULE = """
from dataclasses import dataclass
from etude.claim import Arm, Claim, Comparison
from etude.config import PolicyOptimizationConfig
from etude.evals.measures import Final
from etude.method import Method, register
{before}
CLAIM = Claim("It works.", "It is seen to.", (Arm("mine"),), "2-steps", (Comparison("works", "mine", None, Final("eval/pass@1")),))
@register(slug="mine", name="Mine", family="own", paper="", title="T", summary={summary}, config=PolicyOptimizationConfig, claim=CLAIM)
class Mine(Method):
    pass
"""


@pytest.mark.parametrize("slug", sorted(method_modules()))
def test_the_text_of_every_built_in_method_says_what_its_import_says(slug: str) -> None:
    file = importlib.util.find_spec(method_modules()[slug])
    assert file is not None
    assert file.origin is not None
    imported = get_method(slug).card
    assert written_card(Path(file.origin).read_text(), slug) == Listing(replace(imported, claim=None), imported.claim is not None)


def test_listing_loads_nothing_heavy() -> None:
    code = "from etude.cli import main\nmain(['list'])\nimport sys\nprint('heavy:', [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "grpo" in done.stdout
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize(
    ("source", "has_claim"),
    [
        (f"@register({CARD})\nclass M: ...", False),
        (f"@register({CARD}, claim=None)\nclass M: ...", False),
        (f"@register({CARD}, claim=Claim(f(1)))\nclass M: ...", True),
        (f"@method.register({CARD}, claim=CLAIM)\nclass M: ...", True),
        (f"@register({CARD})\nclass M: ...\n@register({CARD.replace('mine', 'other')})\nclass N: ...", False),
    ],
)
def test_what_can_be_read(source: str, has_claim: bool) -> None:
    assert written_card(source, "mine") == Listing(MethodCard("mine", "Mine", "own", "", "T", "S"), has_claim)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "class M: ...",
        "not python",
        f"@register({CARD}, **more)\nclass M: ...",
        f"@register(1, {CARD})\nclass M: ...",
        f"@register({CARD}, evolves=WHAT)\nclass M: ...",
        f"@register({CARD}, evolves=3)\nclass M: ...",
        f"@register({CARD}, unknown='x')\nclass M: ...",
        "@register(slug='mine', name='Mine')\nclass M: ...",
        f"@register({CARD})\nclass M: ...\n@register({CARD})\nclass N: ...",
        f"if x:\n    @register({CARD})\n    class M: ...",
    ],
)
def test_what_text_alone_does_not_say(source: str) -> None:
    assert written_card(source, "mine") is None


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Methods that a test makes up are forgotten after it."""
    yield
    for slug, method in list(etude.method._registered.items()):
        if method.card.family == "own":
            del etude.method._registered[slug]


def install(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch, slug: str = "mine") -> None:
    """What an installed package with an entry point looks like from inside: a module and its metadata on the path."""
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[etude.methods]\n{slug} = {module}\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


@pytest.mark.parametrize(("summary", "imported"), [('"plain words"', False), ('"made " + "up"', True)])
def test_a_method_of_another_package_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summary: str, imported: bool) -> None:
    module = f"method_imported_{imported}".lower()
    slug = module.replace("_", "-")
    (tmp_path / f"{module}.py").write_text(MODULE.format(before="", summary=summary).replace('slug="mine"', f'slug="{slug}"'))
    install(tmp_path, module, monkeypatch, slug)
    found = {listing.card.slug: listing for listing in listings()}
    assert found[slug].card.summary == ("made up" if imported else "plain words")
    assert found[slug].has_claim
    assert (module in sys.modules) == imported


def test_a_package_that_cannot_be_imported_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "method_broken.py").write_text(MODULE.format(before="import no_such_package", summary="text()"))
    install(tmp_path, "method_broken", monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    captured = capsys.readouterr()
    assert "grpo" in captured.out
    assert "warning: the method 'mine' is left out, because its module cannot be used: ModuleNotFoundError: No module named 'no_such_package'" in captured.err
