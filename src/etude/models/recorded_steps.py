"""Decode steps of a few fixed shapes, recorded once and played again: CUDA graphs.

A decode step is some fifteen small kernels a layer, and on a GPU each takes longer to launch than to run. A CUDA graph launches them all at once, but shapes and
addresses are those of the recording. So the number of rows is rounded up to one of a few sizes, and the span that is looked back on to a power of two; the rows that are
too many are free ones of the cache, and what they compute is dropped. A shape is recorded when it has come up a few times, since recording takes as long as dozens of steps.

What was recorded is held against the step itself before it is used. Where recording fails, or says something else, steps go on as they are.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.models.block_attention import alike
from etude.models.kv_cache import SlotCache
from etude.models.lean_decoder import LeanDecoder

ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Numbers of rows that are recorded. More are decoded without a recording."""
SHORTEST_SPAN = 64
USES = 3
"""A shape is recorded at its third use."""

Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes work that is a function of tensors in fixed places; returns what does it again, and the tensor that its result is then in."""


@dataclass
class _Recording:
    tokens: Tensor
    starts: Tensor
    play: Callable[[], None]
    logits: Tensor


class RecordedSteps:
    """Decode steps of one decoder on one cache.

    rows: the most rows that the cache may need. Recordings are of the memory that weights, keys and values are in, so all are forgotten when any of it moves.
    """

    def __init__(self, decoder: LeanDecoder, cache: SlotCache, rows: int, record: Recorder) -> None:
        self.decoder = decoder
        self.cache = cache
        self.rows = rows
        self._record = record
        self._uses: dict[tuple[int, int], int] = {}
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self._memory: tuple[int, ...] = ()
        self._given_up = False

    @classmethod
    def of(cls, decoder: LeanDecoder | None, cache: SlotCache, rows: int, device: torch.device) -> RecordedSteps | None:
        """For a decoder of plain layers on a GPU; None for any other: adapters are switched on and off between steps, which a recording would not see."""
        if device.type != "cuda" or decoder is None or not decoder.plain:
            return None
        return cls(decoder, cache, rows, CudaGraphs())

    @property
    def recorded(self) -> int:
        """Shapes that are played from a recording."""
        return len(self._recordings)

    def step(self, tokens_B: Tensor, starts_B: Tensor, span: int) -> Tensor | None:
        """Logits [B, V] after one more token in the first B rows, from a recording; None where there is none (yet).

        starts_B: where each row's token goes. span: one more than the last of these.
        """
        count = len(tokens_B)
        shape = self._shape(count, span)
        if self._given_up or shape is None:
            return None
        self._forget_moved()
        recording = self._recordings.get(shape)
        if recording is None:
            self._uses[shape] = self._uses.get(shape, 0) + 1
            if self._uses[shape] < USES:
                return None
            return self._begin(shape, tokens_B, starts_B)
        recording.tokens[:count] = tokens_B
        recording.tokens[count:] = 0
        recording.starts[:count] = starts_B
        recording.starts[count:] = 0
        recording.play()
        return recording.logits[:count].clone()

    def _shape(self, count: int, span: int) -> tuple[int, int] | None:
        """Rows and span of the recording for a step."""
        at = bisect_left(ROWS, count)
        if at == len(ROWS):
            return None
        return min(ROWS[at], max(count, self.rows)), min(max(SHORTEST_SPAN, 1 << (span - 1).bit_length()), self.cache.max_length)

    def _forget_moved(self) -> None:
        """Drop all recordings where a step would work on other memory than they do."""
        memory = (self.cache.address, *self.decoder.addresses())
        if memory != self._memory:
            self._recordings.clear()
            self._memory = memory

    def _begin(self, shape: tuple[int, int], tokens_B: Tensor, starts_B: Tensor) -> Tensor | None:
        """Record a shape, and look whether the recording says what the step does. Returns the logits of this step, or None where it came to nothing."""
        rows, span = shape
        count = len(tokens_B)
        tokens, starts = tokens_B.new_zeros(rows), starts_B.new_zeros(rows)
        tokens[:count] = tokens_B
        starts[:count] = starts_B

        def work() -> Tensor:
            self.cache.aim(slice(0, rows), starts, 1, span, rows)
            hidden = torch.arange(span, device=starts.device) > starts[:, None]
            return self.decoder.step(tokens, starts, self.cache, hidden)

        try:
            self.cache.reserve(self.rows, span)
            expected = work()
            # The step itself may have laid weights side by side.
            self._forget_moved()
            play, logits = self._record(work)
            play()
            agrees = alike(logits[:count], expected[:count])
        except RuntimeError as error:
            self._give_up(str(error).split("\n", 1)[0])
            return None
        if not agrees:
            self._give_up("what was recorded computes other logits")
            return None
        self._recordings[shape] = _Recording(tokens, starts, play, logits)
        return logits[:count].clone()

    def _give_up(self, why: str) -> None:
        self._given_up = True
        self._recordings.clear()
        warnings.warn(f"decode steps are not recorded as CUDA graphs, and go on without: {why}", stacklevel=4)


class CudaGraphs:
    """Records work as CUDA graphs, after it has run once on a stream of its own, as torch asks for.

    All share the memory that they work in, so the result of one is good until another is played.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = work()
        return graph.replay, logits
