"""The networks at work: one thread uses the device; requests for one generator and one size go together."""

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cyclegan.allocation import give_memory_back
from cyclegan.errors import BadInput
from cyclegan.images import Picture
from cyclegan.translation import Translator
from cyclegan.translation.options import Tiling
from cyclegan.translation.pipeline import BATCH_PIXELS, IN_FLIGHT_PIXELS
from cyclegan.translation.tiling.source import ArraySource, assembled

KEPT = 4  # generators that stay in memory
TOGETHER = 16  # pictures in one pass, fewer where they are large
TOO_LARGE = "does not fit into memory; translate it at a smaller size"

PAUSE_S = 2.0

Say = Callable[[float, str], None]  # a share of the work that is done, and what is being done


class GivenUp(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True, eq=False)
class Order:
    """One picture for one generator; without a ``tensor`` (C, H, W) it goes in tiles."""

    translator: Translator
    picture: Picture
    tensor: Tensor | None
    wanted: Callable[[], bool]
    say: Say
    result: Future = field(default_factory=Future)

    def goes_with(self, other: "Order") -> bool:
        if self.tensor is None or other.tensor is None:
            return self is other
        return self.translator is other.translator and self.tensor.shape == other.tensor.shape

    @property
    def most(self) -> int:
        """How many of its kind go through the network at once."""
        height, width = self.picture.pixels.shape[:2] if self.tensor is None else self.tensor.shape[1:]
        return max(1, min(TOGETHER, BATCH_PIXELS // (height * width)))


class Room:
    """Pixels that may be in memory at once; one picture that is larger than all of it comes in alone."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self._taken = pixels, 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int, wanted: Callable[[], bool]) -> Iterator[None]:
        """Until the block ends, room for a picture of so many pixels; waits for its turn.

        Raises:
            GivenUp: ``wanted`` says so meanwhile.
        """
        with self._changed:
            while self._taken and self._taken + pixels > self.pixels:
                self._changed.wait(timeout=1.0)
                if not wanted():
                    raise GivenUp
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


class Engine:
    """Translates pictures one batch after the other, in a thread of its own.

    What waits while a batch is computed and is for the same generator at the same size makes the next
    batch; nothing waits for company.
    """

    def __init__(self) -> None:
        self.passes, self.pictures = 0, 0
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._waiting: list[Order] = []
        self._loaded: OrderedDict[tuple[Path, int, Tiling], Translator] = OrderedDict()
        self._loading = threading.Lock()
        self.room = Room(IN_FLIGHT_PIXELS)
        self._thread = threading.Thread(target=self._work, name="app engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """What waits is given up."""
        self._orders.put(None)
        self._thread.join()
        while not self._orders.empty():
            self._waiting.append(self._orders.get())
        for order in filter(None, self._waiting):
            order.result.set_exception(GivenUp())

    def translator(self, generator: Path, tiling: Tiling) -> Translator:
        """The generator as it lies there now, loaded if it is not yet.

        Raises:
            BadInput: as ``Translator.from_pretrained``.
        """
        with self._loading:
            key = self._key(generator, tiling)
            if key not in self._loaded:
                self._loaded[key] = Translator.from_pretrained(generator, tiling=tiling)
                while len(self._loaded) > KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    @staticmethod
    def _key(generator: Path, tiling: Tiling) -> tuple[Path, int, Tiling]:
        # A training writes its generators anew.
        try:
            return generator, (generator / "model.safetensors").stat().st_mtime_ns, tiling
        except OSError as error:
            raise BadInput(f"{generator.name}: is not there any more") from error

    def translate(
        self,
        translator: Translator,
        picture: Picture,
        size: int | None,
        wanted: Callable[[], bool],
        say: Say,
    ) -> np.ndarray:
        """A decoded picture translated: pixels of its size and depth.

        Raises:
            BadInput: memory does not hold it.
            GivenUp: ``wanted`` says so.
        """
        in_tiles = size is None and translator.goes_in_tiles(*picture.pixels.shape[:2])
        tensor = None if in_tiles else translator.prepare(picture, size)
        order = Order(translator, picture, tensor, wanted, say)
        self._orders.put(order)
        result = order.result.result()
        return result if in_tiles else translator.finish(result, picture)

    def _next(self) -> Order | None:
        """The next order; in a pause what a rush has taken goes back to the system."""
        try:
            return self._orders.get(timeout=PAUSE_S)
        except queue.Empty:
            give_memory_back()
            return self._orders.get()

    def _work(self) -> None:
        while True:
            while not (self._waiting and self._orders.empty()):
                order = self._next()
                if order is None:
                    return
                self._waiting.append(order)
            first = self._waiting[0]
            batch = [order for order in self._waiting if first.goes_with(order)][: first.most]
            self._waiting = [order for order in self._waiting if order not in batch]
            for order in batch:
                if not order.wanted():
                    order.result.set_exception(GivenUp())
            self._compute([order for order in batch if not order.result.done()])

    def _compute(self, batch: list[Order]) -> None:
        if not batch:
            return
        try:
            results = _results(batch)
        except Exception as error:  # whatever it is belongs to who asked; the next ones have their turn
            full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
            for order in batch:
                order.result.set_exception(BadInput(TOO_LARGE) if full else error)
            return
        self.passes += 1
        self.pictures += len(batch)
        for order, result in zip(batch, results, strict=True):
            order.result.set_result(result)


def _results(batch: list[Order]) -> list[Tensor | np.ndarray]:
    for order in batch:
        order.say(0.0, "translating")
    first = batch[0]
    if first.tensor is not None:
        return list(first.translator.network_on(torch.stack([order.tensor for order in batch])))
    pixels = first.picture.pixels
    return [assembled(_told(first.translator.tiler.bands(ArraySource(pixels)), first), pixels)]


def _told(bands: Iterator[np.ndarray], order: Order) -> Iterator[np.ndarray]:
    """Bands of an image as they come, with word of how much of it is done."""
    rows, height = 0, len(order.picture.pixels)
    for band in bands:
        if not order.wanted():
            raise GivenUp
        yield band
        rows += len(band)
        order.say(rows / height, f"translating in tiles: {rows:,} of {height:,} rows")
