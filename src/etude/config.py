"""Everything a run can be told, as dataclasses: the command line, YAML files and `etude.train(...)` are all made from these.

Leaf names are unique over the whole configuration, so that each is one flat flag (`--lr`) and one flat keyword (`lr=`). A field's range stands in its
annotation; `etude.settings` checks it, wherever the value came from. Torch is not imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(0)]
AtLeastOne = Annotated[int, Ge(1)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
NO_MODEL = "none"
"""`model` of a run whose tasks bring whatever acts in them."""
NO_STEP_LIMIT = 10**9
"""`steps` of a run that only its budget ends."""


@dataclass
class InputConfig:
    """What acts and what it practises on."""

    model: str = "tiny"
    """Model: `tiny` or `smollm2` (embedded), a Hugging Face folder, or a hub id."""
    tasks: str = "arithmetic"
    """Tasks: a built-in family, a JSONL file, or `gym:NAME` for a reasoning-gym data set."""
    reward: str | None = None
    """Reward of your own: `file.py:function`, called as function(task, text) -> float."""
    env: str | None = None
    """Multi-turn environment of your own: `file.py:Class`; `python`, a tool that runs code the model writes; `revise`, which asks for another look at an answer; `cosc`,
    rounds of programs that are run and checked; or `strategies`, which runs answers that are programs."""
    device: str = "auto"
    """Where the model lives: `auto`, `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` is float32 on CPU and bfloat16 on GPU."""


@dataclass
class RunConfig:
    """The run: its folder, its length, what it keeps."""

    out: Path | None = None
    """Folder for everything the run writes. Default: runs/METHOD-TASKS-seedN, numbered when taken."""
    seed: int = 0
    """Seed of every random choice."""
    steps: Count = 100
    """Steps of the loop at most."""
    budget: str | None = None
    """Stop when spent: a number and a unit, as `400k-tokens`, `20k-rollouts`, `120-seconds`, `50-steps`, `5k-env-steps`, `1k-calls`, `600-evaluations`. `steps` holds
    too."""
    evaluate_every: Count = 10
    """Steps between evaluations on the held-out split (0: only before the first and after the last step)."""
    checkpoint_every: Count = 20
    """Steps between checkpoints (0: only at the end)."""
    keep_last: AtLeastOne = 2
    """Newest checkpoints to keep; the best by held-out score is kept besides."""
    export: Literal["best", "last"] = "best"
    """Weights that go into RUN/model: those with the best held-out score (which flatters them), or those of the last step."""
    save_trajectories: Count = 8
    """Trajectories written to trajectories.jsonl per step, spread over the groups; methods that grow trees write one of them to trees.jsonl (0: neither)."""
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    """What to do when the probe shows a collapse: say so, end the run, or go back to the checkpoint that the probe found best."""
    most_rollbacks: Count = 2
    """Times that a run goes back; at the next collapse it goes back once more and ends."""
    track: tuple[str, ...] = ()
    """Also log to: `tensorboard`, `wandb`, `trackio`, `mlflow`."""
    threads: Count = 0
    """CPU threads for torch (0: its own default)."""
    quiet: bool = False
    """No live table; one plain line per evaluation."""


@dataclass
class EvaluationConfig:
    """How the held-out split is measured."""

    eval_tasks: AtLeastOne = 200
    """Held-out tasks at most."""
    eval_samples: AtLeastOne = 8
    """Samples per task: pass@1 ... pass@k up to this k."""
    eval_temperature: NonNegative = 1.0
    """Temperature of evaluation samples."""
    eval_kl: bool = True
    """Measure how far the policy has moved from its starting weights; keeps a copy of them (with LoRA: none needed)."""
    retention_tasks: tuple[str, ...] = ()
    """Further task sets, none of them trained on, whose pass@1 is measured at every evaluation, in the same way: what the run forgets."""


@dataclass
class CollapseLimits:
    """From where on the probe's numbers count as a collapse: see `etude.evals.collapse`."""

    collapse_noise: NonNegative = 4.0
    """Standard errors by which accuracy has to fall below its best."""
    collapse_fall: Share = 0.05
    """How far accuracy has to fall at least, as a share of the attempts."""
    collapse_lost: Share = 0.5
    """Fraction of its best accuracy below which a policy is lost, whatever the reward does."""
    collapse_answers: Share = 0.5
    """Share of attempts at different tasks that give the same answer, counted from the share that is usual."""
    collapse_verdicts: Annotated[float, Ge(0), Lt(0.5)] = 0.02
    """Share of positive (or negative) verdicts below which a judge always says the same."""
    collapse_entropy_low: NonNegative = 0.01
    """Entropy, nats per token, below which nothing new is tried."""
    collapse_entropy_high: Annotated[float, Ge(1)] = 4.0
    """Entropy as a multiple of the start's from where it explodes."""
    collapse_long: Annotated[float, Ge(1)] = 3.0
    """Response length as a multiple of the start's from where it explodes."""
    collapse_short: Share = 0.2
    """Response length as a fraction of the start's below which it has shrunk to nothing."""


