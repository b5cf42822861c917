"""Samplers, environment workers and learners in processes of a real local Ray cluster, against one process, with processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from etude.api import resume_run, start_run
from etude.config import InputConfig, LearnerConfig, RayConfig, SamplerConfig
from etude.distributed.ahead import open_ahead
from etude.distributed.cluster import Cluster, check_options, import_ray
from etude.distributed.fleet import Fleet
from etude.distributed.task_worker import TaskOpening
from etude.distributed.tasks import TaskWorkers, judged_elsewhere
from etude.driver import drive
from etude.errors import InputError, LearnerLost, MissingExtra, WorkerLost
from etude.method import get_method
from etude.models.fsdp.checks import learner_config
from etude.models.language import LanguageModel
from etude.models.sampling import FinishedEvent, Request, Sampler, SamplingParams, TokenEvent, resumed, stream_key
from etude.run import Run, without_time
from etude.settings import build_config
from etude.settings_file import saved_config, saved_form
from etude.tasks.base import TaskSet
from etude.tasks.loading import load_tasks
from etude.types import Completion, Message, Segment, Trajectory

pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

QUICK: dict[str, Any] = {
    "model": "tiny",
    "device": "cpu",
    "threads": 1,
    "tasks_per_step": 4,
    "group_size": 4,
    "eval_tasks": 4,
    "eval_samples": 2,
    "evaluate_every": 2,
    "quiet": True,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = import_ray()
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


# A sampler


@pytest.fixture(scope="module")
def sampler(cluster: Any) -> Iterator[Any]:
    fleet = Fleet(RayConfig(engine="ray", samplers=2), on_gpu=False)
    yield fleet.samples_for(LanguageModel.load("tiny", device="cpu"), SamplerConfig(slots=64))
    fleet.close()


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    """The same model in this process."""
    return LanguageModel.load("tiny", device="cpu", slots=128)


def asked(policy: LanguageModel, *, tasks: int = 3, each: int = 4, tokens: int = 12, keep: bool = False, alternatives: int = 0) -> list[Request]:
    params = SamplingParams(tokens, ignore_eos=True, alternatives=alternatives)
    prompts = [tuple(policy.render([Message("user", f"{i}+{2 * i + 1}=")])) for i in range(tasks)]
    return [Request(prompt, params, stream_key(i, j), keep=keep) for i, prompt in enumerate(prompts) for j in range(each)]


def same(here: Sequence[Completion], there: Sequence[Completion]) -> None:
    assert [(c.tokens, c.text, c.stop_reason, c.prompt) for c in here] == [(c.tokens, c.text, c.stop_reason, c.prompt) for c in there]
    for one, two in zip(here, there, strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-5)
        assert one.entropies == pytest.approx(two.entropies, abs=1e-5)


def drained(sampler: Sampler) -> dict[int, Completion]:
    done: dict[int, Completion] = {}
    while sampler.pending:
        done |= {e.request: e.completion for e in sampler.step() if isinstance(e, FinishedEvent)}
    return done


def test_two_samplers_write_what_one_writes_and_count_the_same_work(sampler: Any, policy: LanguageModel) -> None:
    requests = asked(policy)
    before, here = sampler.clock.copy(), policy.sampler.clock.copy()
    same(policy.sampler.generate(requests), sampler.generate(requests))
    spent, expected = sampler.clock.since(before), policy.sampler.clock.since(here)
    assert (spent.steps, spent.busy_slot_steps, spent.generated_tokens) == (expected.steps, expected.busy_slot_steps, expected.generated_tokens)
    # A group's prompt is read once: it is with one of the two.
    assert spent.prefill_tokens == expected.prefill_tokens
    assert sampler.slots == 128
    contexts, options = [r.prompt for r in requests[::4]], [[5, 6], [7], [8]]
    for one, two in zip(sampler.score(contexts, options), policy.sampler.score(contexts, options), strict=True):
        assert one == pytest.approx(two, abs=1e-5)


def test_forks_and_every_token_are_those_of_one_process(sampler: Any, policy: LanguageModel) -> None:
    def tree(sampler: Sampler) -> list[Completion]:
        source = sampler.add(asked(policy, tasks=1, each=1, keep=True, alternatives=3)[0])
        seen = [e for _ in range(5) for e in sampler.step(token_events=True) if isinstance(e, TokenEvent)]
        options = seen[2].alternatives
        assert options is not None
        other = next(t for t in options.tokens if t != seen[2].token)
        ids = [source, sampler.fork(source, 2, stream=7), sampler.fork(source, 2, take=other, stream=8)]
        done = drained(sampler)
        ids.append(sampler.fork(source, append=[5, 6], stream=9))
        done |= drained(sampler)
        sampler.release(source)
        assert [e.token for e in seen] == done[source].tokens[:5]
        return [done[i] for i in ids]

    same(tree(policy.sampler), tree(sampler))


def test_what_is_stopped_goes_on_from_the_token_that_was_seen_last(sampler: Any, policy: LanguageModel) -> None:
    requests = asked(policy, each=2)
    whole = policy.sampler.generate(requests)
    ids = [sampler.add(r) for r in requests]
    for _ in range(4):
        sampler.step()
    partial = sampler.abort_all(ids)
    assert [len(c.tokens) for c in partial] == [4] * len(ids)
    same(whole, sampler.generate([resumed(r, c) for r, c in zip(requests, partial, strict=True)]))


def test_new_weights_reach_every_sampler_and_their_version_every_token(sampler: Any, policy: LanguageModel) -> None:
    other = policy.copy("another")
    for parameter in other.model.parameters():
        parameter.data.mul_(0.9)
    requests = asked(policy)
    sampler.update(3, other.model.named_parameters())
    new = sampler.generate(requests)
    sampler.update(4, policy.model.named_parameters())
    old = sampler.generate(requests)
    same(other.sampler.generate(requests), new)
    same(policy.sampler.generate(requests), old)
    assert {v for c in new for v in c.versions} == {3}
    assert {v for c in old for v in c.versions} == {4}


def test_a_killed_sampler_loses_no_token_and_repeats_none(sampler: Any, policy: LanguageModel) -> None:
    requests = asked(policy)
    before = sampler.clock.copy()
    ids = [sampler.add(r) for r in requests]
    seen: list[tuple[int, int]] = []
    done: dict[int, Completion] = {}

    def step() -> None:
        for event in sampler.step(token_events=True):
            if isinstance(event, TokenEvent):
                seen.append((event.request, event.token))
            else:
                done[event.request] = event.completion

    for _ in range(5):
        step()
    killed = sampler.pids[0]
    os.kill(killed, signal.SIGKILL)
    with pytest.warns(UserWarning, match=r"sampler 0 is lost .* requests are issued again"):
        step()
    while sampler.pending:
        step()
    assert sampler.pids[0] != killed
    same(policy.sampler.generate(requests), [done[i] for i in ids])
    assert {i: [t for n, t in seen if n == i] for i in ids} == {i: done[i].tokens for i in ids}
    assert sampler.clock.since(before).generated_tokens == len(seen)


# Environment workers


ENVIRONMENTS = """
import os

