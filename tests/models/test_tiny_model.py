"""The shipped model: its folder loads with plain transformers, its tokenizer loses nothing, and it is what `scripts/train_tiny.py` says it is."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.errors import InputError
from etude.models import tiny
from etude.models.tiny import FOLDER, SPECIAL, WORDS, build_model, build_tokenizer, tiny_folder
from etude.tasks.builtin import builtin_task_sets
from etude.tasks.builtin.generated import GeneratedTaskSet
from etude.types import Message

SHIPPED = AutoTokenizer.from_pretrained(FOLDER)
SCRIPT = Path(__file__).parents[2] / "scripts" / "train_tiny.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_tiny", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_tiny"] = module
    spec.loader.exec_module(module)
    return module


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_any_ascii_text_survives(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


@given(st.lists(st.sampled_from([*WORDS, *SPECIAL[:-1], " ", "a", "7", "\n", "<|"]), max_size=12).map("".join))
def test_texts_of_its_own_words_survive(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


def test_what_is_not_ascii_is_unknown() -> None:
    assert SHIPPED.convert_ids_to_tokens(SHIPPED.encode("aé1")) == ["a", "<|unknown|>", "1"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("compute 12*7", ["compute ", "1", "2", "*", "7"]),
        ("reverse then take 2: 4", ["reverse", " then ", "take ", "2", ":", " ", "4"]),
        ("answer: 91", ["answer: ", "9", "1"]),
        ("<calc>3</calc>", ["<calc>", "3", "</calc>"]),
        ("tomato", list("tomato")),
        ("resort", list("resort")),
    ],
)
def test_words_are_tokens_unless_inside_longer_ones(text: str, tokens: list[str]) -> None:
    assert SHIPPED.convert_ids_to_tokens(SHIPPED.encode(text)) == tokens


def test_the_chat_template() -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "use calc: 1+1"},
        {"role": "assistant", "content": "<calc>1+1</calc>"},
        {"role": "tool", "content": "2"},
    ]
    text = SHIPPED.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|system|>S<|end|><|user|>use calc: 1+1<|end|><|assistant|><calc>1+1</calc><|end|><|tool|>2<|end|><|assistant|>"
    assert SHIPPED.apply_chat_template(messages[:1], tokenize=False) == "<|system|>S<|end|>"


def test_the_shipped_tokenizer_is_the_built_one(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()
    assert len(SHIPPED) == len(set(SHIPPED.get_vocab().values())) == 225
    assert (SHIPPED.pad_token, SHIPPED.eos_token, SHIPPED.unk_token) == ("<|pad|>", "<|end|>", "<|unknown|>")


def test_the_folder_loads_and_is_small() -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder())
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.1e6
    assert (FOLDER / "model.safetensors").stat().st_size < 8e6
    built = build_model(0)
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    aside = dict.fromkeys(("_name_or_path", "architectures", "transformers_version"))
    assert built.config.to_dict() | aside == model.config.to_dict() | aside
    assert built.generation_config.to_dict() | aside == model.generation_config.to_dict() | aside


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="install etude again"):
        tiny_folder()


def test_the_initial_weights_are_seeded_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = build_model(1), build_model(1), build_model(2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.model.embed_tokens.weight, same.model.embed_tokens.weight)
    assert not torch.equal(one.model.embed_tokens.weight, other.model.embed_tokens.weight)


@pytest.mark.parametrize("name", sorted(builtin_task_sets()))
def test_prompts_and_turns_are_short(name: str) -> None:
    task_set = builtin_task_sets()[name]()
    assert isinstance(task_set, GeneratedTaskSet)
    for i in range(200):
        conversation = task_set.conversation(task_set.train_task(5, i), 0)
        lengths = {m: len(SHIPPED.encode(m.content)) + 1 for m in conversation}
        assert lengths[conversation[0]] <= 32
        assert max(n for m, n in lengths.items() if m.role == "assistant") <= task_set.max_new_tokens
    assert name != "arithmetic" or task_set.max_new_tokens == 24


def test_it_starts_where_its_evaluation_says(script: ModuleType) -> None:
    """Arithmetic, sampled here, within four standard errors of the rate in the shipped file; every family's rate is in the range that leaves something to learn."""
    rows = json.loads((FOLDER / "evaluation.json").read_text())["families"]
    # Families that it was not taught from the start have no rate.
    assert set(rows) <= set(builtin_task_sets())
    assert all(0.15 <= row["pass@1"] <= 0.5 for row in rows.values())
    assert rows["arithmetic"]["pass@16"] > 0.9
    torch.manual_seed(0)
    task_set = builtin_task_sets()["arithmetic"]()
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    results = script.episodes(model, SHIPPED, task_set, list(task_set.held_out()))
    rate = sum(verdict["correct"] for verdict, *_ in results) / len(results)
    expected = rows["arithmetic"]["pass@1"]
    assert abs(rate - expected) < 4 * (expected * (1 - expected) / len(results)) ** 0.5


def test_only_what_the_assistant_writes_is_learned(script: ModuleType) -> None:
    demonstrations = script.Demonstrations(script.Config())
    messages = [Message("user", "use calc: 1+1"), Message("assistant", "<calc>1+1</calc>"), Message("tool", "2"), Message("assistant", "answer: 2")]
    tokens, written = demonstrations.encode(messages)
    assert SHIPPED.decode(tokens) == "<|user|>use calc: 1+1<|end|><|assistant|><calc>1+1</calc><|end|><|tool|>2<|end|><|assistant|>answer: 2<|end|>"
    assert SHIPPED.decode([t for t, w in zip(tokens, written, strict=True) if w]) == "<calc>1+1</calc><|end|>answer: 2<|end|>"
    prompt = SHIPPED.apply_chat_template([{"role": m.role, "content": m.content} for m in messages[:3]], add_generation_prompt=True, return_dict=False)
    assert tokens[: len(prompt)] == prompt


def test_training_that_was_interrupted_ends_with_the_same_weights(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(folder: str):
        return script.Config(checkpoint=tmp_path / folder, steps=6, conversations=8, micro_batch=4, warmup=2, save_every=2)

    whole = script.train(config("whole"))
    make_step = script.Demonstrations.step

    def stopped(self, step: int):
        if step == 5:
            raise KeyboardInterrupt
        return make_step(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(script.Demonstrations, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            script.train(config("parts"))
    resumed = script.train(config("parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert not torch.equal(whole.model.embed_tokens.weight, build_model(script.Config.seed).model.embed_tokens.weight)
