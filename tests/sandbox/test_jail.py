"""The jail against code that wants out, or wants everything."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.sandbox import Limits, Result, Sandbox, open_sandbox
from etude.sandbox.jail import JailSandbox, result_of
from etude.sandbox.system_calls import ARCHITECTURES, CLONE, CLONE3, DENIED, SOCKET, seccomp_filter


def missing() -> str:
    """What this machine lacks for a jail, whatever our part of it does: bubblewrap, or namespaces within namespaces. Nothing where it lacks nothing."""
    if shutil.which("bwrap") is None:
        return "needs bubblewrap (apt-get install bubblewrap)"
    apart = ["bwrap", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "unshare", "--user", "true"]
    return "" if subprocess.run(apart, capture_output=True, check=False).returncode == 0 else "needs namespaces, nested ones too, which are forbidden here"


needs_bwrap = pytest.mark.skipif(bool(missing()), reason=missing())
LIMITS = Limits(seconds=2.0, memory=256 * 2**20, output=2000, processes=12, disk=8 * 2**20, file=4 * 2**20)


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    os.environ["ETUDE_TEST_SECRET"] = "hunter2"
    try:
        with open_sandbox("jail", limits=LIMITS, workers=2) as sandbox:
            yield sandbox
    finally:
        del os.environ["ETUDE_TEST_SECRET"]


def one(sandbox: Sandbox, code: str) -> Result:
    return sandbox.run([code])[0]


@needs_bwrap
def test_what_ran_gives_output_and_the_value_of_a_last_expression(jail: Sandbox) -> None:
    result = one(jail, "print('a')\nx = 20\nx * 2 + 2")
    assert (result.status, result.stdout, result.value, result.error, result.text) == ("ok", "a\n", "42", None, "a\n42")
    assert one(jail, "x = 1").text == "(no output)"
    assert one(jail, "import fractions\nfractions.Fraction(1, 3) + 1").value == "Fraction(4, 3)"


@needs_bwrap
def test_an_error_is_shown_from_the_codes_own_first_line_on(jail: Sandbox) -> None:
    result = one(jail, "print('before')\ndef f():\n    return 1 / 0\nf()")
    assert result.status == "error"
    lines = [line for line in result.text.splitlines() if not set(line) <= set(" ~^")]
    assert lines == [
        "before",
        "Traceback (most recent call last):",
        '  File "<tool>", line 4, in <module>',
        "    f()",
        '  File "<tool>", line 3, in f',
        "    return 1 / 0",
        "ZeroDivisionError: division by zero",
    ]


@needs_bwrap
def test_code_that_is_no_python_is_an_error(jail: Sandbox) -> None:
    result = one(jail, "def (")
    assert result.status == "error"
    assert "SyntaxError" in result.text
    assert one(jail, "x" * (LIMITS.code + 1)).text == f"SyntaxError: the code has {LIMITS.code + 1} characters; at most {LIMITS.code} are allowed"


@needs_bwrap
def test_results_come_in_the_order_of_the_calls(jail: Sandbox) -> None:
    codes = [f"import time\ntime.sleep({0.2 if i % 3 == 0 else 0})\n{i}" for i in range(12)]
    assert [r.value for r in jail.run(codes)] == [str(i) for i in range(12)]
    assert jail.run([]) == []


@needs_bwrap
@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("while True: pass", "timeout", "TimeoutError: the code ran for more than 2 seconds"),
        ("import time\ntime.sleep(60)", "timeout", "TimeoutError"),
        ("try:\n    while True: pass\nexcept BaseException:\n    pass", "timeout", "TimeoutError"),
        (
            "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\nwhile True: pass",
            "timeout",
            "TimeoutError",
        ),
        ("x = bytearray(10 ** 10)", "memory", "MemoryError: the code used more than 256 MiB"),
        ("x = []\nwhile True: x.append(bytearray(10 ** 6))", "memory", "MemoryError"),
        ("print('y' * 10 ** 7)", "output-limit", "OutputLimit: the code printed more than 2000 characters"),
        ("while True: print('y')", "output-limit", "OutputLimit"),
        ("import os\nwhile True: os.write(2, b'y' * 4096)", "output-limit", "OutputLimit"),
        ("import os\nos._exit(0)", "killed", "the process ended with exit code 0 before the code had ended"),
        ("import ctypes\nctypes.string_at(0)", "killed", "the process was ended by SIGSEGV"),
        ("def f(): return f()\nf()", "error", "RecursionError"),
        ("import sys\nsys.exit('enough')", "error", "SystemExit: enough"),
        ("input()", "error", "EOFError"),
    ],
)
def test_limits_end_a_call_and_the_model_is_told_which(jail: Sandbox, code: str, status: str, shown: str) -> None:
    result = one(jail, code)
    assert result.status == status
    assert shown in result.text
    assert len(result.text) < 2.2 * LIMITS.output + 200
    assert one(jail, "1 + 1").value == "2"


@needs_bwrap
def test_a_fork_bomb_stays_small_and_ends_with_its_call(jail: Sandbox) -> None:
    marker = "86399.25"
    code = f"""
