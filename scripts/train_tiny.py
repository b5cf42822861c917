"""Train the shipped model `tiny` from nothing, measure it on the held-out splits and write its folder.

    python scripts/train_tiny.py                    # everything: train, measure, write src/etude/assets/tiny and the table in docs/tiny-model.md
    python scripts/train_tiny.py --only-measure     # measure the weights that are there

The model imitates written demonstrations of all built-in families. The first part of training shows correct ones, so that it has the skills; the rest
shows demonstrations with slips at a fixed rate per family, so that it makes mistakes at that rate and has something left to learn. It is trained to the
end of its schedule. Interrupt it at any time; started again with the same settings, it goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

# Threads that wait for each other by spinning come to a halt on a machine that does other work besides.
os.environ.setdefault("KMP_BLOCKTIME", "0")

import torch
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from etude.evals.passk import maj_at_k, pass_at_k, vote_labels
from etude.models.tiny import FOLDER, PAD, SPECIAL, build_model, build_tokenizer
from etude.tasks.answers import final_answer
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.generated import GeneratedTaskSet
from etude.types import Message, Task

TABLE = Path(__file__).parent.parent / "docs" / "tiny-model.md"


@dataclass(frozen=True)
class Family:
    """How one family is shown: its share of the mixture, and what its imperfect demonstrations look like."""

    weight: float
    slips: float
    direct: float = 0.0


FAMILIES = {
    "arithmetic": Family(2.0, slips=0.33, direct=0.1),
    "countdown": Family(1.5, slips=0.35),
    "lists": Family(1.0, slips=0.5),
    "strings": Family(1.0, slips=0.5),
    "compare": Family(1.0, slips=0.5),
    "word-problems": Family(1.0, slips=0.35, direct=0.1),
    "modular": Family(1.2, slips=0.38, direct=0.1),
    "check-and-fix": Family(1.0, slips=0.35),
    "calculator": Family(1.0, slips=0.3),
    "translation": Family(1.0, slips=0.18),
}


@dataclass
class Config:
    """Settings of a training run. The defaults made the shipped weights."""

    out: Path = FOLDER
    """Folder to write the model to."""
    checkpoint: Path = Path("runs/train-tiny")
    """Folder for the state to resume from."""
    steps: int = 4000
    conversations: int = 128
    """Conversations in a step."""
    micro_batch: int = 64
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.05
    clean_until: float = 0.4
    """Share of training after which slips begin to appear."""
    slips_from: float = 0.5
    """Share of training after which every demonstration has them."""
    seed: int = 7
    """Seed of the initial weights and of the training tasks."""
    save_every: int = 250
    """Steps between checkpoints."""
    threads: int = 2
    only_measure: bool = False
    samples: int = 16
    """Samples for each held-out task when measuring."""
    tasks: int = 256
    """Held-out tasks of each family when measuring."""


class Demonstrations:
    """The stream of training conversations as token ids, addressed by number."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tokenizer = build_tokenizer()
        sets = builtin_task_sets()
        self.names = list(FAMILIES)
        self.clean = {name: sets[name]() for name in self.names}
        self.sloppy = {name: sets[name](slips=f.slips, direct=f.direct) for name, f in FAMILIES.items()}

    def conversation(self, index: int, slip_share: float) -> tuple[list[int], list[bool]]:
        """Token ids of conversation `index`, and which of them the assistant wrote (with its end tokens)."""
        random = Random(f"{self.config.seed}/{index}")
        name = random.choices(self.names, [FAMILIES[n].weight for n in self.names])[0]
        task_set = (self.sloppy if random.random() < slip_share else self.clean)[name]
        assert isinstance(task_set, GeneratedTaskSet)
        return self.encode(task_set.conversation(task_set.train_task(self.config.seed, index), self.config.seed))

    def encode(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        tokens: list[int] = []
        written: list[bool] = []
        for message in messages:
            role = self.tokenizer.encode(f"<|{message.role}|>")
            content = self.tokenizer.encode(f"{message.content}<|end|>")
            tokens += role + content
            written += [False] * len(role) + [message.role == "assistant"] * len(content)
        return tokens, written

    def step(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """The micro-batches of one step, each of conversations of about one length: token ids [B, T] and labels [B, T], -100 where nothing is learned."""
        config = self.config
        done = step / config.steps
        slip_share = min(1.0, max(0.0, (done - config.clean_until) / (config.slips_from - config.clean_until)))
        first = step * config.conversations
        encoded = sorted((self.conversation(first + i, slip_share) for i in range(config.conversations)), key=lambda e: len(e[0]))
        return [self._padded(encoded[i : i + config.micro_batch]) for i in range(0, len(encoded), config.micro_batch)]

    def _padded(self, encoded: list[tuple[list[int], list[bool]]]) -> tuple[Tensor, Tensor]:
        longest = max(len(tokens) for tokens, _ in encoded)
        ids = torch.full((len(encoded), longest), SPECIAL.index(PAD))
        labels = torch.full((len(encoded), longest), -100)
        for row, (tokens, written) in enumerate(encoded):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, : len(tokens)] = torch.tensor([t if w else -100 for t, w in zip(tokens, written, strict=True)])
        return ids, labels


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(config: Config) -> LlamaForCausalLM:
    """Train from the seeded initial weights, or go on from the checkpoint of a run with the same settings."""
    model = build_model(config.seed).train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)
    start = resume(config, model, optimizer)
    demonstrations = Demonstrations(config)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"), TimeRemainingColumn())
    began, tokens, smooth = time.monotonic(), 0, math.nan
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=config.steps, completed=start, loss=smooth)
        for step in range(start, config.steps):
            batches = demonstrations.step(step)
            learned = sum(int((labels != -100).sum()) for _, labels in batches)
            total = 0.0
            for ids, labels in batches:
                # Padding stands behind everything, where a causal model does not look: no attention mask is needed.
                hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
                wanted = labels[:, 1:]
                logits = model.lm_head(hidden[wanted != -100])
                loss = torch.nn.functional.cross_entropy(logits, wanted[wanted != -100], reduction="sum") / learned
                loss.backward()
                total += loss.item()
                tokens += ids.numel()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            optimizer.step()
            optimizer.zero_grad()
            smooth = total if math.isnan(smooth) else 0.98 * smooth + 0.02 * total
            progress.update(bar, advance=1, loss=smooth)
            if (step + 1) % 100 == 0:
                progress.console.print(f"step {step + 1}: loss {smooth:.4f}, {tokens / (time.monotonic() - began):.0f} tokens/s", highlight=False)
            if (step + 1) % config.save_every == 0:
                save(config, model, optimizer, step + 1)
    return model.eval()


