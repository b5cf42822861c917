"""SSR-Zero: a model translates, and scores its own translations; the score is the whole reward (arXiv:2505.16637).

To judge a translation is easier than to write it. So the model that has just translated is shown source and translation, without a reference, and asked for a score
from 0 to 100; GRPO on these scores needs nothing but sentences to translate. Actor and judge are the same weights, at every step the newest ones, and only the actor's
tokens are trained on: the judge changes because the actor does. A response without exactly one well-formed answer earns -1 and is not judged. Some kinds of
translation earn 0 by rule: the copied source, another language, several translations at once, words to the judge. SSR-X adds a metric from outside (in the paper COMET)
to the score, which keeps habits in check that the judge shares and so does not mind, such as needless quotation marks.

The danger is a judge that can be pleased without a good translation, or that drifts with the actor until it says the same of everything. Planted candidates of known
quality are therefore scored again at every evaluation (`judge_probe/...`), and signs of a judge gone astray are told.

Differs from GRPO in the reward. Reference translations, where tasks have them, measure the run and train nothing, unless `external_metric` asks for one that needs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from etude.claim import Arm, Claim, Comparison, Precondition, reported_seeds
from etude.config import AtLeastOne, Count, NonNegative, Share
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.evals.judge_probe import judge_reading, judge_signs, planted
from etude.evals.measures import Final
from etude.evals.probe import Probe
from etude.experiments.judged_translations import LESSONS, START
from etude.method import State, register
from etude.methods.rewards._judged import JudgedConfig, WithJudge
from etude.models.sampling import stream_key
from etude.rewards.assessed import Assessed, assessment_metrics, total_reward
from etude.rewards.direct_assessment import FORMS, Assessment, assessment_form, read_score
from etude.rewards.judges import Judgement, LocalJudge, Question
from etude.rewards.text_metrics import REFERENCE_METRICS, text_metric
from etude.rewards.zero_rules import ZERO_RULES, ZeroRule, broken_rules
from etude.tasks.builtin.translation import LANGUAGES
from etude.tasks.loading import load_tasks
from etude.tasks.templates import escaped
from etude.tasks.translations import Prompted, fields_of, is_bare, is_quoted, source_of, translation_in, without_wrapping
from etude.types import Group, Message, Metrics, Trajectory, mean, trajectories_of

SELF_JUDGED = {"method": "ssr-zero", "judge_tokens": 32}
"""Arms of the claim that are rewarded by their own judgements."""


@dataclass
class SSRZeroConfig(JudgedConfig):
    """Options of SSR-Zero."""

    kl_coefficient: NonNegative = 0.001
    """Weight of the divergence from the starting policy in the loss."""
    judge_prompt: str = "auto"
    """How the judge is asked: `assessment` (0 to 100), `digit` (0 to 9, for a model that was taught it), or a text file with {source} and {candidate}; `auto`: `digit` for
    the invented languages and where the long form does not fit, else `assessment`."""
    judge_scale: Count = 0
    """Highest score (0: the prompt's own)."""
    judge_samples: AtLeastOne = 1
    """Judgements of each translation, whose mean is the score: fewer ties. More than 1 needs a `judge_temperature`."""
    unreadable: Literal["zero", "unjudged"] = "zero"
    """What a translation is worth whose judgement has no score: 0, or nothing that could be compared."""
    self_weight: NonNegative = 1.0
    """Weight of the score, as a share of the highest."""
    external_metric: str = "none"
    """Metric to add to the score (SSR-X): `chrf` or `bleu` where tasks have references, or `file.py:function`, called as function(source, candidate, reference)."""
    external_weight: NonNegative = 1.0
    """Weight of that metric."""
    bad_form: float = -1.0
    """Reward of a response without exactly one answer in the asked form."""
    zero_rules: tuple[ZeroRule, ...] = ZERO_RULES
    """What scores 0 without being judged: `copied` source, `several` translations, another `language` where that can be told, words `addressed` to the judge."""
    unwrap: bool = True
    """Take needless quotation marks off a translation before it is judged and measured."""
    actor_prompt: str = "auto"
    """How a translation is asked for: `task` (the task's own words), `translate`, `think`, or a text file with {source}; `auto`: `translate` for tasks that give nothing
    but a source, else `task`."""
    answer_tag: str = ""
    """The tag that has to hold the translation, as in <TAG>...</TAG>. Default: none, but a last line 'answer: ...'."""
    source_language: str = ""
    """Language of sources, where tasks do not say."""
    target_language: str = ""
    """Language to translate into, where tasks do not say."""
    eval_metrics: tuple[Literal["chrf", "bleu"], ...] = ()
    """Metrics against references to report at evaluations, besides pass@k."""
    judge_probe_tasks: Count = 16
    """Held-out tasks with references of which planted candidates are made, to watch the judge with (0: none)."""
    judge_gain: NonNegative = 0.1
    """What planted fakes may gain in score, as a share of the highest, before the judge counts as lenient."""
    judge_left: Share = 0.5
    """Fraction of its first rank correlation with quality below which the judge counts as blind."""


@register(
    slug="ssr-zero",
    name="SSR-Zero",
    family="rewards",
    paper="2505.16637",
    title="SSR-Zero: Simple Self-Rewarding Reinforcement Learning for Machine Translation",
    summary="translations scored by the model that wrote them",
    config=SSRZeroConfig,
    signal="self-judge",
    claim=Claim(
        statement="A model improves at translation by GRPO on nothing but the scores that it gives its own translations, as well as with an external judge.",
        expectation="From a start that was taught to judge, noisily, held-out translations with exactly the right meaning rise by more than 10 points. From one that was "
        "taught to give digits that say nothing, they end at least 10 points lower, on as many generated and judged tokens.",
        arms=(
            Arm("ssr-zero", settings=SELF_JUDGED),
            Arm("uninformative judge", settings={**SELF_JUDGED, "warm_tasks": f"{LESSONS},shuffled=true"}),
            Arm("frozen judge", settings={**SELF_JUDGED, "judge": "frozen"}),
            Arm("truth", settings={"method": "grpo", "kl_coefficient": 0.001}),
        ),
        common={
            **START,
            "tasks_per_step": 8,
            "group_size": 8,
            "lr": 2e-4,
            "evaluate_every": 10,
        },
        experiment="etude.experiments.judged_translations:judged_translations",
        budget="40k-tokens",
        seeds=reported_seeds(12),
        tests=(
            Comparison("gain by its own scores", "ssr-zero", None, Final("pass_rate") - Final("pass_rate_first"), margin=0.1),
            Comparison("what the scores say", "ssr-zero", "uninformative judge", Final("pass_rate"), margin=0.1),
            Comparison("a live judge", "ssr-zero", "frozen judge", Final("pass_rate"), role="ablation"),
            Comparison("below the truth", "truth", "ssr-zero", Final("pass_rate"), role="ablation"),
        ),
        preconditions=(
            Precondition(
                "the start can judge",
                "ssr-zero",
                Final("spearman_first"),
                at_least=0.4,
                otherwise="its scores do not follow quality, and there is nothing to learn from",
            ),
            Precondition(
                "the uninformative judge cannot",
                "uninformative judge",
                Final("spearman_first"),
                at_most=0.25,
                otherwise="the control knows something after all",
            ),
            Precondition(
                "room to learn",
                "ssr-zero",
                Final("pass_rate_first"),
                at_least=0.1,
                at_most=0.7,
                otherwise="the model translates almost nothing, or almost everything",
            ),
        ),
        tried="All on seed 0. The judge decides; the numbers are the rank correlation of its scores with quality. A bare digit, at temperature 0.7: 0.12. The judge's own "
        "translation and then a digit, greedily: 0.05. Marks for each word, sentences with qualities, demonstrations that slip: 0.19 after 100 steps of 64 at 1.5e-3; it "
        "translated 85 % of the words rightly, its digits followed the marks, and nearly every mark was `=`, so that 96 % of the pairs in the first step were tied and pass@1 "
        "fell from 33 to 20 %. Shorter sentences (qualities=0.2), 200 steps of 32 at 3e-3: 0.49, and 40k tokens of learning at 3e-4 took pass@1 from 45 to 12 % and the score "
        "to 0.96: what the judge does not see became the rule. Without qualities, and with a translation of the judge's own that never slips in the last 120 of 260 steps: "
        "0.68; 29k tokens at 2e-4 then raised pass@1 from 44 to 65 %, and the correlation to 0.71; 36 steps, to 70 % and 0.75. Six "
        "reported seeds left both tests open (+21.0 points [8.9, 33.0] over the start, +20.4 [8.8, 31.9] over the uninformative judge, margins of 10); so twelve were asked "
        "for.",
        quick={"warm_steps": 1, "warm_tasks_per_step": 8, "eval_samples": 1, "tasks_per_step": 4, "group_size": 4},
    ),
)
class SSRZero(WithJudge):
    """Differs from GRPO in the reward."""

    config: SSRZeroConfig

    def setup(self) -> None:
        config, inputs = self.config, self.inputs
        if config.judge_samples > 1 and config.judging.judge_temperature == 0:
            raise InputError(
                f"--judge-samples is {config.judge_samples} and --judge-temperature 0, so that all of them say the same; expected a temperature above 0"
            )
        tasks = self._task_set or load_tasks(inputs.tasks, reward=inputs.reward, env=inputs.env, seed=self.run.seed, labelled=False)
        first = tasks.train_task(self.run.seed, 0)
        prompt = config.actor_prompt if config.actor_prompt != "auto" else "translate" if is_bare(first) else "task"
        self.prompts = Prompted(tasks, prompt, tag=config.answer_tag, languages=(config.source_language, config.target_language))
        if prompt != "task" or config.answer_tag:
            self._task_set = self.prompts
        if config.judge_prompt != "auto":
            assessment_form(config.judge_prompt)  # refused before a model is loaded
        self.external = None if config.external_metric == "none" else text_metric(config.external_metric, "--external-metric")
        self.reported = {name: text_metric(name, "--eval-metrics") for name in config.eval_metrics}
        super().setup()
        self.require_single_turns("judges single translations; choose tasks without one, or --tasks with sources")
        needed = [config.external_metric] if config.external_metric in REFERENCE_METRICS else []
        if needed and all(self.task_set.train_task(self.run.seed, i).answer is None for i in range(64)):
            raise InputError(
                f"--external-metric {needed[0]} compares with references, and the first tasks of {self.task_set.name} have none; give lines a 'reference'"
            )
        self.form = self.choose_form()
        watched = self.probe.tasks if self.probe is not None else self.held_out
        labelled = [task for task in watched if task.answer is not None][: config.judge_probe_tasks]
        self.planted = planted(labelled, self.form.highest)
        self.first_scores: list[float | None] | None = None
        self.told: set[str] = set()

    def choose_form(self) -> Assessment:
        """How the judge is asked. Raises InputError where what was asked for leaves it no room to answer."""
        config, task = self.config, self.task_set.train_task(self.run.seed, 0)
        fields = fields_of(task, *self.prompts.languages)
        model = self.judging.model if isinstance(self.judging, LocalJudge) else None

        def room(form: Assessment) -> int:
            """Tokens left behind a question about a translation as long as its source."""
            question = Message("user", form.ask({**fields, "candidate": fields["source"]}))
            return model.context_length - len(model.render([question])) if model is not None else 1

        wanted = config.judge_prompt
        if wanted == "auto":
            invented = fields["target_language"].lower() in LANGUAGES
            wanted = "digit" if invented or room(FORMS["assessment"]) < 1 else "assessment"
        form = assessment_form(wanted, config.judge_scale)
        if model is not None and room(form) < 1:
            raise InputError(
                f"the question for the judge about task {task.id!r} does not fit into the {model.context_length} tokens that {model.name} reads; "
                "give a shorter one with --judge-prompt FILE, or a judge that reads more with --judge"
            )
        return form

    def make_probe(self) -> Probe | None:
        probe = super().make_probe()
        if probe is None or self._task_set is not self.prompts:
            return probe
        # Probe tasks from elsewhere have to be asked for, and read, as training tasks are.
        judged, truth = (
            task_set if isinstance(task_set, Prompted) else Prompted(task_set, "task", tag=self.prompts.tag, languages=self.prompts.languages)
            for task_set in (probe.judged, probe.truth)
        )
        return replace(probe, tasks=[self.prompts.prompted(task) for task in probe.tasks], judged=judged, truth=truth)

    # The reward

    def ended(self, trajectory: Trajectory) -> None:
        self.ask_about(trajectory)

    def ask_about(self, attempt: Trajectory) -> None:
        """Look at a response, and hand its translation to the judge unless that has been done or a rule says what it is worth."""
        if "assessed" in attempt.tags:
            return
        config, task = self.config, attempt.task
        source = source_of(task)
        given = translation_in(attempt.last_text, config.answer_tag)
        translation = without_wrapping(given, source) if given is not None and config.unwrap else given
        attempt.tags["assessed"] = assessed = Assessed(translation or None)
        if not given or not translation:
            return
        assessed.quoted = is_quoted(given) and not is_quoted(source)
        fields = fields_of(task, *self.prompts.languages)
        assessed.broken = broken_rules(translation, source, fields["target_language"])
        if not set(assessed.broken) & set(config.zero_rules):
            assessed.question = self.question(fields, translation)
            streams = [self.run.stream(self.run.step, "judge", task.id, attempt.sample, n) for n in range(config.judge_samples)]
            assessed.asked = self.ask([(assessed.question, stream) for stream in streams])

    def question(self, fields: dict[str, str], translation: str) -> Message:
        """What the judge is asked about a translation."""
        return Message("user", self.form.ask({**fields, "candidate": escaped(translation)}))

    def ask(self, questions: Sequence[tuple[Message, int]]) -> list[Future[Judgement]]:
        """Hand questions to the judge, each with the key of its random numbers."""
        return [self.judging.ask(Question((message,), stream)) for message, stream in questions]

    def settle(self) -> None:
        """Have everything answered that was asked."""
        self.judging.settle()

    def read(self, judgement: Judgement) -> float | None:
        """A judgement's score in [0, 1]. One that was cut off has none: `score: 8` may have become 85."""
        return read_score(judgement.text, self.form.highest) if judgement.finished else None

    def judge(self, groups: Sequence[Group]) -> None:
        super().judge(groups)  # verdicts by the labels, where there are any: for the log alone
        attempts = trajectories_of(groups)
        for attempt in attempts:
            self.ask_about(attempt)
        self.settle()
        for attempt in attempts:
            self.reward(attempt)

    def reward(self, attempt: Trajectory) -> None:
        """Give a response its reward from what the judge said."""
        config, assessed = self.config, attempt.tags["assessed"]
        in_form = assessed.translation is not None
        attempt.rewards["in_form"] = float(in_form)
        external = None
        if in_form:
            read = [score for future in assessed.asked if (score := self.read(future.result())) is not None]
            assessed.score = fmean(read) if read else None
            score = 0.0 if not assessed.asked or (assessed.score is None and config.unreadable == "zero") else assessed.score
            if score is not None:
                attempt.rewards["self"] = score
            external = self.measure(attempt, assessed.translation)
            if external is not None:
                attempt.rewards["external"] = external
        else:
            score = None
        weights = {"self_weight": config.self_weight, "external_weight": config.external_weight}
        attempt.reward = total_reward(score, external, in_form=in_form, bad_form=config.bad_form, **weights)

    def measure(self, attempt: Trajectory, translation: str) -> float | None:
        """The metric from outside; None where there is none, or nothing to compare with."""
        task = attempt.task
        if self.external is None or (task.answer is None and self.config.external_metric in REFERENCE_METRICS):
            return None
        return self.external(source_of(task), translation, task.answer)

    def collect(self, tasks: Sequence[Any]) -> list[Group]:
        groups = super().collect(tasks)
        self.counted = assessment_metrics(groups)
        records = [self.record(t) for t in trajectories_of(groups) if t.tags["assessed"].asked]
        wanted = self.transcripts_wanted()
        self.run.save_judgements(self.run.step, records[:: max(1, len(records) // wanted)][:wanted] if wanted else [])
        return groups

    def record(self, attempt: Trajectory) -> dict[str, Any]:
        """What was asked about an attempt, what the judge wrote, and the score that was read from it."""
        assessed: Assessed = attempt.tags["assessed"]
        said = [future.result().text for future in assessed.asked]
        question = assessed.question.content if assessed.question else ""
        return {
            "task_id": attempt.task.id,
            "sample": attempt.sample,
            "question": question,
            "judgements": said,
            "score": assessed.score,
            "attempt": attempt.last_text,
        }

    def credit(self, groups: Sequence[Group]) -> Metrics:
        return super().credit(groups) | self.counted

    # Measuring

    def evaluation(self) -> Evaluation:
        evaluation = super().evaluation()
        if not self.reported:
            return evaluation
        rows = [
            (t.task, translation_in(t.last_text, self.config.answer_tag) or "") for row in evaluation.trajectories for t in row if t.task.answer is not None
        ]
        found = {f"eval/{name}": mean([measure(source_of(task), text, task.answer) for task, text in rows]) for name, measure in self.reported.items()}
        return replace(evaluation, metrics=evaluation.metrics | found)

    def evaluate(self) -> Metrics:
        return super().evaluate() | self.read_judge()

    def read_judge(self) -> Metrics:
        """What the judge now says of the planted candidates, and whether it can still be trusted; the first reading is what later ones are compared with."""
        if not self.planted:
            return {}
        questions = [self.question(fields_of(c.task, *self.prompts.languages), c.candidate) for c in self.planted]
        asked = self.ask([(question, stream_key("judge probe", place)) for place, question in enumerate(questions)])
        self.settle()
        scores = [self.read(future.result()) for future in asked]
        if self.first_scores is None:
            self.first_scores = scores
        now, start = judge_reading(self.planted, scores, self.first_scores), judge_reading(self.planted, self.first_scores, self.first_scores)
        signs = judge_signs(now, start, most_gain=self.config.judge_gain, least_correlation=self.config.judge_left)
        if new := set(signs) - self.told:
            self.told |= new
            told = "; ".join(f"{name}: {said}" for name, said in signs.items() if name in new)
            warnings.warn(f"the judge goes astray at step {self.run.step} ({told}); a frozen or other judge, or an external metric, is safer", stacklevel=2)
        return now | {"judge_probe/signs": float(len(signs))} | {f"judge_probe/sign_{name}": 1.0 for name in signs}

    # Saving

    def state(self) -> State:
        state = super().state()
        state.plain |= {"first_scores": self.first_scores, "told": sorted(self.told)}
        return state

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.first_scores, self.told = state.plain["first_scores"], set(state.plain["told"])