import os, subprocess
started = []
try:
    while True: started.append(subprocess.Popen(["sleep", "{marker}"]))
except BlockingIOError as error:
    print(len(started) < {LIMITS.processes}, error)
"""
    result = one(jail, code)
    assert result.stdout.startswith("True [Errno 11]")
    assert soon(lambda: not running(marker))

    result = one(jail, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert result.status in ("timeout", "memory")
    assert one(jail, "'alive'").value == "'alive'"


def running(marker: str) -> bool:
    """Whether any process of this machine has a word on its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        os.sched_yield()
    return condition()


@needs_bwrap
def test_many_processes_together_have_the_memory_of_one(jail: Sandbox) -> None:
    code = "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        x = bytearray(b'x' * 60 * 2 ** 20)\n        time.sleep(60)\ntime.sleep(60)"
    assert one(jail, code).status == "memory"


@needs_bwrap
def test_files_are_written_in_a_small_private_folder_only(jail: Sandbox, tmp_path: Path) -> None:
    assert one(jail, "open('/tmp/a', 'w').write('x')\nimport os\nos.listdir('/tmp')").value == "['a']"
    assert one(jail, "import os\nos.listdir('/tmp')").value == "[]"
    assert one(jail, f"import os\nos.path.exists({str(tmp_path)!r})").value == "False"
    for place in ("/x", "/usr/x", "/dev/x", "/etc/x", "/zygote.py", "/packages/0/x.py"):
        result = one(jail, f"open({place!r}, 'w')")
        assert result.status == "error", place
        assert "Read-only file system" in result.text or "Permission denied" in result.text, place
    big = one(jail, "f = open('/tmp/f', 'wb')\nwhile True: f.write(b'x' * 10 ** 6)")
    assert "File too large" in big.text
    full = one(jail, "for i in range(100): open(f'/tmp/{i}', 'wb').write(b'x' * 10 ** 6)")
    assert "No space left" in full.text


@needs_bwrap
def test_secrets_are_not_there_to_be_read(jail: Sandbox) -> None:
    environment = one(jail, "import os\nsorted(os.environ)").text
    assert "SECRET" not in environment
    assert "hunter2" not in one(jail, "import os\nos.environ").text
    home = Path.home()
    assert (
        one(jail, f"import os\n[n for n in os.listdir({str(home)!r}) if n.startswith('.') and n != '.pyenv'] if os.path.exists({str(home)!r}) else []").value
        == "[]"
    )
    for place in ("/etc/passwd", "/etc/shadow", "/root/.ssh", "/proc/1/environ", "/sys/kernel", "/run", "/var"):
        assert "No such file" in one(jail, f"import os\nos.stat({place!r})").text, place


@needs_bwrap
def test_there_is_no_network_and_no_way_to_a_server_of_this_machine(jail: Sandbox) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        assert "Operation not permitted" in one(jail, code).text
    for family in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
        assert "not permitted" in one(jail, f"import socket\nsocket.socket(socket.{family})").text, family
    assert one(jail, "import socket\na, b = socket.socketpair()\na.send(b'x')\nb.recv(1)").value == "b'x'"


@needs_bwrap
def test_processes_outside_can_be_neither_seen_nor_signalled(jail: Sandbox) -> None:
    code = f"""
import os, signal
seen = []
for pid in [{os.getpid()}, {os.getppid()}, *range(2, 3000)]:
    try:
        os.kill(pid, 0)
        seen.append(pid)
    except OSError: pass
os.getpid(), os.getppid(), seen
"""
    assert one(jail, code).value == "(1, 0, [])"
    assert one(jail, "import os\nos.kill(-1, 9)").status in ("error", "ok")
    assert one(jail, "import os\nos.listdir('/proc')").status == "error"


