"""What survives an iteration, and curricula that choose what comes next."""

from etude.memory.curriculum import Curriculum, UniformCurriculum
from etude.memory.unsolved import UnsolvedCurriculum

__all__ = ["Curriculum", "UniformCurriculum", "UnsolvedCurriculum"]
