"""Generators as the Hugging Face Hub has them: spoken to over HTTP, a server on this machine in its place."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image

from cyclegan import Translator
from cyclegan.artifacts import GeneratorConfig, NetworkConfig, hub, load_generator, save_generator
from cyclegan.artifacts.model_card import add_examples, add_metrics, model_card
from cyclegan.errors import BadInput
from cyclegan.networks import build

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def a_config(**changes):
    values = {
        "network": NetworkConfig(name="resnet", arguments={"filters": 4, "blocks": 1}),
        "channels": 3, "size": 32, "multiple_of": 4, "domain": "mine", "direction": "AtoB", "source": "cats: all kinds",
        "target": "dogs", "card_sha256": None, "licences": {"A": "CC0-1.0"}, "seed": 7, "steps": 10, "images_seen": 20,
    }  # fmt: skip
    return GeneratorConfig(**{**values, **changes})


@pytest.fixture
def generator(tmp_path):
    network = build("generator", "resnet", {"filters": 4, "blocks": 1})
    save_generator(tmp_path / "G_AB", network.state_dict(), a_config())
    (tmp_path / "G_AB" / "notes.txt").write_text("stays here")
    return tmp_path / "G_AB"


class FakeHub(BaseHTTPRequestHandler):
    """The few addresses of the Hub's API that a download and an upload use."""

    files: dict[str, bytes]  # by path
    seen: list[str]

    def log_message(self, *_):
        pass

    def answer(self, body: bytes, kind="application/json", status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        self.seen.append(self.path)
        path = self.path.split("?")[0]
        if not path.removeprefix("/api/models").startswith("/me/pets"):
            self.answer(b'{"error": "Repository not found"}', status=404, X_Error_Code="RepoNotFound")
        elif "/resolve/" in path:
            data = self.files.get(path.split("/resolve/")[1].split("/", 1)[1])
            if data is None:
                self.answer(b"", status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                tag = hashlib.sha1(data).hexdigest()
                self.answer(data, "application/octet-stream", ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            rows = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in self.files.items()
            ]
            self.answer(json.dumps(rows).encode())
        else:
            names = [{"rfilename": name} for name in self.files]
            self.answer(json.dumps({"id": "me/pets", "sha": COMMIT, "siblings": names}).encode())

    do_HEAD = do_GET

    def do_POST(self):
        self.seen.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.answer(json.dumps({"url": "http://127.0.0.1/me/pets", "name": "me/pets"}).encode())
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self.answer(
                json.dumps(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                        ]
                    }
                ).encode()
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            said = {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"http://127.0.0.1/me/pets/commit/{COMMIT}",
            }
            self.answer(json.dumps(said).encode())
        else:
            self.answer(b"{}")


@pytest.fixture
def fake_hub(tmp_path):
    handler = type("Handler", (FakeHub,), {"files": {}, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_up_to_the_hub_and_back(generator, fake_hub, tmp_path, photograph):
    """In a process of its own, for huggingface_hub reads its settings when it is imported."""
    handler, address = fake_hub
    photograph("in.png")
    script = f"""
from cyclegan import Translator
from cyclegan.errors import BadInput
print(Translator.from_pretrained({str(generator)!r}, precision="fp32").push_to_hub("me/pets", token="hf_test"))
back = Translator.from_pretrained("me/pets", precision="fp32")
back.save_pretrained({str(tmp_path / "copy")!r})
try:
    Translator.from_pretrained("me/nothing")
except BadInput as error:
    print(error)
"""
    settings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    url, nothing = done.stdout.strip().splitlines()
    assert url.endswith("/me/pets")
    assert nothing.startswith("me/nothing: no such folder, and no such public model")
    assert set(handler.files) == {"config.json", "model.safetensors", "README.md"}  # and no notes
    for name, data in handler.files.items():
        assert data == (generator / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()


def test_without_a_network_it_is_one_line(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        BadInput, match="owner/name: no such folder, and the Hugging Face Hub cannot be reached"
    ):
        Translator.from_pretrained("owner/name")


def test_only_what_looks_like_an_id_is_asked_for(monkeypatch, here):
    asked = []
    monkeypatch.setattr(hub, "_download", lambda name: asked.append(name) or Path("x"))
    (here / "runs").mkdir()
    for name in ("runs/mistyped", "G_AB", "/abs/olute", "a/b/c", "../a", "a/b.onnx", "runs"):
        assert hub.locate(name) == Path(name)
    assert asked == []
    assert hub.locate("owner/name-1.0") == Path("x")
    assert asked == ["owner/name-1.0"]


def test_a_copy_is_the_same_generator(generator, tmp_path, photograph):
    translator = Translator.from_pretrained(generator, precision="fp32")
    translator.save_pretrained(tmp_path / "copy")
    image = Image.open(photograph("a.png"))
    again = Translator.from_pretrained(tmp_path / "copy", precision="fp32")
    assert np.array_equal(np.asarray(translator(image)), np.asarray(again(image)))
    assert not (tmp_path / "copy" / "notes.txt").exists()


def test_what_was_never_a_folder_cannot_be_saved(tmp_path):
    network = build("generator", "resnet", {"filters": 4, "blocks": 1})
    for act in ("save_pretrained", "push_to_hub"):
        with pytest.raises(BadInput, match="only a generator that was loaded from a folder"):
            getattr(Translator(network, a_config(), "cpu"), act)(str(tmp_path / "x"))


def test_the_hub_says_no(generator, monkeypatch):
    import huggingface_hub

    def refuses(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuses)
    with pytest.raises(BadInput, match="me/pets: .*no such public model") as caught:
        Translator.from_pretrained(generator).push_to_hub("me/pets")
    assert "\n" not in str(caught.value)


# --- the card


REPORT = {
    "format": "cyclegan-metrics/1", "domain": "my pets", "direction": "AtoB", "images": 6,
    "metrics": {"kid_vgg19": {"value": 0.125, "interval": [0.1, 0.15], "inputs": 0.25, "target_train": 0.0625,
                              "best": 0.0, "better": "lower"}},
}  # fmt: skip


def test_the_hub_can_read_the_card(generator):
    _, config = load_generator(generator)
    add_metrics(generator, config, REPORT)
    add_examples(generator, config, Image.new("RGB", (4, 4)))
    card = ModelCard.load(generator / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("cyclegan", "image-to-image")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("kid_vgg19", 0.125, "my pets")
    text = " ".join(card.content.split())
    for words in (
        "# cats: all kinds to dogs",
        "| kid_vgg19 (lower) | 0.125 (0.1 to 0.15) | 0.25 | 0.0625 |",
        "A: CC0-1.0",
        "(examples.png)",
        "10 steps, 20 images of A, seed 7",
        "made by a machine",
        "Intended use and limits",
    ):
        assert words in text
    assert {p.name for p in generator.iterdir()} >= {"metrics.json", "examples.png"}


def test_facts_that_are_missing_are_left_out():
    # As a generator from elsewhere has it: nobody knows how long it was trained.
    config = a_config().model_copy(update={"steps": None, "images_seen": None, "seed": None, "licences": {}})
    text = model_card(config, None, False)
    assert "None" not in text and "seed" not in text and "Metrics" not in text and "examples" not in text
    assert "Not known." in text
    assert ModelCard(text).data.eval_results is None