@needs_bwrap
def test_privileges_namespaces_and_tracing_are_out_of_reach(jail: Sandbox) -> None:
    for call in ("unshare(0x10000000)", "mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)", "umount2(b'/tmp', 2)", "ptrace(0, 0, 0, 0)", "setns(0, 0)"):
        assert one(jail, f"import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nc.{call}, ctypes.get_errno()").value == "(-1, 1)", call
    clone = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nc.syscall({number}, 0x10000011, 0, 0, 0, 0), ctypes.get_errno()"
    number = CLONE[ARCHITECTURES[os.uname().machine][1]]
    assert one(jail, clone.format(number=number)).value == "(-1, 1)"
    assert one(jail, "import os\nos.getuid(), os.getgid()").value == "(1000, 1000)"
    for code in ("os.setuid(0)", "os.chroot('/tmp')", "os.sethostname('x')" if hasattr(os, "sethostname") else "os.setuid(0)", "os.nice(-5)"):
        assert one(jail, f"import os\n{code}").status == "error", code


@needs_bwrap
def test_calls_know_nothing_of_each_other(jail: Sandbox) -> None:
    poison = """
import builtins, sys, json, os, threading, time
builtins.len = lambda x: 99
json.dumps = None
sys.modules['math'] = None
left = 1
os.environ['LEFT'] = 'x'
open('/dev/shm/left', 'w').write('x')
if os.fork() == 0:
    time.sleep(30)
"""
    for _ in range(3):
        one(jail, poison)
    clean = "import math, json, os\nlen('ab'), json.dumps(1), math.sqrt(4), 'left' in globals(), 'LEFT' in os.environ, os.listdir('/dev/shm')"
    assert {r.value for r in jail.run([clean] * 4)} == {"(2, '1', 2.0, False, False, [])"}
    assert len({r.value for r in jail.run(["import random\nrandom.random()"] * 4)}) == 1
    assert len({r.value for r in jail.run(["hash('a'), list({'a', 'b', 'c'})"] * 4)}) == 1


@needs_bwrap
@pytest.mark.parametrize("forged", ["b'x' * 100", "b'\\x00\\x00\\x00\\x02{}'", "b'\\xff\\xff\\xff\\xff'", "b'\\x00\\x00\\x00\\x04null'"])
def test_code_that_writes_to_its_interpreters_channel_only_harms_itself(jail: Sandbox, forged: str) -> None:
    result = one(jail, f"import os, time\nos.write(3, {forged})\ntime.sleep(60)")
    assert result.status in ("killed", "timeout")
    assert one(jail, "2").value == "2"
    # With the channel closed there is nothing to answer on.
    assert one(jail, "import os\nos.close(3)").status == "killed"


@needs_bwrap
def test_closing_ends_everything() -> None:
    marker = "86398.75"
    sandbox = open_sandbox("jail", limits=LIMITS, workers=1)
    session = sandbox.session()
    assert session.run(f"import subprocess\np = subprocess.Popen(['sleep', '{marker}'])").ok
    # A process has no command line for a moment while it starts.
    assert soon(lambda: running(marker))
    sandbox.close()
    assert soon(lambda: not running(marker))
    sandbox.close()


@needs_bwrap
def test_a_jail_that_dies_costs_one_call(jail: Sandbox) -> None:
    session = jail.session()
    assert session.run("1").ok
    os.killpg(session._jail._process.pid, 9)  # type: ignore[attr-defined]
    # The processes inside end a moment after the one outside.
    results = [session.run("2")]
    while results[-1].ok and len(results) < 1000:
        results.append(session.run("2"))
    assert (results[-1].status, results[-1].text) == ("killed", "the process was killed before the code had ended")
    assert session.run("3").value == "3"
    session.close()


def test_without_bubblewrap_it_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError, match=r"needs bubblewrap.*apt-get install bubblewrap.*or use the safe interpreter"):
        open_sandbox("jail")


def test_a_bubblewrap_that_cannot_make_namespaces_is_refused_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InputError, match=r"could not set up a jail here: bwrap: No permissions.*max_user_namespaces"):
        open_sandbox("jail", limits=LIMITS)


@needs_bwrap
def test_a_machine_that_forbids_a_part_of_the_confinement_gets_no_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.sandbox.jail.seccomp_filter", lambda: b"\xff" * 8)
    with pytest.raises(InputError, match=r"(?s)could not set up a jail here: .*seccomp: Invalid argument"):
        open_sandbox("jail", limits=LIMITS)