class Counting:
    max_turns = 3

    def reset(self, task):
        self.heard = []
        return task.prompt

    def step(self, text):
        self.heard.append(text)
        return " ".join(self.heard), float(len(self.heard)), len(self.heard) == 3

class Moody(Counting):
    def step(self, text):
        return str(os.getpid()), 0.0, False
"""
REWARD = """
import os, signal
from pathlib import Path

def score(task, text):
    once = Path({once!r})
    if once.exists() and not text.strip() == "":
        once.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(text)
"""


def test_attempts_are_judged_in_order_and_again_where_a_worker_dies(cluster: Any, tmp_path: Path) -> None:
    once, code = tmp_path / "once", tmp_path / "reward.py"
    code.write_text(REWARD.format(once=str(once)))
    inputs = InputConfig(reward=f"{code}:score")
    tasks = load_tasks(inputs.tasks, reward=inputs.reward)
    fleet = Fleet(RayConfig(engine="ray", samplers=1, env_workers=2), on_gpu=False)
    elsewhere = fleet.judges_for(tasks, inputs, seed=0, labelled=True, given=False)
    assert isinstance(elsewhere, type(tasks))
    attempts = [Trajectory(tasks.train_task(0, i), [], [Segment([], "policy", "x" * i)], "eos") for i in range(9)]
    expected = [dict(tasks.verify_trajectory(t)) for t in attempts]
    once.touch()
    with pytest.warns(UserWarning, match=r"environment worker \d is lost .* attempts are judged again"):
        elsewhere.prepare(attempts)
    assert not once.exists()
    assert [dict(elsewhere.verify_trajectory(t)) for t in attempts] == expected
    fleet.close()


@contextmanager
def played_elsewhere(cluster: Any, folder: Path, name: str) -> Iterator[tuple[TaskSet, TaskWorkers]]:
    """Tasks in an environment of that name, which one worker holds."""
    code = folder / "environments.py"
    code.write_text(ENVIRONMENTS)
    workers = TaskWorkers(cluster, TaskOpening("arithmetic", None, f"{code}:{name}", 0, True, made=None, threads=1), 1, cpus=1)
    yield judged_elsewhere(load_tasks("arithmetic", env=f"{code}:{name}"), workers), workers
    workers.close()


def test_environments_go_on_where_their_worker_dies(cluster: Any, tmp_path: Path) -> None:
    with played_elsewhere(cluster, tmp_path, "Counting") as (tasks, workers):
        first, second = tasks.environment(), tasks.environment()
        assert first is not None
        assert second is not None
        task = tasks.train_task(0, 0)
        assert [m.content for m in first.reset(task)] == [task.prompt]
        second.reset(task)
        first.begin("one")
        assert first.step("one").reward == 1
        # Both are asked when their worker dies, and one worker takes its place. It is held still first, so that it cannot answer before that.
        os.kill(workers.pids[0], signal.SIGSTOP)
        first.begin("two")
        second.begin("three")
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.warns(UserWarning, match="environments are played again"):
            answer = first.step("two")
        taken = workers.pids[0]
        assert [m.content for m in answer.messages] == ["one two"]
        assert second.step("three").reward == 1
        assert workers.pids == [taken]
        assert first.step("four").done
        first.close()
        second.close()


def test_an_environment_that_answers_otherwise_the_second_time_cannot_be_brought_back(cluster: Any, tmp_path: Path) -> None:
    with played_elsewhere(cluster, tmp_path, "Moody") as (tasks, workers):
        environment = tasks.environment()
        assert environment is not None
        environment.reset(tasks.train_task(0, 0))
        environment.step("one")
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.warns(UserWarning, match="is lost"), pytest.raises(WorkerLost, match="answered otherwise when its episode was played again"):
            environment.step("two")


def test_what_cannot_be_sent_is_said_before_anything_is_computed(cluster: Any, tmp_path: Path) -> None:
    lock = socket.socket()

    def score(task: Any, text: str) -> float:
        return float(lock.fileno())

    with lock, pytest.raises(InputError, match="holds something that no other process can be sent"):
        start_run("grpo", build_config("grpo", out=tmp_path / "run", reward=score, engine="ray", samplers=1, env_workers=1, **QUICK))
    assert not (tmp_path / "run").exists()


# Runs

READ_AGAIN = frozenset({"prompt_tokens", "forward_equivalents", "decode_steps"})
"""What the ledger has more of where a sampler takes another's place and reads what that had read."""


