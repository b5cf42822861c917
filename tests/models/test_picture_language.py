"""A language model that writes pictures: suppressed tokens are never written nor counted, captions go to tokens and back, and its folder is an ordinary one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.config import LearnerConfig
from etude.errors import InputError
from etude.images.sources import World
from etude.ledger import Ledger
from etude.models.language import LanguageModel
from etude.models.learner import Learner
from etude.models.picture_language import PictureWriter, build_model, code_beside, visual_tokens, visual_words
from etude.models.sampling import Request, SamplingParams
from etude.models.spatial_tokens import SpatialShape, SpatialTokenizer
from etude.rollouts import group_rollouts
from etude.tasks.pictures import PictureTasks, picture_of

CAPTIONS = ["red circle top-left, blue cross bottom-right", "green square top-right"]


@pytest.fixture(scope="module")
def writer() -> PictureWriter:
    torch.manual_seed(0)
    return PictureWriter.new(SpatialTokenizer(SpatialShape(codes=8, hidden=8)), CAPTIONS, width=16, layers=2)


def test_pictures_are_all_that_is_written_and_of_the_right_length(writer: PictureWriter) -> None:
    tokens = writer.sample(CAPTIONS * 20, torch.Generator().manual_seed(0))
    assert tokens.shape == (40, 16)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < 8


def test_what_is_suppressed_has_no_probability_for_sampler_and_learner_alike(writer: PictureWriter) -> None:
    policy = LanguageModel.wrap(writer.model, writer.tokenizer)
    tasks = PictureTasks.of(World(), writer.code)
    groups = group_rollouts(
        policy,
        [tasks.train_task(0, 0)],
        tasks,
        SamplingParams(max_new_tokens=16),
        group_size=4,
        stream=lambda task, place, sample: sample,
        max_turns=1,
        ledger=Ledger(),
    )
    trajectories = groups[0].trajectories
    learnt = Learner(policy.model, LearnerConfig()).logprobs(trajectories)
    for trajectory, own in zip(trajectories, learnt, strict=True):
        assert own == pytest.approx(trajectory.segments[0].logprobs, abs=1e-4)
    # Entropy of eight tokens at most, however many words there are.
    assert max(e for t in trajectories for e in t.segments[0].entropies) <= torch.tensor(8.0).log() + 1e-4


def test_settings_that_suppress_no_token_of_the_model_are_refused(writer: PictureWriter) -> None:
    model = build_model(writer.tokenizer, 8, width=16, layers=1)
    model.generation_config.suppress_tokens = [99_999]  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(InputError, match="suppress token 99999"):
        LanguageModel.wrap(model, writer.tokenizer)


def test_captions_and_visual_words_are_tokens_and_back(writer: PictureWriter) -> None:
    prompt = writer.prompts(CAPTIONS[:1])[0]
    assert writer.tokenizer.convert_ids_to_tokens(prompt) == ["red", "circle", "top-left", ",", "blue", "cross", "bottom-right", "<|draw|>"]
    text = visual_words([3, 7] * 8)
    assert writer.tokenizer.decode(writer.tokenizer(text)["input_ids"]) == text
    assert visual_tokens(text, writer.code) == [3, 7] * 8
    assert visual_tokens(visual_words([3] * 15), writer.code) is None
    assert visual_tokens(visual_words([8] * 16), writer.code) is None
    assert visual_tokens("a " + text, writer.code) is None


def test_a_language_model_of_text_is_given_visual_words(writer: PictureWriter) -> None:
    taught = PictureWriter.upon(writer.code, "tiny")
    tokens = taught.sample(["make 3 from 1 2"], torch.Generator().manual_seed(0))
    assert tokens.shape == (1, 16)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 8
    text = str(taught.tokenizer.decode((tokens[0] + taught.first_visual).tolist()))
    assert visual_tokens(text, writer.code) == tokens[0].tolist()


def test_only_the_pictures_tokens_are_learnt(writer: PictureWriter) -> None:
    tokens = torch.arange(16)[None].expand(2, -1) % 8
    rows, targets = writer.written(CAPTIONS, tokens)
    assert (targets != -100).sum(1).tolist() == [16, 16]
    # What is to be predicted at a place is what the row says at the next.
    wanted = targets[:, :-1] != -100
    assert torch.equal(targets[:, :-1][wanted], rows[:, 1:][wanted])
    assert writer.token_losses(CAPTIONS, tokens).shape == (2, 16)


def test_the_folder_is_an_ordinary_one_that_transformers_keeps_to_pictures(writer: PictureWriter, tmp_path: Path) -> None:
    writer.save(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": CAPTIONS[0]}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    torch.manual_seed(0)
    text = tokenizer.decode(model.generate(**asked, max_new_tokens=16)[0, asked["input_ids"].shape[1] :])  # pyright: ignore[reportAttributeAccessIssue]
    assert visual_tokens(text, code_beside(str(tmp_path))) is not None
    shown = picture_of(text, str(tmp_path))
    assert shown is not None
    assert shown.shape == (16, 16, 3)
    policy = LanguageModel.load(str(tmp_path), device="cpu")
    done = policy.sampler.generate([Request(tuple(asked["input_ids"][0].tolist()), SamplingParams(max_new_tokens=16), 1)])
    assert visual_tokens(done[0].text, writer.code) is not None
    with pytest.raises(InputError, match="does not write pictures"):
        code_beside("tiny")


def test_an_attempt_that_is_no_picture_earns_nothing_and_a_caption_is_on_one_side_only(writer: PictureWriter) -> None:
    tasks = PictureTasks.of(World(), writer.code, held_out_tasks=16)
    held_out = tasks.held_out()
    assert len({task.prompt for task in held_out}) == 16
    assert not {task.prompt for task in held_out} & {tasks.train_task(0, i).prompt for i in range(200)}
    assert tasks.verify(held_out[0], "<v1>") == {"format": 0.0, "correct": 0.0, "alignment": 0.0, "second_opinion": 0.0}
    found = tasks.verify(held_out[0], visual_words([1] * 16))
    assert found["format"] == 1.0
    assert 0 <= found["alignment"] <= 1
