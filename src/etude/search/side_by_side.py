"""Jobs side by side, whose order of results does not depend on how long each takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def side_by_side(next_job: Callable[[], Task | None], work: Callable[[Task], Result], settle: Callable[[Task, Result], None], *, workers: int = 1) -> None:
    """Do jobs in `workers` threads until there are no more.

    next_job: the next one, or None where there is nothing to do before something in flight has returned; what is in flight is for it to keep in mind (reservations).
    settle: takes results in the order in which jobs were handed out. So a job is chosen knowing the results of all but the last workers - 1 jobs before it, always the
    same ones: a repeated search is the same search. The price is that a slow job holds up those behind it. next_job and settle run in the calling thread.
    """
    if workers == 1:
        while (job := next_job()) is not None:
            settle(job, work(job))
        return
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            while len(waiting) < workers and (job := next_job()) is not None:
                waiting.append((job, pool.submit(work, job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            settle(job, future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
