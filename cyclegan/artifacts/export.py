"""A generator for other programs: ONNX or torch.export, checked against torch before it is there."""

import contextlib
import copy
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config

from cyclegan import __version__
from cyclegan.artifacts.generator import CONFIG, WEIGHTS, GeneratorConfig, load_generator
from cyclegan.artifacts.onnx_file import (
    CONFIG_KEY,
    PRECISION_KEY,
    SOURCE_KEY,
    onnx_session,
    quantize,
    run_session,
    write_onnx,
)
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput, optional
from cyclegan.images import list_images, read_image, resize, to_tensor
from cyclegan.networks.attention import attends_to_all

ExportPrecision = Literal["fp32", "fp16", "int8"]

USUAL_SIZE = 256  # where a generator from elsewhere does not tell its own
CALIBRATION_IMAGES = 64

# How far an exported generator may be from torch at fp32, of values in [-1, 1]: fp32 in every value; the
# others are coarser by nature, and past these bounds something is wrong.
LARGEST_DIFFERENCE = {"fp32": 1e-4, "fp16": 0.1, "int8": 2.0}
MEAN_DIFFERENCE = {"fp32": 1e-4, "fp16": 0.1, "int8": 0.1}


@dataclass(frozen=True)
class Exported:
    """What was written, the shapes that it was checked on, and how far it is from torch at fp32."""

    path: Path
    precision: ExportPrecision
    shapes: list[tuple[int, ...]]
    largest: float
    mean: float


def export_generator(
    folder: Path, target: Path, precision: ExportPrecision = "fp32", calibration: Sequence[Tensor] = ()
) -> Exported:
    """Write a generator as one file that takes any batch, height and width.

    Height and width are multiples of ``config.multiple_of``. The file is run and compared with torch
    before it takes its place; GeneratorConfig travels in its metadata.

    Args:
        folder: a saved generator.
        target: ``.onnx``, or ``.pt2`` for a ``torch.export`` file.
        precision: ``fp16`` has half-precision weights and arithmetic between fp32 images; ``int8`` has
            integer convolutions (ONNX only).
        calibration: (1, C, H, W) images that ``int8`` takes its ranges from; every fourth is kept out of
            that, and the difference is measured on these.

    Raises:
        BadInput: bad arguments, a missing package, a target that cannot be written, or a file whose
            results are not torch's.
    """
    if target.suffix not in (".onnx", ".pt2"):
        raise BadInput(f"{target}: must end with .onnx or .pt2")
    if precision == "int8" and target.suffix == ".pt2":
        raise BadInput(f"{target}: int8 is for .onnx files; a .pt2 file has fp32 or fp16")
    if (precision == "int8") != bool(calibration):
        raise BadInput("--calibrate: int8 needs a folder of images, and nothing else takes one")
    if target.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            optional(package, "export", f"exporting to {target.name}")
    network, config = load_generator(folder)
    metadata = {
        CONFIG_KEY: config.model_dump_json(),
        PRECISION_KEY: precision,
        SOURCE_KEY: sha256_of(folder / WEIGHTS),
    }
    with _beside(target) as partial:
        _write(partial, network, config, precision, calibration, metadata)
        run = _runner(partial)
        checks = _check_images(config, _smallest_in(target.suffix, network, config))
        largest, mean = _differences(run, network, checks)
        if calibration:
            # Noise is nothing that the ranges were made for; its batches show that every size runs.
            largest, mean = _differences(run, network, calibration[::4])
        # Written so that a NaN is refused as well.
        if not (largest <= LARGEST_DIFFERENCE[precision] and mean <= MEAN_DIFFERENCE[precision]):
            raise BadInput(
                f"{target}: not written, for at {precision} it is {largest:.2g} from torch at most and "
                f"{mean:.2g} on average; export it at another --precision"
            )
        partial.replace(target)
    return Exported(target, precision, [tuple(images.shape) for images in checks], largest, mean)


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A file in a temporary folder next to the target, gone when the block ends."""
    if target.is_dir():
        raise BadInput(f"{target}: is a folder; name a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem[:40]}.", dir=target.parent) as folder:
            yield Path(folder) / f"generator{target.suffix}"
    except OSError as error:
        raise BadInput(f"{target}: cannot be written ({error.strerror or error})") from error


class _Half(nn.Module):
    """fp16 inside, fp32 images outside, so that all exported files are fed alike."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.half()).float()


def _write(
    path: Path,
    network: nn.Module,
    config: GeneratorConfig,
    precision: ExportPrecision,
    calibration: Sequence[Tensor],
    metadata: dict[str, str],
) -> None:
    chosen = network
    if precision == "fp16":
        # A copy: the network itself stays what the result is compared with.
        chosen = _Half(copy.deepcopy(network)).eval()
    program = _program(chosen, config, path.suffix)
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files=metadata)
        return
    if precision != "int8":
        write_onnx(program, path, metadata)
        return
    whole = path.with_name("fp32.onnx")
    write_onnx(program, whole, metadata)
    quantize(whole, path, [images for i, images in enumerate(calibration) if i % 4 or len(calibration) == 1])


