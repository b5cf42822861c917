"""Train what the picture world ships, from nothing, and write it to src/etude/assets/tiny-images.

    python scripts/train_tiny_images.py               # every part
    python scripts/train_tiny_images.py features      # the network that pictures are compared in
    python scripts/train_tiny_images.py flow scales   # the two policies that draw
    python scripts/train_tiny_images.py selftok flowmo spatial   # three tokenizers, each with a language model that writes their tokens
    python scripts/train_tiny_images.py --measure     # train nothing: print what the shipped parts can do

A part is trained on pictures that are drawn as it goes. The same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import etude
from etude.evals.pictures import frechet_distance, precision_and_recall
from etude.evals.token_order import psnr
from etude.images.captions import Law, draw_captions
from etude.images.drawing import draw
from etude.images.features import WEIGHTS, FeatureNet, features_of, recognised, reference
from etude.images.judge import alignment
from etude.images.sources import World
from etude.models.flow import FlowModel, averaged, draw_times, drop_captions, flow_matching_loss, walk
from etude.models.picture_language import PictureWriter
from etude.models.picture_tokens import ScaleTokenizer
from etude.models.scales import ScaleTransformer
from etude.objectives.student_forcing import StudentForcing, forcing_loss

SEED = 0
ASSETS = WEIGHTS.parent
WRITERS: dict[str, Any] = {"evaluate_every": 0, "checkpoint_every": 0, "eval_pictures": 16, "export": "last", "threads": 1, "quiet": True}
"""Settings of the three tokenizers' runs, besides the method's own: steps, sizes and rates are its defaults."""


def drawn(count: int, law: Law, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [B, 3, 16, 16] and their captions [B, 4]."""
    captions = draw_captions(count, law, random)
    return torch.from_numpy(draw(captions, random)), torch.tensor(captions)


