"""How much of what is decoded a process keeps in memory, and how much waits to be kept."""

import time

import numpy as np
import pytest

from cyclegan.config import TrainSettings
from cyclegan.datasets import store, unpaired
from cyclegan.datasets.domain import open_domain
from cyclegan.datasets.store import decode_all
from cyclegan.datasets.unpaired import open_stores

ONE = np.zeros((10, 10, 3), np.uint8)  # of 300 bytes


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        path.touch()
    return paths


@pytest.mark.parametrize(("limit", "kept"), [(1800, 1800), (1799, 0), (300, 0), (0, 0)])
def test_all_images_count_together_and_past_the_limit_none_stays(files, tmp_path, limit, kept):
    found = decode_all(files, lambda path: ONE, "r", tmp_path / "cache", limit)
    assert len(found) == 6 and found.in_memory == kept
    assert bool(list((tmp_path / "cache").glob("*.bin"))) == (kept == 0)


@pytest.mark.parametrize(
    ("images", "in_memory"),
    [(40, (40, 0)), (65, (40, 0)), (66, (40, 26)), (39, (0, 26)), (25, (0, 0))],
)
def test_the_second_side_has_what_the_first_one_leaves(
    small_domain, monkeypatch, tmp_path, images, in_memory
):
    """Of 40 and 26 images of 12 KiB each, at 64 px."""
    settings = TrainSettings(
        size=64, augment={"preset": "resize"}, data={"root": small_domain, "memory_gib": images * 12 / 2**20}
    )
    domain = open_domain(settings)
    sides = {"train_a": 40, "train_b": 26}
    lists = {side: getattr(domain, side)[:1] * count for side, count in sides.items()}
    monkeypatch.setattr(unpaired, "datasets_root", lambda: tmp_path)
    found = open_stores(type(domain)("mine", **lists, test_a=[], test_b=[]), settings)
    assert tuple(side.in_memory // (12 * 2**10) for side in found) == in_memory


def test_a_slow_disk_is_not_outrun(files, tmp_path, monkeypatch):
    """With 32 cores and whole photographs the decoders would fill memory with what no limit counts."""
    monkeypatch.setattr(store, "WAITING_BYTES", 600)
    monkeypatch.setattr(store.os, "cpu_count", lambda: 8)
    begun = []

    def load(path):
        begun.append(path)
        return ONE

    ahead = []
    for taken, _ in enumerate(store._decode(files * 10, load), 1):
        time.sleep(0.02)  # the disk
        ahead.append(len(begun) - taken)
    # One for each decoder, and the two images that 600 bytes are; the window has room for 16.
    assert len(begun) == 60 and max(ahead) <= 10
