"""A full training step: seconds, images/s, memory, operations, and the share of the machine's peak.

A step is six generator passes, both discriminators and both optimizers, on images that are in memory. Each
row runs in a process of its own, so that its peak memory is its own; with --reference another
implementation's step runs in one beside it on the same images, and the two take turns, step by step, so that
what else the machine does falls on both. Seconds are medians; "cpu s" are those of all threads together,
the ones to go by where other work shares a CPU. The peak is that of a large matrix product in
the same process and number format. Operations are those of the plain layers, counted in a step of its own
behind the others: a layer that comes to the same with fewer counts as if it had not.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from entry import at_least, buildable, read_recipe, run
from machine import conclude, peak_mib
from operations import Operations, peak_flops, synchronize
from reference import checked, reference_step
from torch import Tensor

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput, Failed, out_of_memory
from cyclegan.networks.deployed import cpu_has_bf16
from cyclegan.training.precision import resolve_precision, set_up_cuda

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = (
    ("size", 5), ("batch", 5), ("precision", 9), ("side", 9), ("s/step", 8), ("cpu s", 8), ("images/s", 9),
    ("MiB", 7), ("GFLOP", 8), ("GFLOP/s", 8), ("of peak", 8), ("convs", 6), ("ratio", 6),
    ("cpu", 6), ("memory", 6),
)  # fmt: skip
Speed = Literal["compile", "cuda_graphs", "recompute", "no-fewer_products", "no-tf32", "no-autotune"]
Step = Callable[[Tensor, Tensor], None]


def our_step(settings: TrainSettings, precision: str, first: tuple[Tensor, Tensor]) -> Step:
    """The step of `cyclegan train`.

    Args:
        first: images of A and of B, whose styles are learned where the losses ask for one.
    """
    from accelerate import Accelerator

    from cyclegan.allocation import keep_freed_memory
    from cyclegan.training.step import TrainingStep

    keep_freed_memory()  # as `cyclegan train` does
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    training = TrainingStep(settings, accelerator)
    if settings.losses.lambda_style > 0:
        for side, images in zip("AB", first, strict=True):
            training.perceptual.learn(side, [images])
    shown, count = 0, settings.gradient_accumulation

    def step(real_a: Tensor, real_b: Tensor) -> None:
        nonlocal shown
        positions = torch.arange(shown, shown + len(real_a), device=accelerator.device)
        shown += len(real_a)
        parts = zip(real_a.chunk(count), real_b.chunk(count), positions.chunk(count), strict=True)
        training([{"real_a": a, "real_b": b, "position": places} for a, b, places in parts], 1.0)

    return step


def convolution_share(step: Callable[[], None], device: torch.device) -> float:
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
    """One side of a row, in its own process: "ready", seconds for each "step", all the rest for "end".

    What cannot be used is sent in place of an answer, for the other process to say.
    """
    try:
        _serve(pipe, settings, precision, reference, profile)
    except (BadInput, Failed) as error:
        pipe.send(error)
    except Exception as error:
        if out_of_memory(error):
            shape = f"{settings.size}/{settings.batch_size}"
            pipe.send(Failed(f"out of memory with --sizes {shape} at precision {precision}"))
        elif reference is not None:
            words = " ".join(str(error).split())
            pipe.send(BadInput(f"--reference: {reference}: {type(error).__name__}: {words}"))
        else:
            raise


def _serve(pipe: Any, settings: TrainSettings, precision: str, reference: Path | None, profile: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_up_cuda(settings.speed)  # both sides, and the product that is their peak
    draw = torch.Generator().manual_seed(0)  # both sides see the same images
    shape = (settings.batch_size, settings.data.channels, settings.size, settings.size)

    def images() -> tuple[Tensor, Tensor]:
        real_a, real_b = ((torch.rand(shape, generator=draw) * 2 - 1).to(device) for _ in "ab")
        return real_a, real_b

    real = images()
    step = reference_step(reference, settings) if reference else our_step(settings, precision, real)
    began = time.perf_counter()
    step(*real)  # apart: what is made once is made here
    synchronize(device)
    first = time.perf_counter() - began
    pipe.send("ready")
    while pipe.recv() == "step":
        real = images()
        synchronize(device)
        began, worked = time.perf_counter(), time.process_time()
        step(*real)
        synchronize(device)
        pipe.send((time.perf_counter() - began, time.process_time() - worked))
    memory = peak_mib()
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    # Behind all that is timed, for a hook would have torch.compile begin anew; and uncompiled, to be seen.
    with torch.compiler.set_stance("force_eager"), Operations() as operations:
        step(*images())
    share = convolution_share(lambda: step(*images()), device) if profile else None
    matmul = peak_flops(DTYPES[precision], device)
    found = {"flop": operations.count, "peak_mib": memory, "matmul": matmul, "convolutions": share}
    pipe.send({**found, "first": first})


def answer(pipe: Any, side: str, word: str | None = None) -> Any:
    """What a side's process says, to ``word`` if there is one.

    Raises:
        BadInput, Failed: what it could not use, or that it is gone.
    """
    try:
        if word is not None:
            pipe.send(word)
        said = pipe.recv()
    except (EOFError, OSError) as error:
        raise Failed(f"the process of {side} ended before its steps were measured") from error
    if isinstance(said, BadInput | Failed):
        raise said
    return said


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
        answer(pipes[side], side)  # ready: one that still warms up would take the processor from the other
    timed: dict[str, list[tuple[float, float]]] = {side: [] for side in pipes}
    for _ in range(repeats):
        for side, pipe in pipes.items():
            timed[side].append(answer(pipe, side, "step"))
    rows = []
    for side, pipe in pipes.items():
        found, (seconds, worked) = answer(pipe, side, "end"), zip(*timed[side], strict=True)
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
                "peak_mib": round(found["peak_mib"]),
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


def _precisions(wanted: tuple[str, ...]) -> list[str]:
    if not wanted:
        wanted = ("no", "bf16")
        if not torch.cuda.is_available() and not cpu_has_bf16():
            print("bf16 is left out: this processor does not multiply it (--precisions no bf16 to see it so)")
            wanted = ("no",)
    return list(dict.fromkeys(resolve_precision(name) for name in wanted))


def step_settings(shape: str, recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> TrainSettings:
    """A recipe's step at a size.

    Args:
        shape: size/batch.
        recipe: its tables; none are the defaults.
        changes: tables whose keys count in place of the recipe's.

    Raises:
        BadInput: another form, or networks and settings that cannot be.
    """
    size, _, batch = shape.partition("/")
    if not (size.isdigit() and (batch or "1").isdigit()):
        raise BadInput(f"--sizes: {shape!r} is not of the form size/batch, such as 256/1")
    values = {**recipe, "size": int(size), "batch_size": int(batch or 1)}
    for table, keys in changes.items():
        values[table] = {**values.get(table, {}), **keys}
    # Images are drawn, at their size; and pre-training is another step, without discriminators.
    for table in ("augment", "pretrain"):
        values.pop(table, None)
    return buildable(values, f"--sizes {shape}")


def main(
    sizes: tuple[str, ...] = ("256/1", "128/4", "64/16"),
    precisions: tuple[Literal["no", "bf16", "fp16", "auto"], ...] = (),
    blocks: int = 9,
    filters: int = 64,
    recipe: Path | None = None,
    speed: tuple[Speed, ...] = (),
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
        speed: settings of that name that are on, or off, whatever the recipe says; what they take at first is
            "first_step_seconds" of --json
        reference: a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, or a Python file with a function
            model(settings) that returns an object with set_input({"A": ..., "B": ...}) and
            optimize_parameters()
        repeats: steps of which the median is taken, after one that is not counted
        profile: after that, say which share of one more step is spent in convolutions
        json: end with one line of JSON
    """
    at_least(1, repeats=repeats)
    if not sizes:
        raise BadInput("--sizes: name one or more, such as 256/1")
    changes: dict[str, dict[str, Any]] = {
        "speed": {name.removeprefix("no-"): not name.startswith("no-") for name in speed}
    }
    if recipe is None:
        changes |= {
            "generator": {"blocks": blocks, "filters": filters},
            "discriminator": {"filters": filters},
        }
    given, wanted = read_recipe(recipe), _precisions(precisions)
    measured = [step_settings(shape, given, changes) for shape in sizes]
    if reference is not None:
        for settings in measured:
            checked(reference, settings)
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
    run(main)
