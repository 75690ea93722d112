"""Folders: which file becomes which, what is done already, and how that is written down."""

import errno
import glob
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from generators import TINY_GENERATOR, generator_config
from PIL import Image

from cyclegan import Translator
from cyclegan.artifacts import save_generator
from cyclegan.commands.translate import translate
from cyclegan.errors import BadInput
from cyclegan.images import read_image
from cyclegan.networks import build
from cyclegan.networks.layers import initialize
from cyclegan.translation import backends, choosing, pipeline
from cyclegan.translation.choosing import open_for
from cyclegan.translation.leftovers import sweep
from cyclegan.translation.manifest import computed_by
from cyclegan.translation.options import Tiling
from cyclegan.translation.plan import plan
from cyclegan.translation.provenance import Label
from cyclegan.translation.shares import Share, tell

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = (
    *("a.png", "b.png", "c.png", "d.png", "in/e.png", "in/f.jpg", "in/g.webp", "in/h.png"),
    *("in/deep/i.png", "in/deep/j.png", "in/deep/k.bmp", "in/deep/l.tif"),
)


def translator_with(network: torch.nn.Module, digest: str = "0" * 64) -> Translator:
    return Translator(network, generator_config(), "cpu", label=Label.of(generator_config(), digest))


class Negative(torch.nn.Module):
    """The negative."""

    def forward(self, x):
        return -x


class Sociable(torch.nn.Module):
    """A network whose result depends on the company in the batch, as a GPU's last digits do."""

    def forward(self, x):
        return x - x.mean() + 0.1 * len(x)


class Forbidden(torch.nn.Module):
    def forward(self, x):
        raise AssertionError("this was done already")


@pytest.fixture
def negative():
    return translator_with(Negative())


@pytest.fixture(scope="session")
def generator(tmp_path_factory) -> Path:
    """A saved generator with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "G_AB"
    save_generator(
        folder, initialize(build("generator", "resnet", TINY_GENERATOR), 0.2).state_dict(), generator_config()
    )
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve pictures of two shapes in three folders, one that is none, and one note."""
    random = np.random.default_rng(0)
    for number, name in enumerate(PHOTOS):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (20, 28, 3) if number % 3 else (24, 16, 3)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)
    (tmp_path / "photos" / "in" / "notes.md").write_text("left alone")
    return tmp_path / "photos"


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below but the manifest, hidden files too."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- which file becomes which


def test_a_folder_with_loops_of_links(photos):
    (photos / "in" / "up").symlink_to(photos)
    (photos / "in" / "self").symlink_to(photos / "in")
    elsewhere = photos.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "m.png").write_bytes((photos / "a.png").read_bytes())
    (photos / "linked").symlink_to(elsewhere)
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "x.png").write_bytes(b"")
    names = [output for _, output in plan(photos, photos.parent / "out").names]
    assert names == [*PHOTOS, "linked/m.png"]


@pytest.mark.parametrize(
    "pattern", ["*.png", "**/*.png", "in/*", "in/**", "i?/**/[ij].*", "**/deep/*.png", "**"]
)
def test_a_glob_finds_what_the_shell_would(photos, pattern):
    found = plan(photos / pattern, photos.parent / "out")
    shell = glob.glob(str(photos / pattern), recursive=True)  # noqa: PTH207 - the second opinion
    images = {path for path in shell if Path(path).is_file() and not path.endswith(".md")}
    assert {str(source) for source, _ in found} == images
    base = photos / "in" if pattern.startswith("in/") else photos
    assert all(
        target.relative_to(photos.parent / "out") == source.relative_to(base) for source, target in found
    )


def test_a_glob_leaves_out_what_it_made(photos, monkeypatch, negative):
    monkeypatch.chdir(photos)
    for _ in range(2):
        found = plan(Path("**/*.png"), Path("out"))
        assert len(found) == 8
        list(negative.folder("**/*.png", "out"))


