"""`repos:FOLDER` and `swebench:FILE,CLONES`: software tasks as a task set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.tasks.base import Environment
from etude.tasks.finite import FiniteTasks
from etude.tasks.options import settings_in
from etude.tasks.repos.actions import CLOSE, INSTRUCTION, shown
from etude.tasks.repos.environment import RepositoryEnvironment
from etude.tasks.repos.instances import Instance, read_instances
from etude.tasks.repos.lessons import solution_actions
from etude.tasks.repos.store import GitError, GitStore
from etude.tasks.repos.testing import TestRunner
from etude.tasks.repos.verdict import Verdict, verdict
from etude.types import Message, Task, Trajectory

BANK, REPOSITORIES = "tasks.jsonl", "repositories"
"""What a bank's folder holds: the tasks, and a folder with a bundle for each repository."""
OPTIONS = {
    "turns": "actions of an episode",
    "seconds": "of one run of tests",
    "memory": "bytes of one run of tests",
    "output": "characters of a run that are shown",
    "workers": "runs at once",
}
COUNTED = ("edits", "test_runs", "invalid_actions", "empty_patch", "forged")
"""Tags of an episode that are recorded as components too, without weight."""
MOST_VERDICTS = 5000
"""Verdicts that are kept."""
MOST_VISIBLE = 10
"""Failing tests that a prompt names."""
_PATCH = re.compile(r"```(?:diff|patch)[^\S\n]*\n(.*?)```", re.DOTALL)


class RepositoryTasks(FiniteTasks):
    """Repositories with a fault, and hidden tests that say whether it is mended.

    A task shows its issue and, where the instance names some, failing tests that can be run. What decides (the hidden tests, the solution) is kept here and is in no
    `Task`, so that whoever handles tasks and trajectories cannot show it.

    Tasks whose line says "split": "train" are trained on, all others are held out.
    """

    max_new_tokens = 1024
    stop = (CLOSE,)
    without_training = 'give lines "split": "train"'

    def __init__(
        self,
        name: str,
        instances: Sequence[Instance],
        sources: Mapping[str, Path],
        *,
        turns: int = 20,
        seconds: float = 30.0,
        memory: int = 1 << 30,
        output: int = 4000,
        workers: int = 0,
    ) -> None:
        """sources: where each instance's `repo` lies (a clone or a bundle). Raises InputError for a base commit that is not there, MissingExtra without pytest."""
        if turns < 2 or output < 200:
            raise InputError(f"turns is {turns}, output {output}; expected at least 2 and 200")
        self.name, self.max_turns, self.output = name, turns, output
        self._instances = {instance.id: instance for instance in instances}
        self._stores = {repo: GitStore(sources[repo]) for repo in dict.fromkeys(instance.repo for instance in instances)}
        self._starts = {instance.id: self._start(instance) for instance in instances}
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self.runner = TestRunner(seconds=seconds, memory=memory, workers=workers)
        tasks = {instance.id: _task(instance, self._stores[instance.repo], self._starts[instance.id]) for instance in instances}
        train = [tasks[instance.id] for instance in instances if instance.split == "train"]
        super().__init__(train, [tasks[instance.id] for instance in instances if instance.split != "train"])

    @classmethod
    def from_bank(cls, spec: str) -> RepositoryTasks:
        """From `FOLDER` or `FOLDER:option=value,...`, a bank as `scripts/make_repo_bank.py` makes it."""
        place, options = with_options(spec, f"--tasks repos:{spec}")
        folder = Path(place).expanduser()
        if not (folder / BANK).is_file():
            raise InputError(f"--tasks repos:{spec}: there is no {folder / BANK}; expected a folder made by scripts/make_repo_bank.py, or repos:micro")
        instances = read_instances(folder / BANK)
        return cls(f"repos-{folder.name}", instances, clones_of(folder / REPOSITORIES, instances), **options)

    @classmethod
    def from_swebench(cls, spec: str) -> RepositoryTasks:
        """From `FILE.jsonl,CLONES` (and `:option=value,...`): a file in the format of SWE-bench, and a folder with clones of its repositories."""
        place, options = with_options(spec, f"--tasks swebench:{spec}")
        file, comma, clones = place.partition(",")
        if not comma or not Path(file).expanduser().is_file() or not Path(clones).expanduser().is_dir():
            raise InputError(f"--tasks swebench:{spec}: expected FILE.jsonl,FOLDER: an existing file, and a folder with a git clone of each repository")
        path = Path(file).expanduser()
        instances = read_instances(path)
        return cls(path.stem, instances, clones_of(Path(clones).expanduser(), instances), **options)

    def instance(self, task: Task) -> Instance:
        """What is behind a task: for verifiers and those who make tasks, never for whoever attempts or selects."""
        return self._instances[task.info["instance"]]

    def start_of(self, task: Task) -> tuple[GitStore, str]:
        """The store that a task's repository is in, and the tree that it starts from."""
        instance = self.instance(task)
        return self._stores[instance.repo], self._starts[instance.id]

    def judge(self, task: Task, tree: str) -> Verdict:
        """What the hidden tests say of a version of the repository. They run once for each version of late."""
        store, start = self.start_of(task)
        key = (task.id, tree)
        judged = self._verdicts.get(key)
        if judged is None:
            judged = verdict(store, self.runner, self.instance(task), start, tree)
            # A run that was cut short, by a busy machine perhaps, is no lasting knowledge.
            if judged.resolved or judged.pass_to_pass > 0:
                if len(self._verdicts) >= MOST_VERDICTS:
                    self._verdicts.clear()
                self._verdicts[key] = judged
        return judged

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        """The verdict on a text that is a patch, or holds one as its last block marked as `diff`: for models that write it at one go."""
        blocks = _PATCH.findall(text)
        store, start = self.start_of(task)
        try:
            tree = store.apply(start, blocks[-1] if blocks else text)
        except GitError:
            return {"correct": 0.0, "applies": 0.0}
        return {"correct": float(self.judge(task, tree).resolved), "applies": float(tree != start)}

    def conversation(self, task: Task, seed: int) -> Sequence[Message] | None:
        """An episode that carries out the solution; None where the instance has none, or where actions cannot carry it out in the turns that there are."""
        store, start = self.start_of(task)
        turns = solution_actions(store, start, self.instance(task).patch) if self.instance(task).patch else None
        if turns is None or len(turns) > self.max_turns:
            return None
        environment = self.environment()
        messages = list(environment.reset(task))
        for turn in turns:
            messages += [Message("assistant", turn), *environment.step(turn).messages]
        return messages

    def verify_trajectory(self, trajectory: Trajectory) -> Mapping[str, float]:
        """Of an episode, what was counted of it; the environment has judged it. Else the verdict on the text as a patch."""
        if "environment_reward" not in trajectory.tags:
            return super().verify_trajectory(trajectory)
        return {name: float(trajectory.tags[name]) for name in COUNTED if name in trajectory.tags}

    def environment(self) -> Environment:
        return RepositoryEnvironment(self)

    def close(self) -> None:
        """End the jail's processes and remove the private object stores; both end with this process in any case."""
        self.runner.close()
        for store in self._stores.values():
            store.close()

    def _start(self, instance: Instance) -> str:
        try:
            return self._stores[instance.repo].tree_of(instance.base_commit)
        except GitError as error:
            raise InputError(
                f"{instance.place}: {instance.repo} has no commit {instance.base_commit!r} here, which {instance.id!r} starts from; fetch it into the clone, "
                "or clone again with full history"
            ) from error


