"""A language model as Étude sees it: weights, tokenizer, how to render a conversation, and a sampler on the same weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from etude.config import LearnerConfig, SamplerBackEnd, VLLMConfig
from etude.errors import InputError, first_line
from etude.models.adapters import merged, merged_weights, with_adapter
from etude.models.engine import Engine
from etude.models.sampling import Sampler
from etude.models.suppression import suppress
from etude.types import Message

EMBEDDED = ("tiny", "smollm2")
"""Models that need no download: `tiny` ships with the package, `smollm2` with the extra of that name."""

WRITE_PICTURES = {"tiny-selftok": "selftok", "tiny-flowmo": "flowmo", "tiny-spatial": "spatial"}
"""Shipped models that write pictures as tokens (`etude.models.picture_language`), and the folder of each."""

ADAPTER = "adapter_config.json"
"""The file that makes a folder one of a LoRA adapter; it names the model that the adapter belongs to."""

STAND_IN = "etude-stand-in"
"""An answer that stands for the model's own where a chat template is looked at; no template writes it by itself."""


def model_folder(spec: str) -> str:
    """Where a model specification leads: an embedded model's folder, an existing folder, or a hub id as it is.

    Raises InputError for a path that does not exist or a folder without a model in it.
    """
    if spec == "tiny":
        from etude.models.tiny import tiny_folder

        return str(tiny_folder())
    if spec == "smollm2":
        from etude.models.smollm2 import smollm2_folder

        return str(smollm2_folder())
    path = Path(spec).expanduser()
    if spec in WRITE_PICTURES:
        path = Path(__file__).parent.parent / "assets" / "tiny-images" / WRITE_PICTURES[spec]
        if not path.is_dir():
            raise InputError(
                f"the model {spec!r} is missing from {path}; make it with `python scripts/train_tiny_images.py {WRITE_PICTURES[spec]}`, or install etude again"
            )
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / ADAPTER).is_file():
            exported = path / "model" / "config.json"
            hint = f" This looks like a run folder: its model is {path / 'model'}." if exported.is_file() else ""
            raise InputError(f"{spec} is a folder without config.json; expected a Hugging Face model folder (as save_pretrained writes).{hint}")
        return str(path)
    if path.exists():
        raise InputError(f"{spec} is a file; expected a Hugging Face model folder, a hub id, or one of: {', '.join(EMBEDDED)}")
    looks_local = spec.startswith((".", "/", "~")) or spec.count("/") != 1 or "\\" in spec
    if looks_local:
        raise InputError(f"there is no model folder {spec!r}; expected a Hugging Face model folder, a hub id (owner/name), or one of: {', '.join(EMBEDDED)}")
    return spec


SMALL = 10_000_000
"""Weights below which a model takes a learning rate of its own by default: `tiny`, and what came of it."""