def test_a_list_of_paths_is_mirrored_from_the_folder_in_common(photos, tmp_path):
    (tmp_path / "lists").mkdir()
    text = tmp_path / "lists" / "some.txt"
    text.write_text(f"../photos/in/deep/i.png\n\n  {photos}/in/e.png\n../photos/in/../in/e.png\n", "utf-8")
    assert list(plan(text, tmp_path / "out")) == [
        (photos / "in" / "deep" / "i.png", tmp_path / "out" / "deep" / "i.png"),
        (photos / "in" / "e.png", tmp_path / "out" / "e.png"),
    ]
    text.write_text("\n")
    with pytest.raises(BadInput, match=r"some.txt: names no images"):
        plan(text, tmp_path / "out")
    text.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"some.txt: cannot be read as a list"):
        plan(text, tmp_path / "out")


def test_a_format_changes_the_suffix_but_for_its_other_spelling(photos, tmp_path, negative):
    Image.open(photos / "a.png").save(photos / "n.jpeg")
    out = tmp_path / "out"
    assert all(item.error is None for item in negative.folder(photos, out, format="jpg"))
    assert (out / "n.jpeg").exists() and (out / "a.jpg").exists() and (out / "in" / "deep" / "l.jpg").exists()
    kinds = {Image.open(out / name).format for name in contents(out)}
    assert kinds == {"JPEG"}


