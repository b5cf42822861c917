"""TRL's GRPOTrainer, one optimiser step at a time. Runs in an environment with `trl` installed; `training_step.py` starts it.

Everything that TRL does for safety or logging and that costs time is off: gradient checkpointing, bf16 autocast, evaluation, logging, saving, the reference model.
"""

from __future__ import annotations

import resource
import time
from typing import Any

from peer import messages, own_stdout


def reward(text: str) -> float:
    """A stand-in judgement that differs between attempts: how varied the characters are, in [0, 1]. Both sides use it."""
    return len(set(text)) / (len(text) + 1)


def main() -> None:
    answer = own_stdout()
    asked = messages()
    config = next(asked)

    import torch

    torch.set_num_threads(config["threads"])
    import transformers
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    transformers.utils.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(config["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(config["model"], dtype=torch.float32)
    rows = config["tasks_per_step"] * config["group_size"]
    lengths: list[int] = []
    scores: list[float] = []

    def judge(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        scores.extend(reward(text) for text in completions)
        return scores[-len(completions) :]

    class Stepwise(TrainerCallback):
        """Waits for the word before each step, and reports after it."""

        def __init__(self) -> None:
            self.started = 0.0

        def wait(self, control: Any) -> None:
            lengths.clear()
            scores.clear()
            if next(asked, None) is None:
                control.should_training_stop = True
            self.started = time.perf_counter()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            answer({"versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}})
            self.wait(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seconds = time.perf_counter() - self.started
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answer({"seconds": seconds, "rollouts": len(lengths), "new_tokens": sum(lengths), "reward": sum(scores) / len(scores), "peak_memory_mib": memory})
            self.wait(control)

    settings = trl.GRPOConfig(
        output_dir=config["scratch"],
        use_cpu=not config["gpu"],
        bf16=False,
        fp16=False,
        seed=0,
        max_steps=1_000_000,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        num_generations=config["group_size"],
        max_completion_length=config["new_tokens"],
        # Equal lengths on both sides: the end token can't be drawn before the limit.
        generation_kwargs={"min_new_tokens": config["new_tokens"]},
        temperature=1.0,
        num_iterations=1,
        beta=0.0,
        loss_type="dapo",
        epsilon=0.2,
        learning_rate=config["lr"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        model=model,
        args=settings,
        reward_funcs=judge,
        train_dataset=Dataset.from_dict({"prompt": config["prompts"]}),
        processing_class=tokenizer,
        callbacks=[Stepwise()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
