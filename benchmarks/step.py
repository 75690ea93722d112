"""A full training step: seconds, images/s, memory, operations, and the share of the machine's peak.

A step is six generator passes, both discriminators and both optimizers, on images that are in memory. Each
row runs in a process of its own, so that its peak memory is its own; with --reference another
implementation's step runs in one beside it on the same images, and the two take turns, step by step, so that
what else the machine does falls on both. Seconds are medians; "cpu s" are those of all threads together,
the ones to go by where other work shares a CPU. The peak is that of a large matrix product in
the same process and number format. Operations are those of the plain layers, counted while a step runs: a
layer that comes to the same with fewer counts as if it had not.
"""

import argparse
import importlib.util
import json as to_json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks.deployed import cpu_has_bf16
from cyclegan.recipes import read_yaml, validated
from cyclegan.training.networks import build_networks
from cyclegan.training.precision import resolve_precision, set_up_cuda

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = (
    ("size", 5), ("batch", 5), ("precision", 9), ("side", 9), ("s/step", 8), ("cpu s", 8), ("images/s", 9),
    ("MiB", 7), ("GFLOP", 8), ("GFLOP/s", 8), ("of peak", 8), ("convs", 6), ("ratio", 6),
    ("cpu", 6), ("memory", 6),
)  # fmt: skip
Step = Callable[[], None]


def our_step(settings: TrainSettings, precision: str, images: Callable[[], list[torch.Tensor]]) -> Step:
    from accelerate import Accelerator

    from cyclegan.allocation import keep_freed_memory
    from cyclegan.training.step import TrainingStep

    keep_freed_memory()  # as `cyclegan train` does
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    step = TrainingStep(settings, accelerator)
    shown = 0

    def run() -> None:
        nonlocal shown
        real_a, real_b = images()
        positions = torch.arange(shown, shown + len(real_a), device=accelerator.device)
        shown += len(real_a)
        step([{"real_a": real_a, "real_b": real_b, "position": positions}], 1.0)

    return run


def reference_step(path: Path, settings: TrainSettings, images: Callable[[], list[torch.Tensor]]) -> Step:
    """Of a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, or of a file with a function ``model``."""
    if path.is_dir():
        model = _junyanz(path, settings)
    else:
        spec = importlib.util.spec_from_file_location("reference", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.model(settings)

    def run() -> None:
        real_a, real_b = images()
        model.set_input({"A": real_a, "B": real_b, "A_paths": [], "B_paths": []})
        model.optimize_parameters()

    return run


def _junyanz(checkout: Path, settings: TrainSettings) -> Any:
    """Its CycleGAN with its own defaults: 64 filters, instance norm, identity loss, pools of 50 images."""
    sys.path.insert(0, str(checkout))
    from models.cycle_gan_model import CycleGANModel

    on_gpu = torch.cuda.is_available()
    # Its networks' class names follow the number of blocks; it has these two.
    blocks, filters = settings.generator.blocks or 9, settings.generator.filters or 64
    options = {
        "input_nc": 3, "output_nc": 3, "ngf": filters, "ndf": settings.discriminator.filters or 64,
        "netG": f"resnet_{blocks}blocks", "netD": "basic", "n_layers_D": 3, "norm": "instance",
        "no_dropout": True, "init_type": "normal", "init_gain": 0.02, "gpu_ids": [0] if on_gpu else [],
        "device": torch.device("cuda" if on_gpu else "cpu"), "isTrain": True, "name": "reference",
        "checkpoints_dir": tempfile.gettempdir(), "preprocess": "resize_and_crop", "lambda_A": 10.0,
        "lambda_B": 10.0, "lambda_identity": 0.5, "pool_size": 50, "gan_mode": "lsgan", "lr": 2e-4,
        "beta1": 0.5, "direction": "AtoB",
    }  # fmt: skip
    return CycleGANModel(argparse.Namespace(**options))


class Operations:
    """Counts multiplications and additions, two for each pair, of convolutions and linear layers.

    As the plain layers have them, on both sides alike; what ours saves shows in the seconds.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Operations":
        self.handle = register_module_forward_hook(self._add)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _add(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            return
        x, weight = inputs[0], module.weight
        # Each number of the output (of a transposed convolution: of the input) meets this many weights.
        met = weight.numel() // weight.shape[0]
        forward = 2 * met * (x if isinstance(module, nn.ConvTranspose2d) else output).numel()
        self.count += forward
        if torch.is_grad_enabled():
            self.count += forward * (int(weight.requires_grad) + int(x.requires_grad))


def peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a matrix product, the best of several."""
    n = 8192 if device.type == "cuda" else 1024 + 512
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in "ab")
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def convolution_share(step: Step, device: torch.device) -> float:
    """Of one step's time that spent in convolutions, both ways, as PyTorch's profiler counts it."""
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, *([activity.CUDA] if on_gpu else [])]) as profile:
        step()
        synchronize(device)
    return share_of_convolutions(profile.key_averages(), on_gpu)


