"""Keys and values of the sequences that are being generated, one row a sequence.

Rows start at position 0 and have their own lengths; the first `n` rows are always the running ones, so that a decode step works on a plain slice. Where a row ends
another is moved into its place; a fork copies a row; a parked row is a compact copy outside the slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache


@dataclass(frozen=True)
class ParkedRow:
    """Keys and values of one sequence's first `length` positions, [layers, heads, length, width] each."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    def head(self, length: int) -> ParkedRow:
        """The first `length` positions, sharing memory."""
        return ParkedRow(self.keys[:, :, :length], self.values[:, :, :length])


class SlotCache(Cache):
    """A transformers cache that writes new keys and values in place, at each row's own position.

    Set `rows`, `starts` and `span` with `aim` before a forward: row `rows[i]` of the cache receives input row i from position `starts[i]` on, and attention sees
    positions up to `span`.
    """

    GROWTH = 64

    def __init__(self, layers: int, max_length: int) -> None:
        super().__init__(layers=[])
        self.layer_count = layers
        self.max_length = max_length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._store_keys: Tensor | None = None
        self._store_values: Tensor | None = None
        self._rows: slice | Tensor = slice(0, 0)
        self._row_index: Tensor = torch.empty(0, dtype=torch.long)
        self._columns: Tensor = torch.empty(0, dtype=torch.long)
        self._span = 0
        self._needed_rows = 0

    def aim(self, rows: slice | Tensor, starts_B: Tensor, width: int, span: int, total_rows: int) -> None:
        """Say where the next forward's keys and values go: input [B, width] at `rows`, from `starts_B` on, attending to `span` positions.

        `total_rows` is how many rows the store must hold at least.
        """
        self._rows = rows
        self._row_index = torch.arange(rows.start, rows.stop, device=starts_B.device) if isinstance(rows, slice) else rows
        self._columns = (starts_B[:, None] + torch.arange(width, device=starts_B.device)).clamp_(max=self.max_length - 1)
        self._span = span
        self._needed_rows = total_rows
        if self._store_keys is not None:
            self._reserve(total_rows, span)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Store [B, heads, width, D] keys and values and return everything that the rows hold, [B, heads, span, D]."""
        if self._store_keys is None:
            self._allocate(key_states, value_states)
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        # Advanced indices on either side of the slice: the assigned shape is [B, width, heads, D].
        if self._columns.shape[1] == 1:
            column = self._columns[:, 0]
            keys[self._row_index, :, column] = key_states[:, :, 0]
            values[self._row_index, :, column] = value_states[:, :, 0]
        else:
            keys[self._row_index[:, None], :, self._columns] = key_states.transpose(1, 2)
            values[self._row_index[:, None], :, self._columns] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._span], values[self._rows, :, : self._span]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._span - self._columns.shape[1]

    def park(self, row: int, length: int) -> ParkedRow:
        """A compact copy of a row's first `length` positions."""
        assert self._store_keys is not None
        assert self._store_values is not None
        return ParkedRow(self._store_keys[:, row, :, :length].clone(), self._store_values[:, row, :, :length].clone())

    def unpark(self, rows: Sequence[int], parked: ParkedRow, total_rows: int) -> None:
        """Copy a parked row into some slots."""
        if self._store_keys is None:
            self._create(parked.keys.shape, parked.values.shape, parked.keys, total_rows, parked.length)
        else:
            self._reserve(total_rows, parked.length)
        assert self._store_keys is not None
        assert self._store_values is not None
        index = torch.as_tensor(list(rows), device=parked.keys.device)
        self._store_keys[:, index, :, : parked.length] = parked.keys[:, None]
        self._store_values[:, index, :, : parked.length] = parked.values[:, None]

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int, total_rows: int) -> None:
        """Copy the first `length` positions of each source row to its target row."""
        self._reserve(total_rows, length)
        assert self._store_keys is not None
        assert self._store_values is not None
        device = self._store_keys.device
        source, target = torch.as_tensor(list(sources), device=device), torch.as_tensor(list(targets), device=device)
        self._store_keys[:, target, :, :length] = self._store_keys[:, source, :, :length]
        self._store_values[:, target, :, :length] = self._store_values[:, source, :, :length]

    def clear(self) -> None:
        """Give the memory back."""
        self._store_keys = self._store_values = None
        self.keys, self.values = [], []

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        if self._store_keys is None or self._store_values is None:
            return 0
        return self._store_keys.nbytes + self._store_values.nbytes

    @property
    def address(self) -> int:
        """Where its memory is; 0: it has none."""
        return 0 if self._store_keys is None else self._store_keys.data_ptr()

    def reserve(self, rows: int, length: int) -> None:
        """Have room for so many rows of such a length from now on, where there is any room yet."""
        if self._store_keys is not None:
            self._reserve(rows, length)

    def _allocate(self, keys: Tensor, values: Tensor) -> None:
        def per_row(t: Tensor) -> tuple[int, ...]:
            return (self.layer_count, t.shape[1], 0, t.shape[3])

        self._create(per_row(keys), per_row(values), keys, self._needed_rows, self._span)

    def _create(self, key_shape: Sequence[int], value_shape: Sequence[int], like: Tensor, rows: int, length: int) -> None:
        length = self._rounded(length)
        self._store_keys = like.new_zeros((key_shape[0], rows, key_shape[1], length, key_shape[3]))
        self._store_values = like.new_zeros((value_shape[0], rows, value_shape[1], length, value_shape[3]))
        self.keys, self.values = list(self._store_keys), list(self._store_values)

    def _rounded(self, length: int) -> int:
        return min(-(-length // self.GROWTH) * self.GROWTH, self.max_length)

    def _reserve(self, rows: int, length: int) -> None:
        assert self._store_keys is not None
        assert self._store_values is not None
        have_rows, have_length = self._store_keys.shape[1], self._store_keys.shape[3]
        if rows <= have_rows and length <= have_length:
            return
        rows, length = max(rows, have_rows), max(self._rounded(length), have_length)
        stores: list[Tensor] = []
        for old in (self._store_keys, self._store_values):
            new = old.new_zeros((old.shape[0], rows, old.shape[2], length, old.shape[4]))
            new[:, :have_rows, :, :have_length] = old
            stores.append(new)
        # Both or neither: there may be memory for one of them alone.
        self._store_keys, self._store_values = stores
        self.keys, self.values = list(self._store_keys), list(self._store_values)
