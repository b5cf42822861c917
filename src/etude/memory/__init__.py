"""What survives an iteration, and curricula that choose what comes next."""

from etude.memory.curriculum import Curriculum, UniformCurriculum

__all__ = ["Curriculum", "UniformCurriculum"]
