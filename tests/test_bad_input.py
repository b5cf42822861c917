"""Bad input to training and measuring a model: one clear message, exit code 2, and no folder left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertModel

from etude.cli import main
from etude.models.tiny import tiny_folder
from etude.run import Run
from etude.summary import Summary

SMALL = [
    *("--steps", "3", "--tasks-per-step", "2", "--group-size", "4", "--eval-tasks", "2", "--eval-samples", "2", "--max-new-tokens", "6"),
    *("--evaluate-every", "0", "--warmup-steps", "0", "--threads", "1", "--quiet"),
]
REWARDS = """
def parity(task, text):
    return float(sum(map(ord, text)) % 2)
def raises(task, text):
    raise KeyError("no such thing")
def nan(task, text):
    return float("nan")
def infinite(task, text):
    return float("inf")
def nothing(task, text):
    return None
def words(task, text):
    return "good"
def late(task, text, seen=[]):
    seen.append(text)
    return float(len(seen) % 2) if len(seen) < 20 else float("nan")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ETUDE_DEBUG", raising=False)
    Path("reward.py").write_text(REWARDS)


def one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def model(kind: str) -> str:
    """A model folder with one thing wrong."""
    folder = Path(kind)
    folder.mkdir()
    for file in tiny_folder().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if kind == "encoder":
        BertModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)).save_pretrained(folder)
    elif kind == "without-config":
        (folder / "config.json").unlink()
    elif kind == "without-end":
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))
    elif kind == "not-a-number":
        broken: Any = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            broken.model.norm.weight.fill_(float("nan"))
        broken.save_pretrained(folder)
    return kind


def refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert said in one_line(captured.err)
    assert "Traceback" not in captured.err
    assert not Path("runs").exists() or not any(Path("runs").iterdir())
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("encoder", "encoder is a 'bert' model (BertModel), which does not generate text token by token; expected a causal language model"),
        ("without-config", "without-config is a folder without config.json; expected a Hugging Face model folder"),
        ("without-end", "the tokenizer of ./without-end has no end-of-sequence token"),
    ],
)
def test_models_that_cannot_be_used(kind: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"./{model(kind)}"
    refused(["train", "grpo", "--model", spec, *SMALL], said, capsys)
    refused(["eval", spec, "--samples", "1", "--tasks-limit", "1"], said, capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["grpo", "--model", "./absent"], "there is no model folder './absent'"),
        (["grop"], "there is no method 'grop'. Did you mean grpo"),
        (["grpo", "--groupsize", "4"], "--group-size"),
        (["grpo", "--group-size", "1"], "--group-size is 1; GRPO compares attempts at the same task and expects at least 2"),
        (["grpo", "--temperature", "0"], "--temperature is 0.0; rollouts to learn from have to differ"),
        (["sft", "--env", "python"], "arithmetic is played in turns with an environment, and has no conversations to imitate"),
        (["grpo", "--device", "abacus"], "there is no device 'abacus'"),
        (["grpo", "--lora-rank", "2", "--lora-targets", "nowhere"], "lora_targets must name its linear layers"),
        (["grpo", "--max-new-tokens", "-1"], "--max-new-tokens is -1"),
        (["grpo", "--out", "reward.py/run"], "the folder reward.py/run cannot be written"),
        # A place that takes no folder, from nobody: permissions would not stop root.
        (["grpo", "--out", "/proc/run"], "the folder /proc/run cannot be written"),
    ],
)
def test_options_that_cannot_be_used(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = {arguments[i] for i in range(1, len(arguments), 2)}
    rest = [part for i in range(0, len(SMALL) - 1, 2) if SMALL[i] not in given for part in SMALL[i : i + 2]]
    refused(["train", *arguments, *rest, "--quiet"], said, capsys)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"prompt": "1+1", "answer": "2"}', '{"prompt": '], "tasks.jsonl, line 2: not valid JSON"),
        (['{"prompt": "1+1", "answer": "2"}', '{"promt": "1+2", "answer": "3"}'], 'tasks.jsonl, line 2: no "prompt" (fields: promt, answer)'),
        ([], "the task file tasks.jsonl is empty"),
        ([json.dumps({"prompt": f"{i} " + "z" * 5000, "answer": "2", "id": f"long-{i}"}) for i in range(3)], "the prompt of task 'long-"),
        ([json.dumps({"prompt": f"{i}+1"}) for i in range(3)], 'tasks.jsonl, line 1: no task has "answer"'),
    ],
)
def test_task_files_that_cannot_be_used(lines: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tasks.jsonl").write_text("\n".join(lines))
    refused(["train", "grpo", "--tasks", "tasks.jsonl", "--out", "run", *SMALL], said, capsys)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "failed on task 'arithmetic/train-0-0': KeyError"),
        ("nan", "returned nan (float) on task 'arithmetic/train-0-0'; expected a finite number"),
        ("infinite", "returned inf (float) on task 'arithmetic/train-0-0'; expected a finite number"),
        ("nothing", "returned None on task 'arithmetic/train-0-0'; expected a finite number"),
        ("words", "returned 'good' (str) on task 'arithmetic/train-0-0'; expected a finite number"),
        ("parities", "parities"),
    ],
)
def test_rewards_that_cannot_be_used(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "grpo", "--reward", f"reward.py:{name}", "--out", "run", *SMALL], said, capsys)


def test_a_folder_with_something_in_it_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    refused(["train", "grpo", "--out", "full", *SMALL], "the folder full is not empty", capsys)
    assert [f.name for f in Path("full").iterdir()] == ["notes.txt"]


def test_a_reward_that_fails_later_names_the_task_and_keeps_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "grpo", "--reward", "reward.py:late", "--out", "run", "--checkpoint-every", "1", *SMALL]) == 2
    assert "returned nan (float) on task 'arithmetic/train-0-" in one_line(capsys.readouterr().err)
    ended = Summary.read(Path("run"))
    assert ended is not None
    assert ended.status == "failed"
    assert Run.open("run").checkpoints.newest() is not None


def test_a_model_of_nan_ends_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"./{model('not-a-number')}"
    assert main(["train", "grpo", "--model", spec, "--out", "run", *SMALL]) == 1
    said = one_line(capsys.readouterr().err)
    assert "error: step 0: " in said
    assert "not finite" in said
    assert "there is no checkpoint yet" in said
    assert "Traceback" not in said


def test_weights_that_become_nan_are_named_with_their_step_and_the_last_checkpoint_is_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.models.learner import Learner

    update = Learner.update
    calls = []

    def poisoned(self: Learner, *given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            with torch.no_grad():
                next(iter(self.model.parameters())).fill_(float("nan"))
        return update(self, *given, **named)

    arguments = ["--reward", "reward.py:parity", "--lr", "1e-4", "--checkpoint-every", "1", "--no-eval-kl", "--out", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", poisoned)
        assert main(["train", "reinforce-pp", *arguments, *SMALL]) == 1
    said = one_line(capsys.readouterr().err)
    assert "error: step 2: the loss is nan" in said
    assert "the checkpoint of step 1 is kept; go on from it with --resume run" in said
    newest = Run.open("run").checkpoints.newest()
    assert newest is not None
    assert newest.step == 1
    assert all(bool(torch.isfinite(t).all()) for t in newest.state().tensors.values())
    ended = Summary.read(Path("run"))
    assert ended is not None
    assert (ended.status, ended.step) == ("failed", 1)