def _smallest_side(config: GeneratorConfig) -> int:
    """In multiples: 16 pixels at least, below which the reflection in the networks has nothing to mirror."""
    return -(-16 // config.multiple_of)


def _smallest_in(suffix: str, network: nn.Module, config: GeneratorConfig) -> int:
    """As above, and two multiples in a .pt2 file of a network that puts a map's positions in a row.

    torch.export ties such a graph to maps of more than one pixel a side; ONNX files take one.
    """
    least = _smallest_side(config)
    return max(least, 2) if suffix == ".pt2" and attends_to_all(network) else least


def _program(network: nn.Module, config: GeneratorConfig, suffix: str) -> torch.export.ExportedProgram:
    step, smallest = config.multiple_of, _smallest_in(suffix, network, config)
    # Sides of the example that no dimension could be mistaken by: neither the smallest nor alike.
    example = torch.zeros(2, config.channels, (smallest + 1) * step, (smallest + 2) * step)
    height, width = (torch.export.Dim(name, min=smallest) for name in ("height", "width"))
    shapes = {0: torch.export.Dim("batch", min=1), 2: step * height, 3: step * width}
    with _any_size():
        program = torch.export.export(network, (example,), dynamic_shapes=(shapes,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that it was exported on
    return program


def _any_size() -> contextlib.AbstractContextManager[None]:
    """Let a layer be one pixel wide, as a U-Net's narrowest is, which torch takes for a case of its own."""
    known = hasattr(fx_config, "backed_size_oblivious")  # torch 2.6 has no such setting
    return fx_config.patch(backed_size_oblivious=True) if known else contextlib.nullcontext()


def _check_images(config: GeneratorConfig, multiples: int) -> list[Tensor]:
    """Noise: three batches of three sizes from so many multiples on, with the trained size (up to 512)."""
    step, smallest = config.multiple_of, multiples * config.multiple_of
    # onnxruntime sums an instance norm's pixels naively: past 512 px that alone is more than 1e-4.
    trained = max(smallest, min(config.size or USUAL_SIZE, 512) // step * step)
    chance = torch.Generator().manual_seed(0)
    shapes = [(1, smallest, smallest), (3, smallest, smallest + step), (1, trained, trained + step)]
    return [torch.rand(n, config.channels, h, w, generator=chance) * 2 - 1 for n, h, w in shapes]


def calibration_images(folder: Path, config: GeneratorConfig) -> list[Tensor]:
    """Up to 64 pictures of a folder, evenly taken, as (1, C, H, W) of the trained size.

    Raises:
        BadInput: no pictures there, or one that cannot be read.
    """
    paths = list_images(folder)
    if not paths:
        raise BadInput(f"{folder}: has no JPEG, PNG, WebP, TIFF or BMP images")
    count = min(CALIBRATION_IMAGES, len(paths))
    side = max(_smallest_side(config), (config.size or USUAL_SIZE) // config.multiple_of) * config.multiple_of
    chosen = (paths[i * len(paths) // count] for i in range(count))
    pictures = (read_image(path, config.channels, config.background) for path in chosen)
    return [to_tensor(resize(picture.pixels, side, side))[None] for picture in pictures]


def _runner(path: Path) -> Callable[[Tensor], Tensor]:
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = onnx_session(path)
    return lambda images: run_session(session, images)


@torch.inference_mode()
def _differences(
    run: Callable[[Tensor], Tensor], network: nn.Module, batches: Sequence[Tensor]
) -> tuple[float, float]:
    """Largest and mean absolute difference of the file's results from the network's."""
    found = []
    for images in batches:
        result = run(images)
        if result.shape != images.shape:
            raise BadInput(f"the exported file makes {tuple(result.shape)} of {tuple(images.shape)}")
        found.append((result - network(images)).abs().flatten())
    values = torch.cat(found)
    return float(values.max()), float(values.mean())


def cached_onnx(folder: Path) -> Path:
    """The generator as fp32 ONNX in the user's cache, exported when it is not there yet.

    The cache is ``$CYCLEGAN_CACHE``, else ``cyclegan`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; its files
    are named by what is in the generator's folder and can be deleted at any time.
    """
    digest = hashlib.sha256(f"{__version__} {torch.__version__}".encode())
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            load_generator(folder)  # says in one line what is missing
        digest.update((folder / name).read_bytes())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("CYCLEGAN_CACHE") or caches / "cyclegan")
    path = cache / "onnx" / f"{digest.hexdigest()[:32]}.onnx"
    if not path.is_file():
        export_generator(folder, path)
    return path
