"""`etude compare` from the command line and from Python: what it writes, what it reuses, what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from arm_method import Climb
from rich.console import Console

import etude
import etude.comparing
import etude.method
from etude.cli import main
from etude.errors import InputError
from etude.evals.arms import Arm, ArmProgress
from etude.evals.comparison import Comparison
from etude.run import Run, without_time
from etude.viewer.comparison_table import difference_text, headline, result_table
from etude.viewer.live_arms import LiveArms

BUDGET = ["--budget", "300-tokens"]


@pytest.fixture(autouse=True)
def _climb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(etude.method._registered, "climb", Climb)


def one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_comparison_writes_its_numbers_and_the_same_command_reuses_them(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "climb", "fast=climb:pull=0.5", *BUDGET, "--seeds", "2", "--evaluate-every", "1"]
    assert main(command) == 0
    shown = one_line(capsys.readouterr().out)
    folder = Path("runs/compare-climb-fast-arithmetic")
    # Seed 1000 walks 1 - 0.9^3 = 27.1 % of the way, or 87.5 %; seed 1001 gets 0.001 a step besides: 0.1 and 0.025 points more at the end.
    for text in (
        "fast did better than climb by pass@1 after 300-tokens",
        "27.2 %",
        "87.6 %",
        "fast seed 1001 finished at step 3",
        f"page {folder}/compare.html",
    ):
        assert text in shown

    plain = json.loads((folder / "compare.json").read_text())
    assert [arm["arm"]["name"] for arm in plain["arms"]] == ["climb", "fast"]
    assert [seed["final"] for seed in plain["arms"][0]["seeds"]] == pytest.approx([0.271, 0.27371])
    assert [seed["final"] for seed in plain["arms"][1]["seeds"]] == pytest.approx([0.875, 0.87675])
    assert plain["arms"][1]["difference"]["final"]["estimate"] == pytest.approx((0.604 + 0.60304) / 2)
    assert plain["arms"][0]["seeds"][0]["x"] == [0, 100, 200, 300]
    assert plain["made"]["configurations"]["fast"]["method"]["pull"] == 0.5
    assert plain["made"]["packages"]["etude"] == etude.__version__
    rows = list(csv.DictReader(io.StringIO((folder / "compare.csv").read_text())))
    assert [(row["arm"], row["seed"], row["status"], row["tokens_spent"]) for row in rows][-1] == ("fast", "1001", "finished", "300")
    page = (folder / "compare.html").read_text()
    assert "fast did better than climb" in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)

    # The command that it says repeats it, and finds everything there.
    assert main(shlex.split(plain["command"])[1:]) == 0
    assert "4 runs, 4 of them there already" in one_line(capsys.readouterr().out)
    # Another seed is added to the same comparison; other settings make another one.
    assert main([*command[:-4], "--seeds", "3", "--evaluate-every", "1"]) == 0
    assert "6 runs, 4 of them there already" in one_line(capsys.readouterr().out)
    assert main([*command, "--pull", "0.2", "--seeds", "1"]) == 0
    assert Path("runs/compare-climb-fast-arithmetic-2/compare.html").is_file()
    assert "there are no intervals" in one_line(capsys.readouterr().out)


def test_python_and_the_command_line_make_the_same_comparison() -> None:
    assert main(["compare", "climb", *BUDGET, "--seeds", "7,8", "--pull", "0.25", "--out", "one", "--quiet"]) == 0
    made = etude.compare(["climb"], budget="300-tokens", seeds=[7, 8], pull=0.25, out="two", quiet=True)
    found = [json.loads((Path(name) / "compare.json").read_text()) for name in ("one", "two")]
    for plain in found:
        for seed in plain["arms"][0]["seeds"]:
            del seed["folder"], seed["seconds"]
    assert found[0]["arms"] == found[1]["arms"]
    assert made["climb"].finals == [s["final"] for s in found[0]["arms"][0]["seeds"]]


def test_a_flag_reaches_all_arms_even_when_it_says_the_default_of_one() -> None:
    planned = etude.comparing.plan(["grpo", "rloo"], budget="300-tokens", kl_coefficient=0.0)
    assert planned.common == {"kl_coefficient": 0.0}
    from etude.compare_command import given_settings, shared_options
    from etude.config import CompareFlags

    options = shared_options(["grpo", "rloo"])
    assert options.__name__ == "GRPOConfig"
    assert shared_options(["grpo", "sft"]).__name__ == "PolicyOptimizationConfig"
    flags: CompareFlags[Any] = CompareFlags(method=options())
    given = given_settings(flags, ["--kl-coefficient", "0.0", "--no-share-prompts", "--budget", "3-steps", "--lr=1e-3"])
    assert given == {"kl_coefficient": 0.0, "share_prompts": True, "lr": None}


def test_a_sweep_chooses_on_tuning_seeds_and_reports_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "climb", *BUDGET, "--seeds", "1", "--sweep", "pull=0.1,0.5,0.2", "--sweep-budget", "200-tokens", "--out", "out"]) == 0
    plain = json.loads(Path("out/compare.json").read_text())
    chosen = {trial["arm"]: trial["settings"] for trial in plain["tuning"] if trial["chosen"]}
    assert chosen == {"climb": {"pull": 0.5}}
    assert [trial["seeds"] for trial in plain["tuning"]] == [[0, 1]] * 3
    # Two steps of pull 0.5 by seeds 0 and 1: 0.75, and 0.501 then 0.7515.
    assert plain["tuning"][1]["values"] == pytest.approx([0.75, 0.7515])
    assert plain["seeds"] == [1000]
    assert plain["arms"][0]["arm"]["settings"] == {"pull": 0.5}
    assert any("climb did best at the largest pull that was tried" in remark for remark in plain["remarks"])
    assert "chosen" in capsys.readouterr().out


def test_a_crashed_arm_is_shown_as_crashed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "climb", "frail=climb:crash_seed=1001", *BUDGET, "--seeds", "2", "--out", "out"]) == 1
    shown = one_line(capsys.readouterr().out)
    assert "! frail, seed 1001, crashed: step 3: RuntimeError: the third step went wrong" in shown
    assert re.search(r"frail crashed – – – – 1 of 2", shown)
    page = Path("out/compare.html").read_text()
    assert "1 run did not finish: no mean" in page


@pytest.fixture
def existing() -> dict[str, Path]:
    """Runs as `etude train` leaves them: two methods' settings, two seeds."""
    folders = {}
    for pull in (0.1, 0.5):
        for seed in (0, 1):
            folders[f"{pull}/{seed}"] = Path(f"runs/{pull}-{seed}")
            etude.train("climb", pull=pull, seed=seed, steps=4 - seed, evaluate_every=1, out=folders[f"{pull}/{seed}"], quiet=True)
    return folders


