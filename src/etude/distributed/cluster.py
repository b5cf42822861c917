"""A Ray cluster: reached at its address, or started on this machine for as long as the run lasts."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etude.config import RayConfig
from etude.errors import InputError, MissingExtra, first_line

REACH_SECONDS = 5.0
"""How long the machine at an address may take to answer."""
SAMPLERS = 2
"""Samplers where nobody says how many."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_worker_niceness": "0"}
"""Ray tells nobody what it is used for, leaves the devices of processes alone that ask for none, and gives its workers the priority that this process has."""


def check_options(config: RayConfig) -> None:
    """Raises InputError for options of Ray without `--engine ray`, and for an address that is none; MissingExtra where ray is not installed."""
    if config.engine == "local":
        given = [
            name for name in ("samplers", "env_workers", "learners", "max_staleness", "ray_address", "worker_threads", "sampler_gpus") if getattr(config, name)
        ]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise InputError(
                f"{flag} is {getattr(config, given[0])}, and --engine local has no such processes; expected --engine ray with it, or {flag} left out"
            )
        return
    import_ray()
    if config.ray_address is not None:
        _parsed(config.ray_address)


def import_ray() -> Any:
    """The package, told to keep to itself. Raises MissingExtra."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "--engine ray") from error
    return ray


class Cluster:
    """A connection to Ray. One that this process has already is used as it is, and is left open; one that is made here is closed by `close`.

    cpus, gpus: what the run's processes will ask for together. Raises InputError for a cluster that nobody answers for, or that has less.
    """

    def __init__(self, config: RayConfig, *, cpus: int, gpus: float = 0.0) -> None:
        self.ray = import_ray()
        self._own = not self.ray.is_initialized()
        if self._own:
            with _signals_kept():
                self._connect(config, cpus)
        self._check_room(cpus, gpus)

    def _connect(self, config: RayConfig, cpus: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        address = config.ray_address
        if address is None:
            # Never one that happens to run here: RAY_ADDRESS is somebody else's.
            self.ray.init(address="local", num_cpus=cpus, **quiet)
            return
        del quiet["include_dashboard"]
        if address != "auto":
            _knock(address)
        try:
            self.ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(
                f"no Ray cluster can be reached at --ray-address {address}: {first_line(error)}; start one with `ray start --head`, or leave the option out"
            ) from error

    def _check_room(self, cpus: int, gpus: float) -> None:
        there = self.ray.cluster_resources()
        for name, wanted in (("CPU", cpus), ("GPU", gpus)):
            if wanted > there.get(name, 0.0):
                self.close()
                raise InputError(
                    f"samplers and environment workers ask for {wanted:g} {name}s, and the Ray cluster has {there.get(name, 0.0):g}; "
                    "lower --samplers, --env-workers, --worker-threads or --sampler-gpus, or use a larger cluster"
                )

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        if self._own and self.ray.is_initialized():
            self.ray.shutdown()


def _parsed(address: str) -> tuple[str, int] | None:
    """Host and port; None for `auto`. Raises InputError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return None
    if not host or not port.isdigit() or address.startswith("ray://"):
        raise InputError(f"--ray-address is {address!r}; expected host:port of a cluster's head, such as 10.0.0.1:6379, or auto")
    return host, int(port)


def _knock(address: str) -> None:
    """Ray itself would try for minutes before it says that nobody is there."""
    where = _parsed(address)
    assert where is not None
    try:
        socket.create_connection(where, timeout=REACH_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"nobody answers at --ray-address {address} ({error}); expected the head of a Ray cluster that runs. Start one there with `ray start --head`, or leave "
            "the option out for one on this machine"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray ends a process at SIGTERM by itself; a run has a checkpoint to write first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