def share_of_convolutions(events: Iterable[Any], on_gpu: bool) -> float:
    """On a GPU of what operators' own kernels took; else of operators' own time, without those they call, but
    for our convolution, which consists of them.
    """
    # The profiler lists a GPU's kernels beside the operators that started them: each would count twice.
    events = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    times = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in events}
    whole = {e.key: e.cpu_time_total for e in events if e.key.startswith("_WinogradConvolution")}
    convolutions = {name: time for name, time in times.items() if "convolution" in name.lower()}
    convolutions |= {} if on_gpu else whole
    return sum(convolutions.values()) / sum(times.values())


def serve(pipe: Any, settings: TrainSettings, precision: str, reference: Path | None, profile: bool) -> None:
    """One side of a row, in its own process: "ready", seconds for each "step", all the rest for "end"."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_up_cuda(settings.speed)  # both sides, and the product that is their peak
    draw = torch.Generator().manual_seed(0)  # both sides see the same images
    shape = (settings.batch_size, 3, settings.size, settings.size)

    def images() -> list[torch.Tensor]:
        return [(torch.rand(shape, generator=draw) * 2 - 1).to(device) for _ in "ab"]

    if reference is None:
        step = our_step(settings, precision, images)
    else:
        step = reference_step(reference, settings, images)
    began = time.perf_counter()
    with Operations() as operations:
        step()  # apart: what is made once is made here
    synchronize(device)
    first = time.perf_counter() - began
    pipe.send("ready")
    while pipe.recv() == "step":
        synchronize(device)
        began, worked = time.perf_counter(), time.process_time()
        step()
        synchronize(device)
        pipe.send((time.perf_counter() - began, time.process_time() - worked))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    share = convolution_share(step, device) if profile else None
    matmul = peak_flops(DTYPES[precision], device)
    found = {"flop": operations.count, "peak_bytes": memory, "matmul": matmul, "convolutions": share}
    pipe.send({**found, "first": first})


def measure(
    settings: TrainSettings, precision: str, reference: Path | None, repeats: int, profile: bool
) -> list[dict[str, Any]]:
    """One row for our step and, behind it, one for the reference's, which knows fp32 alone."""
    context = multiprocessing.get_context("spawn")
    sides = {"cyclegan": (precision, None)}
    if reference is not None:
        sides["reference"] = ("no", reference)
    pipes = {}
    for side, arguments in sides.items():
        pipes[side], end = context.Pipe()
        context.Process(target=serve, args=(end, settings, *arguments, profile), daemon=True).start()
        end.close()
        pipes[side].recv()  # ready: one that still warms up would take the processor from the other
    timed: dict[str, list[tuple[float, float]]] = {side: [] for side in pipes}
    for _ in range(repeats):
        for side, pipe in pipes.items():
            pipe.send("step")
            timed[side].append(pipe.recv())
    rows = []
    for side, pipe in pipes.items():
        pipe.send("end")
        found, (seconds, worked) = pipe.recv(), zip(*timed[side], strict=True)
        median = statistics.median(seconds)
        rows.append(
            {
                "size": settings.size,
                "batch_size": settings.batch_size,
                "precision": sides[side][0],
                "side": side,
                "seconds": round(median, 4),
                "first_step_seconds": round(found["first"], 4),
                "fastest_and_slowest": [round(min(seconds), 4), round(max(seconds), 4)],
                "processor_seconds": round(statistics.median(worked), 4),
                "images_per_s": round(settings.batch_size / median, 3),
                "peak_mib": found["peak_bytes"] >> 20,
                "gflop": round(found["flop"] / 1e9, 1),
                "gflop_per_s": round(found["flop"] / median / 1e9, 1),
                "matmul_gflop_per_s": round(found["matmul"] / 1e9, 1),
                "share_of_peak": round(found["flop"] / median / found["matmul"], 3),
                **({"convolution_share": round(found["convolutions"], 3)} if profile else {}),
            }
        )
    if reference is not None:
        ours, theirs = rows
        ours["ratio_to_reference"] = round(theirs["seconds"] / ours["seconds"], 3)
        ratio = theirs["processor_seconds"] / ours["processor_seconds"]
        ours["processor_ratio_to_reference"] = round(ratio, 3)
        ours["memory_ratio_to_reference"] = round(ours["peak_mib"] / theirs["peak_mib"], 3)
    return rows


