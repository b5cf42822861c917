"""A model behind an OpenAI-compatible endpoint, for evaluation: texts come back, no log-probabilities (extra `remote`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from etude.errors import EtudeError, InputError, MissingExtra, nearest
from etude.models.sampling import SamplingParams
from etude.types import Message, Task

if TYPE_CHECKING:
    from openai import OpenAI

NO_KEY = "none"
"""Sent where no key is set: servers of one's own ask for none, but the client insists on some text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One sampled answer. `length` and `prompt_length` are in tokens as the server counted them (an average where it drew several at once), NaN where it did not say."""

    text: str
    length: float
    finished: bool
    prompt_length: float = float("nan")


@dataclass
class Endpoint:
    """Chat completions of one model at `base_url` (`http://host:port/v1`).

    The key is read from the environment variable `api_key_env`: by default OPENAI_API_KEY for api.openai.com and ETUDE_API_KEY for any other host, so that a
    key never goes to a host that it was not meant for. `concurrency` requests run at once; the client repeats one that fails for a passing reason up to
    `retries` times.
    """

    base_url: str
    model: str = ""
    api_key_env: str | None = None
    concurrency: int = 8
    retries: int = 4
    timeout: float = 600.0
    _client: OpenAI = field(init=False, repr=False)

    def __post_init__(self) -> None:
        host = urlsplit(self.base_url).hostname
        if urlsplit(self.base_url).scheme not in ("http", "https") or not host:
            raise InputError(f"{self.base_url!r} is no endpoint; expected http://host:port/v1#model or https://...")
        if self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}; expected at least 1")
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("openai", "remote", "evaluating a remote endpoint") from error
        self.api_key_env = self.api_key_env or ("OPENAI_API_KEY" if host == "api.openai.com" else "ETUDE_API_KEY")
        self._client = openai.OpenAI(api_key=os.environ.get(self.api_key_env) or NO_KEY, base_url=self.base_url, max_retries=self.retries, timeout=self.timeout)

    @classmethod
    def parse(cls, spec: str, **settings: Any) -> Endpoint:
        """From `http://host:port/v1#model`. Without `#model` the server must offer exactly one, which `check` finds."""
        base_url, _, model = spec.partition("#")
        return cls(base_url, model, **settings)

    def check(self) -> None:
        """Ask the server for its models, before anything is sampled. Fills in `model` where none was named.

        Raises InputError when nothing answers, the key is refused, or the model is not there.
        """
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
        """`samples` answers to each task's messages, in the order of the tasks.

        `seed` goes to the server, which may heed it. `done` is told how many tasks are complete whenever one is.
        Raises InputError for what the user can change (address, key, model, prompt), EtudeError for a server that keeps failing.
        """
        if samples < 1:
            raise InputError(f"samples is {samples}; expected at least 1")
        replies: list[list[Reply]] = []
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._sample_task, task, params, samples, seed) for task in tasks]
            try:
                for future in futures:
                    replies.append(future.result())
                    if done is not None:
                        done(len(replies))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return replies

    def stream(self, messages: Sequence[Message], params: SamplingParams, *, seed: int | None = None) -> Iterator[str]:
        """The answer to a conversation as the server writes it, piece by piece. Raises as `sample` does."""
        pieces = iter(self._call(lambda: self._create(messages, params, seed, stream=True)))
        end = object()
        while (piece := self._call(lambda: next(pieces, end))) is not end:
            for choice in piece.choices[:1]:
                if choice.delta.content:
                    yield choice.delta.content

    def _sample_task(self, task: Task, params: SamplingParams, samples: int, seed: int | None) -> list[Reply]:
        replies: list[Reply] = []
        while len(replies) < samples:
            wanted = samples - len(replies)
            # Servers differ in whether they draw several answers to one request: the rest is asked for again, under another seed.
            got = self._complete(task, params, wanted, None if seed is None else seed + len(replies))
            if not got:
                raise EtudeError(f"{self.base_url} answered task {task.id!r} without a single choice; expected at least one")
            replies += got[:wanted]
        return replies

    def _complete(self, task: Task, params: SamplingParams, count: int, seed: int | None) -> list[Reply]:
        answer = self._call(lambda: self._create(task.messages, params, seed, n=count), task)
        choices = getattr(answer, "choices", None) or []
        length = prompt_length = float("nan")
        if choices and answer.usage is not None:
            length, prompt_length = answer.usage.completion_tokens / len(choices), answer.usage.prompt_tokens / len(choices)
        return [Reply(choice.message.content or "", length, choice.finish_reason == "stop", prompt_length) for choice in choices]

    def _create(self, messages: Sequence[Message], params: SamplingParams, seed: int | None, **more: Any) -> Any:
        optional: dict[str, Any] = {}
        if params.stop:
            optional["stop"] = list(params.stop)
        if seed is not None:
            optional["seed"] = seed
        if params.top_k:
            optional["extra_body"] = {"top_k": params.top_k}  # not OpenAI's own, but known to the usual servers
        said: Any = [{"role": m.role, "content": m.content} for m in messages]
        return self._client.chat.completions.create(
            model=self.model, messages=said, max_tokens=params.max_new_tokens, temperature=params.temperature, top_p=params.top_p, **optional, **more
        )

    def _call(self, request: Callable[[], Any], task: Task | None = None) -> Any:
        """The answer to a request, with the client's errors told in the user's terms."""
        import openai

        about = f" (task {task.id!r})" if task is not None else ""
        try:
            return request()
        except openai.APITimeoutError as error:
            raise EtudeError(f"{self.base_url} gave no answer in {self.timeout:g} seconds{about}; send fewer requests at once or allow more time") from error
        except openai.APIConnectionError as error:
            raise InputError(f"nothing answers at {self.base_url} ({error.__cause__ or error}); is the server running, and is the address right?") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            state = "refuses the key in" if os.environ.get(self.api_key_env or "") else "wants a key; there is none in"
            raise InputError(f"{self.base_url} {state} the variable {self.api_key_env} (HTTP {error.status_code}); set it to a valid key") from error
        except openai.NotFoundError as error:
            raise InputError(f"{self.base_url} has no model {self.model!r}, or is not the address of an API (HTTP 404: {_said(error)}); check both") from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise InputError(f"{self.base_url} refuses the request{about}: {_said(error)} (HTTP {error.status_code})") from error
        except openai.APIStatusError as error:
            raise EtudeError(f"{self.base_url} keeps failing{about}: HTTP {error.status_code}, {_said(error)}") from error
        except (openai.OpenAIError, ValueError) as error:
            raise EtudeError(f"{self.base_url} answered what is no chat completion{about}: {error}") from error


def _said(error: Any) -> str:
    return " ".join(str(error.message).split())[:300]
