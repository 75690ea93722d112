"""photo2monet as a user gets it, from a server on 127.0.0.1 that serves the official layout."""

import io
import json
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cyclegan.recipes import project_files

COUNTS = {"trainA": 5, "trainB": 8, "testA": 2, "testB": 3}  # of the archive: A is Monet there


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def official_zip(tmp_path, emoji):
    """monet2photo.zip as its host has it: folder entries, 256 px JPEGs, one top folder."""
    root = tmp_path / "host" / "cyclegan" / "datasets"
    root.mkdir(parents=True)
    pictures = sorted((emoji / "trainA").iterdir())
    unused = iter(pictures)
    with zipfile.ZipFile(root / "monet2photo.zip", "w") as archive:
        archive.writestr("monet2photo/", "")
        for split, count in COUNTS.items():
            archive.writestr(f"monet2photo/{split}/", "")
            for number in range(count):
                buffer = io.BytesIO()
                Image.open(next(unused)).resize((256, 256)).save(buffer, "JPEG")
                archive.writestr(f"monet2photo/{split}/{number:05d}.jpg", buffer.getvalue())
    handler = partial(Quiet, directory=str(tmp_path / "host"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def cyclegan(*args, cwd):
    done = subprocess.run([sys.executable, "-m", "cyclegan", *args], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_photo2monet_from_download_to_translation(official_zip, tmp_path):
    """The card as it is, but for the host; ten steps of the paper's recipe in a narrower network."""
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    card = yaml.safe_load(project_files("data")["photo2monet"].read_text())
    card["source"]["urls"] = [
        u.replace("http://efrosgans.eecs.berkeley.edu", official_zip) for u in card["source"]["urls"]
    ]
    # The archive's B, photographs, is our A.
    card["counts"] = {"trainA": 8, "trainB": 5, "testA": 3, "testB": 2}
    (here / "data" / "photo2monet.yaml").write_text(yaml.safe_dump(card))

    prepared = cyclegan("data", "prepare", "photo2monet", "--json", cwd=here)
    assert prepared["counts"] == card["counts"]
    assert cyclegan("data", "verify", "photo2monet", "--json", cwd=here)["good"]
    assert "Monet" in (here / "datasets" / "photo2monet" / "ATTRIBUTION.md").read_text()

    small = [
        "--size",
        "64",
        "--augment.load-size",
        "72",
        "--generator.filters",
        "8",
        "--generator.blocks",
        "2",
    ]
    options = ["--steps", "10", *small, "--discriminator.filters", "8", "--tracker", "none", "--json"]
    trained = cyclegan("train", "photo2monet", *options, cwd=here)
    assert (trained["steps"], trained["images_seen"]) == (10, 10)
    config = json.loads((here / trained["generators"]["G_AB"] / "config.json").read_text())
    assert (config["domain"], config["direction"]) == ("photo2monet", "AtoB")
    assert config["target"] == "paintings by Claude Monet"
    assert config["licences"]["B"].startswith("not stated")
    assert config["card_sha256"]
    folders = {Path(folder).name: len(list((here / folder).iterdir())) for folder in trained["translated"]}
    assert folders == {"AtoB": 3, "BtoA": 2}
    one = next((here / trained["translated"][0]).iterdir())
    assert Image.open(one).size == (256, 256)
