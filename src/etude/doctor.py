"""`etude doctor`: what is installed, what the machine has, and whether a model loads and generates here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from etude.errors import EtudeError, InputError

State = Literal["ok", "failed", "missing", "fact"]

EXTRAS = {
    "lora": "train a LoRA adapter instead of all weights (--lora-rank)",
    "smollm2": "the embedded 135M-parameter instruct model (--model smollm2)",
    "gym": "reasoning-gym data sets (--tasks gym:NAME)",
    "textworld": "text adventures (--tasks textworld:FOLDER)",
    "scienceworld": "experiments in ScienceWorld (--tasks scienceworld:find-plant), which needs Java",
    "repos": "software tasks: repositories with failing tests (--tasks repos:FOLDER)",
    "math": "compare free-form mathematical answers",
    "translation": "chrF and BLEU of translations (--external-metric chrf, --eval-metrics chrf)",
    "images": "pictures of one's own, and digits (--tasks images:FOLDER, digits)",
    "remote": "measure models behind OpenAI-compatible endpoints (etude eval http://host:port/v1#model)",
    "sandbox": "the safe interpreter for Python that a model wrote (--env python)",
    "vllm": "sample with vLLM (--sampler vllm)",
    "ray": "samplers and environments in processes of their own (--engine ray)",
    "tensorboard": "--track tensorboard",
    "wandb": "--track wandb",
    "trackio": "--track trackio",
    "mlflow": "--track mlflow",
}
"""What each optional extra enables."""
VLLM_SECONDS = 300
"""What starting vLLM may take: it imports for long, and on a GPU it captures graphs."""
RAY_SECONDS = 120
"""What starting a Ray cluster on this machine may take."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `failed` is for what Étude cannot do without; `missing` for what is optional."""

    group: str
    name: str
    state: State
    detail: str


def examine() -> list[Finding]:
    """Look at everything. Takes a few seconds, most of them to import torch."""
    found = [
        Finding("software", "python", "fact", f"{platform.python_version()} ({sys.executable})"),
        Finding("software", "platform", "fact", platform.platform()),
    ]
    found += [_version(package) for package in ("etude", "torch", "transformers")]
    found += _machine()
    found += [
        _attempt("works", "tiny model, transformers engine", _generates),
        _attempt("works", "cache folder", _cache),
        _attempt("works", "temporary folder", lambda: _writable(Path(tempfile.gettempdir()))),
    ]
    found += [_sandbox(backend) for backend in ("safe", "jail")]
    tried = {"vllm": _vllm, "ray": _ray}
    return found + [tried[name]() if name in tried else _extra(name, enables) for name, enables in EXTRAS.items()]


def healthy(findings: list[Finding]) -> bool:
    """False when something that Étude cannot do without failed."""
    return all(finding.state != "failed" for finding in findings)


