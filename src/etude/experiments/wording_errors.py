"""What becomes of mistakes that belong to the wording of a question, starting from a model that makes them.

The embedded model is first shown demonstrations of `two-views` whose mistakes depend on the wording (`two-views:both=1,slant=1`): of either wording the majority's
answer is then wrong on about half of the questions, and the two wordings are hardly ever wrong alike. From there the arms train without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.evals.measures import AtBudget, Average, First
from etude.experiments.imitate_first import imitate_first


def wording_errors(seed: int, settings: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Measures of a run of `settings["method"]`, a method of question pairs, on `settings["tasks"]`, after `warm_steps` steps of imitation of `warm_tasks`.

    `accuracy_first`, `accuracy`: held-out pass@1, mean over both wordings, before and at the end; `original`, `twin`: at the end, of each. `majority_first`,
    `majority`: share of a step's groups whose own vote is right, in the first step and over the last quarter of the budget; `label_first`, `label`: whose label is;
    `reward_first`, `reward`: attempts that are rewarded as the verdict would. `wrong_alike_first`: pairs whose votes agree on a wrong answer; `agreement_first`,
    `agreement`: on any. `one_answer_first`, `one_answer`: share of a step's attempts that give its most common answer. `silent_first`, `silent`: groups without a signal.
    """
    record = imitate_first(seed, {**settings, "eval_twins": True}, budget)
    late = 0.25
    named = {
        "majority": "votes/majority_accuracy",
        "label": "votes/label_accuracy",
        "reward": "votes/reward_accuracy",
        "agreement": "votes/agreement",
        "wrong_alike": "votes/agreement_wrong",
        "one_answer": "votes/top_answer",
        "silent": "signal/degenerate",
    }
    found = {"accuracy_first": First("eval/both_pass@1")(record), "accuracy": AtBudget("eval/both_pass@1")(record)}
    found |= {"original": AtBudget("eval/pass@1")(record), "twin": AtBudget("eval/twin_pass@1")(record)}
    for name, metric in named.items():
        found |= {f"{name}_first": First(metric)(record), name: Average(metric, last=late)(record)}
    return found
