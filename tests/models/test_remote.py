"""Against a server on this machine that speaks the chat completions JSON."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("openai")

from chat_server import Server, completion, serving

from etude.errors import BudgetExhausted, EtudeError, InputError
from etude.evals.remote import evaluate_endpoint
from etude.models.allowance import Allowance
from etude.models.rate_limits import RateLimits, retry_after, seconds_of
from etude.models.remote import Endpoint, is_endpoint
from etude.models.reply_cache import ReplyCache
from etude.models.sampling import SamplingParams
from etude.tasks.builtin import builtin_task_sets
from etude.types import Message, Task

TASKS = [Task(f"t{i}", (Message("system", "short"), Message("user", f"{i}+1="))) for i in range(6)]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def limits_on_a_clock_of_their_own() -> tuple[RateLimits, list[float]]:
    """Rate limits whose clock moves only by what is waited for, and the waits."""
    waited: list[float] = []
    return RateLimits(clock=lambda: 100 + sum(waited), wait=lambda condition, seconds: waited.append(seconds)), waited


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


def test_a_server_that_refuses_to_draw_several_is_asked_for_one(server):
    server.reply = lambda body: (200, completion([f"seed {body['seed']}"])) if body["n"] == 1 else (400, {"error": {"message": "'n' must be at most 1"}})
    rows = Endpoint(server.url, "small", concurrency=1).sample(TASKS[:2], SamplingParams(), samples=2, seed=10)
    assert [[r.text for r in row] for row in rows] == [["seed 10", "seed 11"]] * 2
    assert [body["n"] for _, body, _ in server.requests] == [2, 1, 1, 1, 1]


def test_the_concurrency_is_a_limit(server):
    lock, too_many = threading.Lock(), threading.Event()
    state = {"now": 0, "most": 0}

    def reply(body: dict) -> tuple[int, dict]:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
            if state["now"] > 2:
                too_many.set()
        # Long enough for a third request to come, were it let.
        too_many.wait(0.2)
        with lock:
            state["now"] -= 1
        return 200, completion(["x"] * body["n"])

    server.reply = reply
    endpoint = Endpoint(server.url, "small", concurrency=2)
    with ThreadPoolExecutor(2) as callers:
        list(callers.map(lambda tasks: endpoint.sample(tasks, SamplingParams(), samples=1), (TASKS[:3], TASKS[3:])))
    assert state["most"] == 2, "whoever asks"


def test_a_passing_failure_is_tried_again_after_as_long_as_the_server_says(server, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    failures = iter([(500, {"error": {"message": "busy"}}), (429, {"error": {"message": "slower"}}, {"Retry-After": "7"})])
    server.reply = lambda body: next(failures, (200, completion(["fine"])))
    limits, waited = limits_on_a_clock_of_their_own()
    endpoint = Endpoint(server.url, "small", concurrency=1, limits=limits)
    (row,) = endpoint.sample(TASKS[:1], SamplingParams(), samples=1)
    assert row[0].text == "fine"
    assert (len(server.requests), endpoint.allowance.spent.calls) == (3, 1)
    # Half a second, less up to a quarter; then what was asked for.
    assert 0.375 <= slept[0] <= 0.5
    assert slept[1:] == [7.0]
    endpoint.sample(TASKS[1:2], SamplingParams(), samples=1)
    assert waited == [7.0], "whoever else asks waits too"


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


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({}, "without a single choice"),
        ({"choices": []}, "without a single choice"),
        ({"choices": None}, "without a single choice"),
        (b'{"choices": [{"ind', "answered what is no chat completion"),
    ],
)
def test_an_answer_that_is_none_is_told(server, answer, told):
    server.reply = lambda body: (200, answer)
    with pytest.raises(EtudeError, match=told):
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


def test_names_of_endpoints(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert [is_endpoint(spec) for spec in ("http://h/v1#m", "https://h/v1", "openai:m", "tiny", 3)] == [True, True, True, False, False]
    official, own = Endpoint.parse("openai:m"), Endpoint.parse("openai:org/m:free", "http://h:1/v1/")
    assert (official.base_url, official.model, official.api_key_env) == ("https://api.openai.com/v1", "m", "OPENAI_API_KEY")
    assert (own.base_url, own.model, own.api_key_env) == ("http://h:1/v1", "org/m:free", "ETUDE_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://other/v1")
    assert Endpoint.parse("openai:m").base_url == "http://other/v1"
    with pytest.raises(InputError, match="'tiny' is a model that runs here; expected openai:NAME"):
        is_endpoint("tiny", "http://h/v1")
    with pytest.raises(InputError, match="names no model"):
        Endpoint.parse("openai:")
    with pytest.raises(InputError, match="says itself where it is"):
        Endpoint.parse("http://h/v1#m", "http://other/v1")


def test_limits_hold_before_a_request_is_sent(server):
    # The server says 5 tokens read and 12 written; a request is charged in advance with at most 2 * 16 + 9 bytes + 20 = 61.
    params = SamplingParams(max_new_tokens=20)
    endpoint = Endpoint(server.url, "small", concurrency=4, allowance=Allowance(tokens=61 + 17))
    with pytest.raises(BudgetExhausted, match=r"limit of 78 tokens leaves no room for a request of up to 61: 34 are spent"):
        endpoint.sample(TASKS[:3], params, samples=1)
    assert len(server.requests) == 2, "the second waited for what the first would leave, and the third was never sent"
    assert (endpoint.allowance.spent.prompt_tokens, endpoint.allowance.spent.generated_tokens) == (10, 24)
    assert endpoint.allowance.spent.model_calls == {"endpoint": 2}

    calls = Endpoint(server.url, "small", concurrency=1, allowance=Allowance(calls=3))
    with pytest.raises(BudgetExhausted, match="limit of 3 calls leaves no room for a request of 2: 2 are spent"):
        calls.sample(TASKS[:2], params, samples=2)
    server.reply = lambda body: (200, completion(["x"], tokens=None))
    silent = Endpoint(server.url, "small", allowance=Allowance(tokens=1000))
    silent.sample(TASKS[:1], params, samples=1)
    assert silent.allowance.spent_tokens == 61, "what a server does not count is charged in full"


def test_a_run_is_played_again_without_the_server(server, tmp_path):
    server.reply = lambda body: (200, completion([f"{body['seed']} {len(server.requests)}"]))
    params = SamplingParams(max_new_tokens=7, stop=("\n",))

    def ask(mode, url=server.url, samples=2, seed=5):
        endpoint = Endpoint(url, "small", cache=ReplyCache(tmp_path, mode))
        return endpoint, endpoint.sample(TASKS[:3], params, samples=samples, seed=seed)

    first, rows = ask("use")
    assert (len(server.requests), first.cache.hits, first.allowance.spent.calls) == (6, 0, 6)
    again, same = ask("use")
    assert (same, again.cache.hits, again.allowance.spent.calls) == (rows, 6, 0)
    _, more = ask("use", samples=3)
    assert [row[:2] for row in more] == rows
    assert len(server.requests) == 9, "only the third samples were asked for"

    damaged, foreign = sorted(tmp_path.rglob("*.json"))[:2]
    kept = json.loads(damaged.read_text())
    assert kept["request"]["messages"][0] == {"role": "system", "content": "short"}
    damaged.write_text(damaged.read_text()[:-20])
    foreign.write_text(json.dumps(kept))
    with pytest.warns(UserWarning, match="cannot be read .*asked for again") as warned:
        ask("use", samples=3)
    # Whatever else is collected as garbage meanwhile may warn of itself.
    assert len([w for w in warned if w.category is UserWarning]) == 2, [str(w.message) for w in warned]
    assert len(server.requests) == 11, "only these two were asked for again"
    _, mended = ask("use", samples=3)

    server.http.shutdown()
    server.http.server_close()
    replayed = Endpoint(server.url, "small", cache=ReplyCache(tmp_path, "only"))
    replayed.check()
    assert replayed.sample(TASKS[:3], params, samples=3, seed=5) == mended
    with pytest.raises(InputError, match=r"no answer is kept for sample 0 of small to '0\+1='"):
        replayed.sample(TASKS[:1], params, samples=1, seed=6)
    with pytest.raises(InputError, match="without a seed nothing tells one draw from the next"):
        replayed.sample(TASKS[:1], params, samples=1)
    with pytest.raises(InputError, match="there is no cache of answers in"):
        ReplyCache(tmp_path / "nowhere", "only")


def test_a_refreshed_answer_replaces_the_kept_one_and_equal_requests_share_it(server, tmp_path):
    server.reply = lambda body: (200, completion([f"answer {len(server.requests)}"]))
    texts = [
        [row[0].text for row in Endpoint(server.url, "small", cache=ReplyCache(tmp_path, mode)).sample([TASKS[0]] * 3, SamplingParams(), samples=1, seed=1)]
        for mode in ("use", "refresh", "use")
    ]
    assert texts == [["answer 1"] * 3, ["answer 2"] * 3, ["answer 2"] * 3]


def test_a_stream_is_counted_kept_and_stopped(server, tmp_path):
    endpoint = Endpoint(server.url, "small", cache=ReplyCache(tmp_path))
    said = TASKS[0].messages
    assert list(endpoint.stream(said, SamplingParams(9), seed=1)) == ["0", "+", "1", "=", "?"]
    assert (endpoint.allowance.spent_tokens, endpoint.allowance.spent.calls) == (17, 1)
    assert list(endpoint.stream(said, SamplingParams(9), seed=1)) == ["0+1=?"]
    assert endpoint.sample(TASKS[:1], SamplingParams(9), samples=1, seed=1)[0][0].length == 12
    assert len(server.requests) == 1
    broken = endpoint.stream(said, SamplingParams(9), seed=2)
    next(broken)
    broken.close()
    # Not read to its end: 9 bytes, 32 around them, and 9 tokens.
    assert endpoint.allowance.spent_tokens == 17 + 9 + 32 + 9
    assert len(list(endpoint.stream(said, SamplingParams(9), seed=2))) == 5, "and it was not kept"


def test_a_server_says_what_is_left_and_is_waited_for(server):
    limits, waited = limits_on_a_clock_of_their_own()
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0.5s",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "61",
    }
    server.reply = lambda body: (200, completion(["x"] * body["n"]), headers)
    endpoint = Endpoint(server.url, "small", concurrency=1, limits=limits)
    endpoint.sample(TASKS[:1], SamplingParams(10), samples=1)
    endpoint.sample(TASKS[:1], SamplingParams(10), samples=1)
    assert waited == [60.5], "no request was left"
    endpoint.sample(TASKS[:1], SamplingParams(49), samples=1)
    assert waited[1:] == [61.0], "nor tokens enough for this one"
    headers["x-ratelimit-reset-requests"] = "2h"
    endpoint.sample(TASKS[:1], SamplingParams(10), samples=1)
    with pytest.raises(EtudeError, match="rate limit lasts another 7200 seconds, longer than 120"):
        endpoint.sample(TASKS[:1], SamplingParams(10), samples=1)


def test_durations_and_moments_in_headers():
    texts = ["6m0s", "20ms", "1h2m3.5s", "1.5", "0", "", "soon", "-3", "5x", "2d"]
    assert [seconds_of(text) for text in texts] == [360.0, 0.02, 3723.5, 1.5, 0.0, None, None, None, None, 172800.0]
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "later"}) is retry_after({}) is None