@pytest.mark.parametrize(
    ("source", "target", "format", "message"),
    [
        ("photos", "out", "webp", r"in/n.jpg and .*in/n.png: both would become .*out/in/n.webp"),
        ("photos/none/*.png", "out", None, "photos/none: no such folder"),
        ("photos/*.gif", "out", None, r"\*.gif: has no JPEG"),
        ("photos/a.png", "b.png", "jpg", "b.png: is not named as a jpg file"),
        ("photos", "photos/a.png", None, "for it is a file"),
        (
            "photos",
            ".",
            None,
            r"photos/a.png: would be overwritten by the translation of photos/photos/a.png",
        ),
    ],
)
def test_what_cannot_be_planned(photos, tmp_path, monkeypatch, source, target, format, message):
    monkeypatch.chdir(tmp_path)
    for name in ("in/n.jpg", "in/n.png", "photos/a.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(photos / "a.png").save(photos / name)
    before = contents(tmp_path)
    with pytest.raises(BadInput, match=message):
        plan(Path(source), Path(target), format)
    assert contents(tmp_path) == before


# --- the pipeline


def shapes_seen(translator: Translator) -> list[tuple[int, ...]]:
    """The shapes of the batches that come to the network, filled while it translates."""
    plain, seen = translator.network_on, []
    translator.network_on = lambda images: (seen.append(tuple(images.shape)), plain(images))[1]
    return seen


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_results_are_right_in_order_and_batched_by_shape(photos, tmp_path, batch_size):
    translator = translator_with(Negative())
    seen = shapes_seen(translator)
    out = tmp_path / "out"
    results = list(translator.folder(photos, out, batch_size=batch_size, quality=100))
    assert [(r.source, r.target) for r in results] == list(plan(photos, out))
    for item in results:
        difference = np.abs(read_image(item.target).pixels.astype(int) + read_image(item.source).pixels - 255)
        assert difference.mean() <= (40 if item.target.suffix in (".jpg", ".webp") else 0)
    sizes = {1: {1}, 3: {3, 2, 1}, 16: {8, 4}}[batch_size]
    assert {shape[0] for shape in seen} <= sizes
    assert max(shape[0] for shape in seen) == max(sizes)
    assert {shape[2:] for shape in seen} == {(20, 28), (24, 16)}


def test_large_images_come_in_smaller_batches(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "BATCH_PIXELS", 2 * 20 * 28)
    translator = translator_with(Negative())
    seen = shapes_seen(translator)
    list(translator.folder(photos, tmp_path / "out", batch_size=16))
    assert max(shape[0] for shape in seen) == 2


def test_few_images_are_in_memory_at_once(tmp_path, monkeypatch, negative):
    for number in range(40):
        path = tmp_path / "in" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
    monkeypatch.setattr(pipeline, "IN_FLIGHT_PIXELS", 3 * 16 * 16)
    lock, alive, most = threading.Lock(), 0, 0
    read, encode = negative.read, negative.encode

    def counted_read(source):
        nonlocal alive, most
        with lock:
            alive, most = alive + 1, max(most, alive + 1)
        return read(source)

    def counted_encode(*args):
        nonlocal alive
        time.sleep(0.005)
        with lock:
            alive -= 1
        return encode(*args)

    monkeypatch.setattr(negative, "read", counted_read)
    monkeypatch.setattr(negative, "encode", counted_encode)
    assert len(list(negative.folder(tmp_path / "in", tmp_path / "out"))) == 40
    assert alive == 0 and 2 <= most <= 3


def test_decoding_network_and_encoding_overlap(tmp_path, monkeypatch, negative):
    (tmp_path / "in").mkdir()
    for number in range(10):
        Image.new("RGB", (16, 16)).save(tmp_path / "in" / f"{number}.png")
    at_work: dict[str, list[tuple[float, float]]] = {}

    def watch(name: str) -> None:
        plain, spans = getattr(negative, name), at_work.setdefault(name, [])

        def stage(*args: object) -> object:
            started = time.monotonic()
            time.sleep(0.02)  # long enough to be met by the others
            result = plain(*args)
            spans.append((started, time.monotonic()))
            return result

        monkeypatch.setattr(negative, name, stage)

    for name in ("read", "network_on", "encode"):
        watch(name)
    list(negative.folder(tmp_path / "in", tmp_path / "out"))
    for one, other in (("read", "network_on"), ("network_on", "encode"), ("read", "encode")):
        pairs = itertools.product(at_work[one], at_work[other])
        assert any(max(a[0], b[0]) < min(a[1], b[1]) for a, b in pairs), f"{one} waits for {other}"


def test_a_set_size_puts_all_shapes_into_one_batch(photos, tmp_path):
    translator = translator_with(Negative())
    seen = shapes_seen(translator)
    results = list(translator.folder(photos, tmp_path / "out", batch_size=16, size=32))
    assert seen == [(12, 3, 32, 32)]
    assert all(Image.open(r.target).size == Image.open(r.source).size for r in results)


# --- bad files, full disks


BAD = {
    "bad/empty.png": b"",
    "bad/text.jpg": b"not an image",
    "bad/torn.png": "torn",
}


def add_bad_files(photos: Path) -> None:
    (photos / "bad").mkdir()
    for name, data in BAD.items():
        (photos / name).write_bytes((photos / "a.png").read_bytes()[:400] if data == "torn" else data)
    (photos / "bad" / "gone.png").symlink_to(photos / "nowhere.png")


def test_bad_files_are_reported_and_recorded(photos, tmp_path, negative):
    add_bad_files(photos)
    work = negative.folder(photos, tmp_path / "out", batch_size=4)
    results = list(work)
    failed = {r.source.name for r in results if r.error}
    assert failed == {"empty.png", "text.jpg", "torn.png", "gone.png"}
    assert (work.summary.translated, work.summary.kept, len(work.summary.failed)) == (12, 0, 4)
    lines = {line["output"]: line for line in manifest(tmp_path / "out")}
    assert len(lines) == 16
    assert "is empty" in lines["bad/empty.png"]["error"] and lines["bad/empty.png"]["output_sha256"] is None
    assert lines["bad/torn.png"]["input_sha256"] == sha256(photos / "bad" / "torn.png")
    assert lines["a.png"]["error"] is None
    # Mended, they are done, and nothing else is.
    for path in (photos / "bad").iterdir():
        path.unlink()
        path.write_bytes((photos / "a.png").read_bytes())
    again = list(negative.folder(photos, tmp_path / "out", batch_size=4))
    assert {r.source.parent.name for r in again if not r.kept} == {"bad"}
    assert all(line["error"] is None for line in manifest(tmp_path / "out"))


def test_a_decoder_that_breaks_in_its_own_way_stops_nothing(photos, tmp_path, negative, monkeypatch):
    read = negative.read
    monkeypatch.setattr(negative, "read", lambda path: [][1] if path.name == "b.png" else read(path))
    failed = [r for r in negative.folder(photos, tmp_path / "out") if r.error]
    assert [r.source.name for r in failed] == ["b.png"]
    assert "IndexError" in failed[0].error


def test_what_a_format_cannot_hold_is_that_files_own_trouble(tmp_path, negative):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (16_400, 16)).save(tmp_path / "in" / "long.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "in" / "short.png")
    results = list(negative.folder(tmp_path / "in", tmp_path / "out", format="webp"))
    assert ["cannot be written as a .webp file" in (r.error or "") for r in results] == [True, False]


@pytest.mark.parametrize("tiling", [Tiling("off"), Tiling(16, "naive")], ids=str)
def test_what_memory_cannot_hold_is_that_files_own_trouble(photos, tmp_path, tiling):
    """The network is given a picture, or tiles of one, and finds no room for the wide ones."""

    class Greedy(torch.nn.Module):
        def forward(self, x):
            if x.mean() > 0.5:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 EiB")
            return -x

    Image.new("RGB", (24, 16), "white").save(photos / "in" / "bright.png")
    label = Label.of(generator_config(), "0" * 64)
    translator = Translator(Greedy(), generator_config(), "cpu", label=label, tiling=tiling)
    results = list(translator.folder(photos, tmp_path / "out"))
    failed = {result.source.name: result.error for result in results if result.error}
    assert list(failed) == ["bright.png"]
    assert "does not fit into memory; give it smaller, with --size" in failed["bright.png"]
    assert len(contents(tmp_path / "out")) == len(PHOTOS)


def test_a_full_disk_stops_it_and_loses_nothing(photos, tmp_path, negative, monkeypatch):
    out = tmp_path / "out"
    write, count = Path.write_bytes, 0

    def until_full(path, data):
        nonlocal count
        count += 1
        if count > 5:
            write(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        with pytest.raises(BadInput, match=r"cannot be written \(No space left on device\)") as caught:
            list(negative.folder(photos, out))
    assert "\n" not in str(caught.value)
    done = contents(out)
    assert len(done) == 5
    again = negative.folder(photos, out)
    assert sum(r.kept for r in again) == 5
    assert again.summary.translated == 7
    assert {name: data for name, data in contents(out).items() if name in done} == done


def test_a_disk_that_is_full_for_the_record_leaves_no_half_line(photos, tmp_path, negative, monkeypatch):
    from cyclegan.translation import manifest as module

    class Full(module.FileIO):
        room = 1000

        def write(self, data):
            if not Full.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = super().write(data[: Full.room])
            Full.room -= taken
            return taken

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(module, "FileIO", Full)
        with pytest.raises(BadInput, match=r"cannot be written \(No space left on device\)"):
            list(negative.folder(photos, out))
    assert {line["output"] for line in manifest(out)} == set(contents(out)) != set()
    assert (out / "manifest.jsonl").read_bytes().endswith(b"\n")
    list(negative.folder(photos, out))
    assert len(manifest(out)) == 12


# --- what is done already


def test_what_is_done_is_not_done_again(photos, tmp_path, negative):
    out = tmp_path / "out"
    list(negative.folder(photos, out))
    before = (out / "manifest.jsonl").read_bytes()
    os.utime(photos / "a.png", (1, 1))  # its content is the same
    os.utime(out / "b.png", (1, 1))
    again = translator_with(Forbidden()).folder(photos, out)
    assert all(r.kept for r in again)
    assert again.summary.kept == 12
    assert (out / "manifest.jsonl").read_bytes() == before


def test_a_changed_input_and_a_removed_output_are_done_again(photos, tmp_path, negative):
    out = tmp_path / "out"
    list(negative.folder(photos, out))
    Image.new("RGB", (16, 16), (9, 9, 9)).save(photos / "a.png")
    (out / "in" / "e.png").unlink()
    (out / "in" / "h.png").write_bytes(b"")  # as a power cut may leave it
    assert [r.source.name for r in negative.folder(photos, out) if not r.kept] == ["a.png", "e.png", "h.png"]
    assert read_image(out / "a.png").pixels[0, 0].tolist() == [246] * 3
    assert len(manifest(out)) == 12


def test_an_output_of_somebody_else_stops_it(photos, tmp_path, negative):
    out = tmp_path / "out"
    (out / "in").mkdir(parents=True)
    (out / "in" / "h.png").write_bytes(b"mine")
    with pytest.raises(
        BadInput, match=r"in/h.png: exists, but .*manifest.jsonl does not have it.*--overwrite"
    ):
        negative.folder(photos, out)
    assert contents(out) == {"in/h.png": b"mine"}
    list(negative.folder(photos, out, overwrite=True))
    assert len(contents(out)) == 12
    # One that was worked on since is somebody's too.
    (out / "a.png").write_bytes((out / "a.png").read_bytes() + b"more")
    with pytest.raises(BadInput, match=r"a.png: exists, but"):
        negative.folder(photos, out)


def test_another_generator_or_setting_stops_it(photos, tmp_path, negative):
    out = tmp_path / "out"
    list(negative.folder(photos, out))
    before = contents(out)
    other = translator_with(torch.nn.Identity(), "1" * 64)
    for translator, options in ((other, {}), (negative, {"quality": 80}), (negative, {"size": 64})):
        with pytest.raises(BadInput, match=r"a.png: was made by another generator or with other settings"):
            translator.folder(photos, out, **options)
    assert contents(out) == before
    list(other.folder(photos, out, overwrite=True))
    assert read_image(out / "a.png").pixels.tolist() == read_image(photos / "a.png").pixels.tolist()
    assert {line["generator_sha256"] for line in manifest(out)} == {"1" * 64}


def test_a_folder_that_grew_is_gone_on_with_by_what_began_it(photos, tmp_path, generator, monkeypatch):
    """More pictures make another backend worth its while, which would make the old ones anew."""
    monkeypatch.setattr(choosing, "pick_backend", lambda *_: "onnx")
    out = str(tmp_path / "out")
    assert computed_by(tmp_path / "out") == (None, None)
    for words in ([str(photos / "a.png"), out, "--backend", "torch"], [str(photos), out]):
        assert translate([str(generator), *words]) == 0
    assert {line["settings"]["backend"] for line in manifest(tmp_path / "out")} == {"torch"}
    assert translate([str(generator), str(photos), out, "--overwrite"]) == 0
    assert {line["settings"]["backend"] for line in manifest(tmp_path / "out")} == {"onnx"}


@pytest.mark.parametrize(
    "words", [[], ["--backend", "torch"], ["--backend", "openvino"], ["--tiling", "dense"]]
)
def test_a_folder_is_gone_on_with_at_the_precision_that_began_it(
    photos, tmp_path, generator, monkeypatch, words
):
    """Which one is faster is measured, and a busy machine may say another thing the next time."""
    out = str(tmp_path / "out")
    for faster in (True, False):
        monkeypatch.setattr(backends, "cpu_is_faster_in_bf16", lambda faster=faster: faster)
        assert translate([str(generator), str(photos), out, *words]) == 0
        assert {line["settings"]["precision"] for line in manifest(tmp_path / "out")} == {"bf16"}
    assert translate([str(generator), str(photos), out, *words, "--overwrite"]) == 0
    assert {line["settings"]["precision"] for line in manifest(tmp_path / "out")} == {"fp32"}


def test_two_folders_of_equal_names_do_not_mix(photos, tmp_path, negative):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "more" / "a.png")
    list(negative.folder(photos, tmp_path / "out"))
    with pytest.raises(BadInput, match=r"a.png: was made from another input, ../photos/a.png"):
        negative.folder(tmp_path / "more", tmp_path / "out")
    # A folder that was moved is the same, for its pictures are.
    photos.rename(tmp_path / "moved")
    assert all(r.kept for r in negative.folder(tmp_path / "moved", tmp_path / "out"))


def test_a_failure_does_not_disown_an_older_result(photos, tmp_path, negative):
    list(negative.folder(photos, tmp_path / "out"))
    good = (photos / "a.png").read_bytes()
    (photos / "a.png").write_text("broken")
    for _ in range(2):
        assert [r.source.name for r in negative.folder(photos, tmp_path / "out") if r.error] == ["a.png"]
    (photos / "a.png").write_bytes(good)
    assert all(r.error is None for r in negative.folder(photos, tmp_path / "out"))


def test_one_file_has_no_manifest_and_is_not_replaced_unasked(photos, tmp_path, negative):
    target = tmp_path / "one.png"
    list(negative.folder(photos / "a.png", target))
    assert target.exists() and not (tmp_path / "manifest.jsonl").exists()
    with pytest.raises(BadInput, match=r"one.png: exists already; .*--overwrite"):
        negative.folder(photos / "a.png", target)
    list(negative.folder(photos / "b.png", target, overwrite=True))
    assert read_image(target).pixels[0, 0, 0] == 255 - read_image(photos / "b.png").pixels[0, 0, 0]


# --- the record


def test_the_manifest_says_how_each_file_came_to_be(photos, tmp_path, generator):
    import cyclegan

    out = tmp_path / "out"
    list(Translator.from_pretrained(generator, "cpu").folder(photos, out, size=16, quality=90))
    lines = manifest(out)
    assert [line["output"] for line in lines] == sorted(contents(out))
    for line in lines:
        assert sha256(out / line["output"]) == line["output_sha256"]
        # Relative to the output folder, so that both can be moved together.
        assert sha256(out / line["input"]) == line["input_sha256"]
        assert line["generator_sha256"] == sha256(generator / "model.safetensors")
        settings = dict(line["settings"])
        assert settings.pop("precision") in ("fp32", "bf16")  # auto: what the machine is fast at
        expected = {"size": 16, "backend": "torch", "tiling": "whole", "format": None, "quality": 90}
        assert settings == expected
        assert line["label"] is True and line["signed"] is False and line["error"] is None
        assert line["cyclegan_version"] == cyclegan.__version__


def test_a_torn_last_line_is_mended(photos, tmp_path, negative):
    out = tmp_path / "out"
    list(negative.folder(photos, out))
    text = (out / "manifest.jsonl").read_bytes()
    (out / "manifest.jsonl").write_bytes(text[:-30])
    lost = json.loads(text.splitlines()[-1])["output"]
    (out / lost).unlink()
    assert [r.target.name for r in negative.folder(photos, out) if not r.kept] == [Path(lost).name]
    assert len(manifest(out)) == 12
    (out / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match=r"manifest.jsonl: line 1 is not a record"):
        negative.folder(photos, out)


# --- interrupted, shared


def test_who_stops_looking_ends_the_work(photos, tmp_path, negative):
    before = threading.active_count()
    work = iter(negative.folder(photos, tmp_path / "out"))
    next(work)
    work.close()
    assert threading.active_count() == before
    # All that was written is known; unmerged, but whole.
    assert {line["output"] for line in manifest(tmp_path / "out")} == set(contents(tmp_path / "out"))
    assert all(r.error is None for r in negative.folder(photos, tmp_path / "out"))


def test_leftovers_of_the_dead_are_removed_and_of_the_living_are_not(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    me = f"{os.getpid()}.{threading.get_native_id()}"
    names = {
        f".a.png.{gone.pid}.1.part": False,
        f".a.png.{os.getppid()}.1.part": True,
        f".a.png.{me}.part": True,
        f".a.png.{os.getpid()}.1.part": False,  # by an earlier process of this number
        ".somebody.part": True,
    }
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path, one_machine=False)
    assert (tmp_path / f".a.png.{gone.pid}.1.part").exists()  # it may be another machine's
    sweep(tmp_path, one_machine=True)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}
    os.utime(tmp_path / f".a.png.{os.getppid()}.1.part", (1, 1))
    sweep(tmp_path, one_machine=False)
    assert not (tmp_path / f".a.png.{os.getppid()}.1.part").exists()


