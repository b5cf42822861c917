"""What a run will take before it is begun: a model's shape, its memory, rates stated or measured, and a simulation of who waits for whom.

`etude plan` is the command over it; nothing here imports torch.
"""

from etude.planning.lengths import Lengths
from etude.planning.memory import Footprint, LearnerMemory, SamplerMemory, learner_memory, sampler_memory
from etude.planning.parts import Costs, Schedule
from etude.planning.plan import Plan, make_plan
from etude.planning.rates import Observation, Rates, fitted
from etude.planning.settings import PlanConfig
from etude.planning.shapes import Shape, shape_of
from etude.planning.simulation import Plant

__all__ = [
    "Costs",
    "Footprint",
    "LearnerMemory",
    "Lengths",
    "Observation",
    "Plan",
    "PlanConfig",
    "Plant",
    "Rates",
    "SamplerMemory",
    "Schedule",
    "Shape",
    "fitted",
    "learner_memory",
    "make_plan",
    "sampler_memory",
    "shape_of",
]
