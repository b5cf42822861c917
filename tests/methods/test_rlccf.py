"""RLCCF: several models, one vote. Labels with numbers worked out by hand, and real crowds on the embedded model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import killed_in_step
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import etude
from etude.config import RunConfig
from etude.crowd import averaged, crowd_metrics, member_names
from etude.driver import drive
from etude.errors import InputError
from etude.evals.evaluate import Evaluation
from etude.method import get_method
from etude.models.language import LanguageModel
from etude.run import Run, without_time
from etude.settings import build_config
from etude.tasks.answers import final_answer
from etude.tasks.base import TaskSet
from etude.types import Group, Message, Segment, Task, Trajectory, trajectories_of
from etude.watch import History

SMALL: dict[str, Any] = {
    **{"tasks_per_step": 2, "group_size": 4, "max_new_tokens": 10, "eval_tasks": 4, "eval_samples": 2, "warmup_steps": 0, "quiet": True, "threads": 1},
    **{"checkpoint_every": 1, "evaluate_every": 2, "probe": "never"},
}
TASK = Task("t", (Message("user", "1+1"),), answer="2")


def stranger(name: str = "stranger") -> LanguageModel:
    """A model of another kind: GPT-2, random weights, characters in another order, no chat template, 64 positions."""
    characters = [chr(i) for i in range(126, 31, -1)] + ["\n"]
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0, **{c: i + 1 for i, c in enumerate(characters)}}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<end>")
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=len(characters) + 1, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=0)
    return LanguageModel.wrap(GPT2LMHeadModel(config).eval(), fast, name=name, recommended_lr=1e-3)


def tiny() -> LanguageModel:
    return LanguageModel.load("tiny", device="cpu")


def crowd(folder: Path, members: Sequence[LanguageModel], task_set: TaskSet | None = None, **settings: Any) -> Any:
    """A crowd that is set up."""
    method: Any = get_method("rlccf")(
        build_config("rlccf", **{**SMALL, **settings}), Run(folder, RunConfig(save_trajectories=0)), policies=members, task_set=task_set
    )
    method.setup()
    method.run.step = 1
    return method


def tried(*answers: str | None, task: Task = TASK) -> Group:
    """One member's attempts at a task, judged by its reference."""
    attempts = []
    for answer in answers:
        segment = Segment([5, 6], "policy", "" if answer is None else f"answer: {answer}", trained=True, logprobs=[-1.0] * 2, entropies=[0.5] * 2)
        attempts.append(Trajectory(task, [1], [segment], "eos", rewards={"correct": float(answer == task.answer)}, reward=float(answer == task.answer)))
    return Group(task.id, attempts)


KNOWS, GUESSES, GUESSES_TOO = ("2", "2", "2", "4"), ("3", "3", "4", None), ("3", "3", "5", "6")


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        # Scores: 2 has 3 x 0.75, 3 has 4 x 0.5.
        ({}, ["2", "2", "2"]),
        ({"crowd_vote": "plain"}, ["3", "3", "3"]),
        ({"consistency_power": 0}, ["3", "3", "3"]),
        ({"crowd_vote": "own"}, ["2", "3", "3"]),
        # The first sees only guesses; the others see the one that knows, 3 x 0.75 against 2 x 0.5.
        ({"leave_out_own": True}, ["3", "2", "2"]),
    ],
)
def test_every_way_to_vote_gives_its_labels_and_rewards(tmp_path: Path, settings: dict[str, Any], labels: list[str]) -> None:
    method = crowd(tmp_path, [tiny(), tiny(), tiny()], **settings)
    sampled = [[tried(*answers)] for answers in (KNOWS, GUESSES, GUESSES_TOO)]
    metrics = method.judge(sampled, final_answer)
    assert [groups[0].tags["label"] for groups in sampled] == labels
    for groups, answers, label in zip(sampled, (KNOWS, GUESSES, GUESSES_TOO), labels, strict=True):
        assert groups[0].rewards == [float(a == label) for a in answers]
        assert [t.rewards["correct"] for t in groups[0].trajectories] == [float(a == "2") for a in answers]
    assert metrics["votes/label_accuracy"] == pytest.approx(labels.count("2") / 3)
    assert metrics["crowd/tiny/self_consistency"] == 0.75
    assert metrics["crowd/tiny/followed"] == float(labels[0] == "2")
    # Wrong: 4 | 3 3 4 | 3 3 5 6. Pairs 3 + 4 + 12; alike: one of fours, four of threes.
    assert metrics["crowd/same_mistakes"] == pytest.approx(5 / 19)
    if not settings:
        assert metrics["crowd/consistency"] == pytest.approx(2.25 / 7)
        assert metrics["crowd/dissent"] == pytest.approx(2 / 3)