def in_parts(translator, photos, out, world, late=0.0, leader_first=True, **options):
    """All shares at once, as processes would do them, each begun ``late`` seconds after the one before."""
    works = [translator.folder(photos, out, share=Share(r, world), **options) for r in range(world)]
    order = works if leader_first else works[::-1]
    threads = [threading.Thread(target=list, args=(work,), daemon=True) for work in order]
    for thread in threads:
        thread.start()
        time.sleep(late)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return works


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_company_in_a_batch_is_the_same_whoever_does_it_and_when(photos, tmp_path, batch_size):
    add_bad_files(photos)
    sociable = translator_with(Sociable())
    whole = sociable.folder(photos, tmp_path / "whole", batch_size=batch_size)
    list(whole)
    works = in_parts(sociable, photos, tmp_path / "parts", 2, batch_size=batch_size)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert works[1].summary is None
    assert works[0].summary.failed == whole.summary.failed and len(whole.summary.failed) == 4
    assert works[0].summary.translated == 12
    ours, theirs = (
        [{k: v for k, v in line.items() if k not in ("time", "output_mtime_ns")} for line in manifest(folder)]
        for folder in (tmp_path / "whole", tmp_path / "parts")
    )
    assert ours == theirs
    # Any that are missing are computed in the company that they had.
    for name in ("a.png", "in/deep/i.png", "in/g.webp"):
        (tmp_path / "parts" / name).unlink()
    again = sociable.folder(photos, tmp_path / "parts", batch_size=batch_size)
    list(again)
    assert again.summary.translated == 3
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("leader_first", [True, False])
def test_what_a_killed_meeting_left_misleads_nobody(photos, tmp_path, negative, leader_first):
    left = tmp_path / "out" / ".translating"
    left.mkdir(parents=True)
    (left / "leader").write_text("old")
    (left / "1").write_text(json.dumps({"token": "old", "report": {"translated": 99}}))
    (tmp_path / "out" / "manifest.1.jsonl").write_text('{"output": "a.p')
    works = in_parts(negative, photos, tmp_path / "out", 3, late=0.3, leader_first=leader_first)
    assert works[0].summary.translated == 12
    assert len(manifest(tmp_path / "out")) == 12
    assert not left.exists() and not list((tmp_path / "out").glob("manifest.*.jsonl"))


