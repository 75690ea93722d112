"""Feature maps that are too large for the device: stored on the host, read by regions.

Layers that work position by position, padding and resizing are not stored: they are done to each region as
it is read.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.errors import BadInput


@dataclass(frozen=True)
class Region:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, exclusive."""

    top: int
    bottom: int
    left: int
    right: int


class FeatureMap(Protocol):
    """(1, channels, height, width), read a region at a time, on the device of the network."""

    channels: int
    height: int
    width: int

    def read(self, region: Region) -> Tensor: ...


@dataclass
class Moments:
    """Mean and variance of each channel, added up region by region (Chan et al. 1979)."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Take in (N, C, h, w)."""
        variance, mean = torch.var_mean(values.float(), dim=(0, 2, 3), correction=0)
        variance, mean = variance.double().cpu(), mean.double().cpu()
        count = values.numel() // values.shape[1]
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + variance * count + apart.square() * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.squares / self.count


@dataclass(frozen=True)
class Stored:
    """On the host, in memory or in a file, with its moments."""

    values: Tensor
    moments: Moments
    device: torch.device

    @property
    def channels(self) -> int:
        return self.values.shape[1]

    @property
    def height(self) -> int:
        return self.values.shape[2]

    @property
    def width(self) -> int:
        return self.values.shape[3]

    def read(self, region: Region) -> Tensor:
        part = self.values[:, :, region.top : region.bottom, region.left : region.right]
        return part.to(self.device, copy=True)


@dataclass(frozen=True)
class Positionwise:
    """A function of equally large maps, position by position; it makes ``channels`` of theirs."""

    function: Callable[..., Tensor]
    sources: Sequence[FeatureMap]
    channels: int

    @property
    def height(self) -> int:
        return self.sources[0].height

    @property
    def width(self) -> int:
        return self.sources[0].width

    def read(self, region: Region) -> Tensor:
        return self.function(*(source.read(region) for source in self.sources))


@dataclass(frozen=True)
class Padded:
    """Borders of (left, right, top, bottom) pixels in one of torch's modes; ``zeros`` is constant 0."""

    source: FeatureMap
    widths: tuple[int, int, int, int]
    mode: str

    @property
    def channels(self) -> int:
        return self.source.channels

    @property
    def height(self) -> int:
        return self.source.height + self.widths[2] + self.widths[3]

    @property
    def width(self) -> int:
        return self.source.width + self.widths[0] + self.widths[1]

    def read(self, region: Region) -> Tensor:
        rows = _within(
            region.top - self.widths[2], region.bottom - self.widths[2], self.source.height, self.mode
        )
        columns = _within(
            region.left - self.widths[0], region.right - self.widths[0], self.source.width, self.mode
        )
        part = self.source.read(Region(rows.start, rows.stop, columns.start, columns.stop))
        if self.mode == "zeros":
            return F.pad(part, (columns.before, columns.after, rows.before, rows.after))
        return part[:, :, rows.index][:, :, :, columns.index]


@dataclass(frozen=True)
class _Span:
    """What must be read of a padded line (start to stop), and how it becomes what was asked for."""

    start: int
    stop: int
    before: int
    after: int
    index: Tensor


def _within(first: int, last: int, length: int, mode: str) -> _Span:
    if mode == "zeros":
        start, stop = (min(max(place, 0), length) for place in (first, last))
        before, after = max(0, min(last, 0) - first), max(0, last - max(first, length))
        return _Span(start, stop, before, after, torch.empty(0))
    places = torch.arange(first, last)
    if mode == "reflect":
        places = places.abs()
        places = torch.where(places >= length, 2 * (length - 1) - places, places)
    else:
        places = places.clamp(0, length - 1)
    start, stop = int(places.min()), int(places.max()) + 1
    return _Span(start, stop, 0, 0, places - start)


@dataclass(frozen=True)
class Enlarged:
    """Each pixel repeated ``factor`` times in both directions (nearest neighbour)."""

    source: FeatureMap
    factor: int

    @property
    def channels(self) -> int:
        return self.source.channels

    @property
    def height(self) -> int:
        return self.source.height * self.factor

    @property
    def width(self) -> int:
        return self.source.width * self.factor

    def read(self, region: Region) -> Tensor:
        f = self.factor
        top, left = region.top // f, region.left // f
        part = self.source.read(Region(top, -(-region.bottom // f), left, -(-region.right // f)))
        part = part.repeat_interleave(f, dim=2).repeat_interleave(f, dim=3)
        rows, columns = region.bottom - region.top, region.right - region.left
        y, x = region.top - top * f, region.left - left * f
        return part[:, :, y : y + rows, x : x + columns]


class Scratch:
    """Room for feature maps: memory as long as there is enough, then files that vanish with their maps."""

    def __init__(self, memory_bytes: int, device: torch.device) -> None:
        self.memory_bytes, self.device = memory_bytes, device

    def store(self, channels: int, height: int, width: int) -> Stored:
        """A map with nothing in it yet.

        Raises:
            BadInput: neither the memory nor the temporary folder has room for it.
        """
        size = channels * height * width
        shape = (1, channels, height, width)
        if size * 4 <= self.memory_bytes:
            return Stored(torch.empty(shape), Moments(), self.device)
        folder = Path(tempfile.gettempdir())
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix="cyclegan-") as file:
                # Reserved now: a full disk must be an error here, not a crash in the middle of a write.
                _reserve(file.fileno(), size * 4)
                values = torch.from_file(file.name, shared=True, size=size, dtype=torch.float32)
        except OSError as error:
            raise BadInput(
                f"{folder}: has no room for a feature map of {size * 4 / 2**30:.1f} GiB ({error.strerror}); "
                "point TMPDIR to a larger disk, or use --tiling dense"
            ) from error
        return Stored(values.view(shape), Moments(), self.device)


def _reserve(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:  # macOS
        os.truncate(handle, size)