def test_where_nobody_answers_nobody_is_rewarded(tmp_path: Path) -> None:
    method = crowd(tmp_path, [tiny(), tiny()])
    sampled = [[tried(None, None)], [tried(None, None)]]
    metrics = method.judge(sampled, final_answer)
    assert [g.rewards for groups in sampled for g in groups] == [[0, 0], [0, 0]]
    assert metrics["votes/undecided"] == 1
    assert metrics["crowd/consistency"] == 0


def test_a_model_that_says_the_same_to_everything_is_reported_as_a_dictator(tmp_path: Path) -> None:
    """Consistency is not truth: one collapsed model has the largest weight, and the others would follow it into its collapse."""
    tasks = [Task(f"t{i}", (Message("user", f"1+{i}"),), answer=str(i + 1)) for i in range(8)]
    guesses = [[tried(str(i + 1), str(i + 1), f"{i}0", f"{i}1", f"{i}2", f"{i}3", task=t) for i, t in enumerate(tasks)] for _ in range(2)]
    stuck = [tried(*["77"] * 6, task=t) for t in tasks]
    weighted = crowd(tmp_path / "a", [tiny(), tiny(), tiny()])
    metrics = weighted.judge([stuck, *guesses], final_answer)
    assert (metrics["crowd/dictated"], metrics["votes/label_accuracy"]) == (1, 0)
    assert (metrics["crowd/tiny/self_consistency"], metrics["crowd/tiny/followed"], metrics["crowd/tiny-2/followed"]) == (1, 1, 0)
    # Without its own votes the others teach it, and nobody dictates.
    apart = crowd(tmp_path / "b", [tiny(), tiny(), tiny()], leave_out_own=True)
    apart.judge([stuck, *guesses], final_answer)
    assert [g.tags["label"] for g in stuck] == [str(i + 1) for i in range(8)]


def test_members_of_other_kinds_keep_their_tokens_and_options_and_learn_from_their_own_attempts(tmp_path: Path) -> None:
    method = crowd(tmp_path, [tiny(), stranger()], lr=None, eval_kl=True)
    assert [m.name for m in method.members] == ["tiny", "stranger"]
    assert [m.learner.optimizer.param_groups[0]["lr"] for m in method.members] == [3e-4, 1e-3]
    assert [m.policy.context_length for m in method.members] == [256, 64]
    tasks = method.curriculum.next(1)
    sampled = [member.tried(tasks) for member in method.members]
    method.judge(sampled, final_answer)
    assert [m.policy.decode(t.prompt).strip() for m, groups in zip(method.members, sampled, strict=True) for t in groups[0].trajectories[:1]][1] == tasks[
        0
    ].prompt
    assert sampled[0][0].trajectories[0].prompt != sampled[1][0].trajectories[0].prompt
    for groups in sampled:
        for i, t in enumerate(trajectories_of(groups)):
            t.reward = float(i % 2)
    before = [[p.detach().clone() for p in m.policy.model.parameters()] for m in method.members]
    method.learn(method.members[1], sampled[1])
    moved = [
        max(float((a - b).detach().abs().max()) for a, b in zip(old, m.policy.model.parameters(), strict=True))
        for old, m in zip(before, method.members, strict=True)
    ]
    assert moved[0] == 0
    assert moved[1] > 0
    assert method.members[1].kl_to_start(sampled[1][0].trajectories) > 0
    assert method.members[0].kl_to_start(sampled[0][0].trajectories) == 0