@dataclass
class LanguageModel:
    """A causal LM, its tokenizer and its sampler. The embedded engine shares the learner's weights; any other sampler has copies, which `weights_changed` renews.

    `recommended_lr` is the learning rate to use when the user gives none.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sampler: Sampler
    recommended_lr: float

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        slots: int = 0,
        learner: LearnerConfig | None = None,
        sampler: SamplerBackEnd = "engine",
        vllm: VLLMConfig | None = None,
    ) -> LanguageModel:
        """Load an embedded model, a Hugging Face folder, an adapter's folder (merged into the model it belongs to) or a hub id.

        With `learner.lora_rank` > 0 a fresh adapter is put on it. sampler: who generates; `vllm` holds the options of vLLM.
        Raises InputError when the folder is missing, is not a causal LM, its tokenizer has no end token, or the sampler cannot take the model.
        """
        if sampler == "vllm":
            from etude.models.vllm_engine import check_vllm

            check_vllm()
        folder = model_folder(spec)
        base = _base_of(folder, spec)
        place = resolve_device(device)
        try:
            config = AutoConfig.from_pretrained(base)
        except (OSError, ValueError, json.JSONDecodeError) as error:
            raise InputError(f"{spec} can't be read as a Hugging Face model: {first_line(error)}") from error
        if config.is_encoder_decoder or not _is_causal(config):
            named = ", ".join(config.architectures or ["no architecture named"])
            raise InputError(
                f"{spec} is a {config.model_type!r} model ({named}), which does not generate text token by token; "
                "expected a causal language model such as Llama, Qwen or GPT-2"
            )
        tokenizer = _load_tokenizer(folder, spec)
        number_format = getattr(torch, dtype) if dtype != "auto" else (torch.float32 if place.type == "cpu" else torch.bfloat16)
        try:
            with without_bars():
                model = AutoModelForCausalLM.from_pretrained(base, dtype=number_format)
                if base != folder:
                    model = merged(model, folder)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"the weights of {spec} can't be loaded: {first_line(error)}") from error
        model.to(place)  # type: ignore[arg-type]
        model.eval()
        model.requires_grad_(True)
        recommended = 2e-6
        if learner is not None and learner.lora_rank > 0:
            model = with_adapter(model, learner)
            recommended = 1e-4
        if sum(p.numel() for p in model.parameters()) < SMALL:
            recommended = 3e-4
        return cls.wrap(model, tokenizer, name=spec, slots=slots, recommended_lr=recommended, sampler=sampler, vllm=vllm)

    @classmethod
    def wrap(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "model",
        slots: int = 0,
        recommended_lr: float = 2e-6,
        sampler: SamplerBackEnd = "engine",
        vllm: VLLMConfig | None = None,
    ) -> LanguageModel:
        """Use a model and tokenizer that are loaded already."""
        _complete_tokenizer(tokenizer, name)
        suppress(model, name)
        limits: dict[str, Any] = {"eos_ids": _eos_ids(model, tokenizer), "context_length": _context_length(model, tokenizer), "slots": slots}
        if sampler == "vllm":
            from etude.models.vllm_sampler import VLLMSampler

            return cls(name, model, tokenizer, VLLMSampler(model, tokenizer, options=vllm, **limits), recommended_lr)
        return cls(name, model, tokenizer, Engine(model, tokenizer, **limits), recommended_lr)

    def weights_changed(self, version: int | None = None) -> None:
        """Let the sampler go on with the weights as they are now, under the next version's number or a given one. To be called after every change of weights."""
        self.sampler.update(self.sampler.newest + 1 if version is None else version, merged_weights(self.model))

    def copy(self, name: str) -> LanguageModel:
        """The same model with weights, which do not train, and an embedded sampler of its own: as it is now, whatever becomes of this one."""
        model = copy.deepcopy(self.model).requires_grad_(False).eval()
        slots = self.sampler.slots if self.sampler.shares_weights else 0
        return LanguageModel.wrap(model, self.tokenizer, name=name, slots=slots, recommended_lr=self.recommended_lr)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def context_length(self) -> int:
        """Tokens that prompt and completion may have together."""
        return self.sampler.context_length

    @property
    def parameters(self) -> int:
        """Number of weights, adapters included, shared ones once."""
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation up to where the model's turn begins: by the chat template where there is one, else contents joined by newlines."""
        if self.has_chat_template:
            return self._template(messages)
        text = "\n".join(m.content for m in messages) + "\n"
        return list(self.tokenizer(text)["input_ids"])

    def render_after(self, generated: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """Tokens to append behind a turn that the model wrote, so that it can take its next: the turn's end if it is missing, the messages, the next turn's opening."""
        if not self.has_chat_template:
            text = "\n" + "\n".join(m.content for m in messages) + "\n"
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        # The template is applied with and without the new messages behind a stand-in turn; what the second has more is what to append.
        opening = [Message("user", "x"), Message("assistant", STAND_IN)]
        before = self._template_text(opening, generation=False)
        after = self._template_text([*opening, *messages], generation=True)
        if not after.startswith(before):
            raise InputError(
                f"the chat template of {self.name} rewrites earlier turns when later ones come; multi-turn tasks need a template that only appends"
            )
        end = before[before.rindex(STAND_IN) + len(STAND_IN) :]
        ended = bool(generated) and generated[-1] in self.sampler.eos_ids
        if ended:
            # The model's own end token stands for the first part of the template's turn end.
            own = str(self.tokenizer.decode([generated[-1]], skip_special_tokens=False))
            end = end.removeprefix(own)
        return list(self.tokenizer(end + after[len(before) :], add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of some tokens, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def decode_all(self, tokens: Sequence[int]) -> str:
        """Text of some tokens, special ones written out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder (an adapter folder for a LoRA model) with the tokenizer."""
        with without_bars():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def _template(self, messages: Sequence[Message]) -> list[int]:
        # Whoever asks looks at the length; the tokenizer's own warning of it would come in the middle of the live table.
        return list(self.tokenizer(self._template_text(messages, generation=True), add_special_tokens=False, verbose=False)["input_ids"])

    def _template_text(self, messages: Sequence[Message], *, generation: bool) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation))
        except Exception as error:
            roles = " ".join(m.role for m in messages)
            raise InputError(f"the chat template of {self.name} can't render a conversation with the roles {roles}: {first_line(error)}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of transformers while this lasts: reading weights that are here takes a moment, and the bars break into the live table.

    A download keeps its own. Whatever was set before is restored.
    """
    if not logging.is_progress_bar_enabled():
        yield
        return
    downloads = not are_progress_bars_disabled()
    # Both of transformers' switches turn the hub's as well.
    logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if not downloads:
            disable_progress_bars()


def resolve_device(device: str) -> torch.device:
    """'auto' is the first GPU where there is one, else the CPU. Raises InputError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device {device!r}; expected auto, cpu, cuda or cuda:N") from error
    if place.type == "cuda" and (not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"the device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs; use --device auto or cpu")
    return place


def _load_tokenizer(folder: str, spec: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise InputError(f"the tokenizer of {spec} can't be loaded: {first_line(error)}; expected tokenizer files beside the model's config.json") from error
    return tokenizer


def _complete_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Padding is never looked at, so any token can stand for it; an end token is needed."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer of {name} has no end-of-sequence token, so the model could never end a turn; set eos_token (and pad_token) in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def _eos_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return sorted({i for i in (tokenizer.eos_token_id, *listed) if isinstance(i, int)})


def _context_length(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    limits.append(tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None)
    known = [n for n in limits if n]
    return min(known) if known else 2048


def _is_causal(config: Any) -> bool:
    """True for a causal LM by its type and, where the folder names one, its architecture: encoders of some types would load with a fresh, untrained head."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return config.model_type in known and (not config.architectures or any(name in known.values() for name in config.architectures))


def _base_of(folder: str, spec: str) -> str:
    """Where the weights are: the folder itself, or for an adapter's the model it belongs to."""
    record = Path(folder) / ADAPTER
    if not record.is_file() or (Path(folder) / "config.json").is_file():
        return folder
    try:
        base = json.loads(record.read_text())["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record} can't be read; expected an adapter's settings with base_model_name_or_path") from error
    try:
        return model_folder(str(base))
    except InputError as error:
        raise InputError(f"{spec} is an adapter, and the model it belongs to can't be used: {error}; put that model there, or name it in {record}") from error