@pytest.mark.parametrize("leader_first", [True, False])
@pytest.mark.parametrize("left", [None, "the same question", "another"])
def test_processes_that_measure_differently_choose_alike(
    photos, tmp_path, generator, monkeypatch, leader_first, left
):
    """What auto means is measured by each, and one of them may have met a busy moment."""
    leader, planned, asked = threading.local(), plan(photos, tmp_path / "out"), []
    monkeypatch.setattr(backends, "cpu_is_faster_in_bf16", lambda: leader.here)

    def tells(target, question, choice):
        asked.append(question)
        tell(target, question, choice)

    monkeypatch.setattr(choosing, "tell", tells)

    def opened(rank, world=2):
        leader.here = rank == 0
        share = Share(rank, world)
        return open_for(planned, share, False, generator, "auto", "auto", Tiling(), None).backend

    assert [opened(rank, world=1).precision for rank in range(2)] == ["bf16", "fp32"]
    assert not planned.target.exists()  # nobody to tell
    opened(0)
    if left == "the same question":  # told by a run that was killed then
        tell(planned.target, asked.pop(), ["torch", "fp32"])
    elif left == "another":
        tell(planned.target, "other settings", ["torch", "fp32"])
    else:
        shutil.rmtree(planned.target)
    with ThreadPoolExecutor(2) as pool:
        futures = {}
        for rank in (0, 1) if leader_first else (1, 0):
            futures[rank] = pool.submit(opened, rank)
            time.sleep(0.2)
        made = [futures[rank].result(10) for rank in range(2)]
    expected = "fp32" if left == "the same question" else "bf16"
    assert [(backend.name, backend.precision) for backend in made] == [("torch", expected)] * 2


