"""`etude list` and `etude doctor`, and the table in README.md."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from walk_method import registered_walk

from etude import catalogue, doctor
from etude.cards import listings
from etude.catalogue import END, REPOSITORY, START, Entry, claim_state, entries, method_table, with_table
from etude.claims_page import outdated_pages
from etude.cli import main
from etude.errors import InputError


@pytest.fixture
def walk() -> Iterator[None]:
    with registered_walk():
        yield


def test_the_table_in_the_readme_is_up_to_date() -> None:
    assert catalogue.main(["--check"]) == 0


def test_the_tables_of_claims_are_up_to_date() -> None:
    """And every number in them has its file: they are generated from nothing else."""
    assert outdated_pages() == []


def test_writing_brings_a_page_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(catalogue, "REPOSITORY", tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    assert catalogue.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert catalogue.main(["--write"]) == 0
    assert catalogue.main(["--check"]) == 0
    assert page.read_text() == f"before\n{START}\n{method_table()}\n{END}\nafter\n"
    page.write_text("no place")
    assert catalogue.main(["--check"]) == 2
    assert catalogue.main(["--what"]) == 2


def test_a_page_without_a_place_is_refused() -> None:
    for text in ("", START, END, f"{END}\n{START}"):
        with pytest.raises(InputError, match="no place"):
            with_table(text, "table")


def test_the_markdown_table_has_a_row_a_method_and_survives_bars() -> None:
    row = Entry("walk", "Walk", "tests", "2402.03300", "https://arxiv.org/abs/2402.03300", "A walk", "a | b", "weights", "not run")
    lines = method_table([row]).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| `walk` | tests | [2402.03300](https://arxiv.org/abs/2402.03300) | **Walk**: a \\| b | weights | not run |"


def test_claims_have_the_state_that_their_file_says(walk: None, tmp_path: Path) -> None:
    listing = next(each for each in listings() if each.card.slug == "walk")
    assert claim_state(listing, tmp_path) == "not run"
    assert claim_state(replace(listing, has_claim=False), tmp_path) == "—"
    (tmp_path / "walk.json").write_text('{"verdict": "supported"}')
    assert claim_state(listing, tmp_path) == "supported"
    assert next(e for e in entries("tests", claims=tmp_path) if e.slug == "walk").claim == "supported"
    (tmp_path / "walk.json").write_text("[]")
    with pytest.raises(InputError, match=r"walk\.json holds no verdict"):
        claim_state(listing, tmp_path)


def test_the_list_shows_methods_by_family(walk: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["list", "--family", "tests"]) == 0
    shown = capsys.readouterr().out
    assert shown.split()[0] == "tests"
    for text in ("walk", "2402.03300", "weights", "Goes from 0 towards 1", "not run"):
        assert text in shown
    assert main(["list", "--family", "tests", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["slug"], row["link"]) == ("walk", "https://arxiv.org/abs/2402.03300")


def test_the_doctor_finds_the_embedded_model_working(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = {(f["group"], f["name"]): f for f in json.loads(capsys.readouterr().out)}
    assert found["works", "tiny model, transformers engine"]["state"] == "ok"
    assert "GFLOP/s" in found["machine", "fp32 matrix product"]["detail"]
    assert found["software", "etude"]["detail"]


def test_the_doctor_says_what_fails_and_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise OSError("no model here")

    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(doctor, "_generates", broken)
    monkeypatch.setattr(doctor, "_installed", lambda package: package != "peft")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "OSError: no model here" in shown
    assert "lacks peft: pip install 'etude[lora]'" in shown


def test_the_doctor_knows_every_extra() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"test", "docs"}