def train_features(*, pictures: int = 20_000, steps: int = 900, batch: int = 128, lr: float = 2e-3, noise: float = 0.1) -> None:
    """Read captions off pictures, some of them with noise in them, so that noise is a distance and not another world."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    images, captions = drawn(pictures, "uniform", random)
    net = FeatureNet()
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    for _ in track(range(steps), description="features"):
        rows = torch.from_numpy(random.integers(pictures, size=batch))
        seen = images[rows]
        seen = seen + torch.rand(batch, 1, 1, 1) * noise * torch.randn_like(seen)
        loss = F.cross_entropy(net.captions(net.features(seen)).flatten(0, 1), captions[rows].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), WEIGHTS)


def measure_features() -> dict[str, Any]:
    """How often the network reads a whole caption right, and what distances it gives to pictures that are real, noisy and blurred."""
    random = np.random.default_rng(SEED + 1)
    images, captions = drawn(2048, "uniform", random)
    noise = torch.from_numpy(random.normal(size=images.shape).astype(np.float32))
    real = reference()
    judged = alignment(images, captions)
    found: dict[str, Any] = {
        "captions_read": float(recognised(images, captions).mean()),
        "judge_soft": float(judged.soft.mean()),
        "judge_strict": float(judged.strict.mean()),
    }
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    for name, changed in {"real": images, **{f"noise {n}": images + n * noise for n in (0.1, 0.2, 0.4)}, "blur": blurred}.items():
        features = real.standardised(features_of(changed))
        precision, recall = precision_and_recall(features, real.standardised(real.features)[:2048])
        found[name] = {
            "distance": round(frechet_distance(features, real.standardised(real.features)), 4),
            "precision": round(precision, 3),
            "recall": round(recall, 3),
        }
    return found


def train_flow(*, steps: int = 1600, batch: int = 128, lr: float = 2e-3, dropped: float = 0.1) -> None:
    """Flow matching on biased captions, so that kinds that never occur are left to be learnt. What is saved is the moving average of the weights."""
    torch.manual_seed(SEED)
    random, generator = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    source, model = World("biased"), FlowModel()
    average = averaged(model)
    optimiser, schedule = one_cycle(model, lr, steps)
    for _ in track(range(steps), description="flow"):
        pictures, captions = source.batch(batch, random)
        noise = torch.randn(pictures.shape, generator=generator)
        loss = flow_matching_loss(model, pictures, drop_captions(captions, dropped, generator), draw_times(batch, generator), noise)
        update(model, optimiser, loss)
        schedule.step()
        average.update_parameters(model)
    cast(FlowModel, average.module).save(ASSETS / "flow")


def measure_flow() -> dict[str, Any]:
    """How well pictures fit their captions, and how far they are from real ones, by the number of steps."""
    model = FlowModel.load(ASSETS / "flow")
    noise = torch.randn(2048, 3, 16, 16, generator=torch.Generator().manual_seed(SEED))
    uniform, seen = World().held_out(2048), World("biased").batch(2048, np.random.default_rng(SEED))
    found: dict[str, Any] = {}
    for steps in (1, 2, 4, 10):
        found[f"{steps} steps"] = {
            name: described(walk(model, captions, noise, steps), captions) for name, captions in (("any captions", uniform[1]), ("biased captions", seen[1]))
        }
    return found


def train_scales(
    *,
    tokenizer_steps: int = 1500,
    tokenizer_batch: int = 96,
    steps: int = 1500,
    batch: int = 64,
    lr: float = 2e-3,
    dropped: float = 0.1,
    commitment: float = 0.25,
) -> None:
    """A tokenizer of pictures, and then a transformer that predicts its codes, teacher-forced, both on uniform captions."""
    torch.manual_seed(SEED)
    random, generator = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    source, tokenizer = World(), ScaleTokenizer()
    optimiser, schedule = one_cycle(tokenizer, lr, tokenizer_steps)
    for step in track(range(tokenizer_steps), description="tokenizer"):
        # Every third batch is squeezed, so that coarse scales can be decoded too.
        squeeze = (2, 4)[step % 2] if step % 3 == 2 else None
        update(tokenizer, optimiser, tokenizer.loss(source.batch(tokenizer_batch, random)[0], commitment=commitment, squeeze=squeeze, generator=generator))
        schedule.step()
    tokenizer.save(ASSETS / "scales")
    model = ScaleTransformer()
    optimiser, schedule = one_cycle(model, lr, steps)
    for _ in track(range(steps), description="scales"):
        pictures, captions = source.batch(batch, random)
        with torch.no_grad():
            tokens = tokenizer.tokens(pictures)
        forced = forcing_loss(model, tokenizer, drop_captions(captions, dropped, generator), tokens, generator, settings=StudentForcing(weight=0))
        update(model, optimiser, forced.loss)
        schedule.step()
    model.save(ASSETS / "scales")


def measure_scales() -> dict[str, Any]:
    """What is left of pictures that are only read and written, and how good drawn ones are."""
    tokenizer, model = ScaleTokenizer.load(ASSETS / "scales"), ScaleTransformer.load(ASSETS / "scales")
    pictures, captions = World().held_out(2048)
    with torch.no_grad():
        read = tokenizer.decode(tokenizer.tokens(pictures))
        drawn = model.sample(tokenizer, captions, torch.Generator().manual_seed(SEED))
        made = tokenizer.decode(drawn.tokens)
    return {"read and written": described(read, captions), "drawn": described(made, captions)}


def train_writer(name: str) -> None:
    """A tokenizer of uniform pictures and its renderer, and a language model that writes pictures of biased captions: a run of `etude train selftok-pretrain`."""
    with tempfile.TemporaryDirectory() as folder:
        etude.train("selftok-pretrain", out=Path(folder) / "run", code=name, tasks="pictures:law=biased", tokenizer_tasks="pictures", seed=SEED, **WRITERS)
        shutil.rmtree(ASSETS / name, ignore_errors=True)
        shutil.copytree(Path(folder) / "run" / "model", ASSETS / name)


def measure_writer(name: str) -> dict[str, Any]:
    """What is left of pictures that are read as tokens and rendered, and how good written ones are."""
    writer = PictureWriter.load(ASSETS / name)
    pictures, captions = World().held_out(2048)
    seen = World("biased").batch(2048, np.random.default_rng(SEED))[1]
    generator = torch.Generator().manual_seed(SEED)
    found: dict[str, Any] = {"weights": sum(p.numel() for p in writer.parameters())}
    with torch.no_grad():
        read = writer.code.render(writer.code.encode(pictures))
        found["read and rendered"] = {**described(read, captions), "decibels": round(psnr(read, pictures), 2)}
        for law, asked in (("any captions", captions), ("biased captions", seen)):
            words = [World().words(caption) for caption in asked.tolist()]
            found[f"written, {law}"] = described(writer.code.render(writer.sample(words, generator)), asked)
    return found


def one_cycle(model: nn.Module, lr: float, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW whose rate rises and falls once."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)


def update(model: nn.Module, optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step, gradients clipped to the norm 1."""
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def described(pictures: torch.Tensor, captions: torch.Tensor) -> dict[str, float]:
    """Alignment by both judges, and the distance to real pictures."""
    judged, real = alignment(pictures, captions), reference()
    distance = frechet_distance(real.standardised(features_of(pictures)), real.standardised(real.features))
    return {
        "soft": round(float(judged.soft.mean()), 3),
        "strict": round(float(judged.strict.mean()), 3),
        "read": round(float(recognised(pictures, captions).mean()), 3),
        "distance": round(distance, 3),
    }


PARTS: dict[str, tuple[Callable[[], None], Callable[[], dict[str, Any]]]] = {
    "features": (train_features, measure_features),
    "flow": (train_flow, measure_flow),
    "scales": (train_scales, measure_scales),
    **{name: (partial(train_writer, name), partial(measure_writer, name)) for name in ("selftok", "flowmo", "spatial")},
}


def main() -> None:
    asked = [word for word in sys.argv[1:] if word != "--measure"]
    if unknown := [word for word in asked if word not in PARTS]:
        sys.exit(f"there is no part {unknown[0]!r}; expected {', '.join(PARTS)}, or --measure")
    for name in asked or PARTS:
        train, measure = PARTS[name]
        if "--measure" not in sys.argv:
            train()
        print(name, json.dumps(measure(), indent=1))


if __name__ == "__main__":
    main()