def run(*args, cwd=ROOT, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if launcher:
        environment.pop("OMP_NUM_THREADS", None)  # launchers set it then
    command = [sys.executable, "-m", *launcher, "cyclegan", "translate", *map(str, args)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_in_the_middle_it_goes_on(tmp_path, generator):
    for number in range(60):
        path = tmp_path / "in" / str(number % 3) / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (200, 200, 3), np.uint8)
        Image.fromarray(noise).save(path)
    out = tmp_path / "out"
    process = run(generator, tmp_path / "in", out)
    while process.poll() is None and len(list(out.rglob("*.png"))) < 10:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {name: (out / name).stat().st_mtime_ns for name in contents(out) if name.endswith(".png")}
    assert 10 <= len(done) < 60
    # What a writer that was killed leaves; this number was a process's that is gone.
    (out / "0" / f".00.png.{process.pid}.1.part").write_bytes(b"half")
    translator = Translator.from_pretrained(generator, "cpu")
    work = translator.folder(tmp_path / "in", out)
    results = list(work)
    assert sum(r.kept for r in results) >= len(done) - 2  # those that were about to be recorded
    assert all((out / name).stat().st_mtime_ns == time for name, time in done.items())
    list(translator.folder(tmp_path / "in", tmp_path / "whole"))
    assert contents(out) == contents(tmp_path / "whole")
    assert len(manifest(out)) == 60


@pytest.mark.parametrize("precision", ["auto", pytest.param("bf16", marks=pytest.mark.slow)])
def test_two_processes_share_a_folder(photos, tmp_path, generator, precision, monkeypatch):
    add_bad_files(photos)
    for number in range(3):  # of sizes at which sums are seen to depend on the number of threads
        noise = np.random.default_rng(number).integers(0, 256, (100 + 56 * number, 256, 3), np.uint8)
        Image.fromarray(noise).save(photos / f"noise{number}.png")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ("--precision", precision, "--json")
    alone = run(generator, photos, tmp_path / "whole", *words)
    assert alone.wait(300) == 1
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    process = run(generator, photos, tmp_path / "out", *words, launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    (summary,) = out.strip().splitlines()
    summary = json.loads(summary)
    assert (summary["translated"], summary["kept"], len(summary["failed"])) == (15, 0, 4)
    assert err.count("empty.png: is empty") == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(manifest(tmp_path / "out")) == 19


def test_make_starts_as_many_processes_as_asked():
    def words(*args):
        command = ["make", "-n", "-o", ".venv/.installed", "translate", "GENERATOR=g", *args]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert 'torchrun --nproc-per-node 2 -m cyclegan translate "g"' in words("PROCESSES=2")
    assert ".venv/bin/cyclegan translate" in words()


@pytest.mark.parametrize("values", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}])
def test_a_share_that_cannot_be(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match="RANK"):
        Share.of_environment()
