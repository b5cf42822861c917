import errno
import json
import math
import resource
from pathlib import Path

import pytest
import torch

from etude import checkpoints
from etude.checkpoints import Checkpoints
from etude.errors import CheckpointError
from etude.method import State


def state_of(step: int, size: int = 1000) -> State:
    return State(plain={"step": step, "text": "é"}, tensors={"weight": torch.full((size,), float(step))})


def filled(folder: Path, *steps: int, keep_last: int = 2, **scores: float) -> Checkpoints:
    """Checkpoints of some steps; scores are given as s3=0.5 for step 3."""
    saved = Checkpoints(folder, keep_last)
    for step in steps:
        saved.save(step, state_of(step), progress={"at": step}, score=scores.get(f"s{step}"))
    return saved


def test_a_state_comes_back_exactly(tmp_path: Path) -> None:
    tensors = {
        "float32": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
        "bfloat16": torch.tensor([1.5, math.inf, -0.0], dtype=torch.bfloat16),
        "int64": torch.tensor(2**60),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
        "transposed": torch.arange(6).reshape(2, 3).t(),
    }
    plain = {"pi": math.pi, "tiny": 5e-324, "big": 2**80, "none": None, "worst": -math.inf, "nested": [{"é": [1, True]}]}
    saved = Checkpoints(tmp_path)
    path = saved.save(7, State(plain, tensors), progress={"ledger": {"steps": 7}}, score=0.25)
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "state.json", "state.safetensors"]
    checkpoint = saved.load(7)
    assert (checkpoint.step, checkpoint.progress, checkpoint.score) == (7, {"ledger": {"steps": 7}}, 0.25)
    state = checkpoint.state()
    assert state.plain == plain
    assert state.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state.tensors[name].dtype == tensor.dtype
        assert torch.equal(state.tensors[name], tensor), name


def test_tied_tensors_are_written_once_and_views_are_copied(tmp_path: Path) -> None:
    embedding = torch.randn(400, 64)
    buffer = torch.arange(10.0)
    tensors = {
        "embedding": embedding,
        "head": embedding,
        "head.view": embedding[:],
        "flat": embedding.view(-1),
        "first": buffer[:6],
        "second": buffer[4:],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    saved = Checkpoints(tmp_path)
    path = saved.save(1, State(tensors=tensors), progress={})
    assert (path / "state.safetensors").stat().st_size < 2.2 * embedding.nbytes
    back = saved.load(1).state().tensors
    assert back["head"] is back["embedding"]
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor), name


def test_a_state_without_tensors_needs_no_tensor_file(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(1, State({"x": 1}), progress={})
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "state.json"]
    assert Checkpoints(tmp_path).load(1).state() == State({"x": 1})


@pytest.mark.parametrize(
    ("plain", "where"),
    [
        ({"a": {1: "x"}}, r"State.plain\['a'\] has the key 1"),
        ({"a": [0, {2}]}, r"State.plain\['a'\]\[1\] is a set"),
        ({"a": torch.ones(1)}, r"State.plain\['a'\] is a Tensor"),
        ({"a": Path("x")}, r"State.plain\['a'\] is a \w*Path"),
    ],
)
def test_what_json_would_change_is_refused_by_place(tmp_path: Path, plain: dict, where: str) -> None:
    with pytest.raises(TypeError, match=where):
        Checkpoints(tmp_path).save(1, State(plain), progress={})
    assert Checkpoints(tmp_path).steps() == []


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    saved = filled(tmp_path, 1, 2, 3, 4, 5, 6, s1=0.3, s2=0.6, s4=0.6, s5=0.1)
    assert saved.steps() == [2, 5, 6]
    assert saved.best() == (2, 0.6)
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 2, "score": 0.6}
    saved.save(7, state_of(7), progress={}, score=0.7)
    assert saved.steps() == [6, 7]
    assert saved.best() == (7, 0.7)


