"""How attempts are judged: verdicts and user rewards become named components on a trajectory, and their weighted total its reward."""

from etude.rewards.check import check_reward
from etude.rewards.composition import check_weights, compose, read_weights
from etude.rewards.judge import judge, judge_shown
from etude.rewards.overlong import add_overlong, overlong
from etude.tasks.base import total

__all__ = ["add_overlong", "check_reward", "check_weights", "compose", "judge", "judge_shown", "overlong", "read_weights", "total"]
