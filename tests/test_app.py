"""The app's parts without a server: who is let in, whose files are whose, what shares a pass, what trains."""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

pytest.importorskip("gradio", reason="gradio is not installed")

from cyclegan.app.engine import Engine, GivenUp
from cyclegan.app.gate import Gate
from cyclegan.app.limits import Limits, gather, unpack
from cyclegan.app.offered import Shelf
from cyclegan.app.server import Address
from cyclegan.app.sessions import Sessions
from cyclegan.app.trainings import Plan, Trainings, own_pictures
from cyclegan.app.translating import Wish
from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.images import read_image
from cyclegan.training.command import settings_from
from cyclegan.translation.options import Tiling


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = Sessions(grace_s=0, idle_s=60)
    yield opened
    opened.close()
    assert list(tmp_path.glob("cyclegan-app-*")) == []


async def echo(scope, receive, send):
    """An application that answers with the body that reached it."""
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(gate: Gate, method: str, path: str, host: str = "localhost", **options) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def gate(sessions: Sessions, accounts: dict[str, str] | None = None, hosts=("localhost",)) -> Gate:
    return Gate(echo, sessions, Limits(upload_mib=1), accounts or {}, hosts)


def test_a_password_guards_all_but_health(sessions):
    guarded = gate(sessions, {"ann": "pass:word ü"})
    assert ask(guarded, "GET", "/health").status_code == 200
    for method, path in (("GET", "/"), ("GET", "/assets/x.js"), ("GET", "/report/a/b"), ("GET", "/config"),
                         ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/call/translate")):  # fmt: skip
        answer = ask(guarded, method, path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic")

    def with_word(words: str) -> int:
        code = base64.b64encode(words.encode()).decode()
        return ask(guarded, "GET", "/", headers={"Authorization": f"Basic {code}"}).status_code

    assert with_word("ann:pass:word ü") == 200
    assert [with_word(words) for words in ("ann:pass", "ann:", "bob:", ":", "ann")] == [401] * 5
    assert ask(guarded, "GET", "/", headers={"Authorization": "Basic %%%"}).status_code == 401


def test_an_open_server_without_a_password_warns_in_words():
    assert Address("127.0.0.1").warning is None and Address("0.0.0.0", accounts={"a": "b"}).warning is None
    assert "without a password" in Address("0.0.0.0").warning


def test_other_names_of_this_machine_are_refused(sessions):
    assert ask(gate(sessions), "GET", "/", host="evil.example").status_code == 421
    assert ask(gate(sessions, hosts=None), "GET", "/", host="any.example").status_code == 200
    named = gate(sessions, hosts=("localhost", "pictures.example"))
    assert ask(named, "GET", "/", host="Pictures.example:8443").status_code == 200


def test_bodies_pass_as_they_came(sessions):
    body = {"data": [1, {"a": "ü"}], "session_hash": "abc"}
    assert ask(gate(sessions), "POST", "/gradio_api/call/x", json=body).json() == body
    assert "default-src 'self'" in ask(gate(sessions), "GET", "/").headers["content-security-policy"]


def test_a_visit_ends_with_its_line_and_takes_its_files_along(sessions):
    shared, own = (sessions.root / ("a" * 64) / name for name in ("both.png", "own.png"))
    shared.parent.mkdir()
    for path in (shared, own):
        path.write_bytes(b"x")
    for session, paths in (("one", (shared, own)), ("two", (shared,))):
        sessions.line_opened(session)
        for path in paths:
            assert sessions.may_use(session, path)
            sessions.used(session, path)
    result = sessions.new_folder("one") / "result.png"
    result.write_bytes(b"x")
    assert sessions.may_use("one", result) and not sessions.may_use("two", result)
    sessions.sweep()
    assert result.is_file() and sessions.is_open("one")
    sessions.line_closed("one")
    assert not sessions.is_open("one")
    sessions.sweep()
    assert not result.exists() and not own.exists() and shared.is_file()
    sessions.line_closed("two")
    sessions.sweep()
    assert not shared.parent.exists()


def test_gradio_forgets_sessions_that_are_quiet(sessions):
    """Else each program that calls once would stay in memory, with all of the page's components."""
    import gradio as gr

    from cyclegan.app.forgetting import forget_quiet_sessions, keep_little

    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Textbox()
    blocks.queue()
    app = gr.routes.App.create_app(blocks)
    assert app.state_holder is blocks.state_holder
    assert app.state_holder["page"].config_values  # what the lean ones do without
    keep_little(blocks)
    for session in ("page", "program"):
        sessions.visit(session)
        assert app.state_holder[session].config_values == {}
    sessions.line_opened("page")
    assert forget_quiet_sessions(blocks, sessions)
    assert list(blocks.state_holder.session_data) == ["page"]
    assert not forget_quiet_sessions(blocks, sessions)


def test_gradio_forgets_whom_it_has_answered_and_nobody_else(sessions):
    """Through a server as users start it: a hundred programs that call once, one that has not fetched."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from cyclegan.app.forgetting import forget_quiet_sessions, keep_little

    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Button().click(lambda: "done", outputs=gr.Textbox(), api_name="work")
    blocks.queue()
    keep_little(blocks)
    queue = blocks._queue
    with TestClient(gr.mount_gradio_app(FastAPI(), blocks, path="/")) as client:

        def call():
            return client.post("/gradio_api/call/work", json={"data": []}).json()["event_id"]

        def fetch(event):
            return client.get(f"/gradio_api/call/work/{event}").text

        assert all("done" in fetch(call()) for _ in range(100))
        late = call()
        assert len(queue.pending_event_ids_session) == 101
        assert forget_quiet_sessions(blocks, sessions)
        assert list(queue.pending_event_ids_session) == list(queue.pending_messages_per_session) == [late]
        assert len(queue.event_analytics) == 1
        assert "done" in fetch(late)
        assert forget_quiet_sessions(blocks, sessions)
        assert not queue.pending_event_ids_session and not queue.pending_messages_per_session
        assert "done" in fetch(call())


def test_a_gradio_that_cannot_forget_is_said_once_and_the_server_goes_on(sessions, monkeypatch, capsys):
    import asyncio

    import gradio as gr

    from cyclegan.app import forgetting

    monkeypatch.setattr(forgetting, "SWEEP_S", 0)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Textbox()
    blocks.queue()
    del blocks._queue.pending_event_ids_session  # as if gradio had renamed it
    asyncio.run(forgetting.keep_forgetting(blocks, sessions))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pending_event_ids_session" in said and "setup.cfg" in said


def test_uploads_that_nobody_used_do_not_stay(sessions):
    left, fresh, broken = (
        sessions.root / "b" / "left.png",
        sessions.root / "c" / "new.png",
        sessions.root / "tmpx",
    )
    for path in (left, fresh, broken):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in (left, broken):
        os.utime(path, (0, time.time() - 61))
    sessions.sweep()
    assert not left.parent.exists() and not broken.exists() and fresh.is_file()


def test_the_next_server_sweeps_what_a_killed_one_left(sessions, tmp_path):
    left = tmp_path / "cyclegan-app-left" / "visit-x" / "picture.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    (tmp_path / "cyclegan-app-left" / ".lock").touch()
    other = Sessions()
    assert not left.exists() and sessions.root.is_dir()
    other.close()
    assert sessions.root.is_dir()


def test_requests_for_one_generator_and_size_share_a_pass(generator, photograph):
    engine = Engine()
    translator = engine.translator(generator, Tiling())
    assert engine.translator(generator, Tiling()) is translator
    asked, go = [], threading.Event()
    honest = translator.network_on

    def counted(images: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(images.shape))
        go.wait()
        return honest(images)

    translator.network_on = counted
    pictures = [read_image(photograph(f"{n}.png", size=(40 + 4 * (n == 5), 32))) for n in range(8)]
    results: dict[int, np.ndarray] = {}

    def run(number: int) -> None:
        results[number] = engine.translate(translator, pictures[number], None, lambda: True, lambda *_: None)

    threads = [threading.Thread(target=run, args=(0,))]
    threads[0].start()
    while not asked:
        time.sleep(0.01)
    threads += [threading.Thread(target=run, args=(number,)) for number in range(1, 8)]
    for thread in threads[1:]:
        thread.start()
    while engine._orders.qsize() < 7:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join()
    # The first alone; six of its size together; the one of another size by itself.
    assert sorted(asked) == sorted([(1, 3, 32, 40), (6, 3, 32, 40), (1, 3, 32, 44)])
    for number, picture in enumerate(pictures):
        alone = translator.finish(honest(translator.prepare(picture)[None])[0], picture)
        np.testing.assert_array_equal(results[number], alone)
    engine.close()


def test_what_nobody_waits_for_is_not_computed(generator, photograph):
    engine = Engine()
    translator = engine.translator(generator, Tiling())
    picture = read_image(photograph("a.png"))
    with pytest.raises(GivenUp):
        engine.translate(translator, picture, None, lambda: False, lambda *_: None)
    assert engine.passes == 0
    engine.close()


def test_tiles_tell_how_many_rows_are_done(generator, photograph):
    engine, told = Engine(), []
    translator = engine.translator(generator, Wish(tiling="exact").cut())
    picture = read_image(photograph("a.png", size=(64, 96)))
    engine.translate(translator, picture, None, lambda: True, lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert told[-1][1].endswith("96 of 96 rows")
    engine.close()


def test_a_generator_trained_anew_is_loaded_anew(generator, photograph):
    engine = Engine()
    first = engine.translator(generator, Tiling())
    os.utime(generator / "model.safetensors")
    assert engine.translator(generator, Tiling()) is not first
    engine.close()


def test_what_is_offered(generator, trained_run, tmp_path):
    # Of its own: beside the shared run lie the runs of other tests.
    runs = shutil.copytree(trained_run, tmp_path / "runs" / "mine" / "short").parent.parent
    shelf = Shelf([generator], runs)
    names = list(shelf.generators())
    assert names[0] == generator.as_posix().strip("/")
    assert names[1:] == ["mine/short/G_AB", "mine/short/G_BA"]
    run = shelf.generator(names[1])
    pictures = shelf.examples(run)
    # Real held-out pictures of the domain's A.
    assert len(pictures) == 6 and {path.parent.name for path in pictures} == {"testA"}
    with pytest.raises(BadInput, match="no such generator is offered here"):
        shelf.generator(str(generator))
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="is no generator, no run and no folder of runs"):
        Shelf([tmp_path / "none"], runs)


def test_two_pictures_of_one_name_stay_two(photograph):
    one, other = photograph("a/same.png"), photograph("b/same.png")
    found = gather([one, other], Path("unused"), Limits())
    assert found == [(one, "same.png"), (other, "same-2.png")]


def test_a_zip_is_unpacked_under_names_of_our_own(photograph, tmp_path):
    picture = photograph("p.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("deep/a.PNG", "__MACOSX/._a.png", ".hidden.png", "deep/notes.txt"):
            archive.writestr(name, picture)
    found = unpack(tmp_path / "z.zip", tmp_path / "out", Limits())
    assert found == [(tmp_path / "out" / "000000.png", "deep/a.PNG")]
    small = Limits(upload_mib=1)
    with zipfile.ZipFile(tmp_path / "big.zip", "w") as archive:
        for number in range(9):
            archive.writestr(f"{number}.png", np.random.default_rng(0).bytes(500_000) + bytes(100_000))
    (tmp_path / "big.zip").write_bytes((tmp_path / "big.zip").read_bytes())
    with pytest.raises(BadInput, match="uploads may have 1 MiB at most"):
        unpack(tmp_path / "big.zip", tmp_path / "big", small)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_disk_is_not_the_fault_of_the_zip(photograph, tmp_path):
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as archive:
        archive.write(photograph("p.png"), "p.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000000.png").symlink_to("/dev/full")
    with pytest.raises(BadInput, match=r"good\.zip: the disk of this machine is full"):
        unpack(tmp_path / "good.zip", tmp_path / "out", Limits())


PLANS = {
    "a domain": (Plan("noto2twemoji", "noto2twemoji", 200, "steps"), {"steps": 200, "domain": "noto2twemoji", "size": 64}),
    "minutes": (Plan("noto2twemoji", "noto2twemoji", 2.5, "minutes"), {"steps": None, "minutes": 2.5}),
    "another recipe": (Plan("horse2zebra", "noto2twemoji", 3, "epochs"), {"epochs": 3, "domain": "horse2zebra", "batch_size": 8}),
    "another size": (Plan("noto2twemoji", "noto2twemoji", 9, "steps", 128), {"size": 128, "load_size": 143}),
    "its own recipe": (Plan("noto2twemoji", None, 9, "steps"), {"size": 64, "batch_size": 8}),
    "the defaults": (Plan("maps", None, 9, "steps"), {"domain": "maps", "size": 256, "batch_size": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_what_is_chosen_is_what_the_command_trains(name, tmp_path):
    plan, expected = PLANS[name]
    settings, _ = settings_from(plan.arguments(tmp_path / "run"))
    for key, value in expected.items():
        assert getattr(settings, key) == value
    assert settings.run_dir == tmp_path / "run" and settings.trackers == ()


def test_own_pictures_are_what_the_command_trains(here, photograph):
    zips = []
    for side, count in (("a", 3), ("b", 2)):
        zips.append(here / f"{side}.zip")
        with zipfile.ZipFile(zips[-1], "w") as archive:
            for number in range(count):
                archive.write(photograph(f"{side}{number}.png"), f"pictures/{number}.png")
    folders = own_pictures("mine", tuple(zips), Limits())
    assert [len(list(folder.iterdir())) for folder in folders] == [3, 2]
    settings, _ = settings_from(Plan("mine", None, 5, "steps", None, *folders).arguments(here / "run"))
    assert (settings.domain, settings.data.a, settings.data.b) == ("mine", *folders)
    assert own_pictures("mine", (None, None), Limits()) == folders
    with pytest.raises(BadInput, match="there are pictures of this name already"):
        own_pictures("mine", tuple(zips), Limits())
    (here / "bad.zip").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"bad\.zip: is not a whole zip"):
        own_pictures("other", (zips[0], here / "bad.zip"), Limits())
    assert sorted(path.name for path in Path("datasets").iterdir()) == ["mine"]
    for name in ("../up", "", "a b", "noto2twemoji", "x" * 61):
        with pytest.raises(BadInput):
            own_pictures(name, tuple(zips), Limits())


HOLD = """
import fcntl, os, socket, sys, time
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write(f"process {os.getpid()} on {socket.gethostname()}\\n")
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_a_training_is_found_by_the_lock_that_it_holds(trained_run, tmp_path):
    """Whoever started it, and whatever became of the server that did."""
    run = Path(shutil.copytree(trained_run, tmp_path / "runs" / "mine" / "one"))
    trainings = Trainings(tmp_path / "runs")
    assert list(trainings.known()) == ["mine/one"] and trainings.look(run).state == "finished"
    (run / ".lock").write_text("")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    found = Trainings(tmp_path / "runs").look(run)
    assert (found.state, found.pid) == ("training", holder.pid)
    with pytest.raises(BadInput, match="busy: mine/one is being trained"):
        trainings.begin(Plan("noto2twemoji", None, 1, "steps"))
    trainings.stop(run)
    assert holder.wait(timeout=30) == -15
    about = json.loads((run / "about.json").read_text())
    (run / "about.json").write_text(json.dumps(about | {"ended": None}))
    assert trainings.look(run).state == "stopped"
    with pytest.raises(BadInput, match="there is nothing to stop"):
        trainings.stop(run)
    holder.stdout.close()


def test_a_number_that_now_is_another_process_is_not_taken_for_the_training(tmp_path):
    run = tmp_path / "runs" / "a" / "b"
    run.mkdir(parents=True)
    (run / "app.json").write_text(json.dumps({"pid": os.getpid(), "began": 1.0, "command": "x"}))
    (run / "console.log").write_text("cyclegan train: it went wrong\n")
    found = Trainings(tmp_path / "runs").look(run)
    assert (found.state, found.pid, found.says) == ("failed", None, "cyclegan train: it went wrong")


MISTAKES = {
    "app nowhere": "nowhere",
    "app --port 99999": "port 99999: cannot be listened on",
    "app --auth secret": "secret is neither NAME:PASSWORD nor a file of such lines",
    "app --auth name:": "takes NAME:PASSWORD, neither of them empty",
    "app --waiting 0": "--waiting: must be more than 0, not 0",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_get_one_line_and_status_2(words, here, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--no-open"])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert MISTAKES[words] in err and len(err.strip().splitlines()) == 1


def test_a_port_that_is_taken(here, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit) as ended:
            main(["app", "--port", str(taken.getsockname()[1]), "--no-open"])
    assert ended.value.code == 2 and "Address already in use" in capsys.readouterr().err
