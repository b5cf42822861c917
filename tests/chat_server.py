"""A server on this machine that speaks the chat completions JSON, for tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Answers like a model server. `reply(body)` gives (status, JSON or raw bytes, headers if any); every request is kept in `requests`."""

    def __init__(self) -> None:
        self.models = ["small", "large"]
        self.requests: list[tuple[str, dict, str]] = []
        self.reply: Callable[[dict], tuple] = lambda body: (200, completion([f"{body['messages'][-1]['content']}?"] * body["n"]))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.respond(200, {"object": "list", "data": [{"id": m, "object": "model", "created": 0, "owned_by": "me"} for m in outer.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, body, self.headers["Authorization"]))
                if body.get("stream"):
                    self.stream(*outer.reply({"n": 1, **body}))
                else:
                    self.respond(*outer.reply(body))

            def stream(self, status: int, answer: dict, headers: dict[str, str] | None = None) -> None:
                """The answer's first choice, a character an event; an answer that is no completion as it is."""
                if status != 200:
                    self.respond(status, answer, headers)
                    return
                head = {name: answer[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
                pieces = [*answer["choices"][0]["message"]["content"]]
                chunks = [{**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
                chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer["choices"][0]["finish_reason"]}]})
                chunks.append({**head, "choices": [], "usage": answer["usage"]})
                events = [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"]
                content = "".join(events).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def respond(self, status: int, answer: dict | bytes, headers: dict[str, str] | None = None) -> None:
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def completion(texts: list[str], finish: str = "stop", tokens: int | None = 12) -> dict:
    choices = [{"index": i, "finish_reason": finish, "message": {"role": "assistant", "content": t}} for i, t in enumerate(texts)]
    usage = None if tokens is None else {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "small", "choices": choices, "usage": usage}


@contextmanager
def serving() -> Iterator[Server]:
    """A server, and an environment without keys and proxies while it runs."""
    running = Server()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("ETUDE_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield running
    running.http.shutdown()
    running.http.server_close()
