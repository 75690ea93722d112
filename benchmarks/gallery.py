"""The pictures of docs/gallery.md, from runs of its recipes; a picture without a run is left out.

python benchmarks/gallery.py --methods methods/ --lowpoly runs/photo2lowpoly/RUN/generators/G_AB \
    --prints runs/photo2prints/RUN/generators/G_AB --t1tot2 runs/t1tot2/RUN/generators/G_AB --out docs/

``methods/`` is what benchmarks/methods.py wrote with --out.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from entry import folders, run
from PIL import Image, ImageDraw, ImageFont

from cyclegan import Translator
from cyclegan.artifacts import read_config
from cyclegan.datasets.cards import load_card
from cyclegan.datasets.making.contrasts import PEAK
from cyclegan.datasets.making.originals import original_file
from cyclegan.datasets.making.photographs import TILE
from cyclegan.datasets.making.prints import INKS
from cyclegan.datasets.prepare import prepare
from cyclegan.errors import BadInput
from cyclegan.images import read_image, resize

HELD_OUT = {"coffee": 128, "chelsea": 0}  # photographs, and from which column on a square is cut out of them
SIDE = 2 * TILE
SLICES = (3, 7, 12)  # of those held out
GAP, TITLE = 6, 20
Column = tuple[str, list[np.ndarray]]


def photograph(name: str) -> np.ndarray:
    originals = load_card("photo2lowpoly").source.originals
    return read_image(original_file(next(o for o in originals if name in o.file))).pixels


def cut(picture: np.ndarray, left: int) -> np.ndarray:
    return picture[:SIDE, left : left + SIDE]


def photographs(change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels) -> list[np.ndarray]:
    """Of both held-out photographs, changed whole, a square."""
    return [cut(change(photograph(name)), left) for name, left in HELD_OUT.items()]


def targets(domain: str) -> list[np.ndarray]:
    """The same squares as B has them, out of the test's tiles."""
    folder = prepare(domain) / "testB"
    found = []
    for name, left in HELD_OUT.items():
        rows = [
            np.concatenate(
                [
                    read_image(folder / f"{name}-{top:04d}-{x:04d}.png").pixels
                    for x in range(left, left + SIDE, TILE)
                ],
                axis=1,
            )
            for top in range(0, SIDE, TILE)
        ]
        found.append(np.concatenate(rows))
    return found


def games(generator: Path) -> list[Column]:
    translator = Translator.from_pretrained(generator, precision="fp32")
    return [
        ("photograph, held out", photographs()),
        ("CycleGAN, photo2lowpoly", photographs(translator)),
        ("triangulated, as B is", targets("photo2lowpoly")),
    ]


def art(methods: Path) -> list[Column]:
    style = read_image(methods / "style.png").pixels
    side = min(style.shape[:2])
    left = (style.shape[1] - side) // 2
    small = resize(np.ascontiguousarray(style[:side, left : left + side]), 224, 224)
    columns = [("style: a dahlia, painted", [small])]
    for name, title in {
        "photograph": "photograph, held out",
        "optimize": "stylize, optimize",
        "fast": "stylize, fast",
        "cyclegan, photo2strokes": "CycleGAN, photo2strokes",
        "cut, photo2strokes": "CUT, photo2strokes",
    }.items():
        if (methods / name).is_dir():
            pictures = [read_image(methods / name / f"{each}.png").pixels for each in HELD_OUT]
            columns.append((title, [resize(picture, 224, 224) for picture in pictures]))
    return columns


def looks(generator: Path) -> list[Column]:
    """Below each held-out print what it makes of both photographs, as the reference."""
    references = sorted((prepare("photo2prints") / "testB").iterdir())[: len(INKS)]
    columns = [("photographs, held out", [np.full((SIDE, SIDE, 3), 255, np.uint8), *photographs()])]
    for reference, look in zip(references, INKS, strict=True):
        translator = Translator.from_pretrained(generator, precision="fp32", reference=reference)
        shown = resize(read_image(reference).pixels, SIDE, SIDE)
        columns.append((f"reference: {look}", [shown, *photographs(translator)]))
    return columns


def medicine(generator: Path) -> list[Column]:
    domain = prepare("t1tot2")
    names = sorted(path.name for path in (domain / "testA").iterdir())
    t1, t2 = (
        [read_image(domain / side / names[i], 1).pixels.astype(np.float32) for i in SLICES]
        for side in ("testA", "testB")
    )
    translator = Translator.from_pretrained(generator, precision="fp32")
    made = [translator(read_image(domain / "testA" / names[i], 1).pixels).astype(np.float32) for i in SLICES]
    columns = [
        ("A: T1-weighted, held out", t1),
        ("translated to T2-weighted", made),
        ("B: the true T2-weighted", t2),
        ("|difference|, times four", [4 * np.abs(m - t) for m, t in zip(made, t2, strict=True)]),
    ]
    return [(title, [_shown(slice) for slice in slices]) for title, slices in columns]


def _shown(plane: np.ndarray) -> np.ndarray:
    grey = resize(np.clip(plane / PEAK, 0, 1), 208, 208).reshape(208, 208, 1)
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8).repeat(3, axis=2)


def save(columns: list[Column], path: Path) -> None:
    """Columns of squares with a title above each."""
    side = columns[0][1][0].shape[0]
    rows = max(len(pictures) for _, pictures in columns)
    width, height = len(columns) * (side + GAP) + GAP, TITLE + rows * (side + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (title, pictures) in enumerate(columns):
        x = GAP + number * (side + GAP)
        pen.text((x, 2), title, "black", font)
        for row, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, TITLE + row * (side + GAP)))
    sheet.save(path, quality=85, optimize=True)
    print(f"{path}: {width}x{height}, {path.stat().st_size:,} bytes")


def main(
    methods: Path | None = None,
    lowpoly: Path | None = None,
    prints: Path | None = None,
    t1tot2: Path | None = None,
    out: Path = Path("docs"),
) -> None:
    """Write gallery-art.jpg, -games.jpg, -prints.jpg and -medicine.jpg, those that something is given for."""
    folders(methods=methods, lowpoly=lowpoly, prints=prints, t1tot2=t1tot2, out=out)
    if methods is not None and not (methods / "style.png").is_file():
        raise BadInput(f"--methods: {methods} has no style.png, as benchmarks/methods.py writes with --out")
    for generator in (lowpoly, prints, t1tot2):
        if generator is not None:
            read_config(generator)
    for given, columns, name in (
        (methods, art, "gallery-art.jpg"),
        (lowpoly, games, "gallery-games.jpg"),
        (prints, looks, "gallery-prints.jpg"),
        (t1tot2, medicine, "gallery-medicine.jpg"),
    ):
        if given is not None:
            save(columns(given), out / name)


if __name__ == "__main__":
    run(main)
