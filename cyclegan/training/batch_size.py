"""What fits into memory: for ``--batch-size auto``, and for the message when a run does not fit.

A step is tried out on throwaway networks, in this process alone, so that no other waits for it. What a
process finds is a size for itself; the global batch is the smallest of all processes' times their number.
It is found once, before the run, and written into its config.yaml: positions, and with them all that
chance decides, are counted in whole batches, so a batch that changed on the way would be another run.
"""

import gc
import resource
from collections.abc import Callable, Iterable, Mapping

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import clear_device_cache
from pydantic import ValidationError
from torch import Tensor, nn

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput, out_of_memory
from cyclegan.networks.inference import memory_bytes
from cyclegan.training.networks import build_networks
from cyclegan.training.step import (
    build_objectives,
    discriminators_of,
    make_optimizer,
    placed_networks,
    require_gradient,
)

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
        try:
            attempt(batch_size)
        except Exception as error:
            if out_of_memory(error):
                raise RuntimeError("The trial ran out of memory.") from error  # as accelerate knows it
            raise
        return batch_size

    try:
        return find_executable_batch_size(run, at_most, half)()
    except RuntimeError as error:
        if tried[-1] == 1 and "No executable batch size found" in str(error):
            return 0
        raise


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
        if smaller < mine and batch % (smaller * processes) == 0 and not settings.has_batch_norm:
            fitting.append(f"--gradient-accumulation {parts} computes the whole batch in such parts")
    size = _largest_size(settings, mine, attempt)
    if size:
        fitting.append(f"--size {size} would fit with this batch")
    return "; ".join(fitting) or f"nor does --size {SMALLEST_SIZE} with one image; take a smaller generator"


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _largest_size(settings: TrainSettings, count: int, attempt: Fits) -> int:
    """The largest of the usual sizes below the one that was asked for that fits, or 0."""
    size = _trainable(settings, settings.size * 3 // 4)
    while size and not _fits(attempt, count, size):
        size = _trainable(settings, size * 3 // 4)
    return size


def _trainable(settings: TrainSettings, at_most: int) -> int:
    """The largest size up to so many pixels that the networks can have, or 0; by fours, as most can."""
    for size in range(at_most // 4 * 4, SMALLEST_SIZE - 1, -4):
        try:
            with torch.device("meta"):
                build_networks(_with_size(settings, size))
        except (BadInput, ValidationError):
            continue
        return size
    return 0


def _with_size(settings: TrainSettings, size: int) -> TrainSettings:
    """With networks for that size, too: a U-Net for fewer pixels has fewer halvings.

    Raises:
        ValidationError: other settings do not go with that size.
    """
    return TrainSettings.model_validate({**settings.model_dump(), "size": size})


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
    available = _available()
    counted: dict[int, tuple[int, int]] = {}  # by size: of any batch, and of one image

    def count_bytes(count: int, size: int) -> None:
        if size not in counted:
            sized = _with_size(settings, size)
            networks = placed_networks(sized, accelerator)
            beside = 4 * _values_beside(networks, settings, size)
            counted[size] = beside, kept_for_one(networks, settings, accelerator, size)
        beside, for_one = counted[size]
        needed = beside + count * for_one
        if needed > available:
            raise RuntimeError(f"{needed >> 20} of {available >> 20} MiB would be out of memory.")

    return count_bytes


def kept_for_one(
    networks: Mapping[str, nn.Module], settings: TrainSettings, accelerator: Accelerator, size: int
) -> int:
    """Bytes that a forward pass keeps for the backward pass of one image, the larger one of the two.

    That is the generators', but where penalties derive discriminators twice.
    """
    generators, discriminators = build_objectives(networks, settings)
    judges = _judges(networks)
    one = torch.zeros(1, settings.data.channels, size, size)
    batch = {"real_a": one, "real_b": one, "position": torch.zeros(1, dtype=torch.long)}
    _learn_styles(generators, settings, one)

    def translated() -> list[object]:
        alive: list[object] = [generators(batch, judges)]
        if settings.speed.recompute:
            # Hidden from what counts: what the backward pass has of one generator at a time, of both images.
            alive.append(networks["G_AB"](torch.cat([one, one])))
        return alive

    def judged() -> object:
        fakes = {f"fake_{name[-1].lower()}": one for name in judges}
        return discriminators(batch, fakes, torch.full((1, 1, 1, 1), 0.5))

    found = []
    for judging, compute in ((False, translated), (True, judged)):
        require_gradient(judges.values(), judging)
        found.append(_kept_by(compute, networks.values(), accelerator))
    return max(found)


def _kept_by(compute: Callable[[], object], networks: Iterable[nn.Module], accelerator: Accelerator) -> int:
    """Bytes that ``compute`` keeps for a backward pass, weights apart."""
    weights = {p.data_ptr() for network in networks for p in network.parameters()}
    found: dict[int, int] = {}  # several layers may keep the same memory

    def count(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), accelerator.autocast():
        alive = compute()
    del alive
    return sum(found.values())


def _learn_styles(generators: nn.Module, settings: TrainSettings, image: Tensor) -> None:
    if settings.losses.lambda_style > 0:
        for side in "AB":
            generators.perceptual.learn(side, [image])


def _judges(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {f"D_{side}": network for side, network in discriminators_of(networks).items()}


def _values_beside(networks: Mapping[str, nn.Module], settings: TrainSettings, size: int) -> int:
    """Numbers that a run holds besides a step's own: weights, gradients, Adam's two, averages, pools."""
    weights = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    averages = sum(weights[name] for name in settings.directions)
    pools = len(settings.directions) * settings.pooled * settings.data.channels * size * size
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
    """One update of all networks on ``count`` images of ``size``, with the rest of a run beside it.

    Raises:
        RuntimeError: out of memory.
    """
    device = accelerator.device
    networks = placed_networks(_with_size(settings, size), accelerator)
    generators, discriminators = build_objectives(networks, settings)
    judges = _judges(networks)
    adams = [make_optimizer(m, 1e-9, settings, accelerator) for m in (generators, discriminators)]
    # Gradients and Adam's state come to be in the step itself; the rest is held beside it.
    weights = sum(p.numel() for network in networks.values() for p in network.parameters())
    beside = [torch.empty(_values_beside(networks, settings, size) - 4 * weights, device=device)]
    if device.type == "cuda":
        spare = int(SPARE * torch.cuda.get_device_properties(device).total_memory)
        beside.append(torch.empty(spare, dtype=torch.uint8, device=device))
    shape = (count, settings.data.channels, size, size)
    batch = {name: torch.rand(shape, device=device) for name in ("real_a", "real_b")}
    batch["position"] = torch.arange(count)
    _learn_styles(generators, settings, batch["real_a"][:1])
    require_gradient(judges.values(), False)
    with accelerator.autocast():
        total, _, fakes = generators(batch, judges)
    total.backward()
    adams[0].step()
    require_gradient(judges.values(), True)
    mix = torch.rand((count, 1, 1, 1), device=device)
    with accelerator.autocast():
        total, _ = discriminators(batch, {name: fake.detach() for name, fake in fakes.items()}, mix)
    total.backward()
    adams[1].step()
    beside.clear()