def show(row: dict[str, Any]) -> None:
    names = (
        "size", "batch_size", "precision", "side", "seconds", "processor_seconds", "images_per_s",
        "peak_mib", "gflop", "gflop_per_s", "share_of_peak", "convolution_share", "ratio_to_reference",
        "processor_ratio_to_reference", "memory_ratio_to_reference",
    )  # fmt: skip
    cells = ("fp32" if row.get(name) == "no" else row.get(name, "") for name in names)
    print(" ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)), flush=True)


def machine() -> dict[str, Any]:
    name = "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(": ")[1] for line in info.read_text().split("\n") if "model name" in line), name
        )
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return {
        "machine": f"{name}, ONEDNN_MAX_CPU_ISA={limit}" if limit else name,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def conclude(report: dict[str, Any], json: bool) -> None:
    """The machine in words and, where it is asked for, all that was found with it, as one line of JSON."""
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    if json:
        print(to_json.dumps({**report, **about}))


def _precisions(wanted: tuple[str, ...]) -> list[str]:
    if not wanted:
        wanted = ("no", "bf16")
        if not torch.cuda.is_available() and not cpu_has_bf16():
            print("bf16 is left out: this processor does not multiply it (--precisions no bf16 to see it so)")
            wanted = ("no",)
    return list(dict.fromkeys(resolve_precision(name) for name in wanted))


def _settings(shape: str, recipe: Path | None, changes: dict[str, Any]) -> TrainSettings:
    size, _, batch = shape.partition("/")
    if not (size.isdigit() and (batch or "1").isdigit()):
        raise BadInput(f"--sizes: {shape!r} is not of the form size/batch, such as 256/1")
    given = read_yaml(recipe) if recipe is not None else {}
    values = {**given, **changes, "size": int(size), "batch_size": int(batch or 1)}
    settings = validated(TrainSettings, values, f"--sizes {shape}")
    with torch.device("meta"):
        build_networks(settings)  # here, for in a side's process it would end in a stack trace
    return settings


def _checked(reference: Path | None) -> Path | None:
    if reference is None or reference.is_file() or (reference / "models" / "cycle_gan_model.py").is_file():
        return reference
    raise BadInput(
        f"--reference: {reference} is neither a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, with "
        "models/cycle_gan_model.py, nor a Python file"
    )


def main(
    sizes: tuple[str, ...] = ("256/1", "128/4", "64/16"),
    precisions: tuple[Literal["no", "bf16", "fp16", "auto"], ...] = (),
    blocks: int = 9,
    filters: int = 64,
    recipe: Path | None = None,
    speed: tuple[Literal["compile", "cuda_graphs", "recompute"], ...] = (),
    reference: Path | None = None,
    repeats: int = 3,
    profile: bool = False,
    json: bool = False,
) -> None:
    """Measure a training step at several sizes and precisions.

    Args:
        sizes: size/batch, height and width of the images and how many of A are in a step
        precisions: no (fp32), bf16, fp16, or auto; default: no, and bf16 where the hardware has it
        blocks: residual blocks of the generators
        filters: features after the first layer, generators and discriminators
        recipe: a recipe whose networks and losses are taken in place of --blocks and --filters
        speed: settings of that name that are on; what they take at first is "first_step_seconds" of --json
        reference: a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, or a Python file with a function
            model(settings) that returns an object with set_input({"A": ..., "B": ...}) and
            optimize_parameters()
        repeats: steps of which the median is taken, after one that is not counted
        profile: after that, say which share of one more step is spent in convolutions
        json: end with one line of JSON
    """
    changes: dict[str, Any] = {}
    if recipe is None:
        changes = {"generator": {"blocks": blocks, "filters": filters}, "discriminator": {"filters": filters}}
    if speed:
        changes["speed"] = dict.fromkeys(speed, True)
    if repeats < 1:
        raise BadInput(f"--repeats: must be 1 or more, not {repeats}")
    wanted, reference = _precisions(precisions), _checked(reference)
    measured = [_settings(shape, recipe, changes) for shape in sizes]
    rows = []
    print(" ".join(f"{name:>{width}}" for name, width in COLUMNS))
    for settings in measured:
        for precision in wanted:
            found = measure(settings, precision, reference, repeats, profile)
            rows += found
            for row in found:
                show(row)
    conclude({"rows": rows}, json)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except BadInput as error:
        print(f"step.py: {error}", file=sys.stderr)
        sys.exit(2)
