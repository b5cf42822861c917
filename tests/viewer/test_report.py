"""The report: one well-formed, self-contained file that shows what the run recorded, however little or hostile that is."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.viewer.report import write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)>" onclick="alert(3)" \'{{ 7 * 7 }} & <b>'

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """Reads a page strictly: every tag must be closed in order. Keeps all tags, attributes and text by enclosing tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"attribute given twice in <{tag}>: {names}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self, tag: str) -> str:
        return "\n".join(self.text.get(tag, [])).replace("\u00a0", " ")

    @property
    def chart_titles(self) -> list[str]:
        return [a["aria-label"].split(":")[0] for _, a in self.tags if a.get("class") == "plot" and a["aria-label"]]

    @property
    def everything(self) -> str:
        return "\n".join(t for tag, parts in self.text.items() if tag not in ("script", "style") for t in parts).replace("\u00a0", " ")


def report(folder: Path) -> Page:
    return Page(write_report(folder))


def test_says_in_words_what_happened(make_run: MakeRun) -> None:
    page = report(make_run(steps=100, every=10))
    assert page.words("h1") == "made-up raised held-out pass@1 of tiny on arithmetic from 34 % to 78 % in 100 steps, 1m 52s"
    assert page.words("title").startswith("made-up raised held-out pass@1")
    assert "34.0 → 78.0 %" in page.words("dd")
    assert "+44.0 ± 5.7 points" in page.words("small")


def test_shows_every_part_of_a_run(make_run: MakeRun) -> None:
    page = report(make_run())
    for title in (
        "Held-out accuracy",
        "pass@k by number of tries",
        "Training reward",
        "Learning signal",
        "Response length",
        "Entropy",
        "KL to the start",
        "Loss",
    ):
        assert title in page.chart_titles
    assert {"mine/own", "packages.torch", "Generated tokens", "Calls: judge"} <= set(page.words("th").split("\n"))
    assert "486k" in page.words("td")
    assert "attempt 1" in page.words("pre")
    assert "models/tiny" in page.words("pre")
    assert [a["data-kind"] for a in page.all("article") if a.get("class") == "pair"] == ["gained"] * 3


def test_needs_nothing_from_elsewhere(make_run: MakeRun) -> None:
    page = report(make_run())
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    style = "".join(page.text["style"])
    assert "@import" not in style
    assert "url(" not in style
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_only_its_own_script_may_run(make_run: MakeRun) -> None:
    source = report(make_run()).source
    script = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source


