"""Models behind OpenAI-compatible endpoints: the one way in which Étude asks over a network (extra `remote`). Texts come back, no log-probabilities.

The `openai` client sends, and repeats what fails for a passing reason. Around it are a limit on what runs at once, the server's own rate limits (`rate_limits`), hard
limits on what may be spent (`allowance`), and answers kept on disk (`reply_cache`).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from etude.config import EndpointConfig
from etude.errors import EtudeError, InputError, MissingExtra, nearest
from etude.models.allowance import Allowance, most_tokens
from etude.models.rate_limits import RateLimits
from etude.models.remote_errors import in_the_users_terms, refused, said
from etude.models.replies import Reply
from etude.models.reply_cache import ReplyCache
from etude.models.sampling import SamplingParams
from etude.models.smollm2 import default_cache
from etude.types import Message, Task

if TYPE_CHECKING:
    from openai import OpenAI

    from etude.models.schemas import Schema

OPENAI = "https://api.openai.com/v1"
SCHEME = "openai:"
"""What a model's name begins with whose address stands elsewhere, as in `openai:gpt-4.1-mini`."""
NO_KEY = "none"
"""Sent where no key is set: servers of one's own ask for none, but the client insists on some text."""
_BYTES_A_TOKEN = 4
"""Of usual text. Only for guesses of what a server will count against its rate limit."""


def is_endpoint(spec: object, base_url: str | None = None) -> bool:
    """Whether a model's name says that it is behind an endpoint: `http://host:port/v1#model`, `https://...`, or `openai:NAME`.

    Raises InputError where an address is given for a model that runs here.
    """
    found = isinstance(spec, str) and spec.startswith(("http://", "https://", SCHEME))
    if base_url is not None and not found:
        raise InputError(f"the base URL {base_url} is given, but {str(spec)[:80]!r} is a model that runs here; expected {SCHEME}NAME with a base URL")
    return found


@dataclass(frozen=True, slots=True)
class Query:
    """A conversation to be gone on with, `samples` times over.

    seed: of the first sample; the server, which may heed it, is told. schema: the form that the answer must have, enforced where the server can.
    about: what to call it in an error message.
    """

    messages: tuple[Message, ...]
    params: SamplingParams
    samples: int = 1
    seed: int | None = None
    schema: Schema[Any] | None = None
    about: str = ""