def lines(folder: Path) -> list[dict[str, Any]]:
    return [without_time(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def alike(here: Path, there: Path, *, unlike: frozenset[str] = frozenset()) -> None:
    """Both runs measured and counted the same at every step. unlike: entries of the ledger that may differ."""
    for one, two in zip(lines(here), lines(there), strict=True):
        ledgers = [{k: v for k, v in line.pop("ledger").items() if k not in unlike} for line in (one, two)]
        assert ledgers[0] == ledgers[1]
        # What is left of the losses, whose advantages add up to nothing, is rounding.
        assert two == pytest.approx(one, rel=1e-3, abs=1e-4)


def hooked(slug: str, folder: Path, ended: Callable[[Any], None], **options: Any) -> None:
    """A run in which something happens whenever an attempt has ended, while others are still being written."""
    config = build_config(slug, out=folder, **options)
    run = Run.create(config.run, folder_name="", full_config=saved_form(slug, config))
    method: Any = get_method(slug)(config, run)
    method.ended = lambda _: ended(method)
    drive(method, run)


@pytest.fixture
def started(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs get the sampler whose processes are there already."""

    def samples_for(fleet: Fleet, policy: LanguageModel, drawn: SamplerConfig) -> Any:
        policy.sampler = sampler
        sampler.held_back = False
        policy.weights_changed(0)
        return sampler

    monkeypatch.setattr(Fleet, "samples_for", samples_for)


def test_a_run_whose_sampler_is_killed_learns_what_one_process_learns(cluster: Any, tmp_path: Path) -> None:
    start_run("grpo", build_config("grpo", out=tmp_path / "one", steps=2, **QUICK))
    kills: list[int] = []

    def kill(method: Any) -> None:
        if method.run.step == 2 and not kills:
            kills.append(method.policy.sampler.pids[1])
            os.kill(kills[0], signal.SIGKILL)

    with pytest.warns(UserWarning, match="sampler 1 is lost"):
        hooked("grpo", tmp_path / "two", kill, steps=2, engine="ray", samplers=2, env_workers=1, **QUICK)
    assert kills
    # What the lost one had read is read again by the one in its place, and is counted.
    alike(tmp_path / "one", tmp_path / "two", unlike=READ_AGAIN)


@pytest.mark.parametrize("slug", ["april", "latr", "dars"])
def test_partial_rollouts_trees_and_adaptive_allocation_are_the_same(slug: str, sampler: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        config = build_config(slug, out=tmp_path / name, steps=2, correction="none", **QUICK)
        policy = LanguageModel.load("tiny", device="cpu", slots=128)
        if name == "two":
            policy.sampler = sampler
            policy.weights_changed(0)
        run = Run.create(config.run, folder_name="")
        method: Any = get_method(slug)
        drive(method(config, run, policy=policy), run)
    # What attempts share is read once by each sampler that has some of them.
    alike(tmp_path / "one", tmp_path / "two", unlike=frozenset({"prompt_tokens", "forward_equivalents"}))


def test_generating_ahead_is_bounded_repeats_itself_and_resumes_exactly(started: None, tmp_path: Path) -> None:
    options = {**QUICK, "engine": "ray", "samplers": 1, "max_staleness": 1, "evaluate_every": 3, "checkpoint_every": 3}
    start_run("grpo", build_config("grpo", out=tmp_path / "whole", steps=5, **options))
    start_run("grpo", build_config("grpo", out=tmp_path / "halved", steps=3, **options))
    _, config = saved_config(tmp_path / "halved")
    config.run.steps = 5
    resume_run(tmp_path / "halved", config)
    lags = {line["step"]: line["rollout/lag_max"] for line in lines(tmp_path / "whole") if "rollout/lag_max" in line}
    # Nothing is in flight at the checkpoint of step 3, so that step 4 begins with its weights.
    assert lags == {1: 0, 2: 1, 3: 1, 4: 0, 5: 1}
    alike(tmp_path / "whole", tmp_path / "halved")
    ended = count(1)

    def kill(method: Any) -> None:
        # By the attempts that have ended, 16 to a batch: which step is trained on when those of the second batch end depends on the clock.
        if next(ended) == 20:
            os.kill(method.policy.sampler.pids[0], signal.SIGKILL)

    with pytest.warns(UserWarning, match="sampler 0 is lost"):
        hooked("grpo", tmp_path / "killed", kill, steps=5, **options)
    alike(tmp_path / "whole", tmp_path / "killed", unlike=READ_AGAIN)


def test_a_run_whose_learner_is_killed_goes_on_from_its_checkpoint(started: None, tmp_path: Path) -> None:
    options = {**QUICK, "checkpoint_every": 1, "evaluate_every": 2, "steps": 2}
    start_run("grpo", build_config("grpo", out=tmp_path / "one", **options))

    def kill(method: Any) -> None:
        if method.run.step == 2:
            os.kill(method.learner._ranks.pids[1], signal.SIGKILL)

    with pytest.raises(LearnerLost, match=r"rank 1 was ended by SIGKILL.*the checkpoint of step 1 is kept; go on from it with --resume"):
        hooked("grpo", tmp_path / "two", kill, engine="ray", samplers=1, learners=2, **options)
    assert Run.open(tmp_path / "two").checkpoints.steps() == [0, 1]
    resume_run(tmp_path / "two", saved_config(tmp_path / "two")[1])
    alike(tmp_path / "one", tmp_path / "two")


# What is refused


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    def refused(match: str, slug: str = "grpo", **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            start_run(slug, build_config(slug, out=tmp_path / "run", **QUICK, **options))
        assert not (tmp_path / "run").exists()

    refused("--samplers is 4, and --engine local has no such processes; expected --engine ray", samplers=4)
    refused("--max-staleness is 1, and --engine local", max_staleness=1)
    refused("expected host:port", engine="ray", ray_address="nowhere")


def test_processes_of_learners_have_to_agree(cluster: Any) -> None:
    assert learner_config(LearnerConfig(), 2).ranks == 2
    assert learner_config(LearnerConfig(learner="fsdp", ranks=2), 2).learner == "fsdp"
    with pytest.raises(InputError, match="--learners is 2, and --ranks is 4: both say how many"):
        learner_config(LearnerConfig(learner="fsdp", ranks=4), 2)
    with pytest.raises(InputError, match="--learners is 1, and --learner fsdp has 4 ranks"):
        learner_config(LearnerConfig(learner="fsdp", ranks=4), 1)


def test_a_cluster_that_nobody_answers_for_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_ray(), "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=f"nobody answers at --ray-address {address}"):
            Cluster(RayConfig(engine="ray", ray_address=address), cpus=1)


def test_a_cluster_with_too_little_room_is_refused(cluster: Any) -> None:
    with pytest.raises(InputError, match="ask for 100 CPUs, and the Ray cluster has 8; lower --samplers"):
        Cluster(RayConfig(engine="ray", samplers=100), cpus=100)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--engine ray needs the package 'ray'; install it with: pip install 'etude\[ray\]'"):
        check_options(RayConfig(engine="ray"))


def test_methods_that_cannot_generate_ahead_say_so(cluster: Any, sampler: Any, tmp_path: Path) -> None:
    def opened(slug: str, **options: Any) -> None:
        config = build_config(slug, out=tmp_path / slug, **QUICK, **options)
        policy = LanguageModel.load("tiny", device="cpu")
        method: Any = get_method(slug)(config, Run.create(config.run, folder_name=""))
        method.setup()
        policy.sampler = sampler
        method.policy = policy
        method.criterion = method.objective()
        open_ahead(method, 1)

    with pytest.raises(InputError, match="does not say that its rollouts can go on beside an update; expected --max-staleness 0"):
        opened("sft")
    with pytest.raises(InputError, match="weighs tokens of older weights; expected --correction truncate"):
        opened("grpo", correction="none")
