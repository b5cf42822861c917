"""A language model that writes pictures: captions in words, then K visual tokens, each a word `<v0>`, `<v1>`, ... of its vocabulary.

It is an ordinary Hugging Face folder: a small new Llama with a tokenizer and a chat template, or any causal language model that was given visual words. `suppress_tokens` in
its generation settings leave it nothing to write but these. Beside them lies the folder of the tokenizer of pictures that they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from etude.errors import InputError
from etude.models.language import LanguageModel, model_folder, without_bars
from etude.models.picture_code import FOLDER, PictureCode, load_picture_code
from etude.models.sampling import Request, SamplingParams
from etude.models.suppression import suppress
from etude.types import Message

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, END, UNKNOWN, DRAW = "<|pad|>", "<|end|>", "<|unknown|>", "<|draw|>"
SPECIAL = (PAD, END, UNKNOWN, DRAW)
VISUAL = re.compile(r"<v(\d+)>")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}" + DRAW + "{% endif %}"
IGNORED = -100


def visual_words(tokens: Sequence[int]) -> str:
    """Visual tokens as text."""
    return " ".join(f"<v{token}>" for token in tokens)


def visual_tokens(text: str, code: PictureCode) -> list[int] | None:
    """The picture's tokens that a text consists of; None where it is not just as many as a picture has."""
    found = [int(number) for number in VISUAL.findall(text)]
    whole = not VISUAL.sub("", text).strip() and len(found) == code.count and all(token < code.codes for token in found)
    return found if whole else None


def code_beside(model: str) -> PictureCode:
    """The tokenizer of pictures beside a model's weights. Raises InputError where there is none."""
    folder = Path(model_folder(model)) / FOLDER
    if not folder.is_dir():
        raise InputError(
            f"{model} does not write pictures: there is no folder {FOLDER} with it; expected tiny-selftok, tiny-flowmo, tiny-spatial, or the model/ folder of a run of "
            "selftok or selftok-pretrain"
        )
    return load_picture_code(folder)