@dataclass
class Endpoint:
    """Chat completions of one model at `base_url` (`http://host:port/v1`).

    The key is read from the environment variable `api_key_env`: by default OPENAI_API_KEY for api.openai.com and ETUDE_API_KEY for any other host, so that a
    key never goes to a host that it was not meant for. At most `concurrency` requests run at once, whoever asks. The client repeats one that fails for a passing reason
    up to `retries` times, after as long as the server's `retry-after` says, or else 0.5, 1, 2, 4, 8, 8, ... seconds, less up to a quarter at random.
    """

    base_url: str
    model: str = ""
    api_key_env: str | None = None
    concurrency: int = 8
    retries: int = 4
    timeout: float = 600.0
    allowance: Allowance = field(default_factory=Allowance)
    cache: ReplyCache | None = None
    limits: RateLimits = field(default_factory=RateLimits, repr=False)
    _slots: BoundedSemaphore = field(init=False, repr=False)
    _enforces: bool = field(init=False, repr=False, default=True)
    _draws_several: bool = field(init=False, repr=False, default=True)

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        host = urlsplit(self.base_url).hostname
        if urlsplit(self.base_url).scheme not in ("http", "https") or not host:
            raise InputError(f"{self.base_url!r} is no endpoint; expected http://host:port/v1#model, https://... or openai:NAME")
        if self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}; expected at least 1")
        self.api_key_env = self.api_key_env or ("OPENAI_API_KEY" if host == urlsplit(OPENAI).hostname else "ETUDE_API_KEY")
        self._slots = BoundedSemaphore(self.concurrency)
        if not self.replays:
            _ = self._client

    @classmethod
    def parse(cls, spec: str, base_url: str | None = None, **settings: Any) -> Endpoint:
        """From `http://host:port/v1#model` or `openai:NAME`. Without `#model` the server must offer exactly one, which `check` finds.

        base_url: the address of `openai:NAME`; by default what the variable OPENAI_BASE_URL says, or OpenAI's own.
        """
        if spec.startswith(SCHEME):
            name = spec.removeprefix(SCHEME)
            if not name:
                raise InputError(f"{spec!r} names no model; expected {SCHEME}NAME")
            return cls(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI, name, **settings)
        if base_url is not None:
            raise InputError(
                f"the base URL {base_url} is given, but {spec!r} says itself where it is; expected {SCHEME}NAME with a base URL, or the address alone"
            )
        address, _, model = spec.partition("#")
        return cls(address, model, **settings)

    @property
    def replays(self) -> bool:
        """Whether it only gives back what is kept, and never touches the network."""
        return self.cache is not None and self.cache.mode == "only"

    def check(self) -> None:
        """Ask the server for its models, before anything is sampled. Fills in `model` where none was named. What only replays asks nobody.

        Raises InputError when nothing answers, the key is refused, or the model is not there.
        """
        if self.replays:
            if not self.model:
                raise InputError(f"answers of {self.base_url} are replayed, and no server says of which model; name it: {self.base_url}#MODEL")
            return
        import openai

        try:
            offered = sorted(m.id for m in self._call(lambda: self._client.with_options(max_retries=0).models.list()))
        except InputError as error:
            # A server need not list its models. Whether it has the one asked for, the first completion shows.
            if self.model and isinstance(error.__cause__, openai.NotFoundError):
                return
            raise
        if self.model and offered and self.model not in offered:
            raise InputError(f"{self.base_url} offers no model {self.model!r}.{nearest(self.model, offered)} It offers: {', '.join(offered[:20])}")
        if not self.model:
            if len(offered) != 1:
                raise InputError(f"{self.base_url} offers {len(offered)} models ({', '.join(offered[:20])}); say which: {self.base_url}#MODEL")
            self.model = offered[0]

    def sample(
        self,
        tasks: Sequence[Task],
        params: SamplingParams,
        *,
        samples: int,
        seed: int | None = None,
        done: Callable[[int], None] | None = None,
    ) -> list[list[Reply]]:
        """`samples` answers to each task's messages, in the order of the tasks, all under the same seed. The rest as of `answers`."""
        return self.answers([Query(task.messages, params, samples, seed, about=f"task {task.id!r}") for task in tasks], done)

    def answers(self, queries: Sequence[Query], done: Callable[[int], None] | None = None) -> list[list[Reply]]:
        """The answers to each query, in their order. `done` is told how many queries are complete whenever one is.

        Raises InputError for what the user can change (address, key, model, prompt), BudgetExhausted before a request that could cost more than is left, and EtudeError for a
        server that keeps failing.
        """
        replies: list[list[Reply]] = []
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self.answer, query) for query in queries]
            try:
                for future in futures:
                    replies.append(future.result())
                    if done is not None:
                        done(len(replies))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return replies

    def answer(self, query: Query) -> list[Reply]:
        """The answers to one query: those that are kept, and from the server what is missing. Raises as `answers` does."""
        if query.samples < 1:
            raise InputError(f"samples is {query.samples}; expected at least 1")
        if self.cache is None:
            return self._asked(query, 0, query.samples)
        with self.cache.one_at_a_time(self._request(query, 0)):
            kept = [self.cache.get(self._request(query, sample)) for sample in range(query.samples)]
            replies: list[Reply] = []
            for sample, reply in enumerate(kept):
                if reply is not None:
                    replies.append(reply)
                elif len(replies) == sample:
                    missing = next((i for i in range(sample, query.samples) if kept[i] is not None), query.samples) - sample
                    replies += self._asked(query, sample, missing)
            return replies

    def stream(self, messages: Sequence[Message], params: SamplingParams, *, seed: int | None = None) -> Iterator[str]:
        """The answer to a conversation as the server writes it, piece by piece; one that is kept comes in one piece. Raises as `answers` does.

        An answer that is not read to its end is charged with the most that it could have cost, and is not kept.
        """
        query = Query(tuple(messages), params, seed=seed)
        if self.cache is not None and (kept := self.cache.get(self._request(query, 0))) is not None:
            yield kept.text
            return
        text, finish = "", None
        most = _most_read(query)
        with self.allowance.reserved(most + params.max_new_tokens, 1) as charge, self._slots:
            pieces = iter(self._call(lambda: self._create(query, 1, seed, stream=True, stream_options={"include_usage": True})))
            charge.answers, charge.prompt_tokens, charge.generated_tokens = 1, most, params.max_new_tokens
            length = prompt_length = float("nan")
            end = object()
            while (piece := self._call(lambda: next(pieces, end))) is not end:
                if piece.usage is not None:
                    length, prompt_length = piece.usage.completion_tokens, piece.usage.prompt_tokens
                    charge.prompt_tokens, charge.generated_tokens = prompt_length, length
                for choice in piece.choices[:1]:
                    finish = choice.finish_reason or finish
                    if choice.delta.content:
                        text += (written := _encodable(choice.delta.content))
                        yield written
        if self.cache is not None and finish is not None:
            self.cache.put(self._request(query, 0), Reply(text, length, finish == "stop", prompt_length), {"finish_reason": finish})

    def _asked(self, query: Query, first: int, count: int) -> list[Reply]:
        """`count` samples of a query from number `first` on, from the server."""
        replies: list[Reply] = []
        while len(replies) < count:
            place, wanted = first + len(replies), count - len(replies)
            # Some servers draw one answer to a request, however many are asked for: the rest is asked for again, under another seed.
            got = self._complete(query, wanted, None if query.seed is None else query.seed + place)
            if not got:
                raise EtudeError(f"{self.base_url} answered {query.about or 'a request'} without a single choice; expected at least one")
            for number, (reply, details) in enumerate(got[:wanted], start=place):
                if self.cache is not None:
                    self.cache.put(self._request(query, number), reply, details)
                replies.append(reply)
        return replies

    def _complete(self, query: Query, count: int, seed: int | None) -> list[tuple[Reply, dict[str, Any]]]:
        """Up to `count` answers from one request, each with what else the server says of it."""
        read, written = _most_read(query), count * query.params.max_new_tokens
        with self.allowance.reserved(read + written, count) as charge, self._slots:
            answer = self._adapted(query, count, seed)
            choices = getattr(answer, "choices", None) or []
            charge.answers = len(choices)
            length = prompt_length = float("nan")
            if choices and answer.usage is not None:
                length, prompt_length = answer.usage.completion_tokens / len(choices), answer.usage.prompt_tokens / len(choices)
                charge.prompt_tokens, charge.generated_tokens = answer.usage.prompt_tokens, answer.usage.completion_tokens
            elif choices:
                charge.prompt_tokens, charge.generated_tokens = read, written
        return [
            (
                Reply(_encodable(choice.message.content or ""), length, choice.finish_reason == "stop", prompt_length),
                {
                    "finish_reason": choice.finish_reason,
                    "served_model": getattr(answer, "model", None),
                    "created": getattr(answer, "created", None),
                    "sent_seed": seed,
                },
            )
            for choice in choices
        ]

    def _adapted(self, query: Query, count: int, seed: int | None) -> Any:
        """The server's answer to a request that it takes: several answers at once where it draws them, in the query's form where it enforces one."""
        if count > 1 and self._draws_several:
            try:
                return self._enforced(query, count, seed)
            except InputError as error:
                if not refused(error):
                    raise
            answer = self._enforced(query, 1, seed)
            self._draws_several = False
            return answer
        return self._enforced(query, 1, seed)

    def _enforced(self, query: Query, count: int, seed: int | None) -> Any:
        if query.schema is not None and self._enforces:
            form = query.schema.response_format
            try:
                return self._call(lambda: self._create(query, count, seed, n=count, response_format=form), query.about)
            except InputError as error:
                if not refused(error, "response_format", "json_schema", "json schema", "structured output"):
                    raise
                if self._enforces:
                    self._enforces = False
                    warnings.warn(f"{self.base_url} enforces no JSON schema ({said(error.__cause__)}); answers are only checked", stacklevel=2)
        return self._call(lambda: self._create(query, count, seed, n=count), query.about)

    def _create(self, query: Query, count: int, seed: int | None, **more: Any) -> Any:
        params = query.params
        optional: dict[str, Any] = {}
        if params.stop:
            optional["stop"] = list(params.stop)
        if seed is not None:
            optional["seed"] = seed
        if params.top_k:
            optional["extra_body"] = {"top_k": params.top_k}  # not OpenAI's own, but known to the usual servers
        # OpenAI's newer models refuse the old name; other servers may not know the new one.
        limit = "max_completion_tokens" if self.base_url == OPENAI else "max_tokens"
        conversation: Any = [{"role": m.role, "content": m.content} for m in query.messages]
        self.limits.admit(most_tokens(query.messages) / _BYTES_A_TOKEN + count * params.max_new_tokens)
        return self._client.chat.completions.create(
            model=self.model, messages=conversation, **{limit: params.max_new_tokens}, temperature=params.temperature, top_p=params.top_p, **optional, **more
        )

    def _request(self, query: Query, sample: int) -> dict[str, Any]:
        """Everything that an answer may depend on, as plain values: what it is kept under."""
        if query.seed is None and query.params.temperature > 0:
            raise InputError("answers are kept, but without a seed nothing tells one draw from the next; give a seed, or temperature 0")
        params = query.params
        return {
            "address": self.base_url,
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in query.messages],
            "parameters": {
                "max_tokens": params.max_new_tokens,
                "temperature": params.temperature,
                "top_p": params.top_p,
                "top_k": params.top_k,
                "stop": list(params.stop),
            },
            "schema": None if query.schema is None else query.schema.response_format,
            "seed": query.seed,
            "sample": sample,
        }

    @cached_property
    def _client(self) -> OpenAI:
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("openai", "remote", "asking a remote endpoint") from error

        def hear(response: Any) -> None:
            # Also a refusal passes through here that the client then tries again.
            self.limits.heard(response.status_code, response.headers)

        return openai.OpenAI(
            api_key=os.environ.get(self.api_key_env or "") or NO_KEY,
            base_url=self.base_url,
            max_retries=self.retries,
            timeout=self.timeout,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [hear]}),
        )

    def _call(self, request: Callable[[], Any], about: str = "") -> Any:
        """The answer to a request, with the client's errors told in the user's terms."""
        import openai

        try:
            return request()
        except EtudeError:
            raise
        except (openai.OpenAIError, ValueError) as error:
            raise in_the_users_terms(error, self.base_url, self.model, str(self.api_key_env), self.timeout, about) from error


def _most_read(query: Query) -> int:
    """Tokens that a server reads at most: of the messages, and of a schema that it may show the model."""
    return most_tokens(query.messages) + (0 if query.schema is None else len(json.dumps(query.schema.plain)))


def _encodable(text: str) -> str:
    """A text that can be sent and written again: JSON can hold halves of characters, UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def open_endpoint(spec: str, config: EndpointConfig) -> Endpoint:
    """The endpoint that a model's name and the options say. Raises InputError for what cannot be used; nothing is asked yet."""
    cache = None
    if config.cache != "off":
        cache = ReplyCache(Path(config.cache_folder) if config.cache_folder else default_cache() / "replies", config.cache)
    return Endpoint.parse(
        spec,
        config.base_url,
        api_key_env=config.api_key_env,
        concurrency=config.concurrency,
        retries=config.retries,
        timeout=config.request_timeout,
        allowance=Allowance(config.token_limit, config.call_limit),
        cache=cache,
    )
