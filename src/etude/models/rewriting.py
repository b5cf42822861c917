"""Questions put in other words by a model: once, before anything is trained, and kept in a file.

The model reads an instruction and one question, and has to answer with two marked parts, the question as it read it and the rewritten one. An answer without both
parts is unusable, and its question is left out: whoever trains on pairs must not meet half of one (Co-Reward, arXiv:2508.00410, section 3.1 and appendix).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from etude.errors import InputError
from etude.ledger import FORWARD, Ledger
from etude.models.language import LanguageModel
from etude.models.remote import Endpoint
from etude.models.replies import count_replies
from etude.models.sampling import Request, SamplingParams, stream_key
from etude.tasks.base import prompt_key
from etude.tasks.rewriters import RewriteCache
from etude.tasks.twins import reworded
from etude.types import Message, Task

ORIGINAL, REWRITE = "ORIGINAL:", "REWRITE:"
INSTRUCTION = f"""You put questions in other words.

Read the question below and write a second version of it. The second version
- asks for the same thing and has exactly the same answer;
- keeps every number and condition that the answer depends on;
- uses other words, another sentence structure and, where that is possible, another setting;
- can be solved by itself, without the first version.
Do not solve it.

Answer with these two parts and nothing else:
{ORIGINAL} the question as it stands
{REWRITE} your version of it

The question:
"""
_PARTS = re.compile(rf"{ORIGINAL}\**(?P<original>.*?)\**{REWRITE}\**(?P<rewrite>.*)", re.DOTALL | re.IGNORECASE)


Writer = Callable[[Sequence[Task], Ledger], list[str]]
"""What writes a text for each request, and counts what that costs."""


def asking(task: Task) -> Task:
    """The request to put a task's question in other words, as a task."""
    return Task(task.id, (Message("user", INSTRUCTION + task.prompt),))


def rewrite_in(text: str) -> str | None:
    """The rewritten question in a model's answer; None where one of the two marked parts is missing or empty, or the rewrite comes twice."""
    found = _PARTS.search(text)
    if found is None or REWRITE.casefold() in found["rewrite"].casefold():
        return None
    original, rewrite = (found[part].strip().strip("*").strip() for part in ("original", "rewrite"))
    return rewrite if original and rewrite else None


def local_writer(model: LanguageModel, params: SamplingParams, seed: int) -> Writer:
    """A writer that samples from a model here. `seed` and the question name its random numbers, so that it writes the same whenever it is asked."""

    def write(asked: Sequence[Task], ledger: Ledger) -> list[str]:
        prompts = [tuple(model.render(asking(task).messages)) for task in asked]
        for task, prompt in zip(asked, prompts, strict=True):
            if len(prompt) >= model.context_length:
                raise InputError(
                    f"the request to rewrite task {task.id!r} has {len(prompt)} tokens, but {model.name} reads {model.context_length} in all; "
                    "name a model with a longer context as --rewriter"
                )
        requests = [Request(prompt, params, stream=stream_key(seed, "rewriter", prompt_key(task))) for task, prompt in zip(asked, prompts, strict=True)]
        before = model.sampler.clock.copy()
        completions = model.sampler.generate(requests)
        spent = model.sampler.clock.since(before)
        ledger.generated_tokens += spent.generated_tokens
        ledger.prompt_tokens += spent.prefill_tokens
        ledger.decode_steps += spent.steps
        ledger.forward_equivalents += FORWARD * (spent.generated_tokens + spent.prefill_tokens)
        ledger.count_call("rewriter", len(requests))
        return [c.text if c.finished else "" for c in completions]

    return write


def endpoint_writer(endpoint: Endpoint, params: SamplingParams, seed: int) -> Writer:
    """A writer behind an endpoint. Calls are known, and what tokens the server counted."""

    def write(asked: Sequence[Task], ledger: Ledger) -> list[str]:
        replies = [row[0] for row in endpoint.sample([asking(task) for task in asked], params, samples=1, seed=seed % 2**31)]
        count_replies(ledger, replies, "rewriter")
        return [r.text if r.finished else "" for r in replies]

    return write


def rewrite_once(tasks: Iterable[Task], write: Writer, kept: RewriteCache, *, told: Callable[[int], None] = lambda count: None) -> list[Task]:
    """The tasks that have another wording, with it. Only questions that `kept` does not know are asked; what they give, and what that cost, is kept there.

    told: hears how many questions are about to be asked. An answer that is cut off, unreadable, or the question itself gives no wording.
    """
    wanted = list(tasks)
    new = list({prompt_key(task): task for task in wanted if task not in kept}.values())
    if new:
        told(len(new))
        spent = Ledger()
        wordings = []
        for task, text in zip(new, write(new, spent), strict=True):
            turned = rewrite_in(text)
            same = turned is None or " ".join(turned.split()) == " ".join(task.prompt.split())
            wordings.append((task, None if turned is None or same else reworded(task, turned)))
        kept.add(wordings, spent)
    return [turned for task in wanted if (turned := kept.rewritten(task)) is not None]