def clones_of(folder: Path, instances: Sequence[Instance]) -> dict[str, Path]:
    """Where the repository of each instance lies in a folder of clones. Raises InputError where one does not."""
    return {instance.repo: clone_of(folder, instance) for instance in instances}


def clone_of(folder: Path, instance: Instance) -> Path:
    """Where a repository lies in a folder of clones: as `owner__name`, `owner/name` or `name`, bare (`.git`) or not, or as a bundle. Raises InputError where it does not."""
    if not instance.repo or ".." in Path(instance.repo).parts or Path(instance.repo).is_absolute():
        raise InputError(f"{instance.place}: 'repo' is {instance.repo!r}; expected owner/name")
    names = (instance.repo.replace("/", "__"), instance.repo, instance.repo.rpartition("/")[2])
    for name in names:
        for ending in ("", ".git", ".bundle"):
            place = folder / f"{name}{ending}"
            if place.is_dir() or (ending == ".bundle" and place.is_file()):
                return place
    raise InputError(
        f"{instance.place}: there is no clone of {instance.repo} in {folder}; expected {folder / names[0]}, for example by git clone URL {names[0]}"
    )


def _task(instance: Instance, store: GitStore, start: str) -> Task:
    top = dict.fromkeys(path.split("/", 1)[0] + ("/" if "/" in path else "") for path in store.paths(start))
    parts = [INSTRUCTION, f"The repository: {' '.join(top)}", f"The issue:\n{instance.problem.strip()}"]
    if instance.visible:
        more = len(instance.visible) - MOST_VISIBLE
        named = [*instance.visible[:MOST_VISIBLE], *([f"and {more} more"] if more > 0 else [])]
        parts.append("Tests that fail now and should pass:\n" + "\n".join(named))
    look = f"view {instance.visible[0].partition('::')[0]}" if instance.visible else "list"
    parts.append(f"One action a turn. Look before you edit; a first turn could be\n{shown(look)}")
    return Task(instance.id, (Message("user", "\n\n".join(parts)),), info={"instance": instance.id, "repo": instance.repo})


def with_options(spec: str, said: str) -> tuple[str, dict[str, Any]]:
    """What stands before the options, and the options. Raises InputError for unknown ones, and for what is no number."""
    place, colon, options = spec.rpartition(":")
    if not colon or "=" not in options:
        return spec, {}
    settings = settings_in(options, said, OPTIONS, example="turns=12,seconds=10")
    for name, value in settings.items():
        if not isinstance(value, (int, float)):
            raise InputError(f"{said}: {name} is {value!r}; expected a number, as in turns=12,seconds=10")
    return place, dict(settings)