def test_escapes_whatever_a_model_or_a_user_wrote(make_run: MakeRun) -> None:
    folder = make_run()
    row = {
        "task_id": HOSTILE,
        "prompt": HOSTILE,
        "answer": HOSTILE,
        "text": HOSTILE,
        "stop_reason": HOSTILE,
        "rewards": {HOSTILE: 1.0, "b": 0.5},
        "correct": 1.0,
        "reward": 1.0,
    }
    (folder / "trajectories.jsonl").write_text(json.dumps({"step": 1, **row}))
    (folder / "samples.jsonl").write_text("\n".join(json.dumps({"step": step, **row, "text": HOSTILE + str(step)}) for step in (0, 5)))
    (folder / "metrics.jsonl").open("a").write(json.dumps({"step": 21, f"eval/{HOSTILE}": 1.0, "ledger": {HOSTILE: 5}}) + "\n")
    (folder / "environment.json").write_text(json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}}))
    (folder / "config.yaml").write_text(json.dumps({"inputs": {"model": HOSTILE, "tasks": HOSTILE}, "run": {"steps": 20}}))
    (folder / "result.json").write_text(json.dumps({"status": "failed", "reason": HOSTILE, "method": HOSTILE}))
    page = report(folder)
    assert [a.get("type") for a in page.all("script")] == ["application/json", None]
    assert page.all("img") == []
    assert not [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.words("pre")
    assert "49" not in page.words("pre")
    json.loads(page.text["script"][0])


def test_text_that_no_page_can_hold_is_made_visible(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "trajectories.jsonl").write_text(json.dumps({"step": 1, "task_id": "t", "text": "a\x00b\x1b[31m\ud800c", "prompt": "p" * 5000}))
    page = report(folder)
    assert "a␀b␛[31m?c" in page.words("pre")
    assert "(3,000 more characters)" in page.words("pre")


def test_configuration_is_whole(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "config.yaml").write_text("".join(f"option_{i}: {i}\n" for i in range(400)))
    assert "option_399: 399" in report(folder).words("pre")


def test_empty_folder(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "nothing is recorded yet" in page.words("h1")
    assert page.chart_titles == []


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        write_report(tmp_path / "gone")


@pytest.mark.parametrize("name", ["metrics.jsonl", "trajectories.jsonl", "samples.jsonl", "trees.jsonl", "config.yaml", "environment.json", "result.json"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe{[\n\n\x00", b"[1, 2]\n", b'{"step": "x"}\n{"step"'])
def test_missing_or_damaged_file(make_run: MakeRun, name: str, content: bytes | None) -> None:
    folder = make_run()
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    page = report(folder)
    assert page.words("h1")


def test_broken_lines_are_counted(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "metrics.jsonl").open("a").write('{"step": 21, "reward/me')
    assert "1 line of the run's files could not be read" in report(folder).words("li")


def test_one_step(make_run: MakeRun) -> None:
    page = report(make_run(steps=1, every=5))
    assert "in 1 step," in page.words("h1")
    assert "Training reward" in page.chart_titles


def test_not_a_number(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "eval/pass@1": 0.5, "eval/pass@1_low": None, "eval/pass@1_high": None},
        {"step": 1, "reward/mean": None, "loss/total": None, "loss/grad_norm": float("inf"), "rollout/length": 3.0},
        {"step": 2, "reward/mean": None, "loss/total": 0.25, "rollout/length": 3.0},
        {"step": 2, "eval/pass@1": float("nan")},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    page = report(tmp_path)
    assert "Training reward" not in page.chart_titles
    assert "not a finite number at 1 step (1)" in page.words("li")
    drawn = "".join(a.get("d") or "" for a in page.all("path"))
    assert "nan" not in drawn
    assert "inf" not in drawn
    chart_data = page.text["script"][0]
    assert "NaN" not in chart_data
    assert "Infinity" not in chart_data


def downloaded(page: Page) -> tuple[str | None, list[dict[str, str]]]:
    """Name and rows of the metrics inside the page."""
    link = next(a for a in page.all("a") if a.get("class") == "download")
    data = base64.b64decode((link["href"] or "").split(",")[1])
    text = gzip.decompress(data) if (link["download"] or "").endswith(".gz") else data
    return link["download"], list(csv.DictReader(io.StringIO(text.decode())))


def test_long_run_stays_small(make_run: MakeRun) -> None:
    page = report(make_run(steps=6000, every=500))
    assert len(page.source) < 500_000
    name, rows = downloaded(page)
    assert name == "metrics.csv.gz"
    assert len(rows) == 6001


def test_download_of_a_huge_run_keeps_its_evaluations(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.viewer.report.MOST_PACKED_CSV_BYTES", 10_000)
    page = report(make_run(steps=3000, every=250))
    _, rows = downloaded(page)
    assert [int(row["step"]) for row in rows if row["eval/pass@1"]] == list(range(0, 3001, 250))
    assert 13 < len(rows) < 1501
    assert "th step and all evaluations" in page.words("small")


def test_a_usual_run_is_below_half_a_megabyte(make_run: MakeRun) -> None:
    assert write_report(make_run(steps=100, every=10)).stat().st_size < 500_000


def test_download_holds_every_metric(make_run: MakeRun) -> None:
    name, rows = downloaded(report(make_run(steps=10)))
    assert name == "metrics.csv"
    assert [row["step"] for row in rows] == [str(s) for s in range(11)]
    assert [float(row["mine/own"]) for row in rows[1:]] == list(range(1, 11))
    assert float(rows[0]["eval/pass@1"]) == pytest.approx(0.34)
    assert rows[0]["mine/own"] == ""


def test_is_replaced_when_written_again(make_run: MakeRun) -> None:
    folder = make_run(result=None)
    assert "so far" in report(folder).words("h1")
    (folder / "result.json").write_text(json.dumps({"status": "finished"}))
    assert "so far" not in report(folder).words("h1")
    assert [p.name for p in folder.iterdir() if "report" in p.name] == ["report.html"]


def test_a_resumed_run_counts_the_later_line(tmp_path: Path) -> None:
    rows = [{"step": 1, "mine/own": 1.0}, {"step": 2, "mine/own": 9.0}, {"step": 2, "mine/own": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert "9.00" not in report(tmp_path).words("td")