def test_a_whole_checkpoint_is_not_rewritten_but_can_become_the_best(tmp_path: Path) -> None:
    saved = filled(tmp_path, 1, 2, s1=0.3)
    before = (tmp_path / "step-2" / "manifest.json").read_bytes()
    saved.save(2, state_of(99), progress={}, score=0.5)
    assert (tmp_path / "step-2" / "manifest.json").read_bytes() == before
    assert saved.best() == (2, 0.5)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "tensors truncated": ("state.safetensors", truncate, "was cut off or changed"),
    "tensors flipped": ("state.safetensors", flip, "SHA-256"),
    "tensors missing": ("state.safetensors", Path.unlink, "incomplete: No such file"),
    "state truncated": ("state.json", truncate, "was cut off or changed"),
    "state flipped": ("state.json", flip, "SHA-256"),
    "manifest truncated": ("manifest.json", truncate, "cannot be read"),
    "manifest missing": ("manifest.json", Path.unlink, "incomplete"),
    "manifest empty": ("manifest.json", lambda f: f.write_text("{}"), "cannot be read: KeyError"),
    "manifest lists nothing": ("manifest.json", lambda f: f.write_text('{"format": 1, "files": {}, "score": null}'), "does not list"),
    "manifest is no mapping": ("manifest.json", lambda f: f.write_text("[]"), "cannot be read: TypeError"),
    "newer format": ("manifest.json", lambda f: f.write_text('{"format": 2}'), "format 2"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, case: str) -> None:
    name, damage, complaint = DAMAGE[case]
    saved = filled(tmp_path, 1, 2)
    damage(tmp_path / "step-2" / name)
    with pytest.raises(CheckpointError, match=complaint):
        saved.load(2)
    with pytest.warns(UserWarning, match=complaint):
        newest = saved.newest()
    assert newest is not None
    assert newest.step == 1
    assert newest.state().plain["step"] == 1
    saved.recover(1)
    assert saved.steps() == [1]
    assert (tmp_path / "damaged-step-2").is_dir()
    saved.save(2, state_of(2), progress={})
    assert saved.load(2).state().plain["step"] == 2


def test_a_best_that_is_damaged_gives_way_to_the_best_of_the_rest(tmp_path: Path) -> None:
    saved = filled(tmp_path, 1, 2, 3, keep_last=3, s1=0.2, s2=0.4, s3=0.9)
    flip(tmp_path / "step-3" / "state.json")
    saved.recover(2)
    assert saved.best() == (2, 0.4)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2


def test_damage_everywhere_is_an_error_and_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None
    saved = filled(tmp_path, 1, 2)
    for step in (1, 2):
        truncate(tmp_path / f"step-{step}" / "state.json")
    with pytest.warns(UserWarning, match="cut off"), pytest.raises(CheckpointError, match="steps 1, 2 are damaged"):
        saved.newest()


def test_an_earlier_checkpoint_may_lose_its_folder(tmp_path: Path) -> None:
    saved = filled(tmp_path, 1, 2)
    with pytest.raises(CheckpointError, match="step-9 is incomplete"):
        saved.load(9)


def assert_intact(saved: Checkpoints, step: int) -> None:
    assert saved.steps() == [step]
    newest = saved.newest()
    assert newest is not None
    assert newest.state().plain["step"] == step
    assert not list(saved.folder.glob(".*"))


@pytest.mark.parametrize("writer", ["_write_tensors", "write_synced", "sync_folder"])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    saved = filled(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, writer, full)
        with pytest.raises(CheckpointError, match=r"checkpoint of step 2 .* No space left on device\. The checkpoint of step 1 is intact"):
            saved.save(2, state_of(2), progress={})
    assert_intact(saved, 1)
    assert saved.save(2, state_of(2), progress={}).name == "step-2"


def test_a_disk_that_refuses_in_the_middle_of_the_tensors(tmp_path: Path) -> None:
    """The system itself refuses here: no file may grow beyond 64 kB."""
    saved = filled(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step 2 .*File too large.*step 1 is intact"):
            saved.save(2, state_of(2, size=100_000), progress={})
        with pytest.raises(CheckpointError, match=r"step 2 .*File too large.*step 1 is intact"):
            saved.save(2, State({"long": "x" * 100_000}), progress={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_intact(saved, 1)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A pickle in the tensors' place, its hash put right, is refused by the reader."""
    saved = filled(tmp_path, 1)
    torch.save({"weight": torch.ones(1)}, tmp_path / "step-1" / "state.safetensors")
    manifest = json.loads((tmp_path / "step-1" / "manifest.json").read_text())
    file = tmp_path / "step-1" / "state.safetensors"
    manifest["files"]["state.safetensors"] = {"size": file.stat().st_size, "sha256": checkpoints._digest(file)}
    (tmp_path / "step-1" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="cannot be read"):
        saved.load(1).state()