def build_tokenizer(words: Sequence[str], codes: int, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer of captions made of these words, and of visual tokens. What is between white space is a word, a comma is one too; other words are unknown."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = [*SPECIAL, *dict.fromkeys(words), *(f"<v{code}>" for code in range(codes))]
    tokenizer: Any = Tokenizer(models.WordLevel({entry: number for number, entry in enumerate(entries)}, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    parts = [pre_tokenizers.Split(Regex(r"<v\d+>|,"), behavior="isolated"), pre_tokenizers.WhitespaceSplit()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[DRAW],
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def build_model(tokenizer: PreTrainedTokenizerBase, codes: int, *, width: int, layers: int) -> LlamaForCausalLM:
    """An untrained Llama for that vocabulary, whose generation settings suppress all but visual tokens."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    size = len(tokenizer)
    end, padding = SPECIAL.index(END), SPECIAL.index(PAD)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=int(tokenizer.model_max_length),
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=padding,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    words = [number for entry, number in tokenizer.get_vocab().items() if not VISUAL.fullmatch(entry)]
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, suppress_tokens=sorted(words), eos_token_id=end, pad_token_id=padding
    )
    return model.eval()


class PictureWriter(nn.Module):
    """A tokenizer of pictures and the language model that writes its tokens, as one model that draws."""

    def __init__(self, code: PictureCode, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.code, self.model, self.tokenizer = code, model, tokenizer
        self._prompts: dict[str, list[int]] = {}
        suppress(model)
        first = tokenizer.convert_tokens_to_ids("<v0>")
        assert isinstance(first, int)
        self.first_visual = first
        """The vocabulary's number of `<v0>`; the others follow it."""

    @classmethod
    def new(cls, code: PictureCode, captions: Sequence[str], *, width: int = 96, layers: int = 4) -> PictureWriter:
        """One that has learnt nothing, with the words of these captions."""
        words = sorted({word for text in captions for word in re.findall(r",|[^\s,]+", text)})
        longest = max((len(re.findall(r",|[^\s,]+", text)) for text in captions), default=1)
        # Room for a caption half as long again.
        tokenizer = build_tokenizer(words, code.codes, context=3 * longest // 2 + 2 + code.count)
        return cls(code, build_model(tokenizer, code.codes, width=width, layers=layers), tokenizer)

    @classmethod
    def upon(cls, code: PictureCode, spec: str) -> PictureWriter:
        """A causal language model, by name or folder, with visual words beside its own, which it has not learnt to write. Raises InputError for one that has some already."""
        policy = LanguageModel.load(spec, device="cpu", dtype="float32")
        model, tokenizer = policy.model, policy.tokenizer
        if any(VISUAL.fullmatch(word) for word in tokenizer.get_vocab()):
            raise InputError(f"{spec} writes visual tokens already; expected a language model of text, or --model {spec} to train it further")
        first = len(tokenizer)
        tokenizer.add_tokens([f"<v{number}>" for number in range(code.codes)])
        size = max(len(tokenizer), model.config.get_text_config().vocab_size)
        model.resize_token_embeddings(size)
        assert model.generation_config is not None
        model.generation_config.suppress_tokens = [number for number in range(size) if not first <= number < first + code.codes]
        return cls(code, model, tokenizer)

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Captions as tokens, up to where the picture begins."""
        new = [text for text in dict.fromkeys(texts) if text not in self._prompts]
        policy = LanguageModel.wrap(self.model, self.tokenizer) if new else None
        for text in new:
            assert policy is not None
            self._prompts[text] = policy.render([Message("user", text)])
        return [self._prompts[text] for text in texts]

    def written(self, texts: Sequence[str], tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Captions and pictures' tokens [B, K] as rows, padded behind [B, T], and what is to be predicted [B, T]: the tokens after each place, IGNORED before the picture."""
        prompts = self.prompts(texts)
        longest = max(map(len, prompts)) + tokens.shape[1]
        rows = torch.zeros(len(prompts), longest, dtype=torch.long)
        targets = torch.full_like(rows, IGNORED)
        for i, prompt in enumerate(prompts):
            rows[i, : len(prompt)] = torch.tensor(prompt)
            rows[i, len(prompt) : len(prompt) + tokens.shape[1]] = tokens[i] + self.first_visual
            targets[i, len(prompt) - 1 : len(prompt) - 1 + tokens.shape[1]] = tokens[i] + self.first_visual
        return rows, targets

    def token_losses(self, texts: Sequence[str], tokens: Tensor) -> Tensor:
        """Cross-entropy, in nats, of each token of pictures [B, K] after its caption and the tokens before it: [B, K]."""
        rows, targets = self.written(texts, tokens)
        # Padding comes last and attention is causal, so that it changes no logit in front of it.
        logits = self.model(input_ids=rows, use_cache=False).logits
        wanted = targets != IGNORED
        return F.cross_entropy(logits[wanted], targets[wanted], reduction="none").view(tokens.shape)

    def sample(self, texts: Sequence[str], generator: torch.Generator, *, temperature: float = 1.0) -> Tensor:
        """Tokens of pictures for captions [B, K], one token after the other."""
        policy = LanguageModel.wrap(self.model, self.tokenizer)
        streams = torch.randint(2**62, (len(texts),), generator=generator).tolist()
        params = SamplingParams(max_new_tokens=self.code.count, temperature=temperature)
        done = policy.sampler.generate([Request(tuple(p), params, stream) for p, stream in zip(self.prompts(texts), streams, strict=True)])
        return torch.tensor([completion.tokens for completion in done]) - self.first_visual

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder, with the tokenizer of pictures in it."""
        with without_bars():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.code.save(folder / FOLDER)

    @classmethod
    def load(cls, folder: Path) -> PictureWriter:
        """Read what `save` wrote. Raises InputError for a folder that holds no such model."""
        if not (folder / FOLDER).is_dir():
            raise InputError(
                f"{folder} holds no model that writes pictures: there is no {FOLDER} in it; expected what a run of selftok-pretrain or selftok leaves"
            )
        code = load_picture_code(folder / FOLDER)
        policy = LanguageModel.load(str(folder), device="cpu", dtype="float32")
        return cls(code, policy.model, policy.tokenizer)
