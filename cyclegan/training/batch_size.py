"""What fits into memory: for ``--batch-size auto``, and for the message when a run does not fit.

A step is tried out on throwaway networks, in this process alone, so that no other waits for it. What a
process finds is a size for itself; the global batch is the smallest of all processes' times their number.
It is found once, before the run, and written into its config.yaml: positions, and with them all that
chance decides, are counted in whole batches, so a batch that changed on the way would be another run.
"""

import gc
import resource
from collections.abc import Callable, Mapping

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.training.networks import build_networks
from cyclegan.training.objectives import DiscriminatorObjective, GeneratorObjective
from cyclegan.training.step import require_gradient
from cyclegan.translation.tiling.memory import memory_bytes

LARGEST = 256  # images at once in a process; past it the published rates mean nothing any more
SPARE = 0.1  # share of the memory that a run needs besides its steps: grids, saving, fragmentation
SMALLEST_SIZE = 32

Fits = Callable[[int, int], None]  # (images in a process, their size); raises when memory runs out


def settle_batch_size(
    settings: TrainSettings, accelerator: Accelerator, attempt: Fits | None = None
) -> TrainSettings:
    """The settings with a number in place of ``batch_size: auto``.

    Args:
        attempt: tries out a step; default is a real one on this process' device.

    Raises:
        BadInput: not even one image fits.
    """
    if settings.batch_size != "auto":
        return settings
    attempt = attempt or trial(settings, accelerator)
    found = largest_batch(lambda count: attempt(count, settings.size), LARGEST)
    mine = torch.tensor([found], device=accelerator.device)
    smallest = int(accelerator.gather(mine).min())
    if smallest == 0:
        raise BadInput(f"batch_size: auto found no batch that fits: {_what_fits(settings, attempt)}")
    share = accelerator.num_processes * settings.gradient_accumulation
    return settings.model_copy(update={"batch_size": smallest * share})


def largest_batch(attempt: Callable[[int], None], at_most: int) -> int:
    """The largest power of two (up to ``at_most``) for which ``attempt`` does not run out of memory, or 0."""
    tried = [2 * at_most]

    def half() -> int:
        return tried[-1] // 2

    def run(batch_size: int) -> int:
        tried.append(batch_size)
        attempt(batch_size)
        return batch_size

    try:
        return find_executable_batch_size(run, at_most, half)()
    except RuntimeError as error:
        if tried[-1] == 1 and "No executable batch size found" in str(error):
            return 0
        raise


def out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine had no more memory, in the words of any backend."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)


def advice(settings: TrainSettings, accelerator: Accelerator, attempt: Fits | None = None) -> str:
    """One line for a run that did not fit: which batch would at this size, and which size at this batch."""
    gc.collect()
    clear_device_cache(garbage_collection=True)
    attempt = attempt or trial(settings, accelerator)
    return (
        f"out of memory on {accelerator.device} with --size {settings.size} and --batch-size "
        f"{settings.batch_size}: {_what_fits(settings, attempt)}"
    )


