"""Every method, on the same pictures: what it costs and what it gives.

python benchmarks/zoo.py --minutes 2 --at-once 2 --out zoo/ --json

The pictures are photographs and cyanotypes, prints in one blue ink, of other photographs (photo2prints' own
originals and printer). Whatever can be trained is trained for so many minutes, 64 pixels, batches of 4, by
OUT/recipes/NAME.yaml, which differs from the others in what the row names and can be trained again by hand.
Generators begin as the identity, and nothing but the discriminator tells them what an ink is, as the row
without an adversarial loss shows. Stylization has one print as its style. Then the same held-out photographs
go through each method by one command.

Seconds of a step and MiB are of the training, the largest resident memory; seconds and MiB to translate those
of the command. Content distance is that of VGG-19's relu4_2 to the photograph, relative; style distance that
of the Gram matrices of relu1_1 to relu5_1 to their means over the true prints; levels are the mean difference
from the true prints, which are known, in grey levels of 255. Photographs, their blurs, the straight line from
colours to colours that fits best, and the true prints stand beside. A row that is in OUT already is not made
again.
"""

import json as jsonlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from entry import at_least, more_than_none, run
from methods import Judge, command
from PIL import Image, ImageDraw, ImageFont

from cyclegan.datasets.cards import load_card
from cyclegan.datasets.making.photographs import TILE, make_from_photographs
from cyclegan.datasets.making.prints import printed
from cyclegan.errors import BadInput
from cyclegan.images import read_image, write_image

INK = "cyanotype"
STYLE = "flower-0096-0256.png"  # of the prints one with all tones, from paper to ink
LABEL, GAP = 250, 4
RECIPE: dict[str, Any] = {
    "batch_size": 4,
    "size": 64,
    "augment": {"preset": "crop", "flip": True},
    "generator": {
        "name": "resnet",
        "filters": 24,
        "blocks": 3,
        "upsample": "resize",
        "norm": "none",
        "residual": True,
    },
    "discriminator": {"name": "patchgan", "filters": 32, "layers": 2},
    "losses": {
        "lambda_cycle_a": 1,
        "lambda_cycle_b": 1,
        "lambda_identity_a": 0,
        "lambda_identity_b": 0,
        "lambda_adversarial_ba": 0.1,
    },
    "optimizer": {"lr": 5e-4, "lr_discriminator": 2e-4},
}
PLAIN = {"name": "resnet", "filters": 24, "blocks": 3, "upsample": "resize"}
ONE_SIDED = {"losses": {"lambda_cycle_a": None, "lambda_cycle_b": None, "lambda_adversarial_ba": None}}
TRANSFORMER = {"filters": 16, "depth": 3, "features": 96, "heads": 4, "blocks": 4, "residual": True}
TERMS = {
    "lambda_content": 0.2,
    "content_layers": ["relu3_1"],
    "lambda_style": 0.5,
    "style_layers": ["relu1_1", "relu2_1", "relu3_1"],
    "lambda_total_variation": 0.1,
}
NONE = {"lambda_adversarial_ab": 0, "lambda_adversarial_ba": 0}


def judge(name: str, **more: Any) -> dict[str, Any]:
    return {"discriminator": {"name": name, "filters": 32, **more}}


# What a row changes in RECIPE. A network that is named is replaced whole, all else changes key by key;
# None takes a key away.
TRAINED: dict[str, dict[str, Any]] = {
    "no adversarial loss": {"losses": NONE},
    "CycleGAN": {},
    "CUT": {"method": "cut", **ONE_SIDED},
    # The identity is where PatchNCE is least, and FastCUT's weight of 10 leaves a generator there.
    "FastCUT, not residual": {"method": "fastcut", **ONE_SIDED, "generator": PLAIN},
    "resnet, not residual": {"generator": PLAIN},
    "resnet, attention": {"generator": {"attention": 16}},
    "unet": {"generator": {"name": "unet", "filters": 24, "residual": True}},
    "vit_unet": {"generator": {"name": "vit_unet", **TRANSFORMER}},
    "vit_unet, pretrained": {
        "generator": {"name": "vit_unet", **TRANSFORMER},
        "pretrain": {"steps": 100, "patch": 8},
    },
    "modnet": {"generator": {"name": "modnet", **TRANSFORMER}},
    "modnet, reference": {"generator": {"name": "modnet", "style": "reference", **TRANSFORMER}},
    "pixel": judge("pixel", norm="none"),  # a norm takes away the colours that it is to judge
    "multiscale": judge("multiscale", layers=2, scales=2),
    "spectral norm": judge("patchgan", layers=2, spectral_norm=True),
    "discriminator, attention": judge("patchgan", layers=2, attention=16),
    "batch_statistics": judge("batch_statistics"),
    "projected": {**judge("projected"), "losses": {"adversarial": "hinge"}},
    "R1": {"losses": {"lambda_r1": 1}},
    "zero-centred": {"losses": {"lambda_zero_centred": 1}},
    "WGAN-GP": {"losses": {"adversarial": "wgan-gp"}},
    "augmentation": {"losses": {"diff_augment": ["translation", "cutout"]}},
    "counterfeits": {"losses": {"lambda_edge_b": 1}},
    "content, style, variation": {"losses": TERMS},
    "those terms alone": {"losses": {**TERMS, **NONE}},
    "likeness from afar": {"losses": {"lambda_consist": 1}},
    "cosine": {"optimizer": {"schedule": "cosine", "decay_from": 0}},
    "warm-up": {"optimizer": {"warmup_steps": 50}},
}
STYLIZED = ("optimize", "fast")