def as_json(findings: list[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False)


def as_table(findings: list[Finding]) -> RenderableType:
    """The findings for a terminal."""
    marks = {"ok": ("✓", "green"), "failed": ("✗", "bold red"), "missing": ("–", "dim"), "fact": (" ", "")}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    previous = ""
    for finding in findings:
        if previous and finding.group != previous:
            table.add_row()
        mark, style = marks[finding.state]
        # Commands in the details are not markup: `etude[lora]` is meant as it stands.
        table.add_row(finding.group if finding.group != previous else "", Text(mark, style=style), finding.name, Text(finding.detail))
        previous = finding.group
    return table


def _attempt(group: str, name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(group, name, "ok", look())
    except Exception as error:
        return Finding(group, name, "failed", f"{type(error).__name__}: {error}")


def _version(package: str) -> Finding:
    return _attempt("software", package, lambda: importlib.metadata.version(package))


def _machine() -> list[Finding]:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [
        Finding("machine", "CPU", "fact", f"{os.cpu_count()} cores, {affinity} usable{_threads()}"),
        Finding("machine", "memory", "fact", _memory()),
        Finding("machine", "free disk", "fact", f"{_gigabytes(shutil.disk_usage(Path.cwd()).free)} in {Path.cwd()}"),
        _attempt("machine", "fp32 matrix product", _matrix_speed),
        _attempt("machine", "GPU", _gpus),
        _attempt("machine", "ranks", _ranks),
    ]
    return found


def _threads() -> str:
    try:
        import torch
    except ImportError:
        return ""
    return f", {torch.get_num_threads()} threads of torch"


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "not known on this system"
    try:
        # In a container this is what counts.
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        limit = total
    return f"{_gigabytes(min(total, limit))}, {_gigabytes(free)} of the machine's free"


def _matrix_speed(size: int = 1024, seconds: float = 0.3) -> str:
    import torch

    a = torch.ones(size, size)
    torch.mm(a, a)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or count == 0:
        torch.mm(a, a)
        count += 1
    return f"{2 * size**3 * count / passed / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads"


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use"
    shown = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        shown.append(f"cuda:{i} {properties.name}, {_gigabytes(properties.total_memory)}")
    return "; ".join(shown)


def _ranks() -> str:
    import torch

    if not torch.distributed.is_available():
        return "none: this torch was built without torch.distributed (--learner fsdp)"
    backends = [name for name, there in (("gloo", torch.distributed.is_gloo_available()), ("NCCL", torch.distributed.is_nccl_available())) if there]
    return f"several processes may share a model's weights (--learner fsdp), by {' and '.join(backends) or 'nothing that is installed'}"


def _generates() -> str:
    from etude.models.language import LanguageModel
    from etude.models.sampling import Request, SamplingParams
    from etude.types import Message

    policy = LanguageModel.load("tiny")
    prompt = tuple(policy.render([Message("user", "3+4=")]))
    completion = policy.sampler.generate([Request(prompt, SamplingParams(max_new_tokens=8, temperature=0.0))])[0]
    if not completion.tokens:
        raise RuntimeError("no token was generated")
    return f"{len(completion.tokens)} tokens on {policy.device}"


def _vllm() -> Finding:
    """Whether vLLM is installed in a release that is known, and generates what the embedded engine does: in a process of its own, of which it changes a lot."""
    from etude.models.vllm_engine import check_vllm, installed_version

    enables = EXTRAS["vllm"]
    try:
        check_vllm()
    except EtudeError as error:
        return Finding("extras", "vllm", "missing", f"{enables}; {error}")
    return _tried_apart("vllm", f"{enables}; {installed_version()}", vllm_generates, seconds=VLLM_SECONDS)


def vllm_generates() -> str:
    """What vLLM makes of the tiny model here. Raises RuntimeError where it is not what the embedded engine makes of it."""
    from etude.models.language import LanguageModel
    from etude.models.sampling import Request, SamplingParams
    from etude.types import Message

    policy = LanguageModel.load("tiny", sampler="vllm", slots=4)
    request = Request(tuple(policy.render([Message("user", "3+4=")])), SamplingParams(max_new_tokens=8, temperature=0.0))
    here, there = (p.sampler.generate([request])[0].tokens for p in (policy.copy("the same"), policy))
    if here != there:
        raise RuntimeError(f"vLLM generates {there}, and the embedded engine {here}")
    return f"{len(there)} tokens on {policy.device}, as the embedded engine"


def _ray() -> Finding:
    """Whether Ray is installed, and a process of a cluster on this machine answers: in a process of its own, which the cluster ends with."""
    enables = EXTRAS["ray"]
    if (absent := _extra("ray", enables)).state != "ok":
        return absent
    return _tried_apart("ray", enables, ray_answers, seconds=RAY_SECONDS)


def ray_answers() -> str:
    """What a process says that a cluster on this machine starts. Raises InputError where none can be started."""
    from etude.config import RayConfig
    from etude.distributed.cluster import Cluster

    cluster = Cluster(RayConfig(engine="ray"), cpus=1)
    try:
        there = cluster.ray.get(cluster.ray.remote(_process).remote())
    finally:
        cluster.close()
    if there == os.getpid():
        raise RuntimeError("what was meant for another process ran in this one")
    return f"ray {cluster.ray.__version__}: a process that it started on this machine answers"


def _process() -> int:
    return os.getpid()


def _tried_apart(name: str, known: str, look: Callable[[], str], *, seconds: int) -> Finding:
    """What a function of this module says in a process of its own. known: what the finding says besides."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import {look.__name__}; print({look.__name__}())"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("extras", name, "missing", f"{known}: it did not start in {seconds} seconds")
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [f"it ended with exit code {done.returncode}"]
    return Finding("extras", name, "missing" if done.returncode else "ok", f"{known}: {said[-1]}")


def _sandbox(backend: str) -> Finding:
    """Whether code can be run in a back end of the sandbox. None is needed until a model is given a tool."""
    from etude.sandbox import open_sandbox

    try:
        with open_sandbox(backend, workers=1) as sandbox:
            result = sandbox.run(["print(6 * 7)"])[0]
    except InputError as error:
        return Finding("sandbox", backend, "missing", str(error))
    return Finding(
        "sandbox", backend, "ok" if result.stdout == "42\n" else "failed", f"ran a call in {1e3 * result.seconds:.1f} ms" if result.ok else result.text
    )


def _cache() -> str:
    from etude.models.smollm2 import default_cache

    folder = default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    return _writable(folder)


def _writable(folder: Path) -> str:
    with tempfile.TemporaryFile(dir=folder):
        pass
    return f"{folder} is writable"


def _extra(name: str, enables: str) -> Finding:
    """Whether all packages of an extra are installed, whatever way they came."""
    absent = []
    for line in importlib.metadata.requires("etude") or []:
        requirement, _, marker = line.partition(";")
        package = re.match(r"[\w.-]+", requirement.strip())
        if package and re.search(rf"""extra\s*==\s*["']{name}["']""", marker) and not _installed(package[0]):
            absent.append(package[0])
    if absent:
        return Finding("extras", name, "missing", f"{enables}; lacks {', '.join(absent)}: pip install 'etude[{name}]'")
    return Finding("extras", name, "ok", enables)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