def test_runs_that_exist_are_compared_where_all_have_been(existing: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--runs", *map(str, existing.values()), "--out", "out"]) == 0
    plain = json.loads(Path("out/compare.json").read_text())
    assert [arm["arm"]["name"] for arm in plain["arms"]] == ["climb:pull=0.1", "climb:pull=0.5"]
    # Seed 1 went three steps of 100 tokens, seed 0 one more.
    assert plain["budget"] == "300-tokens"
    assert [s["final"] for s in plain["arms"][0]["seeds"]] == pytest.approx([0.271, 0.27371])
    assert main(["compare", "--runs", *map(str, existing.values()), "--budget", "2-steps", "--metric", "reward/mean"]) == 0
    plain = json.loads(Path("runs/compare-climb-arithmetic/compare.json").read_text())
    assert [s["final"] for s in plain["arms"][1]["seeds"]] == pytest.approx([0.75, 0.7515])
    capsys.readouterr()

    for arguments, said in (
        (["--budget", "400-tokens"], "runs/0.1-1 spent 300 tokens, less than the budget of 400-tokens"),
        (["--budget", "4-rollouts"], "spent no rollouts; say another unit"),
        (["--metric", "eval/absent"], "never measured eval/absent; expected one of eval/pass@1"),
        (["--out", "out"], "the folder out is not empty"),
    ):
        assert main(["compare", "--runs", *map(str, existing.values()), *arguments]) == 2
        assert said in one_line(capsys.readouterr().err)


def test_runs_that_cannot_be_compared_are_refused(existing: dict[str, Path]) -> None:
    first = existing["0.1/0"]
    other = etude.train("climb", tasks="lists", steps=2, out="other", quiet=True).folder
    with pytest.raises(InputError, match="tasks is 'arithmetic' in one and 'lists' in the other"):
        etude.compare_runs([first, other])
    other = etude.train("climb", eval_tasks=3, steps=2, out="fewer", quiet=True).folder
    with pytest.raises(InputError, match="eval_tasks is 200 in one and 3 in the other"):
        etude.compare_runs([first, other])
    other = etude.train("climb", pull=0.1, steps=2, out="twice", quiet=True).folder
    with pytest.raises(InputError, match=r"climb is there twice with seed 0 \(once in runs/0.1-0\)"):
        etude.compare_runs([first, other])
    (other / "result.json").unlink()
    with pytest.raises(InputError, match="the run in twice has not ended; go on with it"):
        etude.compare_runs([first, other])
    with pytest.raises(InputError, match="1 run is given; expected at least two"):
        etude.compare_runs([first])
    for folder, answer in ((first, "1"), (existing["0.5/0"], "2")):
        (folder / "samples.jsonl").write_text(json.dumps({"step": 0, "task_id": "t", "prompt": "p", "answer": answer}) + "\n")
    with pytest.raises(InputError, match="they were measured on different held-out tasks, though their settings are the same"):
        etude.compare_runs([first, existing["0.5/0"]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no arm is named"),
        (["climb", "climb"], "no budget is given"),
        (["clim", *BUDGET], "there is no method 'clim'. Did you mean climb"),
        (["climb:", *BUDGET], "the arm 'climb:' cannot be read"),
        (["climb", *BUDGET, "--pul", "3"], "--pull"),
        (["climb", *BUDGET, "--group-size", "0"], "--group-size is 0; expected a whole number, 1 or more"),
        (["climb", *BUDGET, "--seed", "3"], "--seed"),
        (["climb:model=smollm2", *BUDGET], "the arm climb:model=smollm2 has its own model"),
        (["climb:eval_tasks=3", *BUDGET], "has its own eval_tasks"),
        (["climb:steps=3", *BUDGET], "which is a setting of the run and the same for all arms"),
        (["climb", *BUDGET, "--seeds", "many"], "seeds is 'many'"),
        (["climb", *BUDGET, "--sweep", "pull=0.1"], "the sweep 'pull=0.1' has too few different values"),
        (["climb", *BUDGET, "--sweep", "tasks=lists,strings"], "tasks cannot be swept"),
        (["climb", *BUDGET, "--sweep", "pul=0.1,0.2"], "there is no option 'pul'"),
        (["climb", *BUDGET, "--sweep", "pull=0.1,0.2", "--seeds", "1,5"], "seed 1 is to be reported and to be tuned on"),
        (["climb", *BUDGET, "--out", "full"], "the folder full is not empty and holds no comparison"),
        (["--runs", "full", "absent"], "full holds no run"),
        (["climb", "--runs", "full", "absent"], "--runs compares runs that exist; leave the arm climb out"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    assert main(["compare", *arguments]) == 2
    assert said in one_line(capsys.readouterr().err)
    assert not Path("runs").exists()


def test_help_shows_what_all_arms_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "climb", "--help"]) == 0
    shown = one_line(capsys.readouterr().out)
    for text in ("--seeds", "counted from 1000", "--pull", "--evaluate-every", "--tasks"):
        assert text in shown
    assert main(["compare", "--help"]) == 0
    assert "--group-size" in one_line(capsys.readouterr().out)


def test_the_table_and_the_headline_say_no_more_than_the_intervals(existing: dict[str, Path]) -> None:
    found = etude.compare_runs([*existing.values()], out="out")
    assert headline(found) == "climb:pull=0.5 did better than climb:pull=0.1 by pass@1 after 300-tokens"
    gap = found["climb:pull=0.5"].difference
    assert gap is not None
    # Differences 60.4 and 60.304 points: mean 60.4, half-width 12.706 * 0.048 = 0.6.
    assert difference_text("eval/pass@1", gap.final) == "+60.4 [+59.7, +61.0] points"
    assert difference_text("eval/length", gap.final) == "+0.604 [+0.597, +0.610]"
    turned = Comparison(**{**vars(found), "lower_is_better": True})
    assert "did worse than" in headline(turned)
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(result_table(found))
    shown = one_line(console.export_text())
    assert "climb:pull=0.1" in shown
    assert "+60.4" in shown


def test_the_live_table_has_a_row_an_arm_and_seed() -> None:
    console = Console(record=True, width=140, height=30, file=io.StringIO(), force_terminal=True)
    live = LiveArms(metric="eval/pass@1", title="a against b", console=console)
    runs = [ArmProgress("a", 1000, Path("a"), "running", 0.25, 5, 0.5), ArmProgress("b", 1001, Path("b"), "crashed", 0.5, 9, error="it broke")]
    live._runs = runs
    console.print(live.render())
    shown = console.export_text()
    assert re.search(r"a\s+1000\s.*25 %\s+5\s+50\.0 %\s+running", shown)
    assert re.search(r"b\s+1001\s.*50 %\s+9\s+–\s+crashed", shown)


def test_two_real_methods_on_the_embedded_model() -> None:
    shared = {"tasks_per_step": 2, "group_size": 4, "eval_tasks": 2, "eval_samples": 2, "max_new_tokens": 12, "eval_kl": False}
    with pytest.warns(UserWarning, match="one seed an arm shows no spread"):
        found = etude.compare(["grpo", Arm("rloo", "rloo", {"lr": 1e-3})], budget="2-steps", seeds=[0], out="out", quiet=True, **shared)
    assert [result.failed for result in found.arms] == [[], []]
    rows = {name: [without_time(row) for row in Run.open(Path("out") / name / "seed-0").metrics()] for name in ("grpo", "rloo")}
    start = {name: {k: v for k, v in of_arm[0].items() if k != "ledger"} for name, of_arm in rows.items()}
    # The same weights, the same held-out tasks and the same random numbers before the first step; the same tasks and draws in it.
    assert start["grpo"] == start["rloo"]
    assert rows["grpo"][1]["rollout/length"] == rows["rloo"][1]["rollout/length"]
    assert [s.steps for result in found.arms for s in result.seeds] == [2, 2]
