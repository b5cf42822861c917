"""Against a server on this machine that speaks the chat completions JSON."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("openai")

from chat_server import Server, completion, serving

from etude.errors import EtudeError, InputError
from etude.evals.remote import evaluate_endpoint
from etude.models.endpoint import Endpoint
from etude.models.sampling import SamplingParams
from etude.tasks.builtin import builtin_task_sets
from etude.types import Message, Task

TASKS = [Task(f"t{i}", (Message("system", "short"), Message("user", f"{i}+1="))) for i in range(6)]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def test_samples_come_back_in_the_order_of_the_tasks(server):
    params = SamplingParams(max_new_tokens=7, temperature=0.5, top_p=0.9, stop=("\n",), top_k=4)
    counted: list[int] = []
    rows = Endpoint.parse(f"{server.url}#small", concurrency=3).sample(TASKS, params, samples=3, seed=5, done=counted.append)
    assert [[r.text for r in row] for row in rows] == [[f"{i}+1=?"] * 3 for i in range(6)]
    assert [(r.length, r.finished) for r in rows[0]] == [(4.0, True)] * 3
    assert counted == [1, 2, 3, 4, 5, 6]
    path, body, key = min(server.requests, key=lambda request: request[1]["messages"][-1]["content"])
    assert (path, key) == ("/v1/chat/completions", "Bearer none")
    assert body == {
        "model": "small",
        "messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "0+1="}],
        "n": 3,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 5,
        "top_k": 4,
    }


def test_a_server_that_draws_one_at_a_time_is_asked_again(server):
    server.reply = lambda body: (200, completion([f"seed {body['seed']}"], finish="length", tokens=None))
    (row,) = Endpoint(server.url, "small").sample(TASKS[:1], SamplingParams(), samples=3, seed=10)
    assert [r.text for r in row] == ["seed 10", "seed 11", "seed 12"]
    assert not row[0].finished
    assert math.isnan(row[0].length)


def test_the_concurrency_is_a_limit(server):
    lock, both = threading.Lock(), threading.Event()
    state = {"now": 0, "most": 0}

    def reply(body: dict) -> tuple[int, dict]:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
            if state["now"] == 2:
                both.set()
        both.wait(5)
        with lock:
            state["now"] -= 1
        return 200, completion(["x"] * body["n"])

    server.reply = reply
    Endpoint(server.url, "small", concurrency=2).sample(TASKS, SamplingParams(), samples=1)
    assert state["most"] == 2


def test_a_passing_failure_is_tried_again(server, monkeypatch):
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *a, **k: 0.0)
    failures = iter([(503, {"error": {"message": "busy"}}), (429, {"error": {"message": "slower"}})])
    server.reply = lambda body: next(failures, (200, completion(["fine"])))
    (row,) = Endpoint(server.url, "small", concurrency=1).sample(TASKS[:1], SamplingParams(), samples=1)
    assert row[0].text == "fine"
    assert len(server.requests) == 3


def test_a_lasting_failure_is_told(server, monkeypatch):
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *a, **k: 0.0)
    server.reply = lambda body: (500, {"error": {"message": "out of memory"}})
    with pytest.raises(EtudeError, match=r"keeps failing \(task 't0'\): HTTP 500, .*out of memory") as caught:
        Endpoint(server.url, "small", retries=1).sample(TASKS[:1], SamplingParams(), samples=1)
    assert not isinstance(caught.value, InputError)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, r"wants a key; there is none in the variable ETUDE_API_KEY \(HTTP 401\); set it"),
        (403, "HTTP 403"),
        (404, r"has no model 'small', or is not the address of an API \(HTTP 404: .*no such thing"),
        (400, r"refuses the request \(task 't0'\): .*no such thing.*HTTP 400"),
    ],
)
def test_what_the_user_can_change_is_an_input_error(server, status, told):
    server.reply = lambda body: (status, {"error": {"message": "no such thing"}})
    with pytest.raises(InputError, match=told):
        Endpoint(server.url, "small").sample(TASKS[:1], SamplingParams(), samples=1)


def test_a_refused_key_is_told_apart_from_a_missing_one(server, monkeypatch):
    monkeypatch.setenv("ETUDE_API_KEY", "abc")
    monkeypatch.setenv("OPENAI_API_KEY", "not for this host")
    server.reply = lambda body: (401, {"error": {"message": "bad key"}})
    with pytest.raises(InputError, match="refuses the key in the variable ETUDE_API_KEY"):
        Endpoint(server.url, "small").sample(TASKS[:1], SamplingParams(), samples=1)
    assert {key for _, _, key in server.requests} == {"Bearer abc"}


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": None}])
def test_an_answer_without_choices_is_told(server, answer):
    server.reply = lambda body: (200, answer)
    with pytest.raises(EtudeError, match="without a single choice"):
        Endpoint(server.url, "small").sample(TASKS[:1], SamplingParams(), samples=1)


def test_the_models_are_checked_first(server):
    Endpoint.parse(f"{server.url}#large").check()
    with pytest.raises(InputError, match=r"offers no model 'smal'\. Did you mean small\? It offers: large, small"):
        Endpoint.parse(f"{server.url}#smal").check()
    with pytest.raises(InputError, match=r"offers 2 models \(large, small\); say which"):
        Endpoint.parse(server.url).check()
    server.models = ["only"]
    endpoint = Endpoint.parse(server.url)
    endpoint.check()
    assert endpoint.model == "only"
    assert not server.requests


def test_nothing_listening_is_told(server):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(InputError, match=r"nothing answers at http://127\.0\.0\.1:\d+/v1 .*is the server running"):
        Endpoint(server.url, "small").check()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "host#model"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match="is no endpoint; expected http"):
        Endpoint.parse(url)


def test_a_model_behind_an_endpoint_is_measured(server):
    family = builtin_task_sets()["arithmetic"]()
    tasks = family.held_out()[:4]
    answers = {t.prompt: t.answer for t in tasks}
    solved = {t.prompt for t in tasks[:3]}

    def reply(body: dict) -> tuple[int, dict]:
        prompt = body["messages"][-1]["content"]
        return 200, completion([f"answer: {answers[prompt]}" if prompt in solved else "no idea"] * body["n"])

    server.reply = reply
    evaluation = evaluate_endpoint(Endpoint(server.url, "small"), family, tasks=tasks, samples=4)
    assert evaluation.metrics["eval/pass@1"] == evaluation.metrics["eval/pass@4"] == evaluation.metrics["eval/maj@4"] == 0.75
    assert (evaluation.metrics["eval/format"], evaluation.metrics["eval/length"]) == (0.75, 3.0)
    assert evaluation.records(4)[0]["text"] == f"answer: {answers[tasks[0].prompt]}"


def test_tasks_in_an_environment_are_refused(server):
    family = builtin_task_sets()["check-and-fix"]()
    with pytest.raises(InputError, match="practised in an environment; an endpoint is measured on single-turn tasks only"):
        evaluate_endpoint(Endpoint(server.url, "small"), family, tasks=family.held_out()[:1], samples=1)
