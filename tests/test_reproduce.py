"""Claims from declaration to file: arms are run in processes, judged, written, and read back into the tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from arm_method import Climb

import etude.method
from etude import claims_page
from etude.catalogue import CLAIMS
from etude.claim import Arm, Claim, Comparison
from etude.cli import main
from etude.errors import InputError
from etude.evals import claim_files
from etude.evals.claim_files import is_current, read_result, read_results, thinned, write_result
from etude.evals.measures import Final
from etude.evals.reproduce import CrashedArms, Options, chosen_slugs, quick_version, reproduce, results_folder
from etude.method import get_method, known_methods
from etude.viewer.claim_picture import curves_chart, picture_of
from etude.viewer.svg import COLOURS


def arm(name: str, **settings: Any) -> Arm:
    return Arm(name, "climb", settings)


CLAIM = Claim(
    statement="It arrives.",
    expectation="A long stride gets further than a short one.",
    arms=(arm("long", pull=0.5), arm("short", pull=0.1)),
    common={"evaluate_every": 1},
    budget="3-steps",
    tests=(Comparison("distance", "long", "short", Final("eval/pass@1")),),
)


@pytest.fixture(autouse=True)
def _climb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method `climb` is known and makes a claim; runs go below the test's folder, and tables are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(etude.method._registered, "climb", Climb)
    with_claim(monkeypatch, CLAIM)


def with_claim(monkeypatch: pytest.MonkeyPatch, claim: Claim) -> None:
    monkeypatch.setattr(Climb, "card", replace(Climb.card, claim=claim))


def test_a_claim_is_run_judged_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "climb", "--seeds", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "It arrives." in shown
    assert "A long stride gets further than a short one." in shown
    result = read_result(Path("claims/climb.json"))
    (test,) = result["tests"]
    # Three steps of half the way give 1 - 1/8, of a tenth of it 1 - 0.9^3. Seed 1001 adds 0.001 to every step, of which later ones leave a half, or nine tenths.
    assert test["treatment_values"] == pytest.approx([0.875, 0.875 + 0.001 * (1 + 0.5 + 0.25)])
    assert test["control_values"] == pytest.approx([0.271, 0.271 + 0.001 * (1 + 0.9 + 0.81)])
    assert test["difference"]["estimate"] == pytest.approx(0.604 - 0.00048)
    assert (result["verdict"], test["verdict"]) == ("supported", "supported")
    assert result["seeds"] == [1000, 1001]
    assert result["command"] == "etude reproduce climb --seeds 2"
    assert result["arms"]["long"]["spent"] == [3.0, 3.0]
    assert result["arms"]["long"]["configuration"]["method"]["pull"] == 0.5
    assert result["curves"]["arms"]["short"][1]["y"][-1] == pytest.approx(0.27371)
    assert "command" not in result["environment"]
    assert str(Path.cwd()) not in json.dumps(result)
    assert is_current(result, CLAIM)
    picture = ElementTree.parse("claims/climb.svg").getroot()
    assert "long" in "".join(picture.itertext())


def test_finished_runs_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    first = reproduce("climb", Options(seeds=2))
    times = {path: path.stat().st_mtime_ns for path in Path("runs/claims/climb").rglob("metrics.jsonl")}
    assert len(times) == 4
    assert reproduce("climb", Options(seeds=2)).result["tests"] == first.result["tests"]
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_crashed_arm_is_not_judged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_claim(monkeypatch, replace(CLAIM, arms=(arm("long", pull=0.5), arm("short", pull=0.1, crash_seed=1001))))
    with pytest.raises(CrashedArms, match=r"1 of its runs did not finish\n  short, seed 1001: crashed: step 3: RuntimeError: the third step went wrong"):
        reproduce("climb", Options(seeds=2))
    assert main(["reproduce", "climb", "--seeds", "2"]) == 1
    assert "cannot be judged" in capsys.readouterr().err
    assert not Path("claims").exists()


def test_more_seeds_than_the_claim_has_are_further_reported_ones() -> None:
    from etude.evals.reproduce import _seeds

    claim = replace(CLAIM, seeds=(1000, 1003))
    assert _seeds(claim, Options()) == (1000, 1003)
    assert _seeds(claim, Options(seeds=4)) == (1000, 1003, 1001, 1002)
    assert _seeds(claim, Options(quick=True)) == (0, 1)
    with pytest.raises(InputError, match="at least 2"):
        _seeds(claim, Options(seeds=1))


def test_where_results_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert results_folder("grpo", Options()) == Path("claims")
    assert results_folder("grpo", Options(to=Path("there"))) == Path("there")
    assert results_folder("grpo", Options(quick=True)) == Path("runs/claims/grpo-quick")
    monkeypatch.chdir(CLAIMS.parents[1])
    assert results_folder("grpo", Options()) == CLAIMS
    assert results_folder("climb", Options()) == Path("claims")
    with pytest.raises(InputError, match="says nothing about the claim"):
        results_folder("grpo", Options(quick=True, to=Path("docs/claims")))


def test_what_is_asked_for() -> None:
    assert chosen_slugs(["climb", "grpo", "climb"]) == ["climb", "grpo"]
    assert chosen_slugs(["climb"], family="tests") == ["climb"]
    assert set(chosen_slugs([], everything=True)) >= {"grpo", "sft", "climb"}
    for arguments, said in (([], "no claim is named"), (["nothing"], "no method 'nothing'")):
        with pytest.raises(InputError, match=said):
            chosen_slugs(arguments)
    with pytest.raises(InputError, match="no family 'test'"):
        chosen_slugs([], family="test")


def test_a_quick_check_of_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "raft", "--quick", "--workers", "2"]) == 0
    assert "says nothing about the claim" in capsys.readouterr().out
    result = json.loads(Path("runs/claims/raft-quick/raft.json").read_text())
    assert (result["quick"], result["seeds"], result["command"]) == (True, [0, 1], "etude reproduce raft --quick")
    assert [ledger["rollouts"] for ledger in result["arms"]["raft"]["ledgers"]] == [16, 16]
    assert {test["name"] for test in result["tests"]} == {"gain over the start", "the threshold"}
    # Whatever was evaluated at the end is there, so that other questions can be asked of the same runs.
    assert [measured["eval/pass@1"] for measured in result["arms"]["raft"]["measured"]] == pytest.approx(
        next(test for test in result["tests"] if test["control"] is not None)["treatment_values"], rel=1e-4
    )
    with pytest.raises(InputError, match="quick check"):
        read_result(Path("runs/claims/raft-quick/raft.json"))
    with pytest.raises(InputError, match="does not belong"):
        write_result(result, CLAIMS)


@pytest.mark.parametrize("slug", known_methods())
def test_every_claim_can_be_run_at_its_full_size_and_reduced(slug: str) -> None:
    """Every arm's settings are options of its method, and every metric is one that claims can name."""
    from etude.evals.arms import plan_runs
    from etude.evals.experiment import load_experiment

    claim = get_method(slug).card.claim
    assert claim is not None
    for version in (claim, quick_version(claim)):
        if version.experiment is not None:
            load_experiment(version.experiment)
        else:
            plan_runs(version.arms, common=version.common, budget=version.budget, seeds=version.seeds, folder=Path("nowhere"))


