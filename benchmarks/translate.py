"""Images/s and peak memory of translating JPEG files to JPEG files; prints a table and, with --json, JSON.

Our backends, and a plain loop (PIL, batch 1, fp32) as CycleGAN's first code tests with, each in a process
of its own. The files are cut from the photographs in scikit-image; the generator has random weights.
"""

import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from json import dumps, loads
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from entry import SMALLEST, at_least, run
from machine import peak_mib
from PIL import Image

from cyclegan.artifacts import GeneratorConfig, NetworkConfig, load_generator, save_generator
from cyclegan.artifacts.export import calibration_images, export_generator
from cyclegan.errors import BadInput
from cyclegan.networks import build
from cyclegan.networks.deployed import cpu_is_faster_in_bf16
from cyclegan.networks.layers import initialize
from cyclegan.translation import Translator
from cyclegan.translation.backends import pick_backend
from cyclegan.translation.folder import translate_files
from cyclegan.translation.plan import plan

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "retina")
QUALITY = 95
# Backend, precision, and the file in place of the generator's folder.
OURS: dict[str, tuple[str, str, str | None]] = {
    "torch fp32": ("torch", "fp32", None),
    "torch bf16": ("torch", "bf16", None),
    "onnx fp32": ("onnx", "auto", "fp32.onnx"),
    "openvino fp32": ("openvino", "fp32", "fp32.onnx"),
    "openvino bf16": ("openvino", "bf16", "fp32.onnx"),
    "openvino int8": ("openvino", "auto", "int8.onnx"),
}
Name = Literal[
    "plain loop", "torch fp32", "torch bf16", "onnx fp32", "openvino fp32", "openvino bf16", "openvino int8"
]
ALL: tuple[Name, ...] = ("plain loop", *OURS)


def make_photographs(folder: Path, count: int, size: int) -> None:
    """``count`` JPEG files, size x size, cut from photographs at places that differ."""
    import skimage.data

    folder.mkdir()
    photographs = [np.asarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    chance = np.random.default_rng(0)
    for number, pixels in zip(range(count), itertools.cycle(photographs), strict=False):
        side = min(size, *pixels.shape[:2])
        top, left = (int(chance.integers(0, length - side + 1)) for length in pixels.shape[:2])
        cut = Image.fromarray(pixels[top : top + side, left : left + side])
        cut.resize((size, size)).save(folder / f"{number:05}.jpg", quality=QUALITY)


def make_generator(folder: Path, size: int, filters: int, blocks: int) -> None:
    torch.manual_seed(0)
    arguments = {"filters": filters, "blocks": blocks}
    network = initialize(build("generator", "resnet", arguments))
    config = GeneratorConfig(
        network=NetworkConfig(name="resnet", arguments=arguments),
        channels=3,
        size=size,
        multiple_of=network.multiple_of,
        domain="benchmark",
        direction="AtoB",
        source="photographs",
        target="what random weights make of them",
        card_sha256=None,
        licences={},
        seed=0,
        steps=0,
        images_seen=0,
    )
    save_generator(folder, network.state_dict(), config)


def plain_loop(work: Path) -> tuple[float, float]:
    """Seconds to load and to translate, one file after the other, nothing overlapped."""
    began = time.perf_counter()
    network, _ = load_generator(work / "generator")
    loaded = time.perf_counter()
    (work / "out").mkdir()
    for path in sorted((work / "in").iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
        image = torch.from_numpy((pixels / 255 - 0.5) / 0.5).permute(2, 0, 1)[None].contiguous()
        with torch.no_grad():
            result = network(image)
        translated = (result[0].permute(1, 2, 0).numpy() + 1) / 2 * 255
        Image.fromarray(translated.clip(0, 255).astype(np.uint8)).save(
            work / "out" / path.name, quality=QUALITY
        )
    return loaded - began, time.perf_counter() - loaded


def ours(work: Path, name: Name) -> tuple[float, float]:
    """Seconds to load and to translate the way that ``cyclegan translate`` does."""
    backend, precision, file = OURS[name]
    began = time.perf_counter()
    translator = Translator.from_pretrained(work / (file or "generator"), None, backend, precision)
    loaded = time.perf_counter()
    done = translate_files(translator, plan(work / "in", work / "out"))
    failed = [item.error for item in done if item.error]
    if failed:
        raise BadInput(failed[0])
    return loaded - began, time.perf_counter() - loaded


def measure_here(name: Name, work: Path) -> None:
    """In the child process: one line of JSON."""
    count = len(list((work / "in").iterdir()))
    load, seconds = plain_loop(work) if name == "plain loop" else ours(work, name)
    row = {"images_per_s": round(count / seconds, 3), "load_s": round(load, 2), "peak_mib": round(peak_mib())}
    print(dumps({"name": name, **row, "threads": torch.get_num_threads()}))


def measure(name: Name, work: Path) -> dict:
    """One row of the table, from a process of its own; ``skipped`` says why there is none."""
    if "bf16" in name and not cpu_is_faster_in_bf16():
        return {"name": name, "skipped": "this CPU is not faster in bf16"}
    command = [sys.executable, __file__, "--names", name, "--child", str(work)]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(work / "out", ignore_errors=True)
    if done.returncode:
        return {"name": name, "skipped": done.stderr.strip().splitlines()[-1]}
    return loads(done.stdout.strip().splitlines()[-1])


def main(
    count: int = 200,
    size: int = 256,
    filters: int = 64,
    blocks: int = 9,
    names: tuple[Name, ...] = ALL,
    json: bool = False,
    child: Path | None = None,
) -> None:
    """Measure translation from JPEG files to JPEG files.

    Args:
        count: files
        size: their height and width
        filters: features after the generator's first layer
        blocks: its residual blocks
        names: what is measured, in this order
        json: end with one line of JSON
        child: measure one of them in this process, in a folder that the parent made
    """
    at_least(1, count=count, filters=filters)
    at_least(0, blocks=blocks)
    at_least(SMALLEST, size=size)
    if not names:
        raise BadInput(f"--names: name one or more of {', '.join(ALL)}")
    if child is not None:
        measure_here(names[0], child)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_photographs(work / "in", count, size)
        make_generator(work / "generator", size, filters, blocks)
        files = {OURS[name][2] for name in names if name in OURS} - {None}
        try:
            for file in sorted(files):
                config = load_generator(work / "generator")[1]
                images = calibration_images(work / "in", config)[:16] if file == "int8.onnx" else []
                export_generator(work / "generator", work / file, file.removesuffix(".onnx"), images)
        except BadInput as error:
            print(error)
        print(f"{count} files of {size} px, {filters} filters, {blocks} blocks")
        print(f"{'':>14} {'images/s':>9} {'x plain':>8} {'load s':>7} {'peak MiB':>9}")
        rows = []
        for name in names:
            row = measure(name, work)
            rows.append(row)
            if "skipped" in row:
                print(f"{name:>14} {row['skipped']}")
                continue
            plain = next((r["images_per_s"] for r in rows if r["name"] == "plain loop"), None)
            row["times_plain"] = plain and round(row["images_per_s"] / plain, 2)
            print(
                f"{name:>14} {row['images_per_s']:>9} {row['times_plain'] or '':>8} {row['load_s']:>7} "
                f"{row['peak_mib']:>9}",
                flush=True,
            )
        auto = pick_backend(work / "generator", pictures=count)
        print(f"--backend auto picks {auto}; {torch.get_num_threads()} threads, torch {torch.__version__}")
    if json:
        print(dumps({"count": count, "size": size, "auto": auto, "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    run(main)
