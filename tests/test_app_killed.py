"""The app's server killed in the middle: who waits is told, nothing half-made stays, the next one is clean."""

import threading
import time

import httpx
import pytest

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")
from gradio_client import handle_file  # noqa: E402


@pytest.mark.slow
def test_killed_in_the_middle_of_a_batch(trained_run, photograph, tmp_path):
    from app_server import AppServer, folder_with_run

    server = AppServer(folder_with_run(tmp_path / "app", trained_run))
    before = sorted(path for path in (server.folder / "runs").rglob("*") if "__pycache__" not in path.parts)
    pictures = [handle_file(photograph(f"{n}.png", size=(300, 300))) for n in range(40)]
    client, ended = server.client(), []

    def ask() -> None:
        try:
            client.predict(pictures, "noto2twemoji/short/G_AB", api_name="/translate_many")
        except Exception as error:  # of its HTTP library, which differs between versions
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while httpx.get(server.url + "health", timeout=300).json()["pictures"] < 3:
        time.sleep(0.05)
    server.kill()
    asking.join(timeout=300)
    assert not asking.is_alive() and len(ended) == 1
    assert list(server.tmp.glob("cyclegan-app-*/visit-*"))
    again = AppServer(server.folder)
    try:
        # What the killed one left is gone; what it worked with is as it was.
        assert len(list(server.tmp.glob("cyclegan-app-*"))) == 1
        assert list(server.tmp.glob("cyclegan-app-*/visit-*")) == []
        assert sorted((server.folder / "runs").rglob("*")) == before
        client = again.client()
        result, failed = client.predict(pictures[:2], "noto2twemoji/short/G_AB", api_name="/translate_many")
        client.close()
        assert len(result) == 2 and failed == {}
    finally:
        server.process.stdout.close()
        again.close()
