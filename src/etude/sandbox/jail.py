"""Full CPython in a process jail: bubblewrap namespaces outside, a child in namespaces of its own for each call inside (zygote.py).

A jail is one `bwrap` with an interpreter that waits. It shows a read-only system (the interpreter, /usr and the packages of this environment), a cleared environment, no
network, no home and no other process. Several jails work side by side, each on one call at a time.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from etude.errors import InputError
from etude.sandbox.base import Limits, Result, Sandbox, Session, Status, cores, cut, explain, refused
from etude.sandbox.system_calls import seccomp_filter

GRACE = 5.0
"""Seconds after a call's limit at which a jail that does not answer is ended and replaced."""
START = 60.0
"""Seconds that a jail may take to start, preloaded modules included."""
ZYGOTE = Path(__file__).with_name("zygote.py")
INSTALL = "Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap; Arch: pacman -S bubblewrap"


class JailSandbox(Sandbox):
    """A pool of jails, started as they are needed."""

    name = "jail"

    def __init__(self, limits: Limits, workers: int = 0, preload: Sequence[str] = ()) -> None:
        self.limits = limits
        self._preload = tuple(preload)
        self._count = workers or 2 * cores()
        self._command = command()
        self._idle: queue.SimpleQueue[_Jail] = queue.SimpleQueue()
        # A jail ends with the thread that started it, so these threads start all jails, and live as long as the sandbox.
        self._threads = ThreadPoolExecutor(self._count, "jail")
        self._starter = ThreadPoolExecutor(1, "jail-starter")
        self._jails: list[_Jail] = []
        self._closed = False
        atexit.register(self.close)
        # Whatever forbids jails on this machine shows here, and not in the middle of a run.
        self._idle.put(self._start())

    def run(self, codes: Sequence[str]) -> list[Result]:
        return list(self._threads.map(self._once, codes))

    def run_in(self, archive: bytes, code: str) -> Result:
        """Run code in a copy of some files: a tar archive, unpacked in the call's private /tmp, where the code starts.

        Nothing that the code does to them comes back, and no other call sees them. They count towards the limits `disk` and `file`; where they do not fit, the
        status is `error`.
        """
        return self._threads.submit(self._once, code, archive).result()

    def session(self) -> Session:
        return _JailSession(self)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            self._threads.shutdown()
            for jail in self._jails:
                jail.close()
            self._starter.shutdown()

    def _start(self) -> _Jail:
        jail = self._starter.submit(_Jail, self._command, self.limits, self._preload).result()
        self._jails = [j for j in self._jails if j.alive] + [jail]
        return jail

    def _once(self, code: str, archive: bytes | None = None) -> Result:
        jail = self.take()
        try:
            return jail.run(code, keep=False, archive=archive)
        finally:
            self.give(jail)

    def take(self) -> _Jail:
        """An idle jail, or a new one."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._start()

    def give(self, jail: _Jail) -> None:
        """Back to the idle ones."""
        if jail.alive:
            self._idle.put(jail)


class _JailSession(Session):
    def __init__(self, sandbox: JailSandbox) -> None:
        self._sandbox = sandbox
        self._jail: _Jail | None = None

    def run(self, code: str) -> Result:
        if self._jail is None or not self._jail.alive:
            self._jail = self._sandbox.take()
        return self._jail.run(code, keep=True)

    def close(self) -> None:
        if self._jail is not None:
            if self._jail.alive:
                self._jail.forget()
                self._sandbox.give(self._jail)
            self._jail = None


class _Jail:
    """One `bwrap` and the zygote in it. One call at a time."""

    def __init__(self, command: Sequence[str], limits: Limits, preload: Sequence[str]) -> None:
        self.limits = limits
        self.alive = True
        # Its own session, so that Ctrl-C in the terminal is for the run, which closes its jails.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, bufsize=0)
        settings = {**asdict(limits), "filter": seccomp_filter().hex(), "paths": list(package_folders().values()), "preload": list(preload)}
        try:
            self._send(settings)
            self._receive(time.monotonic() + START)
        except (OSError, EOFError, TimeoutError) as error:
            said = self._last_words()
            self.close()
            raise InputError(
                f"bubblewrap could not set up a jail here: {said or error}. It needs user namespaces, nested ones too: see "
                "/proc/sys/user/max_user_namespaces, in containers their seccomp profile, on Ubuntu kernel.apparmor_restrict_unprivileged_userns; "
                "or use the safe interpreter"
            ) from error

    def run(self, code: str, *, keep: bool, archive: bytes | None = None) -> Result:
        """The result of a call. keep: the next call goes on from its state. archive: files to start in."""
        no = refused(code, self.limits)
        if no is not None:
            return no
        try:
            self._send({"code": code, "keep": keep, "files": base64.b64encode(archive).decode() if archive else None})
            answer = self._receive(time.monotonic() + self.limits.seconds + GRACE)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            status: Status = "timeout" if isinstance(error, TimeoutError) else "killed"
            return Result(status, error=explain(status, self.limits), seconds=self.limits.seconds)
        return result_of(answer, self.limits)

    def forget(self) -> None:
        """End the state that calls kept."""
        try:
            self._send({"end": True})
            self._receive(time.monotonic() + GRACE)
        except (OSError, EOFError, TimeoutError, ValueError):
            self.close()

    def close(self) -> None:
        """End the jail, with everything in it."""
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            # bwrap's child is the first process of the namespace, and ends with it.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _send(self, message: dict[str, Any]) -> None:
        stream = self._process.stdin
        assert stream is not None
        data = json.dumps(message).encode()
        left = memoryview(len(data).to_bytes(4, "big") + data)
        while left:
            left = left[stream.write(left) or 0 :]

    def _receive(self, deadline: float) -> dict[str, Any]:
        return json.loads(self._read(int.from_bytes(self._read(4, deadline), "big"), deadline))

    def _read(self, count: int, deadline: float) -> bytes:
        stream = self._process.stdout
        assert stream is not None
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("the jail does not answer")
            part = stream.read(count - len(data))
            if not part:
                raise EOFError("the jail ended")
            data += part
        return data

    def _last_words(self) -> str:
        stream = self._process.stderr
        assert stream is not None
        said = b""
        while select.select([stream], [], [], 1.0)[0] and (part := stream.read(4096)):
            said += part
        return said.decode(errors="replace").strip()[-500:]


def result_of(answer: dict[str, Any], limits: Limits) -> Result:
    """The zygote's answer as a result, everything cut to the limit."""
    status: Status = answer["status"]
    if status not in get_args(Status):
        status = "killed"
    printed = cast(str, answer["stdout"])
    value, error = answer.get("value"), answer.get("error")
    if len(printed) > limits.output:
        status, printed, value, error = "output-limit", printed[: limits.output], None, None
    if status != "ok" and error is None:
        error = explain(status, limits)
    value, error = (None if text is None else cut(text, limits.output) for text in (value, error))
    return Result(status, printed, value, error, answer["seconds"])