def test_a_prompt_too_long_for_one_member_is_refused_and_the_member_named(tmp_path: Path) -> None:
    class Long(TaskSet):
        name = "long"

        def train_task(self, seed: int, index: int) -> Task:
            return Task(f"long-{index}", (Message("user", "1" * 80),), answer="1")

        def held_out(self) -> Sequence[Task]:
            return [self.train_task(0, 0)]

        def verify(self, task: Task, text: str) -> Mapping[str, float]:
            return {"correct": 0.0}

    with pytest.raises(InputError, match="stranger reads 64"):
        crowd(tmp_path, [tiny(), stranger()], Long())


def test_copies_of_a_model_draw_for_themselves(tmp_path: Path) -> None:
    method = crowd(tmp_path, [tiny(), tiny()])
    tasks = method.curriculum.next(2)
    texts = [[t.text for t in trajectories_of(member.tried(tasks))] for member in method.members]
    assert texts[0] != texts[1]
    evaluations = [[t.text for row in member.measured().trajectories for t in row] for member in method.members]
    assert evaluations[0] != evaluations[1]


def test_a_crowd_measures_its_members_their_mean_and_both_votes() -> None:
    tasks = [TASK, Task("u", (Message("user", "1+2"),), answer="3")]
    rows = [[[*KNOWS], ["3", "3", "1", "1"]], [[*GUESSES], ["4", "4", "3", None]], [[*GUESSES_TOO], ["3", "4", "5", "6"]]]
    evaluations = []
    for answers in rows:
        groups = [tried(*row, task=task) for row, task in zip(answers, tasks, strict=True)]
        right = [t.correct for g in groups for t in g.trajectories]
        evaluations.append(Evaluation({"eval/pass@1": sum(right) / len(right), "eval/length": 2.0}, tasks, [g.trajectories for g in groups]))
    metrics = crowd_metrics(["a", "b", "c"], evaluations, final_answer)
    # Right: 3 + 2 of 8, 0 + 1 of 8, 0 + 1 of 8.
    assert [metrics[f"eval/{name}/pass@1"] for name in "abc"] == [5 / 8, 1 / 8, 1 / 8]
    assert metrics["eval/pass@1"] == pytest.approx(7 / 24)
    assert metrics["eval/pass@1_low"] < 7 / 24 < metrics["eval/pass@1_high"]
    # The first task only by weights. The second by both: 3 has 2 x .5 + 1 x .5 + 1 x .25, 4 has 2 x .5 + .25; plainly 4 votes and 3.
    assert (metrics["eval/vote"], metrics["eval/plain_vote"]) == (1.0, 0.5)
    assert metrics["eval/vote_lead"] == pytest.approx(1 - 5 / 8)
    assert metrics["eval/length"] == 2.0


