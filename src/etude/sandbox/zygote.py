"""The process inside the jail that calls are forked from. Standard library only; it is run as a script, and nothing else of Étude is visible there.

The jail around it (jail.py) shows it a read-only system, no network and no other process. It never runs a model's code itself. For each call it clones a child into user,
process and mount namespaces of its own, with an empty /tmp that covers everything writable and /proc. The child limits itself, gives up every capability, installs the
filter of system calls and only then reads the code. When the call is over, or has used up a limit, the child is killed: it is the first process of its namespace, so that
the kernel ends whatever it started with it. No call sees what another one left.

Requests and answers are frames of JSON on standard input and output: four bytes of length, then the text.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import ctypes
import importlib
import io
import json
import linecache
import math
import os
import random
import resource
import select
import signal
import socket
import sys
import tarfile
import time
import traceback
import types
from typing import Any

LENGTH = 4
MOST_ANSWER = 8 * 2**20
"""Bytes of an answer from a child at most. It may be forged: the code of a call can write to any of its files."""
TICK = 0.02
"""Seconds between looks at the memory of a running call."""
INSIDE = 1000
"""User and group in the jail."""
UNPRIVILEGED = 65534
"""The user that the zygote becomes where it was started as root, whom the kernel's limit on processes does not bind."""
WORK = "/tmp/work"
"""Where the files lie that a call is given; it starts there."""
INODE = 16384
"""Bytes of the private /tmp for which it may hold one more file or folder."""
PROC = "/tmp/proc"
"""Where /proc lies for the zygote; a call's own /tmp covers it."""

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
MS_NOSUID, MS_NODEV = 2, 4

# With the interpreter's lock held throughout, as os.fork holds it.
libc = ctypes.PyDLL(None, use_errno=True)


# Frames


