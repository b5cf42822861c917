"""Runs of a comparison in processes: started as cores become free, watched through what they write, stopped without loss."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import etude
from etude.durable import JsonLines, clear_drafts, replace_file
from etude.errors import InputError
from etude.evals.arm_process import ERROR, INTERRUPTED, REFUSED
from etude.evals.arms import ArmProgress, ArmRun, ArmWatcher, PlannedRun
from etude.ledger import Budget, Ledger
from etude.method import get_method, is_installed
from etude.run import plain
from etude.summary import Summary

POLL_SECONDS = 0.2
"""How often processes and their files are looked at."""

Errors = Mapping[tuple[str, int], tuple[str, str]]
"""(status, reason) of the runs that did not finish, by arm and seed."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it for this process. Raises InputError when another process compares in it, or it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+")  # noqa: SIM115  held open as long as the lock
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written: {error.strerror}; choose another one with --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process compares in {folder}; wait until it is done, or choose another folder with --out") from error
        yield


def check_setups(runs: Sequence[PlannedRun]) -> None:
    """Set every run's method up once, in one process that is thrown away. Raises InputError with what is wrong with the first that cannot be."""
    with tempfile.TemporaryDirectory() as place:
        paths = []
        for i, run in enumerate(runs):
            paths.append(Path(place) / f"{i}.json")
            paths[-1].write_text(_specification(run, check=True))
        log = Path(place) / "log"
        process = _start(paths, log, runs[0].config.run.threads)
        with _stopped_at_the_end([process]):
            code = process.wait()
        if code:
            raise InputError(_reason(code, log))


def run_pool(planned: Sequence[PlannedRun], budget: Budget, workers: int, watcher: ArmWatcher | None) -> Errors:
    """Run what is not finished yet. Raises InputError for a run that was refused, KeyboardInterrupt after the user stopped it; no process outlives this."""
    # Seeds in turn, so that all arms have come equally far at any time.
    order = sorted(planned, key=lambda run: [r.seed for r in planned].index(run.seed))
    pool = _Pool([_Watched(run, budget) for run in order], workers, watcher)
    return pool.run()


def conclude_all(planned: Sequence[PlannedRun], errors: Errors) -> list[ArmRun]:
    """The runs as they ended, with their rows."""
    concluded = []
    for run in planned:
        status, reason = errors.get((run.arm.name, run.seed), ("finished", None))
        rows = list(JsonLines(run.folder / "metrics.jsonl"))
        concluded.append(ArmRun(run.arm.name, run.seed, run.folder, status, reason, rows))  # type: ignore[arg-type]
    return concluded


def _specification(run: PlannedRun, *, check: bool = False) -> str:
    cls = get_method(run.arm.method)
    home = None
    if not is_installed(run.arm.method):
        if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
            raise InputError(
                f"the method {run.arm.method} is defined in the script or function that is running, where the processes of a comparison cannot find it; "
                "put the class at the top of a module of its own"
            )
        home = f"{cls.__module__}:{cls.__qualname__}"
    content = {"arm": run.arm.name, "method": run.arm.method, "class": home, "path": sys.path, "check": check, "config": plain(run.config)}
    return json.dumps(content, indent=1) + "\n"


def _start(specifications: Sequence[Path], log: Path, threads: int) -> subprocess.Popen[bytes]:
    """A process of its own session: Ctrl-C in the terminal reaches only the one that compares, which then asks its runs to stop."""
    count = str(max(1, threads))
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "TOKENIZERS_PARALLELISM": "false"}
    home = Path(etude.__file__).resolve().parent.parent
    if home.name not in ("site-packages", "dist-packages"):
        # A source tree: the runs are to be those of this very code, wherever Python would find another one.
        environment["PYTHONPATH"] = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "etude.evals.arm_process", *map(str, specifications)],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _reason(code: int, log: Path) -> str:
    """Why a process ended with a code other than 0, in a line."""
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    last = text.rpartition("\n")[2]
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system does this when memory runs out" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    if last.startswith(ERROR):
        return last.removeprefix(ERROR)
    return f"the process ended with code {code}" + (f": {last}" if last else "")