@needs_bwrap
def test_preloaded_modules_are_there_and_unknown_ones_refused() -> None:
    with open_sandbox("jail", limits=LIMITS, workers=1, preload=("decimal",)) as sandbox:
        assert one(sandbox, "import sys\n'decimal' in sys.modules").value == "True"
    with pytest.raises(InputError, match="No module named 'nothing_of_that_name'"):
        open_sandbox("jail", limits=LIMITS, preload=("nothing_of_that_name",))


def test_an_answer_is_cut_and_unknown_statuses_are_not_believed() -> None:
    limits = Limits(output=10)
    result = result_of({"status": "fine", "stdout": "", "value": "v" * 100, "error": None, "seconds": 0.0}, limits)
    assert result.status == "killed"
    assert result.value is not None
    assert result.value.startswith("vvv\n[... 90 characters left out ...]\nvvvvvvv")
    assert result_of({"status": "ok", "stdout": "x" * 11, "seconds": 0.0}, limits).status == "output-limit"


@pytest.mark.parametrize("machine", list(ARCHITECTURES))
def test_the_filter_denies_its_table_and_new_namespaces_and_allows_the_rest(machine: str) -> None:
    audit, column = ARCHITECTURES[machine]
    allow, eperm, enosys, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000

    def verdict(number: int, argument: int = 0, architecture: int = audit) -> int:
        return interpret(seccomp_filter(machine), {0: number, 4: architecture, 16: argument})

    assert all(verdict(numbers[column]) == eperm for numbers in DENIED.values())
    assert verdict(CLONE3[column]) == enosys
    assert verdict(CLONE[column], 17) == allow
    assert verdict(CLONE[column], SOCKET[column]) == allow
    assert all(verdict(CLONE[column], 17 | 1 << bit) == eperm for bit in (17, 25, 26, 27, 28, 29, 30))
    assert verdict(SOCKET[column], 1) == allow
    assert all(verdict(SOCKET[column], family) == eperm for family in (2, 10, 16, 17, 40))
    denied = {n[column] for n in DENIED.values()} | {CLONE3[column], CLONE[column], SOCKET[column]}
    assert all(verdict(number) == allow for number in range(500) if number not in denied)
    assert verdict(0x40000000 | 1) == eperm
    assert verdict(1, architecture=3) == kill


def interpret(program: bytes, data: dict[int, int]) -> int:
    """What the kernel's machine would return for a system call."""
    import struct

    instructions = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            accumulator = data[operand]
            continue
        held = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[code]
        at += yes if held else no


def test_a_machine_whose_system_calls_are_unknown_is_refused() -> None:
    with pytest.raises(InputError, match="this machine is riscv64"):
        seccomp_filter("riscv64")


def archived(files: dict[str, bytes | None], **links: str) -> bytes:
    """A tar archive of files, and of symbolic links."""
    import io
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return stream.getvalue()


@needs_bwrap
def test_a_call_starts_in_a_copy_of_the_files_it_is_given_which_nobody_else_sees(jail: Sandbox, tmp_path: Path) -> None:
    assert isinstance(jail, JailSandbox)
    (tmp_path / "a.txt").write_bytes(b"one\n")
    files = archived({"a.txt": b"one\n", "deep/b.py": b"x = 41\n"})
    code = "import os, sys\nsys.path.insert(0, '')\nfrom deep import b\nopen('a.txt', 'a').write('two')\nos.remove('deep/b.py')\nopen('a.txt').read(), b.x + 1, os.getcwd()"
    assert [jail.run_in(files, code).value for _ in range(2)] == [repr(("one\ntwo", 42, "/tmp/work"))] * 2
    assert one(jail, "import os\nos.path.exists('/tmp/work')").value == "False"
    assert (tmp_path / "a.txt").read_bytes() == b"one\n"


@needs_bwrap
def test_files_that_lead_out_or_do_not_fit_end_their_own_call_only(jail: Sandbox) -> None:
    assert isinstance(jail, JailSandbox)
    for files in (archived({"../out.txt": b"x"}), archived({"/usr/out.txt": b"x"}), archived({"way/out.txt": b"x"}, way="/usr/lib")):
        result = jail.run_in(files, "import os\nos.path.exists('/usr/out.txt') or os.path.exists('/tmp/out.txt')")
        assert result.status == "error" or result.value == "False", result
    large = jail.run_in(archived({f"{i}.bin": b"x" * 2**20 for i in range(9)}), "1")
    assert (large.status, "could not be laid out" in large.text, "No space left" in large.text) == ("error", True, True)
    assert jail.run_in(b"no archive", "1").status == "error"
    assert one(jail, "2").value == "2"