def _what_fits(settings: TrainSettings, attempt: Fits) -> str:
    """Found by trying, each process for itself."""
    batch = settings.batch_size if isinstance(settings.batch_size, int) else 1
    processes = _processes()
    mine = max(1, batch // (processes * settings.gradient_accumulation))
    fitting = []
    smaller = largest_batch(lambda count: attempt(count, settings.size), mine)
    if smaller:
        whole = smaller * processes * settings.gradient_accumulation
        fitting.append(f"--batch-size {whole} would fit at this size")
        parts = batch // (smaller * processes)
        if smaller < mine and batch % (smaller * processes) == 0:
            fitting.append(f"--gradient-accumulation {parts} computes the whole batch in such parts")
    size = _largest_size(settings, mine, attempt)
    if size:
        fitting.append(f"--size {size} would fit with this batch")
    return "; ".join(fitting) or f"nor does --size {SMALLEST_SIZE} with one image; take a smaller generator"


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _largest_size(settings: TrainSettings, count: int, attempt: Fits) -> int:
    """The largest of the usual sizes below the one that was asked for that fits, or 0."""
    with torch.device("meta"):
        step = build_networks(settings)["G_AB"].multiple_of
    size = settings.size * 3 // 4 // step * step
    while size >= max(SMALLEST_SIZE, step):
        if _fits(attempt, count, size):
            return size
        size = size * 3 // 4 // step * step
    return 0


def _fits(attempt: Fits, count: int, size: int) -> bool:
    try:
        attempt(count, size)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        clear_device_cache(garbage_collection=True)
    return True


def trial(settings: TrainSettings, accelerator: Accelerator) -> Fits:
    """How a step is tried out here: computed on a GPU, counted on a CPU.

    A CPU's memory has no end that raises an error: the system swaps, then kills.
    """
    if accelerator.device.type != "cpu":
        return lambda count, size: try_step(settings, accelerator, count, size)
    available, networks = _available(), build_networks(settings)
    kept: dict[int, int] = {}

    def count_bytes(count: int, size: int) -> None:
        if size not in kept:
            kept[size] = kept_for_one(networks, settings, accelerator, size)
        needed = 4 * _values_beside(networks, settings, size) + count * kept[size]
        if needed > available:
            raise RuntimeError(f"{needed >> 20} of {available >> 20} MiB would be out of memory.")

    return count_bytes


def kept_for_one(
    networks: Mapping[str, nn.Module], settings: TrainSettings, accelerator: Accelerator, size: int
) -> int:
    """Bytes that the generators' forward pass, the larger one, keeps for the backward pass of one image."""
    weights = {p.data_ptr() for network in networks.values() for p in network.parameters()}
    found: dict[int, int] = {}  # several layers may keep the same memory

    def count(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    generators = GeneratorObjective(networks["G_AB"], networks["G_BA"], settings.losses)
    require_gradient((networks["D_A"], networks["D_B"]), False)
    one = torch.zeros(1, settings.data.channels, size, size)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), accelerator.autocast():
        generators(one, one, networks["D_A"], networks["D_B"])
    return sum(found.values())


def _values_beside(networks: Mapping[str, nn.Module], settings: TrainSettings, size: int) -> int:
    """Numbers that a run holds besides a step's own: weights, gradients, Adam's two, averages, pools."""
    weights = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    averages = weights["G_AB"] + weights["G_BA"]
    pools = 2 * settings.pool_size * settings.data.channels * size * size
    return 4 * sum(weights.values()) + averages + pools


def _available() -> int:
    """Bytes that this process of a CPU run can take: of the machine, of its container, and by its limit."""
    mine = psutil.Process().memory_info()
    found = [psutil.virtual_memory().available, memory_bytes(torch.device("cpu")) - mine.rss]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        found.append((limit - mine.vms) * _processes())
    return int((1 - SPARE) * max(0, min(found)) / _processes())


def try_step(settings: TrainSettings, accelerator: Accelerator, count: int, size: int) -> None:
    """One update of all four networks on ``count`` images of ``size``, with the rest of a run beside it.

    Raises:
        RuntimeError: out of memory.
    """
    device = accelerator.device
    networks = {name: network.to(device) for name, network in build_networks(settings).items()}
    recompute = settings.speed.recompute
    generators = GeneratorObjective(networks["G_AB"], networks["G_BA"], settings.losses, recompute)
    discriminators = DiscriminatorObjective(networks["D_A"], networks["D_B"], settings.losses)
    adams = [torch.optim.Adam(m.parameters(), 1e-9) for m in (generators, discriminators)]
    # Gradients and Adam's state come to be in the step itself; the rest is held beside it.
    weights = sum(p.numel() for network in networks.values() for p in network.parameters())
    beside = [torch.empty(_values_beside(networks, settings, size) - 4 * weights, device=device)]
    if device.type == "cuda":
        spare = int(SPARE * torch.cuda.get_device_properties(device).total_memory)
        beside.append(torch.empty(spare, dtype=torch.uint8, device=device))
    shape = (count, settings.data.channels, size, size)
    real_a, real_b = torch.rand(shape, device=device), torch.rand(shape, device=device)
    require_gradient((networks["D_A"], networks["D_B"]), False)
    with accelerator.autocast():
        total, _, fake_a, fake_b = generators(real_a, real_b, networks["D_A"], networks["D_B"])
    total.backward()
    adams[0].step()
    require_gradient((networks["D_A"], networks["D_B"]), True)
    mix = torch.rand((count, 1, 1, 1), device=device)
    with accelerator.autocast():
        total, _ = discriminators(real_a, fake_a.detach(), real_b, fake_b.detach(), mix)
    total.backward()
    adams[1].step()
    beside.clear()