def test_a_crowd_is_trained_resumed_and_exported_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "stranger"
    stranger().save(other)
    settings = {
        **SMALL,
        "tasks": "commands",
        "steps": 3,
        "crowd": [str(other), "tiny"],
        "lr": 1e-3,
        "schedule": "cosine",
        "entropy_target": 0.5,
        "probe": "auto",
        "probe_size": 8,
    }
    summary = etude.train("rlccf", out=tmp_path / "whole", **settings)
    with killed_in_step("rlccf", 3, monkeypatch):
        etude.train("rlccf", out=tmp_path / "parted", **settings)
    etude.train(resume=tmp_path / "parted")
    whole, parted = Run.open(tmp_path / "whole"), Run.open(tmp_path / "parted")
    assert [without_time(line) for line in parted.metrics()] == [without_time(line) for line in whole.metrics()]
    names = ["tiny", "stranger", "tiny-2"]
    assert summary.after["eval/pass@1"] == pytest.approx(sum(summary.after[f"eval/{name}/pass@1"] for name in names) / 3)
    assert {json.loads(line)["member"] for line in (whole.folder / "trajectories.jsonl").read_text().splitlines()} == set(names)
    states = {}
    for run in (whole, parted):
        for name, folder in zip(names, (run.folder / "model", run.folder / "model" / "stranger", run.folder / "model" / "tiny-2"), strict=True):
            states[run, name] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name in names:
        assert all(torch.equal(value, states[parted, name][key]) for key, value in states[whole, name].items())
    # Copies of one model part, because each learns from its own attempts.
    assert any(not torch.equal(value, states[whole, "tiny-2"][key]) for key, value in states[whole, "tiny"].items())
    assert LanguageModel.load(str(whole.folder / "model" / "stranger"), device="cpu").context_length == 64


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "only tiny is named"),
        ({"crowd": ["tiny,/nowhere/at/all"]}, "no model folder '/nowhere/at/all'"),
        ({"crowd": ["tiny"], "crowd_vote": "own", "leave_out_own": True}, "drop one of them"),
        ({"crowd": ["tiny"], "group_size": 1}, "--group-size is 1"),
    ],
)
def test_crowds_that_cannot_be_are_refused_before_anything_is_spent(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        etude.train("rlccf", out=tmp_path / "run", **{**SMALL, **settings})
    assert not (tmp_path / "run").exists()


def test_names_are_short_and_different() -> None:
    assert member_names(["tiny", "tiny", "runs/a/model", "/x/b/", "owner/Some-1B", "tiny"]) == ["tiny", "tiny-2", "a", "b", "Some-1B", "tiny-3"]


def test_metrics_that_a_member_lacks_do_not_enter_the_mean() -> None:
    assert averaged([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0, "b": 2.0}


class SmallSums(TaskSet):
    """Sums below 10, none of which is 7, trained on with the smaller number first and held out the other way round."""

    name = "small-sums"
    max_new_tokens = 16

    def _task(self, small: int, great: int, *, turned: bool) -> Task:
        a, b = (great, small) if turned else (small, great)
        return Task(f"{a}+{b}", (Message("user", f"compute {a}+{b}"),), answer=str(a + b))

    def train_task(self, seed: int, index: int) -> Task:
        return self._task(*self.pairs[(seed + index) % len(self.pairs)], turned=False)

    def held_out(self) -> Sequence[Task]:
        return [self._task(small, great, turned=True) for small, great in self.pairs]

    def verify(self, task: Task, text: str) -> Mapping[str, float]:
        return {"correct": float(final_answer(text) == task.answer)}

    pairs = tuple((a, b) for a in range(1, 9) for b in range(a + 1, 9) if a + b < 10 and a + b != 7)


def stuck(answer: str = "7") -> LanguageModel:
    """A model that answers 7 to everything: each character follows from the one before."""
    model = stranger("stuck")
    vocabulary = len(model.tokenizer)
    config = GPT2Config(vocab_size=vocabulary, n_embd=2 * vocabulary, n_layer=1, n_head=1, n_positions=64, bos_token_id=None, eos_token_id=0)
    config.tie_word_embeddings = False
    network: Any = GPT2LMHeadModel(config).eval()
    said = [*model.tokenizer(f"\nanswer: {answer}")["input_ids"], 0]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.transformer.ln_f.weight.fill_(1)
        network.transformer.wte.weight.copy_(torch.eye(vocabulary, 2 * vocabulary))
        for before, after in pairwise(said):
            network.lm_head.weight[after, before] = 3
    return LanguageModel.wrap(network, model.tokenizer, name="stuck")


def test_a_stuck_model_drags_the_others_along_and_is_found_out(tmp_path: Path) -> None:
    """Contagion: the vote of a model that is certain of one wrong answer weighs most, the reward rises, and the labelled probe says what became of it."""
    settings = SMALL | {"probe": "auto", "probe_every": 4, "steps": 12, "lr": 2e-3, "tasks_per_step": 8, "group_size": 8, "max_new_tokens": 0}
    config = build_config("rlccf", out=tmp_path / "run", eval_kl=False, **(settings | {"evaluate_every": 0, "checkpoint_every": 0}))
    run = Run.create(config.run, folder_name="run")
    method: Any = get_method("rlccf")
    summary = drive(method(config, run, policies=[tiny(), stuck()], task_set=SmallSums()), run)
    first, *_, last = History(run.probe_log).readings()
    assert first.answers[0][1] < 0.6
    assert last.answers[0][0] == "7"
    assert last.answers[0][1] > 0.9
    assert last.metrics["probe/accuracy"] < 0.02 < first.metrics["probe/accuracy"]
    assert last.metrics["probe/proxy"] > first.metrics["probe/proxy"] + 0.2
    assert "one_answer" in {sign for collapse in summary.collapses for sign in collapse["signs"]}
    dictated = [line["crowd/dictated"] for line in run.metrics() if "crowd/dictated" in line]
    assert dictated[0] == 1
