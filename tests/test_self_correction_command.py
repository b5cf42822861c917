"""`etude eval MODEL --protocol self-correction`, from flags to files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etude.cli import main

SMALL = [
    "--protocol",
    "self-correction",
    "--prompts",
    "short",
    "--tasks-limit",
    "4",
    "--rounds",
    "2",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--resamples",
    "100",
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_rounds_of_a_model_go_to_the_terminal_a_file_and_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": i, "prompt": f"quick: {i}*8+9", "answer": str(8 * i + 9), "split": "test"} for i in range(2, 6)]
    rows[0] |= {"options": ["25", "16", "<b>"], "answer": "A"}
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--tasks", "own.jsonl", "--option-logits", "--settle", "--max-new-tokens", "24", "--out", "own.json"]
    assert main(["eval", "tiny", *SMALL, *flags]) == 0
    shown = capsys.readouterr().out
    for text in (
        "generation, baseline",
        "choice, baseline",
        "p against round 0",
        "choose among own answers",
        "oracle (knows the answers)",
        "margin of choice 0",
    ):
        assert text in shown
    found = json.loads(Path("own.json").read_text())
    assert [len(found["items"]), *(len(arm["answers"][0]) for arm in found["arms"]), len(found["arms"][0]["answers"][0][0])] == [4, 4, 4, 3]
    assert found["items"][0]["options"][found["items"][0]["gold"]] == "25"
    choice = found["arms"][1]
    right = [[row[k]["right"] for row in choice["answers"][0]] for k in range(3)]
    assert choice["curves"]["accuracy"]["value"] == [sum(column) / 4 for column in right]
    assert [len(row["likelihoods"]) for item in choice["answers"][0] for row in item] == [3] * 3 + [4] * 9
    page = Path("own.html").read_text()
    assert "Every item’s course" in page
    assert "&lt;b&gt;" in page
    assert "<b>)" not in page


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--methods", "cot"], "cot would be baseline"),
        (["--out", "page.html"], "expected a name for the numbers"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--tasks", "calculator"], "expects single turns"),
        (["--request", "absent.txt"], "cannot be read"),
        (["--max-new-tokens", "120"], "leaves no room in the model's context for two answers"),
    ],
)
def test_what_cannot_be_measured_is_named(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "tiny", *SMALL, *flags]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_other_protocols_and_endpoints_without_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "tiny", "--protocol", "self-corection"]) == 2
    assert "Did you mean self-correction" in capsys.readouterr().err
    assert main(["eval", "http://localhost:1/v1#m", *SMALL, "--option-logits"]) == 2
    assert "gives no log-probabilities" in capsys.readouterr().err


def test_an_endpoint_is_asked_again() -> None:
    pytest.importorskip("openai")
    from chat_server import completion, serving

    with serving() as server:
        server.reply = lambda body: (200, completion(["answer: A"] * body["n"]))
        assert main(["eval", f"{server.url}#small", *SMALL, "--formats", "choice", "--methods", "baseline", "sc", "--samples", "2", "--out", "far.json"]) == 0
        lengths = sorted(len(body["messages"]) for _, body, _ in server.requests)
    assert lengths == [1] * 8 + [3] * 8 + [5] * 8
    choice = json.loads(Path("far.json").read_text())["arms"][0]
    assert choice["curves"]["inertia"]["value"][0] in (1.0, None)
    assert choice["curves"]["changed"]["value"][1:] == [0.0, 0.0]
