"""Rewriting by a model: what is asked, what is read, what is kept and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.remote import Endpoint
from etude.models.replies import Reply
from etude.models.rewriting import asking, endpoint_writer, local_writer, rewrite_in, rewrite_once
from etude.models.sampling import SamplingParams
from etude.tasks.rewriters import RewriteCache
from etude.tasks.twins import twin_of
from etude.types import Message, Task

TASKS = [Task(f"t{i}", (Message("system", "short"), Message("user", f"{i}+1="))) for i in range(4)]


@pytest.mark.parametrize(
    ("text", "rewrite"),
    [
        ("ORIGINAL: 2+3=\nREWRITE: what is 3+2?", "what is 3+2?"),
        ("Sure.\n**ORIGINAL:** 2+3=\n**REWRITE:** two and three\nmake?", "two and three\nmake?"),
        ("original: a rewrite: b", "b"),
        ("REWRITE: what is 3+2?", None),
        ("ORIGINAL: 2+3=", None),
        ("ORIGINAL: 2+3=\nREWRITE: ", None),
        ("ORIGINAL:\nREWRITE: x", None),
        ("ORIGINAL: a\nREWRITE: b\nREWRITE: c", None),
        ("answer: 5", None),
    ],
)
def test_only_an_answer_in_two_parts_is_read(text: str, rewrite: str | None) -> None:
    assert rewrite_in(text) == rewrite


def test_questions_are_asked_once_and_those_without_a_wording_are_left_out(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    texts = {"t0": "ORIGINAL: 0+1=\nREWRITE: 1+0=", "t1": "no", "t2": "ORIGINAL: 2+1=\nREWRITE: 2+1=", "t3": "ORIGINAL: 3+1=\nREWRITE: one more than 3"}

    def write(tasks: Sequence[Task], ledger: Ledger) -> list[str]:
        asked.append([t.id for t in tasks])
        ledger.generated_tokens += 10 * len(tasks)
        ledger.count_call("rewriter", len(tasks))
        return [texts[t.id] for t in tasks]

    kept = RewriteCache(tmp_path / "rewrites.jsonl")
    # The same question twice is asked once.
    turned = rewrite_once([*TASKS[:3], TASKS[0]], write, kept)
    assert [t.id for t in turned] == ["t0", "t0"]
    assert twin_of(turned[0]).messages == (Message("system", "short"), Message("user", "1+0="))
    again = RewriteCache(tmp_path / "rewrites.jsonl")
    assert [t.id for t in rewrite_once(TASKS, write, again)] == ["t0", "t3"]
    assert asked == [["t0", "t1", "t2"], ["t3"]]
    assert again.spent == Ledger(generated_tokens=40, model_calls={"rewriter": 4})


def test_a_local_model_writes_the_same_whenever_it_is_asked_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.models.rewriting.INSTRUCTION", "say it otherwise: ")
    model = LanguageModel.load("tiny", device="cpu")
    write = local_writer(model, SamplingParams(8), seed=5)
    ledger = Ledger()
    texts = write(TASKS, ledger)
    assert write(TASKS[2:], Ledger()) == texts[2:]
    assert ledger.model_calls == {"rewriter": 4}
    assert 4 <= ledger.generated_tokens <= 32
    assert ledger.prompt_tokens == sum(len(model.render(asking(t).messages)) for t in TASKS)
    assert ledger.forward_equivalents == ledger.generated_tokens + ledger.prompt_tokens


def test_a_model_that_cannot_read_the_request_is_refused() -> None:
    write = local_writer(LanguageModel.load("tiny", device="cpu"), SamplingParams(8), seed=5)
    with pytest.raises(InputError, match=r"request to rewrite task 't0' has .* tokens, but tiny reads 256"):
        write(TASKS, Ledger())


def test_an_endpoint_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
    seen: list[str] = []

    def sample(tasks: Sequence[Task], params: SamplingParams, *, samples: int, seed: int | None = None) -> list[list[Reply]]:
        seen.extend(t.prompt for t in tasks)
        return [[Reply("ORIGINAL: a\nREWRITE: b", 7.0, finished=i > 0)] for i, _ in enumerate(tasks)]

    monkeypatch.setattr(endpoint, "sample", sample)
    ledger = Ledger()
    # An answer that was cut off is none.
    assert endpoint_writer(endpoint, SamplingParams(8), 1)(TASKS[:2], ledger) == ["", "ORIGINAL: a\nREWRITE: b"]
    assert all(prompt.endswith(task.prompt) for prompt, task in zip(seen, TASKS, strict=False))
    assert (ledger.generated_tokens, ledger.model_calls) == (14, {"rewriter": 2})