@dataclass
class ProbeConfig:
    """Labelled tasks that are measured during a run and never trained on, to see whether the reward still means what it should."""

    probe: Literal["auto", "always", "never"] = "auto"
    """Watch with a probe; `auto`: where a method learns without labels, and where --on-collapse says to act."""
    probe_tasks: str | None = None
    """Probe tasks: a built-in family, `gym:NAME` or a JSONL file, all of whose lines are used. Default: a part of the held-out split."""
    probe_size: Annotated[int, Ge(8)] = 48
    """Probe tasks at most."""
    probe_samples: Annotated[int, Ge(2)] = 8
    """Attempts at each probe task."""
    probe_every: AtLeastOne = 10
    """Steps between readings of the probe; there is one before the first and one after the last step."""
    probe_positive: float = 0.5
    """Rewards above this count as positive verdicts."""
    limits: CollapseLimits = field(default_factory=CollapseLimits)


SamplerBackEnd = Literal["engine", "vllm"]
"""Who generates: the embedded engine, or vLLM."""


@dataclass
class VLLMConfig:
    """How vLLM is started, where it samples. The embedded engine takes no notice."""

    vllm_memory: Annotated[float, Gt(0), Le(1)] = 0.4
    """Share of the GPU's memory that vLLM takes, weights included. On a CPU: of the machine's memory, for keys and values, and no more than all slots can use."""
    vllm_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format that vLLM computes in; `auto` is that of the learner's weights."""
    vllm_eager: Literal["auto", "always", "never"] = "auto"
    """Run the model as it is, neither compiled nor as CUDA graphs: starts sooner, samples slower. `auto`: on a CPU."""
    vllm_context: Count = 0
    """Tokens that a prompt and its completion may have together (0: what the model reads). vLLM starts only where one such sequence fits its memory."""


@dataclass
class SamplerConfig:
    """How rollouts are drawn."""

    sampler: SamplerBackEnd = "engine"
    """Who generates: the embedded engine, or vLLM with weights of its own, which are renewed after every update."""
    max_new_tokens: Count = 0
    """Tokens a rollout may have, per turn (0: what the task set asks for)."""
    temperature: NonNegative = 1.0
    """Temperature of rollouts."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw from the most likely tokens that together have this probability (1: from all)."""
    top_k: Count = 0
    """Draw from this many most likely tokens (0: from all)."""
    max_turns: AtLeastOne = 8
    """Turns of a multi-turn episode at most."""
    slots: Count = 0
    """Sequences that run at once (0: chosen from the model's size; 256 with vLLM)."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)


@dataclass
class RayConfig:
    """Which parts of a run work in processes of a Ray cluster. What is 0 or not given is chosen; given without `--engine ray` it is refused."""

    engine: Literal["local", "ray"] = "local"
    """Where the parts of a run work: in this process, or in processes that Ray starts on this machine or on a cluster's."""
    samplers: Count = 0
    """Processes that generate, each with weights of its own and `slots` of its own (0: 2)."""
    env_workers: Count = 0
    """Processes that judge attempts and hold environments, with the sandboxes of both (0: this process does)."""
    learners: Count = 0
    """Processes that update weights (0 or 1: this one; more: as many ranks of the sharded learner)."""
    max_staleness: Count = 0
    """Updates that the weights which write a batch may be behind those that it is trained on (0: generate and update in turns; else side by side)."""
    ray_address: str | None = None
    """A Ray cluster that runs already: `host:port`, or `auto` for one on this machine. Default: one is started on this machine, and ends with the run."""
    worker_threads: Count = 0
    """CPU threads of each sampler and environment worker (0: 1)."""
    sampler_gpus: NonNegative = 0.0
    """GPUs that Ray gives each sampler where the model lives on one; a fraction shares (0: 1)."""


