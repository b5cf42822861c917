"""The library as a person calls it: `etude.train(...)` and `etude.evaluate(...)`. The command line calls the same functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.config import MeasureConfig, SelfCorrectionConfig, TrainConfig
from etude.driver import drive
from etude.errors import EtudeError, InputError
from etude.export import MODEL, export_model
from etude.method import Method, get_method
from etude.run import Run
from etude.search.step_settings import StepSearchMeasureConfig, ValueConfig
from etude.searching import SearchMethod
from etude.settings import Source, build_config, check_config, merged, with_settings
from etude.settings_file import check_resumable, file_config, saved_config, saved_form, tasks_title
from etude.summary import Summary
from etude.tasks.base import TaskSet
from etude.viewer import LiveSearch, LiveTable, write_report

if TYPE_CHECKING:
    from etude.evals.evaluate import Evaluation
    from etude.evals.self_correction import Report
    from etude.evals.step_search import WayReport
    from etude.models.language import LanguageModel

REPORT = "report.html"


def train(method: str | None = None, *, config: Path | str | None = None, resume: Path | str | None = None, **settings: Any) -> Summary:
    """Improve a model by a method, and say how that went.

        etude.train("grpo", model="tiny", tasks="arithmetic", lr=1e-3, steps=20)

    settings: any option of the method, its inputs or its run, by its flat name: what `etude train METHOD --help` lists. `tasks` may also be a TaskSet or a list
    of dicts with `prompt` and `answer`, `reward` a function score(task, text), `env` a class.
    config: a YAML file with settings; keywords go before it. resume: the folder of a run to go on with; settings of the run (steps, budget) may then change.
    Raises InputError for whatever cannot be used, before anything is computed.
    """
    if resume is not None:
        if config is not None:
            raise InputError("a resumed run has its own configuration; leave config out, or start a new run with it")
        slug, saved = saved_config(Path(resume))
        if method is not None and method != slug:
            raise InputError(f"the run in {resume} is one of {slug}, not of {method}; leave the method out")
        return resume_run(Path(resume), with_settings(saved, settings))
    if config is not None:
        slug, from_file = file_config(Path(config), method)
        return start_run(slug, with_settings(from_file, settings))
    if method is None:
        raise InputError("no method is named; expected one, as in etude.train('grpo'), a config file or a run to resume")
    return start_run(method, build_config(method, **settings))


def start_run(slug: str, config: TrainConfig[Any]) -> Summary:
    """Begin a run in a fresh folder and see it to its end. Raises as `train` does."""
    check_config(config)
    name = f"{slug}-{tasks_title(config.inputs.tasks)}-seed{config.run.seed}"
    run = Run.create(config.run, folder_name=name, full_config=saved_form(slug, config))
    return _drive(get_method(slug), config, run, resume=False)


def resume_run(folder: Path, config: TrainConfig[Any], *, source: Source = "keyword") -> Summary:
    """Go on with a run. `config` is its saved configuration with whatever is to change; `source` says how messages name an option.

    Raises InputError when the folder holds no run, or the change is one that a run cannot take in its middle.
    """
    slug, saved = saved_config(folder)
    changed = check_resumable(saved, config, source)
    run = Run.open(folder, config=config.run, full_config=saved_form(slug, config) if changed else None)
    return _drive(get_method(slug), config, run, resume=True)


def _drive(method_class: Callable[..., Method], config: TrainConfig[Any], run: Run, *, resume: bool) -> Summary:
    method = method_class(config, run)
    display = (LiveSearch if isinstance(method, SearchMethod) else LiveTable)(quiet=config.run.quiet)
    try:
        summary = drive(method, run, display=display, resume=resume)
    except BaseException:
        # What was done so far is worth a look, and the error matters more than a report that cannot be written.
        if display.began:
            with suppress(OSError, EtudeError):
                write_report(run.folder)
        raise
    try:
        export_model(method, run, summary, ready=display.began)
        write_report(run.folder)
    except OSError as error:
        raise EtudeError(
            f"the run in {run.folder} has {summary.status}, but its model or report could not be written: {error}. "
            f"Free space or fix the folder, then go on with --resume {run.folder}"
        ) from error
    return summary


def evaluate(
    model: str | Path | LanguageModel,
    *,
    tasks: str | Path | TaskSet | Sequence[Mapping[str, Any]] = "arithmetic",
    reward: str | Callable[..., Any] | None = None,
    env: str | type | None = None,
    samples: int = 32,
    **settings: Any,
) -> Evaluation:
    """Measure a model on the held-out split of some tasks: pass@k, majority votes, length and format, with 95 % intervals.

        etude.evaluate("runs/grpo-arithmetic-seed0", tasks="arithmetic", samples=32).metrics["eval/pass@1"]

    model: an embedded model, a Hugging Face folder or hub id, a run's folder (its exported model), a checkpoint's folder (`runs/x/checkpoints/step-40`), an
    OpenAI-compatible endpoint (`http://host:port/v1#model`, or `openai:NAME` with `base_url`), or a LanguageModel.
    settings: the other options of `etude eval`: `tasks_limit`, `temperature`, `seed`, `max_new_tokens` and more.
    Raises InputError for whatever cannot be used.
    """
    given = {"tasks": tasks, "reward": reward, "env": env, "samples": samples, **settings}
    return measure(model, with_settings(MeasureConfig(), given))


def measure(model: str | Path | LanguageModel, config: MeasureConfig) -> Evaluation:
    """`evaluate` with its settings as a configuration."""
    import torch

    from etude.evals.evaluate import evaluate as evaluate_policy
    from etude.models.remote import is_endpoint, open_endpoint
    from etude.tasks.loading import load_tasks

    check_config(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    task_set = load_tasks(config.tasks, reward=config.reward, env=config.env, seed=config.seed)
    tasks = list(task_set.held_out())[: config.tasks_limit]
    if not tasks:
        raise InputError(f"the task set {task_set.name} has no held-out tasks; expected at least one to measure on")
    options: dict[str, Any] = {name: getattr(config, name) for name in ("samples", "temperature", "top_p", "max_new_tokens", "seed")}
    if is_endpoint(model, config.endpoint.base_url):
        from etude.evals.remote import evaluate_endpoint

        return evaluate_endpoint(open_endpoint(str(model), config.endpoint), task_set, tasks=tasks, **options)
    policy = load_policy(model, config) if isinstance(model, (str, Path)) else model
    return evaluate_policy(policy, task_set, tasks=tasks, max_turns=config.max_turns, **options)


def self_correction(model: str | Path | LanguageModel, config: SelfCorrectionConfig, *, done: Callable[[str, int], None] = lambda arm, rounds: None) -> Report:
    """Ask a model the same questions again and again, freely and by choosing among options: what `etude eval MODEL --protocol self-correction` does.

    model: as of `evaluate`. `done` hears of an arm's name and how many of its rounds are complete. Raises InputError for whatever cannot be used.
    """
    import torch

    from etude.evals.self_correction import measure_self_correction
    from etude.models.remote import is_endpoint, open_endpoint
    from etude.models.responders import LocalResponder, RemoteResponder
    from etude.tasks.loading import load_tasks

    check_config(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    task_set = load_tasks(config.tasks, reward=config.reward, seed=config.seed)
    if is_endpoint(model, config.endpoint.base_url):
        if config.option_logits:
            raise InputError("an endpoint gives no log-probabilities of options; leave --option-logits out, or measure a model that runs here")
        endpoint = open_endpoint(str(model), config.endpoint)
        endpoint.check()
        return measure_self_correction(RemoteResponder(endpoint), task_set, config, done=done)
    shared = {name: getattr(config, name) for name in ("tasks", "reward", "device", "dtype", "slots")}
    policy = load_policy(model, MeasureConfig(**shared)) if isinstance(model, (str, Path)) else model
    return measure_self_correction(LocalResponder(policy), task_set, config, done=done)


def step_search(
    model: str | Path | LanguageModel, config: StepSearchMeasureConfig, *, done: Callable[[str, int], None] = lambda way, tasks: None
) -> list[WayReport]:
    """Spend the same tokens on every held-out question in several ways: what `etude eval MODEL --protocol search` does.

    model: as of `evaluate`, except an endpoint: prefixes are gone on with inside the sampler. `done` hears of a way and how many tasks it has finished. Raises InputError
    for whatever cannot be used.
    """
    import torch

    from etude.evals.step_search import StepSearchMeasure
    from etude.ledger import Ledger
    from etude.models.remote import is_endpoint
    from etude.models.sampling import SamplingParams
    from etude.models.value_model import ChanceValues, ValueModel
    from etude.search.solved import SolvedCritic
    from etude.tasks.loading import load_tasks

    check_config(config)
    if is_endpoint(model, None):
        raise InputError("an endpoint can't go on from the middle of an answer, and gives a value model nothing to read; expected a model that runs here")
    if config.threads:
        torch.set_num_threads(config.threads)
    task_set = load_tasks(config.tasks, reward=config.reward, seed=config.seed)
    tasks = list(task_set.held_out())[: config.tasks_limit]
    if not tasks:
        raise InputError(f"the task set {task_set.name} has no held-out tasks; expected at least one to measure on")
    shared = {name: getattr(config, name) for name in ("tasks", "reward", "device", "dtype", "slots")}
    policy = load_policy(model, MeasureConfig(**shared)) if isinstance(model, (str, Path)) else model
    own = Path(model) / MODEL / "value" if isinstance(model, (str, Path)) else None
    named = config.value_model or (str(own) if own is not None and own.is_dir() else None)
    values = None
    if named is not None:
        given = ValueConfig(value_model=named)
        values = ChanceValues(config.seed, Ledger()) if named == "chance" else ValueModel.open(given, policy, Ledger(), trained=True)
    params = SamplingParams(config.max_new_tokens or task_set.max_new_tokens, config.temperature, config.top_p, config.top_k, tuple(task_set.stop))
    critic = None
    if config.search.critic != "off":
        critic = partial(SolvedCritic.of, config.judging, policy, hints=config.search.critic == "common")
    measure = StepSearchMeasure(policy, task_set, config.search, params, values, config.beam_width, critic, config.seed)
    return measure.report(config.ways, tasks, done=done)


def load_policy(model: str | Path, config: MeasureConfig) -> LanguageModel:
    """An embedded model, a Hugging Face folder or hub id, a run's exported model, or the policy of a checkpoint's folder. Raises InputError for anything else."""
    from etude.models.language import LanguageModel

    folder = Path(model).expanduser()
    if folder.resolve().parent.name == "checkpoints" and (folder / "manifest.json").is_file():
        return _checkpoint_policy(folder, config)
    if (folder / "config.yaml").is_file() and (folder / MODEL).is_dir():
        model = folder / MODEL
    return LanguageModel.load(str(model), device=config.device, dtype=config.dtype, slots=config.slots, sampler=config.sampler, vllm=config.vllm)


def _checkpoint_policy(folder: Path, config: MeasureConfig) -> LanguageModel:
    """The policy of a checkpoint: its run's model with the checkpoint's weights."""
    run_folder = folder.resolve().parent.parent
    slug, saved = saved_config(run_folder)
    saved = merged(saved, {name: getattr(config, name) for name in ("device", "dtype") if getattr(config, name) != "auto"})
    # The run's own tasks may be gone, and are not asked about.
    saved.inputs.tasks, saved.inputs.reward, saved.inputs.env = config.tasks, config.reward, config.env
    if (learner := getattr(saved.method, "learner", None)) is not None and hasattr(learner, "ranks"):
        # To be looked at, a policy needs no ranks.
        learner.learner, learner.ranks = "single", 0
    if (ray := getattr(saved.method, "ray", None)) is not None:
        # Nor processes of a cluster.
        saved.method.ray = type(ray)()
    if hasattr(saved.method, "sampler"):
        saved.method.sampler.sampler, saved.method.sampler.vllm = config.sampler, config.vllm
    run = Run.open(run_folder)
    checkpoint = run.checkpoints.load(int(folder.resolve().name.removeprefix("step-")))
    method: Any = get_method(slug)(saved, run)
    method.setup()
    method.load_state(checkpoint.state())
    if not hasattr(method, "policy"):
        raise InputError(f"{folder} is a checkpoint of {slug}, which has no language model to measure")
    return method.policy
