"""Which batch fits: the search, the counting on CPUs, and what a run says that did not fit."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import Accelerator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from torch.autograd.graph import saved_tensors_hooks

from cyclegan.errors import BadInput, out_of_memory
from cyclegan.recipes import read_yaml, to_yaml
from cyclegan.training import batch_size, loop
from cyclegan.training.batch_size import advice, kept_for_one, largest_batch, settle_batch_size, try_step
from cyclegan.training.command import settings_from
from cyclegan.training.outcome import TrainingFailed
from cyclegan.training.step import build_objectives, placed_networks
from cyclegan.training.train import train


def memory_for(pixels):
    """A step that has room for so many pixels."""

    def attempt(count, size):
        if count * size * size > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return attempt


@pytest.mark.parametrize(
    ("fits", "at_most", "found"), [(1000, 256, 256), (100, 256, 64), (1, 256, 1), (0, 256, 0), (5, 6, 3)]
)
def test_the_batch_is_halved_until_it_fits(fits, at_most, found):
    tried = []

    def attempt(count):
        tried.append(count)
        if count > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert largest_batch(attempt, at_most) == found
    assert tried == sorted(tried, reverse=True) and tried[0] == at_most


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.OutOfMemoryError("Allocation on device"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError(),
        Fail("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 9"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_every_backends_lack_of_memory_is_known(error):
    def attempt(count):
        if count > 2:
            raise error

    assert out_of_memory(error)
    assert largest_batch(attempt, 8) == 2
    assert not out_of_memory(BadInput(f"out of memory.png: {error}"))


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def attempt(count):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        largest_batch(attempt, 4)


def test_auto_becomes_a_number_that_divides(tiny, monkeypatch):
    monkeypatch.setattr(batch_size, "LARGEST", 32)
    settings = tiny(batch_size="auto", gradient_accumulation=3)
    found = settle_batch_size(settings, Accelerator(cpu=True), memory_for(20 * 32 * 32))
    assert found.batch_size == 16 * 3
    assert settle_batch_size(tiny(batch_size=5), Accelerator(cpu=True)).batch_size == 5
    with pytest.raises(BadInput, match="auto found no batch that fits: nor does --size 32"):
        settle_batch_size(
            tiny(batch_size="auto", size=48, augment={}), Accelerator(cpu=True), memory_for(31 * 31)
        )


def test_the_advice_names_what_fits(tiny):
    settings = tiny(size=256, augment={}, batch_size=8)
    words = advice(settings, Accelerator(cpu=True), memory_for(3 * 256 * 256))
    assert "--size 256 and --batch-size 8" in words
    assert "--batch-size 2 would fit at this size" in words
    assert "--gradient-accumulation 4 computes the whole batch in such parts" in words
    # 256 -> 192 -> 144: 8 x 144 x 144 is the first below 3 x 256 x 256.
    assert "--size 144 would fit with this batch" in words and "\n" not in words


@pytest.mark.slow
def test_a_smaller_size_is_named_for_a_network_that_is_as_deep_as_its_size(tiny):
    """256 -> 192 of six halvings, 144 -> 128 of seven; a U-Net that is told eight has none."""
    settings = tiny(size=256, augment={}, batch_size=1, generator={"name": "unet", "filters": 2})
    accelerator = Accelerator(cpu=True)
    for room, size in ((200 * 200, 192), (140 * 140, 128), (100 * 100, 96)):
        assert f"--size {size} would fit" in advice(settings, accelerator, memory_for(room))
    settings = tiny(size=256, augment={}, generator={"name": "unet", "filters": 2, "depth": 8})
    assert "take a smaller generator" in advice(settings, accelerator, memory_for(200 * 200))


def test_memory_is_counted_of_the_network_for_the_size_that_is_tried(tiny, monkeypatch):
    """Half the size of a U-Net keeps a quarter for an image, and has one layer's weights less on both ways."""
    from cyclegan.training.networks import build_networks

    settings = tiny(size=256, augment={}, generator={"name": "unet", "filters": 8}, pool_size=0)
    small = tiny(size=128, augment={}, generator={"name": "unet", "filters": 8}, pool_size=0)
    accelerator = Accelerator(cpu=True)
    networks = build_networks(small)
    weights = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    beside = 4 * (4 * sum(weights.values()) + weights["G_AB"] + weights["G_BA"])
    needed = beside + kept_for_one(networks, small, accelerator, 128)
    monkeypatch.setattr(batch_size, "_available", lambda: needed + 2**16)
    batch_size.trial(settings, accelerator)(1, 128)
    monkeypatch.setattr(batch_size, "_available", lambda: needed - 2**16)
    with pytest.raises(RuntimeError, match="out of memory"):
        batch_size.trial(settings, accelerator)(1, 128)


