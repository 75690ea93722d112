"""How the app bears many users at once: median and 95th percentile beside one user alone, and its memory.

The server is `cyclegan app` as users start it; each user uploads a picture, has it translated, downloads the
result and begins again. All run on this machine, so the users take their share of its cores, too.
"""

import io
import json as json_lines
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import tyro
from entry import SMALLEST, at_least, more_than_none, run
from PIL import Image

from cyclegan.artifacts import read_config
from cyclegan.errors import Failed

ROW = "{users:>5}  {translations:>12}  {failed:>6}  {median_s:>8}  {p95_s:>5}  {per_s:>14}"
SETTLE_S = 26.0  # sessions are forgotten after 20 s without a word


class User:
    """One visitor, and how long each translation took from the upload to the last byte."""

    def __init__(self, url: str, picture: bytes, number: int) -> None:
        self.url, self.picture, self.session = url, picture, f"user{number}"
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def work(self, until: float, generator: str) -> None:
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    self._translate(client, generator)
                except Exception as error:  # whatever it is counts as a failure
                    self.failures.append(f"{type(error).__name__}: {error}")
                    continue
                self.seconds.append(time.monotonic() - began)

    def _translate(self, client: httpx.Client, generator: str) -> None:
        (path,) = client.post("gradio_api/upload", files={"files": ("picture.png", self.picture)}).json()
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file, generator, 0, "auto", "same", 95]}
        answer = client.post("gradio_api/call/translate", json=body)
        answer.raise_for_status()
        text = client.get(f"gradio_api/call/translate/{answer.json()['event_id']}").text
        if "event: complete" not in text:
            raise ValueError(text)
        result = json_lines.loads(text.rpartition("data: ")[2].strip())[0]
        data = client.get(f"gradio_api/file={result['path']}")
        data.raise_for_status()
        Image.open(io.BytesIO(data.content)).verify()


def photograph(size: int) -> bytes:
    import skimage.data

    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).resize((size, size)).save(buffer, "PNG")
    return buffer.getvalue()


def rush(url: str, users: int, seconds: float, size: int, generator: str) -> list[User]:
    """So many users at once, for so long."""
    crowd = [User(url, photograph(size), number) for number in range(users)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=user.work, args=(until, generator)) for user in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return crowd


def told(crowd: list[User], seconds: float) -> dict[str, float]:
    if not any(user.seconds for user in crowd):
        why = next((failure for user in crowd for failure in user.failures), "none ended in time")
        raise Failed(f"no translation within {seconds:g} s: {why}")
    times = np.array([second for user in crowd for second in user.seconds])
    return {
        "users": len(crowd),
        "translations": len(times),
        "failed": sum(len(user.failures) for user in crowd),
        "median_s": round(float(np.median(times)), 3),
        "p95_s": round(float(np.quantile(times, 0.95)), 3),
        "per_s": round(len(times) / seconds, 2),
    }


def main(
    generator: Annotated[Path, tyro.conf.Positional],
    users: int = 20,
    seconds: float = 120.0,
    size: int = 128,
    rushes: int = 2,
    json: bool = False,
) -> None:
    """Measure one user for a twelfth of the time, then all of them, and memory between.

    What a first rush leaves may be what a server that is warm needs; what each further one adds is lost.

    Args:
        generator: folder of a saved generator
        users: at once
        seconds: that they work
        size: of the picture, in pixels a side
        rushes: how often all of them come, one after the other
        json: end with one line of JSON
    """
    at_least(1, users=users, rushes=rushes)
    at_least(SMALLEST, size=size)
    more_than_none(seconds=seconds)
    read_config(generator)
    server = subprocess.Popen(
        [sys.executable, "-m", "cyclegan", "app", str(generator), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = server.stdout.readline()
        if not said:
            raise Failed("the app did not start; what it said is above")
        url = json_lines.loads(said)["url"]
        name = httpx.post(url + "gradio_api/run/list_generators", json={"data": []}).json()["data"][0][0][
            "name"
        ]
        memory = {}

        def remember(when: str) -> None:
            memory[when] = httpx.get(url + "health").json()["memory_mib"]

        rush(url, 1, 3, size, name)  # loads the generator
        remember("before")
        print("users  translations  failed  median s  p95 s  translations/s")
        alone = told(rush(url, 1, seconds / 12, size, name), seconds / 12)
        print(ROW.format(**alone), flush=True)
        together, failures = [], set()
        for number in range(1, rushes + 1):
            crowd = rush(url, users, seconds, size, name)
            together.append(told(crowd, seconds))
            failures |= {failure for user in crowd for failure in user.failures}
            print(ROW.format(**together[-1]), flush=True)
            remember(f"at the end of {number}")
            time.sleep(SETTLE_S)
            remember(f"after {number}")
        health = httpx.get(url + "health").json()
    finally:
        server.terminate()
        server.wait()
    print("memory in MiB: " + ", ".join(f"{when} {value}" for when, value in memory.items()))
    print(f"{health['pictures']} pictures in {health['passes']} passes")
    for failure in sorted(failures)[:5]:
        print(failure, file=sys.stderr)
    if json:
        facts = {"size": size, "alone": alone, "together": together, "memory_mib": memory}
        print(json_lines.dumps(facts))


if __name__ == "__main__":
    run(main)
