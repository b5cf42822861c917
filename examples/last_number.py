"""A reward that takes the last number of an answer as its result: what a small chat model writes, whatever form it was asked for.

etude train grpo --model smollm2 --tasks gym:chain_sum --reward examples/last_number.py:score
"""

import re


def score(task, text):
    numbers = re.findall(r"-?\d+", text.replace(",", ""))
    right = float(bool(numbers) and numbers[-1] == task.answer)
    # `correct` is what pass@k counts; without it, the data set's own stricter verdict would be.
    return {"reward": right, "correct": right}
