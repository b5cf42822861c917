"""All processes that a run has on a Ray cluster."""

from __future__ import annotations

from etude.config import RayConfig, SamplerConfig
from etude.distributed.cluster import SAMPLERS, Cluster
from etude.distributed.sampler import RaySampler
from etude.models.language import LanguageModel


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
        self._open: list[RaySampler] = []

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

    def close(self) -> None:
        """End the processes, and the cluster where it was started for them."""
        for sampler in self._open:
            sampler.close()
        self.cluster.close()
