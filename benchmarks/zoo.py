"""Every method of training, on the same pictures for the same time: what it costs and what it gives.

python benchmarks/zoo.py --minutes 3 --at-once 2 --out zoo/ --json
python benchmarks/zoo.py --domain photo2prints --minutes 2 --at-once 2 --out judges/ --json

Each row is `cyclegan train` for so many minutes at 64 pixels by the domain's recipe but for what the row
names: its own recipe is OUT/recipes/NAME.yaml, to be trained again by hand. Then `cyclegan evaluate` judges
the generator from A to B on the held-out pictures. Seconds are of a step, MiB the largest resident memory of
the training. A row that is in OUT already is not trained again.
"""

import json as jsonlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
import tyro
import yaml
from methods import run
from PIL import Image, ImageDraw, ImageFont

from cyclegan import Translator
from cyclegan.datasets.prepare import prepare
from cyclegan.images import read_image, resize
from cyclegan.recipes import project_files, read_yaml

SIZE = 64
LABEL, GAP = 250, 4
TRANSFORMER = {"filters": 16, "depth": 3, "features": 96, "heads": 4, "blocks": 4, "residual": True}
PRETRAINED = {"pretrain": {"steps": 100, "patch": 8}}
TERMS = {
    "lambda_content": 0.2,
    "content_layers": ["relu3_1"],
    "lambda_style": 0.5,
    "style_layers": ["relu1_1", "relu2_1", "relu3_1"],
    "lambda_total_variation": 0.1,
}


def judge(name: str, filters: int = 32, **more: Any) -> dict[str, Any]:
    return {"discriminator": {"name": name, "filters": filters, **more}}


# By domain, what a row changes in its recipe. A network that is named is replaced whole; all else changes key
# by key. Discriminators that begin with noise learn within minutes what an ink is, so they judge prints.
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "noto2twemoji": {
        "cyclegan": {},
        "cut": {"method": "cut"},
        "fastcut": {"method": "fastcut"},
        "unet": {"generator": {"name": "unet", "filters": 24, "residual": True}},
        "vit_unet": {"generator": {"name": "vit_unet", **TRANSFORMER}},
        "vit_unet, pretrained": {"generator": {"name": "vit_unet", **TRANSFORMER}, **PRETRAINED},
        "modnet": {"generator": {"name": "modnet", **TRANSFORMER}},
        "modnet, pretrained": {"generator": {"name": "modnet", **TRANSFORMER}, **PRETRAINED},
        "modnet, reference": {"generator": {"name": "modnet", "style": "reference", **TRANSFORMER}},
        "resnet, attention": {"generator": {"attention": 16}},
        "pixel": judge("pixel"),
        "batch_statistics": judge("batch_statistics"),
        "no counterfeits": {"losses": {"lambda_edge_a": 0, "lambda_edge_b": 0}},
        "content, style, variation": {"losses": TERMS},
        "likeness from afar": {"losses": {"lambda_consist": 1}},
        "cosine": {"optimizer": {"schedule": "cosine"}},
        "warm-up": {"optimizer": {"warmup_steps": 50}},
    },
    "photo2prints": {
        "no adversarial loss": {"losses": {"lambda_adversarial_ab": 0, "lambda_adversarial_ba": 0}},
        "patchgan": {},
        "patchgan, spectral norm": judge("patchgan", layers=2, spectral_norm=True),
        "multiscale": judge("multiscale", layers=2, scales=2),
        "patchgan, r1": {"losses": {"lambda_r1": 1}},
        "patchgan, zero-centred": {"losses": {"lambda_zero_centred": 1}},
        "patchgan, wgan-gp": {"losses": {"adversarial": "wgan-gp"}},
        "patchgan, augmented": {"losses": {"diff_augment": ["translation", "cutout"]}},
    },
}
# What all rows of a domain change before.
COMMON: dict[str, dict[str, Any]] = {
    "noto2twemoji": {},
    "photo2prints": {
        "generator": {
            "name": "resnet",
            "filters": 24,
            "blocks": 3,
            "upsample": "resize",
            "norm": "none",
            "residual": True,
        },
        "pretrain": {"steps": 0},
        # With these nothing but the discriminator tells a generator what an ink is.
        "losses": {
            "lambda_identity_a": 0,
            "lambda_identity_b": 0,
            "lambda_cycle_b": 1,
            "lambda_style_code": 0,
        },
    },
}
FIGURES = ("kid_vgg19", "vgg19_style_distance_to_truth", "vgg19_distance_to_truth", "vgg19_distance_to_input")


