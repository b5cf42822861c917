"""What survives an iteration (solved examples), and curricula that choose what comes next."""

from etude.memory.curriculum import Curriculum, UniformCurriculum
from etude.memory.exemplars import Exemplar, ExemplarStore
from etude.memory.pairs import PairedCurriculum, RoundsCurriculum
from etude.memory.self_growing import History, SelfGrowingCurriculum
from etude.memory.task_buffer import TaskBuffer
from etude.memory.unsolved import UnsolvedCurriculum

__all__ = [
    "Curriculum",
    "Exemplar",
    "ExemplarStore",
    "History",
    "PairedCurriculum",
    "RoundsCurriculum",
    "SelfGrowingCurriculum",
    "TaskBuffer",
    "UniformCurriculum",
    "UnsolvedCurriculum",
]