def save(config: Config, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write the training state under a temporary name, then move it into place."""
    config.checkpoint.mkdir(parents=True, exist_ok=True)
    state = {f"model.{name}": p.detach().contiguous() for name, p in model.named_parameters()}
    for i, values in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{key}": value for key, value in values.items()}
    temporary = config.checkpoint / "state.part"
    save_file(state, temporary, metadata={"step": str(step), "config": fingerprint(config)})
    temporary.replace(config.checkpoint / "state.safetensors")


def resume(config: Config, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Load the training state if there is one of the same settings; returns the step to go on from."""
    from safetensors import safe_open

    path = config.checkpoint / "state.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["config"] != fingerprint(config):
        print(f"{path} is of other settings: starting anew")
        return 0
    state = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(state[f"model.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            moments.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])


def fingerprint(config: Config) -> str:
    """Everything that decides the weights."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "checkpoint", "save_every", "threads", "only_measure", "samples", "tasks")}
    return json.dumps({**settings, "families": {name: asdict(f) for name, f in FAMILIES.items()}})


@torch.no_grad()
def episodes(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, task_set: GeneratedTaskSet, tasks: Sequence[Task]
) -> list[tuple[dict[str, float], str | None, int]]:
    """One sampled episode for each task: the verifier's verdict, the final answer, and the tokens written."""
    contexts = [tokenizer.apply_chat_template([asdict(m) for m in task.messages], add_generation_prompt=True, return_dict=False) for task in tasks]
    environments = [task_set.environment() for task in tasks]
    for environment, task in zip(environments, tasks, strict=True):
        if environment is not None:
            environment.reset(task)
    results: list[tuple[dict[str, float], str | None, int] | None] = [None] * len(tasks)
    written = [0] * len(tasks)
    active = list(range(len(tasks)))
    while active:
        texts = generate(model, tokenizer, [contexts[i] for i in active], task_set.max_new_tokens)
        following = []
        for i, (text, count) in zip(active, texts, strict=True):
            written[i] += count
            environment = environments[i]
            step = environment.step(text) if environment is not None else None
            if step is None or step.done:
                verdict = dict(task_set.verify(tasks[i], text)) if step is None else {k: float(step.info[k]) for k in ("correct", "format")}
                results[i] = (verdict, final_answer(text), written[i])
                continue
            turns = [Message("assistant", text), *step.messages]
            contexts[i] = contexts[i] + tokenizer.apply_chat_template([asdict(m) for m in turns], add_generation_prompt=True, return_dict=False)[1:]
            following.append(i)
        active = following
    return [r for r in results if r is not None]


def generate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, contexts: list[list[int]], max_new_tokens: int) -> list[tuple[str, int]]:
    """One sample at temperature 1 for each context: text and number of tokens."""
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    out: list[tuple[str, int]] = [("", 0)] * len(contexts)
    for start in range(0, len(order), 512):
        rows = order[start : start + 512]
        padded = tokenizer.pad({"input_ids": [contexts[i] for i in rows]}, return_tensors="pt")
        tokens = model.generate(**padded, max_new_tokens=max_new_tokens)[:, padded["input_ids"].shape[1] :]
        for i, row in zip(rows, tokens.tolist(), strict=True):
            end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
            out[i] = (tokenizer.decode(row[:end]), end + 1)
    return out


def measure(config: Config, model: LlamaForCausalLM) -> dict[str, dict[str, float]]:
    """pass@k, maj@8, share in the asked form and mean length on each held-out split, at temperature 1."""
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    rows: dict[str, dict[str, float]] = {}
    sets = builtin_task_sets()
    for name in FAMILIES:
        task_set = sets[name]()
        assert isinstance(task_set, GeneratedTaskSet)
        tasks = list(task_set.held_out())[: config.tasks]
        drawn = episodes(model, tokenizer, task_set, [t for t in tasks for _ in range(config.samples)])
        by_task = [drawn[i : i + config.samples] for i in range(0, len(drawn), config.samples)]
        correct = [[verdict["correct"] for verdict, _, _ in group] for group in by_task]
        labels = [vote_labels([answer for _, answer, _ in group]) for group in by_task]
        rows[name] = {
            f"pass@{k}": sum(pass_at_k(config.samples, int(sum(row)), k) for row in correct) / len(correct) for k in (1, 8, 16) if k <= config.samples
        }
        rows[name] |= {
            f"maj@{min(8, config.samples)}": sum(maj_at_k(a, c, min(8, config.samples)) for a, c in zip(labels, correct, strict=True)) / len(correct),
            "format": sum(verdict["format"] for verdict, _, _ in drawn) / len(drawn),
            "tokens": sum(count for *_, count in drawn) / len(drawn),
        }
        print(name, " ".join(f"{k} {v:.3f}" for k, v in rows[name].items()), flush=True)
    return rows


def write_table(rows: dict[str, dict[str, float]]) -> None:
    """Replace the table in the docs page."""
    names = list(next(iter(rows.values())))
    lines = [f"| task | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for task, row in rows.items():
        lines.append(f"| `{task}` | " + " | ".join(f"{row[n]:.1f}" if n == "tokens" else f"{100 * row[n]:.1f} %" for n in names) + " |")
    before, rest = TABLE.read_text().split("<!-- table -->\n", 1)
    after = rest.split("<!-- end of table -->", 1)[1]
    TABLE.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end of table -->" + after)


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    if config.only_measure:
        model = LlamaForCausalLM.from_pretrained(config.out)
    else:
        model = train(config)
        model.save_pretrained(config.out)
        build_tokenizer().save_pretrained(config.out)
        (config.out / "model.safetensors").chmod(0o644)
    rows = measure(config, model)
    measured = {"samples": config.samples, "tasks": config.tasks, "temperature": 1.0, "families": rows}
    (config.out / "evaluation.json").write_text(json.dumps(measured, indent=2) + "\n")
    if config.out == FOLDER and TABLE.exists():
        write_table(rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
