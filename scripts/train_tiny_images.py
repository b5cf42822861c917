"""Train what the picture world ships, from nothing, and write it to src/etude/assets/tiny-images.

    python scripts/train_tiny_images.py               # every part
    python scripts/train_tiny_images.py features      # the network that pictures are compared in (half a minute)
    python scripts/train_tiny_images.py --measure     # train nothing: print what the shipped parts can do

A part is trained on pictures that are drawn as it goes. The same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch.nn import functional as F

from etude.evals.pictures import frechet_distance, precision_and_recall
from etude.images.captions import Law, draw_captions
from etude.images.drawing import draw
from etude.images.features import WEIGHTS, FeatureNet, features_of, recognised, reference
from etude.images.judge import alignment

SEED = 0


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


PARTS: dict[str, tuple[Callable[[], None], Callable[[], dict[str, Any]]]] = {"features": (train_features, measure_features)}


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