@dataclass
class LearnerConfig:
    """How weights are updated."""

    lr: Annotated[float, Gt(0)] | None = None
    """Learning rate after warm-up. Default: 3e-4 for models of less than 10 million weights (tiny), 1e-4 with LoRA, else 2e-6."""
    warmup_steps: Count = 2
    """Steps of the loop over which the learning rate rises to `lr`: the first of N has `lr`/N, the last `lr`."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after warm-up: it falls to 0 over the run's `steps`. A run that its `budget` ends earlier ends at a higher rate: give `steps` too."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay (AdamW)."""
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.9, 0.95)
    """Decay of AdamW's running means of the gradient and of its square."""
    grad_clip: NonNegative = 1.0
    """Largest gradient norm (0: no clipping)."""
    epochs: AtLeastOne = 1
    """Passes over each batch of rollouts."""
    mini_batches: AtLeastOne = 1
    """Optimiser steps per pass."""
    micro_batch_tokens: Count = 0
    """Tokens per forward and backward pass: bounds memory, changes no number (0: chosen from the model's size)."""
    share_prompts: bool = True
    """Compute a group's prompt, and beginnings that its completions have in common, once in the learner where the model allows it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    lora_rank: Count = 0
    """Train a LoRA adapter of this rank instead of all weights (0: all weights)."""
    lora_alpha: NonNegative = 0.0
    """LoRA scale (0: twice the rank)."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers that get an adapter."""
    learner: Literal["single", "fsdp"] = "single"
    """Where weights are updated: in this process, or by `ranks` processes that each hold a shard of them (FSDP), one a GPU, or several on a CPU."""
    ranks: Count = 0
    """Processes of `--learner fsdp` (0: one for each GPU; without GPUs 2)."""


@dataclass
class EndpointConfig:
    """How a model behind an OpenAI-compatible endpoint is asked. Models that run here take no notice."""

    base_url: str | None = None
    """Address of the model `openai:NAME`. Default: the variable OPENAI_BASE_URL, or OpenAI's own."""
    api_key_env: str | None = None
    """Variable that holds the key. Default: OPENAI_API_KEY for api.openai.com, ETUDE_API_KEY for any other host."""
    concurrency: AtLeastOne = 8
    """Requests that run at once, where the model is an endpoint."""
    retries: Count = 4
    """Times that a request is sent again that fails for a passing reason."""
    request_timeout: Annotated[float, Gt(0)] = 600.0
    """Seconds that an endpoint may take for an answer."""
    token_limit: Count = 0
    """Tokens that an endpoint may read and write in all (0: no limit). What could cost more is not sent, and ends the command."""
    call_limit: Count = 0
    """Answers that an endpoint may be asked for in all (0: no limit)."""
    cache: Literal["off", "use", "only", "refresh"] = "off"
    """Answers kept on disk: `use` takes what is kept and keeps the rest, `only` plays a run again without network, `refresh` asks for everything anew."""
    cache_folder: str | None = None
    """Folder of these answers. Default: ~/.cache/etude/replies."""


@dataclass
class JudgeConfig:
    """Which model judges attempts, for methods that ask one."""

    judge: str = "live"
    """Judge: `live` (the policy as it is), `frozen` (as it was at the start), `average` (a moving average of its weights), a model folder or hub id, or an endpoint
    (`http://host:port/v1#model`, or `openai:NAME`)."""
    judge_decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    """What the moving average keeps of its weights at every step."""
    judge_tokens: AtLeastOne = 256
    """Tokens a judgement may have."""
    judge_temperature: NonNegative = 0.0
    """Temperature of judgements (0: greedy)."""
    judge_concurrency: AtLeastOne = 8
    """Requests that run at once, where the judge is an endpoint."""


