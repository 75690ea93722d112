"""Our optimization and the program pastiche on the same pictures; prints a table and, with --json, JSON.

Both minimize the same: content at conv4_2, style at conv1_1 to conv5_1, with pastiche's default weights.
Each runs in a process of its own. The losses are computed afterwards, from the files that they wrote, by one
and the same formula, written out once more below, with the weights that both have.

Rows: pastiche; ours with as many steps at the one size (a step costs one evaluation in both); ours from
coarse to fine, stopped when pastiche's time is over. Loading is timed apart, for pastiche unpacks its weights
slowly; our seconds hold the computation of the targets, which pastiche does while it loads.
"""

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
from PIL import Image

from cyclegan.errors import Failed
from cyclegan.images import from_tensor, read_image, to_tensor, write_image
from cyclegan.networks.vgg19 import CONVOLUTIONS_PER_BLOCK, pretrained_vgg19
from cyclegan.stylization import Optimization, optimize, read_styles

Name = Literal["pastiche", "ours, equal steps", "ours, equal time"]
NAMES: tuple[Name, ...] = ("pastiche", "ours, equal steps", "ours, equal time")
STYLE_AFTER = {"1_1": 64, "2_1": 128, "3_1": 256, "4_1": 512, "5_1": 512}
CONTENT_WEIGHT, STYLE_WEIGHT = 0.01, 10.0  # pastiche's: 0.01 mse, and 10 / C^2 mse of Grams over H*W


def make_pictures(work: Path, size: int) -> None:
    import skimage.data

    for name, picture in (("content", "chelsea"), ("style", "immunohistochemistry")):
        pixels = np.asarray(getattr(skimage.data, picture)())[..., :3]
        side = min(pixels.shape[:2])
        Image.fromarray(pixels[:side, :side]).resize((size, size), Image.LANCZOS).save(work / f"{name}.png")


def independent_loss(path: Path, work: Path) -> float:
    """Of the written file, 8 bits a channel and all."""
    convolutions = pretrained_vgg19().convolutions

    def activations(file: Path) -> dict[str, torch.Tensor]:
        rgb = torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).astype(np.float32))
        x = (rgb.flip(2) - torch.tensor([103.939, 116.779, 123.68])).permute(2, 0, 1)[None]
        found = {}
        with torch.no_grad():
            for block, count in enumerate(CONVOLUTIONS_PER_BLOCK, 1):
                for number in range(1, count + 1):
                    x = convolutions[f"{block}_{number}"](x).clamp(min=0)
                    found[f"{block}_{number}"] = x[0]
                    if (block, number) == (5, 1):
                        return found
                x = torch.nn.functional.max_pool2d(x, 2)
        return found

    made, content, style = (activations(f) for f in (path, work / "content.png", work / "style.png"))
    loss = CONTENT_WEIGHT * float(((made["4_2"] - content["4_2"]) ** 2).mean())
    for layer, channels in STYLE_AFTER.items():
        gram = [f[layer].flatten(1) @ f[layer].flatten(1).T / f[layer][0].numel() for f in (made, style)]
        loss += STYLE_WEIGHT / channels**2 * float(((gram[0] - gram[1]) ** 2).mean())
    return loss


def run_pastiche(work: Path, steps: int) -> tuple[float, float]:
    from pastiche.pastiche import PasticheArtist, save_image

    began = time.perf_counter()
    size = Image.open(work / "content.png").width
    artist = PasticheArtist(str(work / "content.png"), [str(work / "style.png")], device="cpu", size=size)
    loaded = time.perf_counter()
    for _ in range(steps):
        artist.draw()
    ended = time.perf_counter()
    save_image(artist.pastiche, str(work / "pastiche.png"))
    return loaded - began, ended - loaded


def run_ours(work: Path, steps: int, limit: float | None, name: str) -> tuple[float, float]:
    began = time.perf_counter()
    options = Optimization(
        content_weight=CONTENT_WEIGHT,
        style_weight=STYLE_WEIGHT / 64**2,
        # Twice as many at the coarse scale, where they cost a quarter: time ends, not the steps.
        steps=steps if limit is None else 2 * steps,
        coarse_to_fine=limit is not None,
    )
    content = to_tensor(read_image(work / "content.png").pixels)
    styles = read_styles([work / "style.png"])
    network = pretrained_vgg19()
    loaded = time.perf_counter()
    made = optimize(
        network,
        content,
        styles,
        options,
        lambda progress: limit is not None and time.perf_counter() - loaded > limit,
    )
    ended = time.perf_counter()
    write_image(work / f"{name}.png", from_tensor(made))
    return loaded - began, ended - loaded


def measure(name: Name, work: Path, steps: int, limit: float | None) -> dict:
    words = [sys.executable, __file__, "--child", name, "--work", str(work), "--steps", str(steps)]
    words += [] if limit is None else ["--limit", str(limit)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    load, seconds = loads(done.stdout.splitlines()[-1])
    times = {"load_s": round(load, 2), "seconds": round(seconds, 2)}
    return {"name": name, **times, "loss": independent_loss(work / f"{name}.png", work)}


def main(
    size: int = 384,
    steps: int = 30,
    json: bool = False,
    child: Name | None = None,
    work: Path | None = None,
    limit: float | None = None,
) -> None:
    """Compare with pastiche.

    Args:
        size: height and width of the pictures
        steps: of pastiche, and of ours at equal steps
        json: end with one line of JSON
        child: measure one of them in this process
        work: where the parent put the pictures
        limit: seconds that the child may take
    """
    at_least(1, steps=steps)
    at_least(SMALLEST, size=size)
    if child is not None and work is not None:
        ours = child != "pastiche"
        print(dumps(run_ours(work, steps, limit, child) if ours else run_pastiche(work, steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_pictures(work, size)
        start = independent_loss(work / "content.png", work)
        print(
            f"{size} px, {steps} steps, {torch.get_num_threads()} threads; loss of the content: {start:.4g}"
        )
        print(f"{'':>18} {'load s':>8} {'seconds':>8} {'loss':>10}", flush=True)
        rows: list[dict] = []
        for name in NAMES:
            limit = rows[0]["seconds"] if name == "ours, equal time" else None
            rows.append(measure(name, work, steps, limit))
            load, seconds, loss = (rows[-1][key] for key in ("load_s", "seconds", "loss"))
            print(f"{name:>18} {load:>8} {seconds:>8} {loss:>10.4g}", flush=True)
    if json:
        print(dumps({"size": size, "steps": steps, "torch": torch.__version__, "start": start, "rows": rows}))


if __name__ == "__main__":
    run(main)