def recipe(domain: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The domain's recipe with ``changes``, judged once at its end."""
    whole = read_yaml(project_files("experiments")[domain])
    del whole["steps"], whole["evaluation"]
    for key, value in (*COMMON[domain].items(), *changes.items()):
        is_whole = not isinstance(value, dict) or "name" in value
        whole[key] = value if is_whole else {**whole.get(key, {}), **value}
    return whole


def files(name: str, out: Path) -> tuple[Path, Path, Path]:
    """A row's recipe, the folder of its run, and its figures."""
    words = name.replace(", ", "-").replace(" ", "-")
    return out / "recipes" / f"{words}.yaml", out / "runs" / words, out / "rows" / f"{words}.json"


def row(domain: str, name: str, out: Path, minutes: float) -> dict[str, Any]:
    """Train and judge one method."""
    file, folder, kept = files(name, out)
    if kept.is_file():
        return jsonlib.loads(kept.read_text())
    for parent in (file.parent, kept.parent):
        parent.mkdir(parents=True, exist_ok=True)
    asked_for = recipe(domain, METHODS[domain][name])
    file.write_text(yaml.safe_dump(asked_for, sort_keys=False))
    asked = ["--minutes", str(minutes), "--run-dir", str(folder), "--tracker", "none"]
    _, mib = run(["train", str(file), *asked])
    steps = [jsonlib.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    generator = folder / "generators/G_AB"
    run(["evaluate", str(generator)])  # more closely than at the end of a training
    metrics = jsonlib.loads((generator / "metrics.json").read_text())["metrics"]
    found = {
        "steps": steps[-1]["step"],
        "seconds": round(median(asked_for["batch_size"] / each["images_per_s"] for each in steps), 3),
        "mib": round(mib),
        **{figure: round(metrics[figure]["value"], 4) for figure in FIGURES},
        "inputs": {figure: round(metrics[figure]["inputs"], 4) for figure in FIGURES},
    }
    kept.write_text(jsonlib.dumps(found))
    return found


def sheet(domain: str, out: Path, names: list[str], path: Path, pictures: int) -> None:
    """Held-out pictures, one line each method, with A above and B below."""
    folder = prepare(domain)
    held_out = sorted((folder / "testA").iterdir())
    chosen = [held_out[i] for i in np.linspace(0, len(held_out) - 1, pictures + 2).astype(int)[1:-1]]
    originals = [read_image(file).pixels for file in chosen]
    truths = [folder / "testB" / file.name for file in chosen]
    lines = {"A, held out": originals}
    for name in names:
        generator = files(name, out)[1] / "generators/G_AB"
        translator = Translator.from_pretrained(generator, precision="fp32")
        lines[name] = [translator(picture) for picture in originals]
    lines["B, the truth"] = [read_image(file).pixels for file in truths]
    step = SIZE + GAP
    drawn = Image.new("RGB", (LABEL + pictures * step + GAP, len(lines) * step + GAP), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(14)
    for number, (name, line) in enumerate(lines.items()):
        pen.text((GAP, number * step + SIZE // 2 - 6), name, "black", font)
        for column, pixels in enumerate(line):
            place = (LABEL + column * step, GAP + number * step)
            drawn.paste(Image.fromarray(resize(pixels, SIZE, SIZE)), place)
    drawn.save(path, quality=85, optimize=True)


def table(rows: dict[str, dict[str, Any]]) -> None:
    heads = ("steps", "seconds", "MiB", "KID", "style", "to truth", "to input")
    columns = dict(zip(("steps", "seconds", "mib", *FIGURES), heads, strict=True))
    inputs = next(iter(rows.values()))["inputs"]
    print(f"{'':<28}" + "".join(f"{head:>10}" for head in columns.values()))
    for name, found in {"the inputs": inputs, **rows}.items():
        print(f"{name:<28}" + "".join(f"{found.get(key, ''):>10}" for key in columns))


def main(
    out: Path,
    domain: Literal["noto2twemoji", "photo2prints"] = "noto2twemoji",
    minutes: float = 3.0,
    at_once: int = 1,
    only: tuple[str, ...] = (),
    pictures: int = 10,
    json: bool = False,
) -> None:
    """Train every method for ``minutes``, judge all, and write OUT/zoo.jpg.

    Args:
        out: folder for recipes, runs and the picture
        domain: whose methods; generators, losses and schedules on the first, discriminators on the second
        minutes: of each training
        at_once: trainings side by side, which share the threads
        only: names of methods; default is all of them
        pictures: held-out ones in OUT/zoo.jpg
        json: end with one line of JSON
    """
    methods = METHODS[domain]
    unknown = sorted(set(only) - set(methods))
    if unknown:
        raise SystemExit(f"--only: unknown {', '.join(unknown)}; known: {'; '.join(methods)}")
    prepare(domain)
    names = [name for name in methods if not only or name in only]
    threads = max(1, torch.get_num_threads() // at_once)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of each command
    with ThreadPoolExecutor(at_once) as pool:
        rows = dict(zip(names, pool.map(lambda name: row(domain, name, out, minutes), names), strict=True))
    table(rows)
    sheet(domain, out, names, out / "zoo.jpg", pictures)
    if json:
        print(
            jsonlib.dumps(
                {"domain": domain, "minutes": minutes, "at_once": at_once, "threads": threads, "rows": rows}
            )
        )


if __name__ == "__main__":
    tyro.cli(main)