@dataclass
class PolicyOptimizationConfig:
    """What every method on the common loop can be told; methods add their own fields."""

    tasks_per_step: AtLeastOne = 16
    """Tasks (prompts) per step."""
    group_size: AtLeastOne = 16
    """Rollouts per task."""
    reward_weights: tuple[str, ...] = ()
    """Components that are added to the reward, `format=0.5`, or with a weight that changes over the steps, `format=0:0.5,50:0`. `reward` is what attempts are worth
    without these. Held-out rewards stay what they are."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    watch: ProbeConfig = field(default_factory=ProbeConfig)


@dataclass
class MeasureConfig:
    """What a model is measured on, and how."""

    tasks: str = "arithmetic"
    """Tasks: a built-in family, a JSONL file, or `gym:NAME` for a reasoning-gym data set."""
    reward: str | None = None
    """Reward of your own: `file.py:function`, called as function(task, text) -> float."""
    env: str | None = None
    """Multi-turn environment of your own: `file.py:Class`; `python`, a tool that runs code the model writes; `revise`, which asks for another look at an answer; `cosc`,
    rounds of programs that are run and checked; or `strategies`, which runs answers that are programs."""
    samples: AtLeastOne = 32
    """Samples per task: pass@1 ... pass@k up to this k."""
    tasks_limit: AtLeastOne = 200
    """Held-out tasks at most."""
    temperature: NonNegative = 1.0
    """Temperature of the samples (0: greedy)."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw from the most likely tokens that together have this probability (1: from all)."""
    max_new_tokens: Count = 0
    """Tokens an attempt may have, per turn (0: what the task set asks for)."""
    max_turns: AtLeastOne = 8
    """Turns of a multi-turn episode at most."""
    seed: int = 0
    """Seed of every random choice. The same seed draws with the same random numbers for every model."""
    device: str = "auto"
    """Where the model lives: `auto`, `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` is float32 on CPU and bfloat16 on GPU."""
    slots: Count = 0
    """Sequences that run at once (0: chosen from the model's size; 256 with vLLM)."""
    sampler: SamplerBackEnd = "engine"
    """Who generates: the embedded engine, or vLLM."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    threads: Count = 0
    """CPU threads for torch (0: its own default)."""


@dataclass
class SelfCorrectionConfig:
    """What a model is asked again and again, and how."""

    tasks: str = "arithmetic"
    """Tasks: a built-in family, a JSONL file (its field `options` holds what can be chosen), or `gym:NAME` for a reasoning-gym data set."""
    reward: str | None = None
    """Judge of free answers of your own: `file.py:function`, called as function(task, text) -> float."""
    tasks_limit: AtLeastOne = 200
    """Held-out tasks at most."""
    rounds: AtLeastOne = 5
    """Times that an answer is asked for again."""
    formats: tuple[Literal["generation", "choice"], ...] = ("generation", "choice")
    """How the same questions are answered: freely, and by the letter of an option."""
    methods: tuple[Literal["baseline", "cot", "sc"], ...] = ("baseline",)
    """How an answer is asked for: at once, after thinking step by step (`cot`), or as the most consistent of several of these (`sc`)."""
    samples: Annotated[int, Ge(2)] = 5
    """Answers drawn a round by `sc`."""
    pick: Literal["model", "votes"] = "model"
    """Who picks among free answers of `sc`: the model, or the most common final answer. Letters are voted on anyway."""
    options: Annotated[int, Ge(2), Le(26)] = 4
    """Options of a task that brings none: the reference and near misses of it."""
    prompts: Literal["standard", "short"] = "standard"
    """What is said: `standard`, for models that follow instructions, or `short`, for small ones that were taught what it means."""
    request: str | None = None
    """What follows each answer instead, a text file, in which {question}, {options} and {how} stand for the question, its options and the form of the answer."""
    append: Literal["rationale", "letter"] = "rationale"
    """What of a choice the conversation goes on with: all that was written, or the letter alone."""
    history: bool = True
    """Keep earlier rounds in the conversation; without, each round asks afresh, which shows what chance alone changes."""
    option_logits: bool = False
    """Also measure how likely each option is in every round (models that run here)."""
    settle: bool = False
    """Also let the model choose, at the end, among the different answers that it generated."""
    confident: Share = 0.8
    """Confidence (agreement of samples, or probability of the likeliest option) at which the policy `confident` stops."""
    repeats: AtLeastOne = 1
    """Times that everything is asked with other random numbers; items stay the unit of all intervals."""
    temperature: NonNegative = 1.0
    """Temperature of answers (0: greedy)."""
    sc_temperature: NonNegative = 0.7
    """Temperature of the samples of `sc`."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw from the most likely tokens that together have this probability (1: from all)."""
    top_k: Count = 0
    """Draw from this many most likely tokens (0: from all)."""
    max_new_tokens: Count = 0
    """Tokens an answer may have (0: what the task set asks for, with standard prompts at least 256)."""
    resamples: Annotated[int, Ge(100)] = 1000
    """Bootstrap samples of the items behind every interval."""
    seed: int = 0
    """Seed of every random choice, the order of options among them."""
    device: str = "auto"
    """Where the model lives: `auto`, `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` is float32 on CPU and bfloat16 on GPU."""
    slots: Count = 0
    """Sequences that run at once (0: chosen from the model's size)."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    threads: Count = 0
    """CPU threads for torch (0: its own default)."""


@dataclass
class ChatConfig:
    """How a conversation in the terminal goes."""

    turns: Count = 1
    """Further looks at each answer."""
    request: str | None = None
    """What asks for another look: `standard`, `short`, or a text file, in which {question} stands for what was asked. Default: `short` for tiny, else `standard`."""
    feedback: bool = False
    """Before each further answer, ask what is wrong with the last one, and show what the model says to that."""
    system: str | None = None
    """A system message to begin with."""
    temperature: NonNegative = 0.7
    """Temperature of answers (0: greedy)."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw from the most likely tokens that together have this probability (1: from all)."""
    max_new_tokens: AtLeastOne = 512
    """Tokens of an answer at most."""
    seed: int = 0
    """Seed of every random choice."""
    device: str = "auto"
    """Where the model lives: `auto`, `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` is float32 on CPU and bfloat16 on GPU."""
    base_url: str | None = None
    """Address of the model `openai:NAME`. Default: the variable OPENAI_BASE_URL, or OpenAI's own."""
    threads: Count = 0
    """CPU threads for torch (0: its own default)."""


