"""cyclegan export."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json


def export(args: list[str]) -> int:
    def command(
        generator: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        precision: Literal["fp32", "fp16", "int8"] = "fp32",
        calibrate: Path | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Write a generator for other programs, as ONNX or torch.export file, and check it against torch.

        Args:
            generator: folder of a saved generator
            output: FILE.onnx or FILE.pt2
            precision: fp32; fp16, half the size; or int8, a quarter, for .onnx
            calibrate: for int8, a folder of typical pictures to take the ranges from
            json: end with one line of JSON
        """
        return lambda: _export(generator, output, precision, calibrate, json)

    return parse(command, args, "cyclegan export")()


def _export(generator: Path, output: Path, precision: str, calibrate: Path | None, as_json: bool) -> int:
    from cyclegan.artifacts import read_config
    from cyclegan.artifacts.export import calibration_images, export_generator

    images = [] if calibrate is None else calibration_images(calibrate, read_config(generator))
    done = export_generator(generator, output, precision, images)
    size = output.stat().st_size
    if as_json:
        difference = {"largest": done.largest, "mean": done.mean}
        shapes = [list(shape) for shape in done.shapes]
        entry = {"output": str(output), "precision": precision, "bytes": size}
        print_json({**entry, "checked": shapes, "difference": difference})
    else:
        print(f"Wrote {output}: {precision}, {size / 2**20:.1f} MiB.")
        sizes = ", ".join("x".join(map(str, shape)) for shape in done.shapes)
        print(f"Runs on {sizes}; difference from torch at fp32{' on calibration images' if images else ''}:")
        levels = f"{done.largest * 127.5:.2g} and {done.mean * 127.5:.2g} of 255 levels"
        print(f"at most {done.largest:.2g}, {done.mean:.2g} on average, of values from -1 to 1 ({levels}).")
    return 0