def frame(message: dict[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(LENGTH, "big") + data


def read_exactly(stream: io.BufferedIOBase | Any, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = stream.read(count - len(data))
        if not part:
            return None
        data += part
    return data


def read_frame(stream: io.BufferedIOBase | Any) -> dict[str, Any] | None:
    """The next message, or None at the end."""
    head = read_exactly(stream, LENGTH)
    data = read_exactly(stream, int.from_bytes(head, "big")) if head else None
    return json.loads(data) if data else None


# The child


def checked(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def clone_apart() -> int:
    """Like os.fork, with the child in namespaces of its own."""
    flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | signal.SIGCHLD
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = libc.syscall(SYS_CLONE[os.uname().machine], flags, 0, 0, 0, 0)
    number = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone into new namespaces: {os.strerror(number)}")
    return pid


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Filter(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("program", ctypes.c_char_p))


def confine(settings: dict[str, Any], user: int, group: int) -> None:
    """Everything that separates the child from the zygote and limits it, up to the point of no return."""
    for name, value in (("setgroups", "deny"), ("uid_map", f"{INSIDE} {user} 1"), ("gid_map", f"{INSIDE} {group} 1"), ("oom_score_adj", "1000")):
        with open(f"{PROC}/self/{name}", "w") as file:
            file.write(value)
    room = f"size={settings['disk']},nr_inodes={max(1024, settings['disk'] // INODE)},mode=700"
    checked(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, room.encode()), "mount /tmp")
    os.chdir("/tmp")
    limits = {
        resource.RLIMIT_AS: settings["memory"],
        resource.RLIMIT_CPU: math.ceil(settings["processor"]),
        resource.RLIMIT_NPROC: settings["processes"],
        resource.RLIMIT_FSIZE: settings["file"],
        resource.RLIMIT_NOFILE: settings["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))
    # Three sets of 64 bits, in halves: none effective, permitted or inheritable.
    checked(libc.capset(ctypes.byref(Header(0x20080522, 0)), (ctypes.c_uint32 * 6)()), "capset")
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    program = bytes.fromhex(settings["filter"])
    checked(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(Filter(len(program) // 8, program)), 0, 0), "seccomp")


def serve_calls(control: socket.socket, settings: dict[str, Any]) -> None:
    """Run code as it comes, all of it in one namespace."""
    sys.setrecursionlimit(settings["recursion"])
    random.seed(0)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    stream = control.makefile("rb")
    while (request := read_frame(stream)) is not None:
        refusal = unpacked(request["files"]) if request.get("files") else None
        control.sendall(frame(refusal or run(request["code"], module.__dict__, settings)))


def unpacked(files: str) -> dict[str, Any] | None:
    """Lay out a tar archive in WORK and go there; the call's answer where that fails. It needs no trust: the process is confined already."""
    try:
        os.makedirs(WORK, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(files))) as archive:
            # Early releases of Python 3.11 have no filters, and do without.
            archive.extraction_filter = getattr(tarfile, "tar_filter", None)
            archive.extractall(WORK)
        os.chdir(WORK)
    except (OSError, tarfile.TarError) as error:
        return {"status": "error", "value": None, "error": f"the files of this call could not be laid out: {error}"}
    return None


def run(code: str, names: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Execute code as a console would: the value of a last expression is part of the answer."""
    status, value, error = "ok", None, None
    linecache.cache["<tool>"] = (len(code), None, code.splitlines(True), "<tool>")
    try:
        tree = ast.parse(code, "<tool>")
        last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
        exec(compile(tree, "<tool>", "exec"), names)
        if last is not None:
            given = eval(compile(last, "<tool>", "eval"), names)
            value = None if given is None else repr(given)
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            status, error = "error", f"SystemExit: {leaving.code}"
    except MemoryError:
        status = "memory"
    except BaseException as raised:
        status, error = "error", described(raised)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    limit = settings["output"]
    # One character more shows the other side that something was left out.
    return {"status": status, "value": value if value is None else value[: limit + 1], "error": error if error is None else error[-8 * limit :]}


def described(raised: BaseException) -> str:
    """The traceback, from the code's own first line on."""
    try:
        trace = raised.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != "<tool>":
            trace = trace.tb_next
        return "".join(traceback.format_exception(type(raised), raised, trace)).rstrip("\n")
    except BaseException:
        return f"{type(raised).__name__}"


# The zygote's side


class Child:
    """A confined process that runs the code of one call or one session."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        user, group = os.getuid(), os.getgid()
        self.control, theirs = socket.socketpair()
        self.output, written = os.pipe()
        self.pid = clone_apart()
        if self.pid == 0:
            self._become(theirs, written, user, group)
        theirs.close()
        os.close(written)
        self.control.settimeout(settings["seconds"])
        self.alive = True

    def _become(self, control: socket.socket, written: int, user: int, group: int) -> None:
        """The child's whole life."""
        code = 0
        try:
            number = control.detach()
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(written, 1)
            os.dup2(written, 2)
            os.dup2(number, 3)
            os.closerange(4, 1 << 16)
            confine(self.settings, user, group)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", errors="replace"), open(2, "w", errors="replace")  # noqa: SIM115
            serve_calls(socket.socket(fileno=3), self.settings)
        except BaseException:
            code = 70
            os.write(2, traceback.format_exc().encode()[-2000:])
        finally:
            os._exit(code)

    def run(self, code: str, files: str | None = None) -> dict[str, Any]:
        """Run code in the child. Every way in which that can end gives an answer; `alive` says whether the child is fit for more. files: a tar archive in base 64."""
        began = time.monotonic()
        printed = bytearray()
        answer = self._exchange({"code": code, "files": files}, began + self.settings["seconds"], printed)
        if answer["status"] not in ("ok", "error"):
            self.end()
        answer["seconds"] = time.monotonic() - began
        answer["stdout"] = printed.decode("utf-8", "replace")
        return answer

    def _exchange(self, request: dict[str, Any], deadline: float, printed: bytearray) -> dict[str, Any]:
        try:
            self.control.sendall(frame(request))
        except TimeoutError:
            return {"status": "timeout"}
        except OSError:
            return self._death()
        # Characters have up to four bytes; the host cuts by characters.
        most = 4 * self.settings["output"] + 4
        received = bytearray()
        look = time.monotonic() + TICK
        while True:
            now = time.monotonic()
            if now >= deadline:
                return {"status": "timeout"}
            if now >= look:
                look = now + TICK
                if self._memory() > self.settings["memory"]:
                    return {"status": "memory"}
            ready, _, _ = select.select([self.control, self.output], [], [], max(0.0, min(deadline, look) - now))
            if self.output in ready:
                printed += os.read(self.output, 1 << 16)
                if len(printed) > most:
                    return {"status": "output-limit"}
            if self.control in ready:
                try:
                    part = self.control.recv(1 << 16)
                except OSError:
                    part = b""
                if not part:
                    self._drain(printed, most)
                    return self._death()
                received += part
                answer = parsed(received)
                if answer is not None:
                    self._drain(printed, most)
                    return {"status": "output-limit"} if len(printed) > most else answer

    def _drain(self, printed: bytearray, most: int) -> None:
        """What was printed and not read yet: it was written before the answer."""
        while len(printed) <= most and select.select([self.output], [], [], 0)[0]:
            part = os.read(self.output, 1 << 16)
            if not part:
                return
            printed += part

    def _death(self) -> dict[str, Any]:
        """How the child ended without an answer."""
        self.alive = False
        os.kill(self.pid, signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGKILL and used.ru_utime + used.ru_stime >= self.settings["processor"]:
                return {"status": "timeout"}
            return {"status": "killed", "error": f"the process was ended by {signal.Signals(number).name} before the code had ended"}
        return {"status": "killed", "error": f"the process ended with exit code {os.WEXITSTATUS(status)} before the code had ended"}

    def _memory(self) -> int:
        """Bytes of memory of everything that the call started: whatever lives here besides the jail's own first process and the zygote."""
        pages = 0
        for name in os.listdir(PROC):
            if name.isdigit() and int(name) not in (1, os.getpid()):
                with contextlib.suppress(OSError, ValueError), open(f"{PROC}/{name}/statm") as file:
                    pages += int(file.read().split()[1])
        return pages * resource.getpagesize()

    def end(self) -> None:
        """Kill the child, and with it whatever lives in its namespace."""
        if self.alive:
            self.alive = False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        self.end()
        self.control.close()
        os.close(self.output)


def parsed(received: bytearray) -> dict[str, Any] | None:
    """The child's answer, or None where more is to come. Only texts are taken from it, and only known ones: the code may have written it."""
    if len(received) < LENGTH:
        return None
    length = int.from_bytes(received[:LENGTH], "big")
    broken = {"status": "killed", "error": "the code wrote to the channel of its interpreter"}
    if length > MOST_ANSWER:
        return broken
    if len(received) < LENGTH + length:
        return None
    try:
        answer = json.loads(bytes(received[LENGTH : LENGTH + length]))
        status, value, error = answer["status"], answer["value"], answer["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return broken
    if status not in ("ok", "error", "memory") or not isinstance(value, str | None) or not isinstance(error, str | None):
        return broken
    return {"status": status, "value": value, "error": error}


def main() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    settings = read_frame(requests)
    if settings is None:
        return
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        # Else the files of this process in /proc belong to root, and no user namespace could be set up.
        checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")
    sys.path += settings["paths"]
    for name in settings["preload"]:
        importlib.import_module(name)
    child: Child | None = Child(settings)
    # What a machine forbids shows in the first child, and has to show now.
    tried = child.run("1")
    child.close()
    if tried["status"] != "ok":
        sys.exit(f"{tried['stdout']}{tried.get('error') or tried['status']}")
    child = Child(settings)
    answers.write(frame({"ready": True}))
    answers.flush()
    while (request := read_frame(requests)) is not None:
        if request.get("end"):
            answer = {}
        else:
            child = child or Child(settings)
            answer = child.run(request["code"], request.get("files"))
        answers.write(frame(answer))
        answers.flush()
        if child is not None and not (request.get("keep") and child.alive):
            child.close()
            # The next call finds a child that waits already.
            child = Child(settings)
    if child is not None:
        child.close()


if __name__ == "__main__":
    main()