def pictures(out: Path) -> Path:
    """The domain in ``out``: trainA, trainB, testA and testB, which has the true print of each of testA."""
    folder = out / "pictures"
    if not folder.is_dir():
        half_made = out / "pictures.part"
        shutil.rmtree(half_made, ignore_errors=True)
        half_made.mkdir(parents=True)
        source = load_card("photo2prints").source
        make_from_photographs(source, half_made, lambda pixels, chance: printed(pixels, chance, INK))
        half_made.rename(folder)
    return folder


def recipe(changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    whole = {"domain": "photo2cyanotype", "data": {"root": str(folder.resolve())}, **RECIPE}
    for key, value in changes.items():
        is_whole = not isinstance(value, dict) or "name" in value
        whole[key] = value if is_whole else {**whole.get(key, {}), **value}
    whole["losses"] = {key: value for key, value in whole["losses"].items() if value is not None}
    return whole


def trained(name: str, out: Path, minutes: float) -> dict[str, Any]:
    """Train one method: steps, seconds of one, MiB."""
    words = name.replace(", ", "-").replace(" ", "-")
    file, folder = out / "recipes" / f"{words}.yaml", out / "runs" / words
    file.parent.mkdir(parents=True, exist_ok=True)
    asked_for = recipe(TRAINED[name], out / "pictures")
    file.write_text(yaml.safe_dump(asked_for, sort_keys=False))
    asked = ["--minutes", str(minutes), "--run-dir", str(folder), "--tracker", "none"]
    _, mib = command(["train", str(file), *asked])
    steps = [jsonlib.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = median(RECIPE["batch_size"] / each["images_per_s"] for each in steps)
    return {
        "steps": steps[-1]["step"],
        "seconds": round(seconds, 3),
        "mib": round(mib),
        "words": ["translate", str(folder / "generators/G_AB")],
    }


def row(name: str, out: Path, minutes: float) -> dict[str, Any]:
    """One method's cost, its pictures in OUT/made/NAME."""
    kept, made = out / "rows" / f"{name}.json", out / "made" / name
    if kept.is_file():
        return jsonlib.loads(kept.read_text())
    found = trained(name, out, minutes) if name in TRAINED else {"words": ["stylize"]}
    words = [*found.pop("words"), str(out / "held_out")]
    words += [str(made)] if name in TRAINED else [str(out / "style.png"), str(made), "--method", name]
    seconds, mib = command(words)
    found |= {"to_translate": round(seconds, 1), "mib_to_translate": round(mib)}
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(jsonlib.dumps(found))
    return found


def straight_line(photographs: list[np.ndarray], prints: list[np.ndarray]) -> list[np.ndarray]:
    """Photographs by the affine map of colours that brings them nearest to the true prints."""
    colours = [np.c_[p.reshape(-1, 3), np.full(p[..., 0].size, 255)].astype(float) for p in photographs]
    wanted = np.concatenate([p.reshape(-1, 3) for p in prints]).astype(float)
    line = np.linalg.lstsq(np.concatenate(colours), wanted, rcond=None)[0]
    shape = photographs[0].shape
    return [np.rint((each @ line).clip(0, 255)).astype(np.uint8).reshape(shape) for each in colours]


def measured(made: Path, folder: Path, eye: Judge) -> dict[str, float]:
    """Means over the pictures in ``made`` of the three distances."""
    content, style, levels = [], [], []
    for path in sorted(made.glob("*.png")):
        pair = eye.distances(path, folder / "testA" / path.name)
        content.append(pair[0])
        style.append(pair[1])
        truth = read_image(folder / "testB" / path.name).pixels.astype(float)
        levels.append(np.abs(read_image(path).pixels - truth).mean())
    return {
        "content": round(float(np.mean(content)), 3),
        "style": round(float(np.mean(style)), 3),
        "levels": round(float(np.mean(levels)), 1),
    }


def beside(out: Path, folder: Path, names: list[str]) -> tuple[str, ...]:
    """What the methods are compared with, in OUT/made."""
    photographs, prints = (
        [read_image(folder / side / name).pixels for name in names] for side in ("testA", "testB")
    )
    found = {
        "photographs": photographs,
        "their blurs": [cv2.GaussianBlur(pixels, (0, 0), 2) for pixels in photographs],
        "the best straight line": straight_line(photographs, prints),
        "the true prints": prints,
    }
    for title, made in found.items():
        for name, pixels in zip(names, made, strict=True):
            write_image(out / "made" / title / name, pixels)
    return tuple(found)


def sheet(out: Path, rows: list[str], names: list[str]) -> None:
    """OUT/zoo.jpg: a line for each method, a column for each photograph."""
    step = TILE // 2 + GAP
    drawn = Image.new("RGB", (LABEL + len(names) * step + GAP, len(rows) * step + GAP), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(14)
    for number, title in enumerate(rows):
        pen.text((GAP, number * step + TILE // 4 - 6), title, "black", font)
        for column, name in enumerate(names):
            with Image.open(out / "made" / title / name) as made:
                small = made.convert("RGB").resize((TILE // 2, TILE // 2), Image.Resampling.BOX)
            drawn.paste(small, (LABEL + column * step, GAP + number * step))
    drawn.save(out / "zoo.jpg", quality=85, optimize=True)


def table(rows: dict[str, dict[str, Any]]) -> None:
    heads = {"steps": "steps", "seconds": "s a step", "mib": "MiB", "to_translate": "s to tr."}
    heads |= {"mib_to_translate": "MiB to tr.", "content": "content", "style": "style", "levels": "levels"}
    print(f"{'':<26}" + "".join(f"{head:>11}" for head in heads.values()))
    for name, found in rows.items():
        print(f"{name:<26}" + "".join(f"{found.get(key, ''):>11}" for key in heads))


def main(
    out: Path,
    minutes: float = 2.0,
    at_once: int = 1,
    only: tuple[str, ...] = (),
    held_out: int = 8,
    json: bool = False,
) -> None:
    """Make every method's pictures, measure all, and write OUT/zoo.jpg.

    Args:
        out: folder for the pictures, recipes, runs and the sheet
        minutes: of each training
        at_once: rows side by side, which share the threads
        only: names of rows; default is all of them
        held_out: photographs that are translated, evenly spread
        json: end with one line of JSON
    """
    at_least(1, at_once=at_once, held_out=held_out)
    more_than_none(minutes=minutes)
    methods = (*STYLIZED, *TRAINED)
    unknown = sorted(set(only) - set(methods))
    if unknown:
        raise BadInput(f"--only: unknown {', '.join(unknown)}; known: {'; '.join(methods)}")
    folder = pictures(out)
    whole = sorted(path.name for path in (folder / "testA").iterdir())
    names = [whole[i] for i in np.linspace(0, len(whole) - 1, held_out).astype(int)]
    for name in names:
        write_image(out / "held_out" / name, read_image(folder / "testA" / name).pixels)
    shutil.copy(folder / "trainB" / STYLE, out / "style.png")
    titles = beside(out, folder, names)
    threads = max(1, torch.get_num_threads() // at_once)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of each command
    chosen = [name for name in methods if not only or name in only]
    with ThreadPoolExecutor(at_once) as pool:
        found = dict(zip(chosen, pool.map(lambda name: row(name, out, minutes), chosen), strict=True))
    eye = Judge(*sorted((out / "made" / "the true prints").iterdir()))
    order = [*titles[:-1], *STYLIZED, *TRAINED, titles[-1]]
    rows = {
        name: {**found.get(name, {}), **measured(out / "made" / name, folder, eye)}
        for name in order
        if name in titles or name in found
    }
    table(rows)
    sheet(out, list(rows), names)
    if json:
        print(jsonlib.dumps({"minutes": minutes, "at_once": at_once, "threads": threads, "rows": rows}))


if __name__ == "__main__":
    run(main)