# The files and the tables


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with pages to fill, in which `climb` is Étude's only method with a claim."""
    folder = tmp_path / "docs" / "claims"
    folder.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    marked = "<!-- methods:start -->\n<!-- methods:end -->\n<!-- claims:start -->\n<!-- claims:end -->\n"
    (tmp_path / "README.md").write_text(marked)
    (tmp_path / "docs" / "claims.md").write_text(marked)
    for module in (claims_page, claim_files):
        monkeypatch.setattr(module, "CLAIMS", folder)
        monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    monkeypatch.setattr(claims_page, "SHIPPED", tmp_path / "shipped.json")
    monkeypatch.setattr(claims_page, "cards_with_claims", lambda: [get_method("climb").card])
    monkeypatch.setattr(claims_page, "read_results", lambda: read_results(folder))
    return tmp_path


def test_the_tables_follow_the_files(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--check"]) == 1
    assert main(["claims"]) == 0
    assert main(["claims", "--check"]) == 0
    assert "| not run |" in (tree / "README.md").read_text()
    made = reproduce("climb", Options(seeds=2, to=tree / "docs" / "claims"))
    assert main(["claims", "--check"]) == 1
    assert "is out of date; run: etude claims" in capsys.readouterr().err
    assert main(["claims"]) == 0
    page = (tree / "docs" / "claims.md").read_text()
    for text in ("+0.604", "A long stride gets further", "![Climb: eval/pass@1", "[climb.json](claims/climb.json)", "etude reproduce climb --seeds 2"):
        assert text in page
    assert json.loads((tree / "shipped.json").read_text()) == {"climb": made.judgement.verdict}
    # Numbers without their file are out of date.
    (tree / "docs" / "claims" / "climb.json").unlink()
    assert main(["claims", "--check"]) == 1


def test_a_claim_that_changed_has_to_be_run_again(tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce("climb", Options(seeds=2, to=tree / "docs" / "claims"))
    with_claim(monkeypatch, replace(CLAIM, statement="In other words."))
    assert main(["claims"]) == 0
    with_claim(monkeypatch, replace(CLAIM, arms=(arm("long", pull=0.6), arm("short", pull=0.1))))
    assert main(["claims", "--check"]) == 2
    assert "run it again with: etude reproduce climb" in capsys.readouterr().err


def test_files_that_are_no_result_are_refused(tree: Path) -> None:
    folder = tree / "docs" / "claims"
    for content, said in (("{", "holds no result"), ("[]", "holds no result"), ('{"format": 9, "verdict": "supported", "slug": "climb"}', "another format")):
        (folder / "climb.json").write_text(content)
        with pytest.raises(InputError, match=said):
            read_results(folder)


def test_verdicts_that_chance_explains_are_marked() -> None:
    def result(slug: str, verdict: str, p: float | None) -> dict[str, Any]:
        return {"slug": slug, "verdict": verdict, "p_value": p}

    results = {
        r["slug"]: r for r in (result("a", "supported", 0.001), result("b", "supported", 0.04), result("c", "inconclusive", 0.5), result("d", "void", 0.0))
    }
    # Holm over three judged claims: 0.001 counts three times, 0.04 twice.
    assert claims_page.surviving(results) == {"a": True, "b": False}
    assert claims_page.verdict_text(results["b"], False) == "**supported**, but not among all claims"
    assert claims_page.verdict_text(results["a"], True) == "**supported**"


def test_curves_are_thinned_with_their_ends() -> None:
    assert thinned(list(range(5)), 3) == [0, 2, 4]
    assert thinned([1.0, 2.0], 3) == [1.0, 2.0]


def test_the_picture_is_the_mean_over_seeds_on_common_places() -> None:
    runs = [{"seed": 0, "x": [0.0, 10.0], "y": [0.0, 1.0]}, {"seed": 1, "x": [0.0, 5.0, 10.0], "y": [0.0, 0.0, 3.0]}]
    curves = {"metric": "eval/score", "unit": "steps", "budget": 10.0, "arms": {"new": runs, "old": []}}
    (line,) = curves_chart({"name": "N", "seeds": [0, 1], "curves": curves}).lines
    assert (line.label, line.y[0], line.y[-1]) == ("new", 0.0, 2.0)
    assert line.y[20] == pytest.approx((0.5 + 0.0) / 2)


def test_an_experiment_is_a_claim_like_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (Path.cwd() / "dice.py").write_text("def roll(seed, settings, budget):\n    return {'eyes': settings['sides'] / 2 + seed % 3}\n")
    monkeypatch.syspath_prepend(Path.cwd())
    arms = (Arm("big", settings={"sides": 20}), Arm("small", settings={"sides": 6}))
    test = Comparison("eyes", "big", "small", Final("eyes"))
    with_claim(monkeypatch, Claim("Bigger dice show more.", "They do.", arms, "1-steps", (test,), experiment="dice:roll"))
    assert main(["reproduce", "climb"]) == 0
    # An experiment has no steps to have finished at.
    assert "big  seed 1001  finished\n" in capsys.readouterr().out
    result = read_result(Path("claims/climb.json"))
    assert result["tests"][0]["treatment_values"] == [11.0, 12.0, 10.0, 11.0, 12.0]
    assert result["tests"][0]["difference"]["estimate"] == 7.0
    assert result["curves"] is None
    # Its picture shows each seed of both arms, and is drawn again from the file alone.
    picture = Path("claims/climb.svg").read_text()
    assert picture == picture_of(result)
    assert "final eyes: big − small, higher; big 11.2, small 4.20; +7 [−∞, ∞], inconclusive" in picture


def test_a_picture_of_tests_shows_what_there_is() -> None:
    """Dots at hand-worked places: values of 0 to 4 on 226 pixels from 220 on. Seeds without a value have no dot, infinite ends no cap, and one arm no lines."""
    difference = {"estimate": -2.0, "low": None, "high": math.nan, "level": 0.95, "method": "sign"}
    pair = {
        "name": "a < b", "role": "effect", "treatment": "new", "control": "old", "measure": "final m", "better": "lower", "margin": 1.0,
        "difference": difference, "verdict": "inconclusive", "ablation": None, "treatment_values": [0.0, None, 2.0], "control_values": [2.0, 3.0, 4.0],
    }  # fmt: skip
    alone = {**pair, "name": "alone", "control": None, "control_values": None, "difference": {**difference, "low": -3.0, "high": -1.0}}

    def drawn(*tests: dict[str, Any]) -> tuple[list[tuple[float, str | None]], list[str], str]:
        picture = picture_of({"name": "N", "verdict": "void", "seeds": [0, 1, 2], "arms": {"new": {}, "old": {}}, "curves": None, "tests": tests})
        assert picture is not None
        root = ElementTree.fromstring(picture)
        space = "{http://www.w3.org/2000/svg}"
        dots = [(float(dot.get("cx", "nan")), group.get("fill")) for group in root.iter(f"{space}g") for dot in group]
        return dots, [path.get("d", "") for path in root.iter(f"{space}path")], " ".join(root.itertext())

    dots, paths, words = drawn(pair)
    new, old = COLOURS[:2]
    assert dots == [(220.0, new), (333.0, new), (333.0, old), (389.5, old), (446.0, old)]
    assert "M220.0 104.0L333.0 136.0M333.0 104.0L446.0 136.0" in paths
    # The interval that has no ends runs over its whole scale.
    assert "M490.0 120.0H690.0" in paths
    for text in ("a < b", "verdict: void", "mean 1.00", "mean 3.00", "lower by more than 1", "-2 [−∞, ∞]"):
        assert text in words
    dots, paths, words = drawn(alone)
    assert len(dots) == 2
    assert not any("L" in path for path in paths)
    assert "old" not in words
    # Ticks from -3 to 0: the ends of the interval have caps.
    assert "M490.0 104.0H623.3M490.0 99.0v10M623.3 99.0v10" in paths
    assert picture_of({"name": "N", "verdict": "void", "seeds": [0, 1], "arms": {}, "curves": None, "tests": []}) is None