@contextmanager
def _stopped_at_the_end(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Whatever happens, the processes are gone afterwards: asked first, which lets a run write its checkpoint."""
    try:
        yield
    finally:
        for process in processes:
            _signal(process, signal.SIGTERM)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            _signal(process, signal.SIGKILL)
            process.wait()
            _close(process.stdin)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        if process.poll() is None:
            process.send_signal(number)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):
            pipe.close()


class _Watched:
    """A run, its process, and what its metrics file has said so far."""

    def __init__(self, run: PlannedRun, budget: Budget) -> None:
        self.run = run
        self.budget = budget
        self.progress = ArmProgress(run.arm.name, run.seed, run.folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.score_key: str = getattr(get_method(run.arm.method), "score_key", "eval/pass@1")
        self._read = 0
        self._metrics = run.folder / "metrics.jsonl"
        self.log = run.folder.with_name(f"{run.folder.name}.log")

    def start(self) -> None:
        run = self.run
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        if run.folder.is_dir():
            clear_drafts(run.folder)
        specification = run.folder.with_name(f"{run.folder.name}.json")
        replace_file(specification, _specification(run))
        self.process = _start([specification], self.log, run.config.run.threads)
        self.progress.state = "running"

    def look(self) -> bool:
        """Read what was written since the last look; says whether anything was."""
        try:
            size = self._metrics.stat().st_size
            if size < self._read:
                self._read = 0  # A resumed run took its file back to its checkpoint.
            if size == self._read:
                return False
            with open(self._metrics, "rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return False
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                self._take(json.loads(line))
        return bool(whole)

    def _take(self, row: dict[str, Any]) -> None:
        progress = self.progress
        progress.step = row["step"]
        progress.share = self.budget.spent(Ledger.from_plain(row["ledger"]))
        if row.get(self.score_key) is not None:
            progress.value = row[self.score_key]

    def conclude(self, code: int, stopping: bool) -> None:
        """Give the progress its last state. Raises InputError when the run was refused."""
        progress = self.progress
        ended = Summary.read(self.run.folder)
        if code == REFUSED:
            progress.state, progress.error = "crashed", _reason(code, self.log)
            raise InputError(f"arm {progress.arm}, seed {progress.seed}: {progress.error}")
        if code == 0:
            progress.state = "finished"
        elif code == INTERRUPTED or (stopping and code == -signal.SIGTERM):
            progress.state = "interrupted"
            progress.error = ended.reason if ended is not None and ended.status == "interrupted" else "stopped before the first step"
        else:
            progress.state = "crashed"
            progress.error = ended.reason if code > 0 and ended is not None and ended.status == "failed" else _reason(code, self.log)


class _Pool:
    def __init__(self, runs: Sequence[_Watched], workers: int, watcher: ArmWatcher | None) -> None:
        self.runs = runs
        self.workers = workers
        self.watcher = watcher
        self.stops = 0
        """How often the user asked to stop."""

    def run(self) -> Errors:
        for watched in self.runs:
            if watched.run.finished:
                watched.look()
                watched.progress.state = "reused"
        if self.watcher is not None:
            self.watcher.began([watched.progress for watched in self.runs])
        processes: list[subprocess.Popen[bytes]] = []
        try:
            with _stop_requests(self._request), _stopped_at_the_end(processes):
                self._work(processes)
        finally:
            if self.watcher is not None:
                self.watcher.ended()
        if self.stops:
            raise KeyboardInterrupt
        ended = [watched.progress for watched in self.runs]
        return {(p.arm, p.seed): (p.state, p.error or "") for p in ended if p.state in ("crashed", "interrupted")}

    def _work(self, processes: list[subprocess.Popen[bytes]]) -> None:
        waiting = [watched for watched in self.runs if watched.progress.state == "waiting"]
        running: list[_Watched] = []
        asked = 0
        while running or (waiting and not self.stops):
            while waiting and len(running) < self.workers and not self.stops:
                watched = waiting.pop(0)
                watched.start()
                assert watched.process is not None
                processes.append(watched.process)
                running.append(watched)
                self._tell(watched)
            if self.stops > asked:
                asked = self.stops
                for watched in running:
                    assert watched.process is not None
                    # Once: the step in progress is finished. Twice: at once. Then: without asking.
                    _signal(watched.process, signal.SIGTERM if asked < 3 else signal.SIGKILL)
                    watched.progress.state = "stopping"
                    self._tell(watched)
                if self.watcher is not None:
                    self.watcher.stopping()
            for watched in list(running):
                assert watched.process is not None
                code = watched.process.poll()
                changed = watched.look()
                if code is not None:
                    running.remove(watched)
                    processes.remove(watched.process)
                    _close(watched.process.stdin)
                    watched.conclude(code, stopping=bool(self.stops))
                    changed = True
                if changed:
                    self._tell(watched)
            if running:
                time.sleep(POLL_SECONDS)

    def _tell(self, watched: _Watched) -> None:
        if self.watcher is not None:
            self.watcher.moved(watched.progress)

    def _request(self) -> None:
        self.stops += 1


@contextmanager
def _stop_requests(request: Any) -> Iterator[None]:
    """Count SIGINT and SIGTERM instead of dying of them. Outside the main thread signals stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, frame: FrameType | None) -> None:
        request()

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