def test_on_a_cpu_what_a_step_keeps_is_counted(tiny, monkeypatch):
    """By what autograd gives back in the backward pass of four images, added up on its own."""
    from cyclegan.training.networks import build_networks
    from cyclegan.training.step import build_objectives, require_gradient

    settings = tiny(pool_size=0)
    networks = build_networks(settings)
    weights = {p.data_ptr() for network in networks.values() for p in network.parameters()}
    require_gradient((networks["D_A"], networks["D_B"]), False)
    kept, held = {}, []

    def unpack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        held.append(tensor)
        return tensor

    images = torch.rand(2, 4, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        total, *_ = build_objectives(networks, settings)[0](
            {"real_a": images[0], "real_b": images[1], "position": torch.arange(4)}, networks
        )
        total.backward()
    needed = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
    accelerator = Accelerator(cpu=True)
    weighed = 5 * 4 * sum(p.numel() for network in networks.values() for p in network.parameters())
    monkeypatch.setattr(batch_size, "_available", lambda: int(1.1 * needed) + weighed)
    batch_size.trial(settings, accelerator)(4, 32)
    monkeypatch.setattr(batch_size, "_available", lambda: int(0.9 * needed))
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        batch_size.trial(settings, accelerator)(4, 32)
    assert out_of_memory(caught.value)


def test_the_step_that_is_tried_on_a_gpu_is_a_whole_one(tiny):
    """Here on a CPU: all it needs is that each part runs, with every loss that has a part of its own."""
    for losses in ({}, {"adversarial": "wgan-gp"}, {"lambda_r1": 1.0}):
        try_step(tiny(losses=losses), Accelerator(cpu=True), 2, 32)


def test_a_run_on_auto_keeps_the_number_it_found(tiny, here, monkeypatch):
    available = namedtuple("available", "available total")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available(60 * 2**20, 2**34))
    result = train(tiny(batch_size="auto", steps=1, run_dir=here / "run"))
    found = read_yaml(here / "run" / "config.yaml")["batch_size"]
    assert found in (2, 4, 8, 16, 32) and result.images_seen == found
    settings, _ = settings_from(["--resume", str(here / "run"), "--steps", "2"])
    assert settings.batch_size == found


def test_a_run_that_does_not_fit_says_what_would(tiny, here, monkeypatch):
    def full(self, parts, factor):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr(loop.TrainingStep, "__call__", full)
    monkeypatch.setattr(batch_size, "trial", lambda settings, accelerator: memory_for(32 * 32))
    with pytest.raises(
        TrainingFailed, match="out of memory on cpu with --size 32 and --batch-size 2: --batch-size 1 would"
    ):
        train(tiny(run_dir=here / "run"))
    assert not (here / "run" / "checkpoints").exists()


LIMITED = """
import resource, sys, torch
from cyclegan.training import loop
from cyclegan.cli import main
import psutil, accelerate
plain = loop.TrainingStep.__call__
def step(self, parts, factor):
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), -1))
    return plain(self, parts, factor)
loop.TrainingStep.__call__ = step
main(sys.argv[1:])
"""


def test_memory_that_really_runs_out(tiny, here):
    """A limit on the process' address space: torch's own error, said in one line with status 1."""
    (here / "mine.yaml").write_text(
        to_yaml(tiny(batch_size=512, generator__filters=16, discriminator__filters=16))
    )
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "train", "mine.yaml"], cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "out of memory on cpu with --size 32 and --batch-size 512: --batch-size " in last


@pytest.mark.slow
def test_two_processes_take_twice_what_fits_the_smaller_one(tiny, here):
    """The second has room for 3 images, the first for 20: 2 each, and all of the run goes by that."""
    (here / "mine.yaml").write_text(to_yaml(tiny(batch_size="auto", steps=3)))
    script = Path(__file__).parent / "fixtures" / "uneven_memory.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), "mine.yaml", "run"], cwd=here, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(line for line in done.stdout.splitlines() if line) == ["rank 0: 4, 12", "rank 1: 4, 12"]
    assert read_yaml(here / "run" / "config.yaml")["batch_size"] == 4


def test_features_that_are_computed_anew_are_counted_once(tiny):
    """The backward pass has one generator's at a time, which torch's checkpoints hide from who counts."""
    accelerator, found = Accelerator(cpu=True), {}
    for recompute in (False, True):
        settings = tiny(speed={"recompute": recompute})
        found[recompute] = kept_for_one(placed_networks(settings, accelerator), settings, accelerator, 32)
    # Of the real and identity images' pass and the cycles' of both generators a half of the half.
    assert 0.2 * found[False] < found[True] < 0.6 * found[False]


def test_what_penalties_keep_of_discriminators_is_counted(tiny):
    """Derived twice, they keep more of an image than a small generator does."""
    accelerator, found = Accelerator(cpu=True), []
    one = torch.rand(1, 3, 32, 32)
    batch = {"real_a": one, "real_b": one, "position": torch.zeros(1, dtype=torch.long)}

    def kept(networks, settings):
        """Storages that autograd has after the discriminators' pass, weights apart."""
        _, discriminators = build_objectives(networks, settings)
        seen = {}
        with saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
            alive = discriminators(batch, {"fake_a": one, "fake_b": one}, torch.rand(1, 1, 1, 1))
        weights = {p.data_ptr() for network in networks.values() for p in network.parameters()}
        assert alive
        return sum(t.nbytes for at, t in seen.items() if at not in weights)

    for losses in ({}, {"lambda_r1": 1, "lambda_zero_centred": 1}):
        settings = tiny(losses=losses, generator={"filters": 2, "blocks": 1}, discriminator={"filters": 32})
        networks = placed_networks(settings, accelerator)
        found.append(kept_for_one(networks, settings, accelerator, 32))
        assert found[-1] >= kept(networks, settings)
    assert found[1] > 1.3 * found[0]


def test_advice_names_no_size_that_other_settings_refuse(tiny):
    """A projected discriminator's blur reaches as far as a small image has pixels."""
    settings = tiny(size=128, augment={}, discriminator={"name": "projected", "detail": 40.0})
    said = advice(settings, Accelerator(cpu=True), memory_for(2 * 100 * 100))
    assert "--size 96 would fit" in said
    assert "take a smaller generator" in advice(settings, Accelerator(cpu=True), memory_for(2 * 70 * 70))