@dataclass
class CompareConfig:
    """The comparison."""

    budget: str | None = None
    """What every run may spend, a number and a unit: `400k-tokens`, `20k-rollouts`, `120-seconds`, `50-steps`, `5k-env-steps`, `1k-calls`."""
    seeds: str = "5"
    """Seeds that every arm is run with: how many, counted from 1000, or which, as `1000,1001,1007`."""
    metric: str | None = None
    """What is compared. Default: the methods' own score, for language models held-out pass@1."""
    lower_is_better: bool = False
    """A lower value of the metric is a better one."""
    sweep: tuple[str, ...] = ()
    """Choose each arm's best setting on tuning seeds first: `lr=1e-4,3e-4,1e-3`; of several options every combination is tried."""
    sweep_budget: str | None = None
    """What every tuning run may spend. Default: the same as every run."""
    tuning_seeds: str = "2"
    """Seeds of a sweep: how many, counted from 0, or which. None of them may be reported."""
    workers: Count = 0
    """Runs at once (0: as many as there are cores for; one on a GPU)."""
    out: Path | None = None
    """Folder for everything. Default: runs/compare-ARMS-TASKS, numbered when another comparison is there."""
    quiet: bool = False
    """No live table; a line for every run that ends."""


@dataclass
class ArmRunConfig:
    """What every run of the comparison does."""

    steps: Count | None = None
    """Steps of the loop at most, which a learning-rate schedule runs over. Default: only the budget ends a run."""
    evaluate_every: Count = 10
    """Steps between evaluations on the held-out split (0: only before the first and after the last step)."""
    checkpoint_every: Count = 20
    """Steps between checkpoints (0: only at the end)."""
    keep_last: AtLeastOne = 2
    """Newest checkpoints to keep; the best by held-out score is kept besides."""
    save_trajectories: Count = 8
    """Trajectories written to trajectories.jsonl per step, spread over the groups."""
    threads: AtLeastOne = 1
    """CPU threads of one run."""


MethodConfig = TypeVar("MethodConfig")


@dataclass
class CompareFlags(Generic[MethodConfig]):
    """What `etude compare` takes besides the arms: the comparison's own options, and those of runs that all arms have."""

    comparison: CompareConfig = field(default_factory=CompareConfig)
    inputs: InputConfig = field(default_factory=InputConfig)
    run: ArmRunConfig = field(default_factory=ArmRunConfig)
    method: MethodConfig = field(kw_only=True)


@dataclass
class TrainConfig(Generic[MethodConfig]):
    """One whole run."""

    inputs: InputConfig = field(default_factory=InputConfig)
    run: RunConfig = field(default_factory=RunConfig)
    method: MethodConfig = field(kw_only=True)
