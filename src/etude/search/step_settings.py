"""Options of searches over the steps of solutions. Torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from etude.config import AtLeastOne, Count, JudgeConfig, NonNegative, Share
from etude.search.mcts import Limits

Way = Literal["mcts", "mcts-votes", "beam", "best-of-n", "votes", "weighted-votes"]


@dataclass
class StepSearchConfig:
    """Search over the steps of a solution."""

    delimiter: str = "\\n"
    """What a step ends with."""
    step_tokens: Count = 0
    """Tokens that a step may have (0: as many as a whole solution)."""
    max_steps: AtLeastOne = 32
    """Steps of a solution at most."""
    search_tokens: Count = 4000
    """Generated tokens that the search of a task may spend (0: no limit); the expansion that reaches it is the last one."""
    iterations: AtLeastOne = 200
    """Expansions of a tree at most."""
    branch: AtLeastOne = 3
    """Next steps that are drawn where a node is expanded, once; equal ones count once."""
    step_retries: Count = 3
    """Times that an empty step, or one that is there already, is drawn again."""
    roll_branch: AtLeastOne = 1
    """Steps drawn for each step of looking ahead; the best is gone on with."""
    roll_steps: Count = 2
    """Steps looked ahead from the best new child (0: none)."""
    blend: Share = 0.5
    """Weight of the best value seen ahead in that child's value (alpha)."""
    exploration: NonNegative = 0.1
    """Weight of what was tried little (C). A right step of a solution of K raises the value by 1/K; the paper has 0.4 and 0.5."""
    unvisited: NonNegative = 0.2
    """What a child that was not visited yet has on top of its value (INF; 0.8 and 0.9 in the paper)."""
    end_gate: Share = 0.9
    """Value from which a solution counts as right without looking at the reference: there a search for one answer ends."""
    critic: Literal["off", "simple", "common"] = "off"
    """Before a node is expanded, ask whether it is solved already (`simple`), or else what to do next, which is shown to the policy (`common`)."""

    def limits(self) -> Limits:
        return Limits(self.iterations, self.max_steps, tokens=self.search_tokens)


@dataclass
class ValueConfig:
    """The value model."""

    value_model: str = "start"
    """Its backbone: `start` (a copy of the policy as it is at the start), a model folder or hub id, or the folder of a value model that was trained before."""
    value_lr: Annotated[float, Gt(0)] | None = None
    """Its learning rate. Default: as for the policy."""
    value_epochs: AtLeastOne = 2
    """Passes over a round's values."""
    value_batch: AtLeastOne = 32
    """Ways through a tree, each with a value a step, of an optimiser step."""


@dataclass
class StepSearchMeasureConfig:
    """Ways to spend the same tokens on a question, measured."""

    tasks: str = "arithmetic"
    """Tasks of single turns: a built-in family, a JSONL file, or `gym:NAME` for a reasoning-gym data set."""
    reward: str | None = None
    """Judge of answers of your own: `file.py:function`, called as function(task, text) -> float."""
    tasks_limit: AtLeastOne = 100
    """Held-out tasks at most."""
    ways: tuple[Way, ...] = ("mcts", "beam", "best-of-n", "votes", "weighted-votes")
    """Ways to spend the tokens: MCTS*, or of its solutions the answer with the largest sum of values (`mcts-votes`); tree of thoughts, breadth first (`beam`); and whole
    solutions, of which the one with the highest value is taken, the most common answer, or the answer with the largest sum of values."""
    value_model: str | None = None
    """Who values partial solutions: a folder that `etude train rest-mcts` wrote (RUN/model/value, which is found where RUN is the model), or `chance`. All ways but `votes`
    need one."""
    beam_width: AtLeastOne = 3
    """Partial solutions that `beam` goes on with."""
    search: StepSearchConfig = field(default_factory=StepSearchConfig)
    judging: JudgeConfig = field(default_factory=lambda: JudgeConfig(judge_tokens=64))
    temperature: Annotated[float, Gt(0)] = 1.0
    """Temperature of what is written (0.7 in the paper)."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw from the most likely tokens that together have this probability (1: from all)."""
    top_k: Annotated[int, Ge(0)] = 0
    """Draw from this many most likely tokens (0: from all)."""
    max_new_tokens: Count = 0
    """Tokens that a whole solution may have (0: what the task set asks for)."""
    seed: int = 0
    """Seed of every random choice."""
    device: str = "auto"
    """Where the models live: `auto`, `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` is float32 on CPU and bfloat16 on GPU."""
    slots: Count = 0
    """Sequences that run at once (0: chosen from the model's size)."""
    threads: Count = 0
    """CPU threads for torch (0: its own default)."""