def command() -> list[str]:
    """The command line of a jail. Raises InputError where there is no bubblewrap."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise InputError(f"the jail needs bubblewrap, and there is no program 'bwrap' here; install it ({INSTALL}), or use the safe interpreter")
    seccomp_filter()
    program, prefix = Path(os.path.realpath(sys.executable)), Path(os.path.realpath(sys.base_prefix))
    # /tmp is the call's own, so an interpreter that is installed below it moves.
    moved = Path("/python") if prefix.is_relative_to("/tmp") else prefix
    python = moved / program.relative_to(prefix)
    devices = [part for name in ("null", "zero", "full", "random", "urandom") for part in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    user = [] if os.getuid() == 0 else ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    environment = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **({"LD_LIBRARY_PATH": f"{moved}/lib"} if moved != prefix else {}),
    }
    return [
        *(bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", *user),
        *("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"),
        *(part for name, value in environment.items() for part in ("--setenv", name, value)),
        *_system(),
        *([] if prefix.is_relative_to("/usr") else _shown(prefix, moved)),
        *(part for here, there in package_folders().items() for part in _shown(Path(here), Path(there))),
        *("--tmpfs", "/dev", *devices, "--symlink", "/tmp", "/dev/shm", "--remount-ro", "/dev"),
        *("--tmpfs", "/tmp", "--proc", "/tmp/proc"),
        *("--ro-bind", str(ZYGOTE), "/zygote.py", "--remount-ro", "/"),
        *("--chdir", "/", str(python), "-s", "-P", "-B", "/zygote.py"),
    ]


def _system() -> list[str]:
    """The system's programs and libraries, read-only. Of /etc only what finds libraries."""
    shown = ["--ro-bind", "/usr", "/usr"]
    for folder in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            shown += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            shown += ["--ro-bind", folder, folder]
    for place in ("/etc/ld.so.cache", "/etc/alternatives", "/nix/store"):
        if os.path.exists(place):
            shown += ["--perms", "0755", "--dir", os.path.dirname(place), "--ro-bind", place, place]
    return shown


def _shown(here: Path, there: Path) -> list[str]:
    """A folder, read-only."""
    if here in (Path("/"), Path.home()):
        raise InputError(f"Python is installed in {here}, which a jail must not show; use an interpreter in a folder of its own")
    # Folders on the way there are made by bubblewrap, and would be closed to the jail's user.
    parents = [part for parent in [*reversed(there.parents)][1:] for part in ("--perms", "0755", "--dir", str(parent))]
    return [*parents, "--ro-bind", str(here), str(there)]


def package_folders() -> dict[str, str]:
    """Folders of the packages of this environment, which code in the jail may import, and where they lie there."""
    folders = [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]
    found = [folder for folder in dict.fromkeys(map(os.path.realpath, folders)) if os.path.isdir(folder)]
    return {folder: f"/packages/{i}" for i, folder in enumerate(found)}
