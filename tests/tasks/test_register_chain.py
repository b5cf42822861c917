"""`register-chain`: the checker of steps, and right answers by wrong ways."""

from __future__ import annotations

import pytest

from etude.errors import InputError
from etude.tasks.builtin.register_chain import RegisterChain
from etude.types import Message, Task

TASK = Task("t", (Message("user", "mod 5: 3 +4*2+1"),), "0", {"start": 3, "chain": [["+", 4], ["*", 2], ["+", 1]]})


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("3+4=2\n2*2=4\n4+1=0\nanswer: 0", -1),
        ("3+4=2\n2*2=4", -1),
        ("3+4=1\n1*2=4\n4+1=0\nanswer: 0", 0),
        # On the register as it should be, not as it was written.
        ("3+4=2\n2*2=3\n4+1=0\nanswer: 0", 1),
        ("3+4=2\n2+1=3\nanswer: 3", 1),
        ("3+4=2\nanswer: 0", 1),
        ("3+4=2\n2*2=4\n4+1=0\nanswer: 1", 3),
        ("3+4=2\n2*2=4\n4+1=0\nanswer: 0\nanswer: 0", 3),
    ],
)
def test_the_first_wrong_step_is_found(text: str, first: int) -> None:
    assert RegisterChain().first_wrong_step(TASK, text.split("\n")) == first


def test_broken_ways_often_end_right() -> None:
    tasks = RegisterChain(slips=0.3)
    shown = [(task, tasks.demonstration(task, 0) or "") for task in (tasks.train_task(0, i) for i in range(400))]
    broken = [(task, text) for task, text in shown if tasks.first_wrong_step(task, text.split("\n")) != -1]
    lucky = [text for task, text in broken if tasks.verify(task, text)["correct"]]
    # After several wrong steps the register is near to uniform over five values.
    assert 0.12 < len(lucky) / len(broken) < 0.28
    with pytest.raises(InputError, match="modulus 4"):
        RegisterChain(modulus=4)
