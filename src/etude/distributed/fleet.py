"""All processes that a run has on a Ray cluster."""

from __future__ import annotations

from etude.config import InputConfig, RayConfig, SamplerConfig
from etude.distributed.cluster import SAMPLERS, Cluster
from etude.distributed.sampler import RaySampler
from etude.distributed.task_worker import TaskOpening
from etude.distributed.tasks import TaskWorkers, judged_elsewhere, pickled
from etude.models.language import LanguageModel
from etude.settings import is_object
from etude.tasks.base import TaskSet


class Fleet:
    """Reaches or starts the cluster at once, and the processes as they are asked for. on_gpu: whether samplers need GPUs.

    Raises InputError for a cluster that is not there or has not enough.
    """

    def __init__(self, config: RayConfig, *, on_gpu: bool) -> None:
        self.config = config
        self.samplers = config.samplers or SAMPLERS
        self.threads = config.worker_threads or 1
        self.gpus = (config.sampler_gpus or 1.0) if on_gpu else 0.0
        self.cluster = Cluster(config, cpus=self.threads * (self.samplers + config.env_workers), gpus=self.gpus * self.samplers)
        self._open: list[RaySampler | TaskWorkers] = []

    def samples_for(self, policy: LanguageModel, drawn: SamplerConfig) -> RaySampler:
        """Give a policy a sampler in processes of the cluster, in the place of its own. drawn: says which, and with how many slots each."""
        sampler = RaySampler(
            self.cluster.ray,
            policy.model,
            policy.tokenizer,
            eos_ids=sorted(policy.sampler.eos_ids),
            count=self.samplers,
            cpus=self.threads,
            gpus=self.gpus,
            name=policy.name,
            device=policy.device.type,
            slots=drawn.slots,
            back_end=drawn.sampler,
            vllm=drawn.vllm,
            threads=self.threads,
        )
        policy.sampler = sampler
        self._open.append(sampler)
        return sampler

    def judges_for(self, task_set: TaskSet, inputs: InputConfig, *, seed: int, labelled: bool, given: bool) -> TaskSet:
        """The task set with its judging and its environments in processes of the cluster, where there are some for that.

        inputs, seed, labelled: what it was loaded from; given: it was not loaded, but handed in. Raises InputError for one that cannot be sent.
        """
        if not self.config.env_workers:
            return task_set
        by_name = not given and not any(is_object(value) for value in (inputs.tasks, inputs.reward, inputs.env))
        opening = TaskOpening(
            tasks=inputs.tasks if by_name else "",
            reward=inputs.reward if by_name else None,
            env=inputs.env if by_name else None,
            seed=seed,
            labelled=labelled,
            made=None if by_name else pickled(task_set, self.cluster.ray),
            threads=self.threads,
        )
        workers = TaskWorkers(self.cluster.ray, opening, self.config.env_workers, cpus=self.threads)
        self._open.append(workers)
        return judged_elsewhere(task_set, workers)

    def close(self) -> None:
        """End the processes, and the cluster where it was started for them."""
        for crew in self._open:
            crew.close()
        self.cluster.close()
