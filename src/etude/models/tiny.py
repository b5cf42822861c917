"""The shipped model `tiny`: its folder, its tokenizer and its architecture. `scripts/train_tiny.py` trains it.

A Llama of about one million parameters over a small fixed vocabulary: every ASCII character (so that digits stand alone, and any ASCII text survives
encoding and decoding), and the words that the built-in task families use often, each as one token.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from etude.errors import InputError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent.parent / "assets" / "tiny"
"""The shipped Hugging Face folder."""

CONTEXT = 256
"""Positions that the model was given; training saw conversations of up to about 60 tokens."""

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, END, *(f"<|{role}|>" for role in ROLES), UNKNOWN)

# A leading space belongs to a word where it usually has one; anything else is spelled character by character.
WORDS = (
    *("answer: ", "compute ", "quick: ", "check and fix", "use calc: ", "<calc>", "</calc>", "make ", " from ", " mod ", "error"),
    *(
        "reverse",
        "sort",
        "unique",
        "take ",
        "drop ",
        "add ",
        "sum",
        "max",
        "min",
        "count",
        " then ",
        "rotate",
        "swap ends",
        "double",
        "first ",
        "last ",
        "vowels",
        "next",
    ),
    *("largest: ", "smallest: ", "second ", "order up: ", "order down: "),
    *(
        "tom",
        "ana",
        "kim",
        "lee",
        " has ",
        " apples",
        " pens",
        " coins",
        " books",
        " boxes of ",
        ", buys ",
        " and buys ",
        " and gives away ",
        ", loses ",
        " and finds ",
    ),
    *(" takes ", ", and ", " more", ", ", ". how many left?", ". how many now?", ". how many in all?"),
    *("to tavi: ", "to zomu: ", "-en", "-ak", "u-", "ka-"),
    *("rudo", "beki", "lasha", "mifo", "tarn", "gosu", "vel", "hani", "drok", "suli", "opa", "yeni", "wuk", "flim"),
    *("chim", "paro", "welt", "ziba", "nuko", "frez", "ibo", "quan", "merl", "jath", "zel", "rond", "gip", "tolu"),
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tiny_folder() -> Path:
    """The shipped folder. Raises InputError where the package was installed without its data files."""
    if not (FOLDER / "model.safetensors").exists():
        raise InputError(f"the embedded model 'tiny' is missing from {FOLDER}; expected its config, tokenizer and weights: install etude again")
    return FOLDER


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: the longest known word at each place, else one character. The same object every time."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = [*SPECIAL, *map(chr, range(128)), *WORDS]
    tokenizer = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(entries)}, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    words = "|".join(_bounded(word) for word in sorted(WORDS, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{words}|[\\s\\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(seed: int, *, width: int = 128, layers: int = 5) -> LlamaForCausalLM:
    """The untrained model, or one of another size, float32, with its generation settings (sample at temperature 1 until the end token)."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
        max_new_tokens=64,
    )
    return model.eval()


def _bounded(word: str) -> str:
    """A pattern for a word that does not start or end in the middle of a longer run of letters."""
    before = "(?<![A-Za-z])" if word[0].isalpha() else ""
    after = "(?![A-Za-z])" if word[-1].isalpha() else ""
    return f"{before}{re.escape(word)}{after}"
