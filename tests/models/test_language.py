"""Loading a model, rendering conversations, and going on after a turn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import utils as hub
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from etude.config import LearnerConfig
from etude.errors import InputError
from etude.models.language import LanguageModel, model_folder, resolve_device, without_bars
from etude.models.tiny import END, build_tokenizer
from etude.types import Message

USER, ASSISTANT, TOOL = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "tool"))


def make(template: str | None = "", **config: Any) -> LanguageModel:
    tokenizer = build_tokenizer()
    if template != "":
        tokenizer.chat_template = template
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    settings = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id, **{**size, **config})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LanguageModel.wrap(LlamaForCausalLM(settings).eval(), tokenizer, name="small")


def text(policy: LanguageModel, tokens: list[int]) -> str:
    return str(policy.tokenizer.decode(tokens, skip_special_tokens=False))


def test_the_embedded_model_loads_with_its_limits() -> None:
    policy = LanguageModel.load("tiny", device="cpu")
    assert policy.name == "tiny"
    assert policy.device == torch.device("cpu")
    assert policy.model.dtype == torch.float32
    assert policy.context_length == policy.model.config.max_position_embeddings
    assert policy.tokenizer.eos_token_id in policy.sampler.eos_ids
    assert policy.recommended_lr == 3e-4
    assert policy.parameters == sum(p.numel() for p in policy.model.parameters())
    assert policy.has_chat_template


def test_a_template_renders_turns_and_opens_the_models() -> None:
    policy = make()
    tokens = policy.render([Message("system", "be quick"), USER("1+1"), ASSISTANT("3"), USER("check and fix")])
    expected = f"<|system|>be quick{END}<|user|>1+1{END}<|assistant|>3{END}<|user|>check and fix{END}<|assistant|>"
    assert text(policy, tokens) == expected
    assert policy.decode(tokens) == "be quick1+13check and fix"


def test_without_a_template_contents_are_lines() -> None:
    policy = make(None)
    assert not policy.has_chat_template
    assert text(policy, policy.render([Message("system", "be quick"), USER("1+1")])) == "be quick\n1+1\n"
    assert text(policy, policy.render_after([5, 6], [TOOL("no"), USER("again")])) == "\nno\nagain\n"


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("messages", [[TOOL("3108")], [USER("check and fix")], [TOOL("error"), USER("again")]])
def test_going_on_gives_what_the_whole_conversation_would(ended: bool, messages: list[Message]) -> None:
    policy = make()
    opening = [USER("use calc: 37*84")]
    turn = "<calc>37*84</calc>"
    written = policy.tokenizer(turn, add_special_tokens=False)["input_ids"]
    written = [*written, policy.tokenizer.eos_token_id] if ended else written
    went_on = [*policy.render(opening), *written, *policy.render_after(written, messages)]
    assert went_on == policy.render([*opening, ASSISTANT(turn), *messages])


def test_a_turns_end_may_contain_any_letters_and_more_than_the_end_token() -> None:
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ '<|end|>\ny-y stay\n' if m['role'] == 'assistant' else '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    policy = make(template)
    end = policy.tokenizer.eos_token_id
    assert text(policy, policy.render_after([9, end], [USER("go")])) == "\ny-y stay\n[user] go\n[assistant] "
    assert text(policy, policy.render_after([9], [USER("go")])) == "<|end|>\ny-y stay\n[user] go\n[assistant] "


def test_templates_that_cannot_go_on_are_refused() -> None:
    rewriting = make("{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(InputError, match="the chat template of small rewrites earlier turns"):
        rewriting.render_after([9], [USER("go")])
    strict = make("{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(InputError, match="the chat template of small can't render a conversation with the roles user tool: no tools here"):
        strict.render([USER("a"), TOOL("b")])


def test_every_end_token_ends_a_turn() -> None:
    policy = make()
    policy.model.generation_config.eos_token_id = [policy.tokenizer.eos_token_id, 5]
    wrapped = LanguageModel.wrap(policy.model, policy.tokenizer)
    assert wrapped.sampler.eos_ids == {policy.tokenizer.eos_token_id, 5}
    policy.model.generation_config.eos_token_id = 6
    assert LanguageModel.wrap(policy.model, policy.tokenizer).sampler.eos_ids == {policy.tokenizer.eos_token_id, 6}


def test_padding_is_filled_in_and_a_missing_end_token_is_not() -> None:
    policy = make()
    policy.tokenizer.pad_token = None
    LanguageModel.wrap(policy.model, policy.tokenizer)
    assert policy.tokenizer.pad_token == END
    policy.tokenizer.eos_token = None
    with pytest.raises(InputError, match=r"the tokenizer of small has no end-of-sequence token.*tokenizer_config\.json"):
        LanguageModel.wrap(policy.model, policy.tokenizer, name="small")


def test_the_context_is_the_smaller_of_the_models_and_the_tokenizers() -> None:
    assert make(max_position_embeddings=64).context_length == 64
    assert make(max_position_embeddings=4096).context_length == build_tokenizer().model_max_length


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    policy = make()
    policy.save(tmp_path / "m")
    again = LanguageModel.load(str(tmp_path / "m"), device="cpu")
    assert again.recommended_lr == 3e-4
    assert all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), again.model.parameters(), strict=True))
    assert again.render([USER("1+1")]) == policy.render([USER("1+1")])


@pytest.mark.parametrize(("bars", "downloads"), [(True, True), (True, False), (False, False)])
def test_loading_and_saving_show_no_bars_and_leave_the_setting_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], progress_bars: Callable[[bool, bool], None], bars: bool, downloads: bool
) -> None:
    progress_bars(bars, downloads)
    LanguageModel.load("tiny").save(tmp_path)
    assert capfd.readouterr().err == ""
    assert (logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()) == (bars, downloads)


def test_a_download_keeps_its_bar(progress_bars: Callable[[bool, bool], None]) -> None:
    progress_bars(True, True)
    with without_bars():
        assert (logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()) == (False, False)


def test_the_bars_come_back_after_a_failure(progress_bars: Callable[[bool, bool], None]) -> None:
    progress_bars(True, True)
    with pytest.raises(OSError, match="no disk"), without_bars():
        raise OSError("no disk")
    assert logging.is_progress_bar_enabled()


@pytest.fixture
def progress_bars() -> Iterator[Callable[[bool, bool], None]]:
    """Sets whether transformers shows bars, and whether downloads do; puts both back afterwards."""

    def show(bars: bool, downloads: bool) -> None:
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
        (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()

    before = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    yield show
    show(*before)


def test_an_adapter_comes_back_merged_into_its_model(tmp_path: Path) -> None:
    make().save(tmp_path / "base")
    policy = LanguageModel.load(str(tmp_path / "base"), device="cpu", learner=LearnerConfig(lora_rank=2))
    assert policy.recommended_lr == 3e-4
    trained = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.05)
    policy.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "config.json").exists()
    again = LanguageModel.load(str(tmp_path / "adapter"), device="cpu")
    assert not [n for n, _ in again.model.named_parameters() if "lora" in n]
    tokens = torch.tensor([policy.render([USER("1+1")])])
    with torch.no_grad():
        expected, base = policy.model(tokens).logits, make().model(tokens).logits
        assert torch.allclose(again.model(tokens).logits, expected, atol=1e-5)
        assert not torch.allclose(base, expected, atol=1e-3)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InputError, match="adapter is an adapter, and the model it belongs to can't be used: there is no model folder"):
        LanguageModel.load(str(tmp_path / "adapter"), device="cpu")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="expected an adapter's settings"):
        LanguageModel.load(str(tmp_path / "adapter"), device="cpu")


def test_lora_names_layers_that_are_there() -> None:
    with pytest.raises(InputError, match=r"LoRA can't be put on this model: .*lora_targets must name its linear layers"):
        LanguageModel.load("tiny", device="cpu", learner=LearnerConfig(lora_rank=2, lora_targets=("attention",)))


def broken(folder: Path, kind: str) -> str:
    """A model folder with one thing wrong."""
    make().save(folder)
    if kind == "encoder":
        BertModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)).save_pretrained(folder)
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "run":
        (folder / "config.json").rename(folder / "config.yaml")
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
    elif kind == "broken config":
        (folder / "config.json").write_text("{")
    elif kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "other shape":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 24}))
    elif kind == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif kind == "no end":
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("encoder", "is a 'bert' model .BertModel., which does not generate text"),
        ("no config", "is a folder without config.json"),
        ("run", "This looks like a run folder: its model is"),
        ("broken config", "can't be read as a Hugging Face model"),
        ("no weights", "the weights of .* can't be loaded"),
        ("other shape", "the weights of .* can't be loaded"),
        ("no tokenizer", "the tokenizer of .* can't be loaded"),
        ("no end", "has no end-of-sequence token"),
    ],
)
def test_what_cannot_be_loaded_is_said(tmp_path: Path, kind: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        LanguageModel.load(broken(tmp_path / "m", kind), device="cpu")


@pytest.mark.parametrize("spec", ["./absent", "/absent/model", "~/absent-model", "a/b/c", "tinny", "..\\model"])
def test_a_path_that_is_not_there_is_not_looked_up_elsewhere(spec: str) -> None:
    with pytest.raises(InputError, match=r"there is no model folder .* or one of: tiny, smollm2"):
        model_folder(spec)


def test_a_file_is_no_model_and_a_hub_id_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(InputError, match="is a file; expected a Hugging Face model folder"):
        model_folder(str(tmp_path / "model.bin"))
    assert model_folder("owner/name") == "owner/name"


def test_devices_that_are_not_there_are_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="there is no device 'abacus'"):
        resolve_device("abacus")
    with pytest.raises(InputError, match=r"the device 'cuda:99' is not there"):
        resolve_device("cuda:99")
