"""The page as a person uses it, in a real browser against the real server with a trained generator."""

import io
import json
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import IN_A_BROWSER, chromium
from PIL import Image

from cyclegan.cli import main
from cyclegan.translation.inspection import inspect_file

pytest.importorskip("gradio", reason="gradio is not installed")
pytestmark = IN_A_BROWSER
PATIENCE_MS = 60_000  # the machine may be shared by many; nothing is measured here


@pytest.fixture(scope="module")
def browser() -> Iterator:
    # A test picture in place of a camera.
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as opened:
        yield opened


@pytest.fixture
def visit(browser) -> Iterator:
    """Opens the page; at the end no error was written to the console, and nobody else asked for anything."""
    complaints, strangers, contexts = [], [], []

    def go(url: str, width: int = 1280, wait: bool = True, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on(
            "console",
            lambda said: (
                complaints.append(f"{said.text} ({said.location.get('url')})")
                if said.type == "error"
                else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        local = (url, "data:", "blob:")
        page.on(
            "request",
            lambda request: None if request.url.startswith(local) else strangers.append(request.url),
        )
        page.goto(url)
        page.locator("#generator input").wait_for()
        if wait:
            page.wait_for_function("document.querySelector('#generator input')?.value.length > 3")
        return page

    go.complaints = complaints
    yield go
    said = list(complaints)  # what a page says of being closed in the middle of loading is not its fault
    for context in contexts:
        context.close()
    # So does a page, or a report in it, that is left for another.
    left = ("AbortError", "errored out", "net::ERR_CONTENT_LENGTH_MISMATCH")
    assert [words for words in said if not any(each in words for each in left)] == []
    assert strangers == []


@pytest.fixture
def page(visit, app_server):
    return visit(app_server.url)


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose_picture(page, *paths: Path) -> None:
    if page.locator(
        "#picture button[aria-label='Remove Image'], #picture button[aria-label='Clear']"
    ).count():
        page.locator(
            "#picture button[aria-label='Remove Image'], #picture button[aria-label='Clear']"
        ).click()
    page.locator("#picture input[type=file]").first.set_input_files(paths)
    page.locator("#picture img").wait_for()


def translate(page) -> None:
    page.locator("#translate-one").click()
    page.locator("#slider .slider").wait_for()


def downloaded(page, selector: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(selector).click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_a_photograph_is_translated_as_the_command_does_it(page, app_server, photograph, tmp_path):
    picture = photograph("photo.jpg", size=(120, 80))
    choose_picture(page, picture)
    translate(page)
    found = downloaded(page, "#download-one", tmp_path / "found")
    generator = app_server.folder / "runs/noto2twemoji/short/generators/G_AB"
    with pytest.raises(SystemExit):
        main(["translate", str(generator), str(picture), str(tmp_path / "photo.jpg.out/photo.jpg")])
    assert found.read_bytes() == (tmp_path / "photo.jpg.out/photo.jpg").read_bytes()
    # The honest label is inside, and the page reads it to whoever made the picture.
    assert inspect_file(found).label["domain"] == "noto2twemoji"
    assert "a machine (trainedAlgorithmicMedia)" in page.locator("#label").inner_text()
    assert "Apache-2.0" in page.locator("#generator-card").inner_text()
    assert page.locator("#generator-card img").count() == 2


def test_the_line_between_before_and_after_moves(page, photograph):
    choose_picture(page, photograph("photo.png", size=(64, 48)))
    translate(page)
    slider = page.locator("#slider input[type=range]")
    shown = {}
    for key in ("Home", "End"):
        slider.focus()
        page.keyboard.press(key)
        page.add_style_tag(content="#slider .tag, .slider::after { display: none !important }")
        picture = Image.open(io.BytesIO(page.locator("#slider .slider").screenshot())).convert("RGB")
        shown[key] = np.asarray(picture.resize((32, 24), Image.Resampling.BOX)).astype(int)[4:-4, 4:-4]
    for key, name in (("Home", "after"), ("End", "before")):
        address = page.locator(f"#slider img.{name}").evaluate("image => image.src")
        picture = Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB")
        wanted = np.asarray(picture.resize((32, 24), Image.Resampling.BOX)).astype(int)[4:-4, 4:-4]
        other = shown["End" if key == "Home" else "Home"]
        assert np.abs(shown[key] - wanted).mean() < 0.5 * np.abs(other - wanted).mean()


def test_twelve_at_once_and_one_that_is_none(page, emoji, tmp_path):
    tab(page, "Many, or a zip")
    pictures = sorted((emoji / "testA").iterdir())[:12]
    (tmp_path / "words.png").write_text("these are words")
    page.locator("#pictures input[type=file]").first.set_input_files([*pictures, tmp_path / "words.png"])
    page.locator("#pictures").get_by_text("words").wait_for()
    page.locator("#translate-many").click()
    page.get_by_text("Translated 12 of 13.").wait_for()
    assert "words.png: is not a JPEG" in page.locator("#many-said").inner_text()
    page.locator("#download-all:not([disabled])").wait_for()
    with zipfile.ZipFile(downloaded(page, "#download-all", tmp_path)) as archive:
        assert sorted(archive.namelist()) == sorted(path.name for path in pictures)
        for name in archive.namelist():
            target = tmp_path / "out" / name
            archive.extract(name, tmp_path / "out")
            assert inspect_file(target).label["direction"] == "AtoB"
            assert Image.open(target).size == Image.open(emoji / "testA" / name).size


@pytest.mark.slow
def test_stopped_in_the_middle_what_is_done_stays(page, photograph, tmp_path):
    tab(page, "Many, or a zip")
    pictures = [photograph(f"{number}.png", size=(700, 700)) for number in range(30)]
    page.locator("#pictures input[type=file]").first.set_input_files(pictures)
    page.locator("#pictures").get_by_text("29").wait_for()
    page.locator("#translate-many").click()
    page.locator("#gallery img").first.wait_for()
    page.locator("#stop-many").click()
    page.locator("#download-all:not([disabled])").wait_for()
    count = int(re.search(r"Translated (\d+) of 30", page.locator("#many-said").inner_text())[1])
    with zipfile.ZipFile(downloaded(page, "#download-all", tmp_path / "out")) as archive:
        assert 0 < len(archive.namelist()) == count < 30


def test_a_held_out_picture_is_one_of_the_domain(page, emoji, tmp_path):
    page.locator("#examples img").first.wait_for()
    page.locator("#examples button.thumbnail-item").nth(2).click()
    page.locator("#picture img").wait_for()
    name = page.locator("#picture img").evaluate("image => decodeURIComponent(image.src).split('/').pop()")
    assert (emoji / "testA" / name).is_file()
    translate(page)
    assert page.locator("#download-one").inner_text().endswith(name)


def test_a_picture_is_pasted_or_taken_with_the_camera(visit, app_server):
    page = visit(app_server.url, permissions=["clipboard-read", "clipboard-write", "camera"])
    page.evaluate(
        """async () => { const canvas = new OffscreenCanvas(40, 30); canvas.getContext('2d').fillRect(0, 0, 20, 30);
            const blob = await canvas.convertToBlob({type: 'image/png'});
            await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]); }"""
    )
    page.locator("#picture button[aria-label*='lipboard']").click()
    page.locator("#picture img").wait_for()
    translate(page)
    page.locator("#picture button[aria-label='Remove Image'], #picture button[aria-label='Clear']").click()
    page.locator("#picture button[aria-label='Capture from camera']").click()
    page.locator("#picture").get_by_text("Click to Access Webcam").click()
    page.locator("#picture video").wait_for()
    page.wait_for_function("document.querySelector('#picture video').currentTime > 0")  # it shows something
    page.locator("#picture button[aria-label='capture photo']").click()
    page.locator("#picture img:not(.hide)").wait_for()
    page.locator("#slider .slider").evaluate("slider => slider.remove()")
    translate(page)


def problem(page) -> str:
    """What the page complains of, taken away as a person would."""
    toast = page.locator("[data-testid=toast-body]")
    toast.wait_for()
    words = toast.inner_text()
    page.locator("[data-testid=toast-close]").click()
    toast.wait_for(state="detached")
    return words


def test_each_mistake_is_said_in_words(page, tmp_path, photograph):
    page.locator("#translate-one").click()
    assert "choose a picture first" in problem(page)
    (tmp_path / "words.png").write_text("these are words")
    page.locator("#picture input[type=file]").first.set_input_files(tmp_path / "words.png")
    for _ in range(2):  # at once, and when it is to be translated all the same
        assert "words.png: is not a JPEG, PNG, WebP, TIFF or BMP image" in problem(page)
        page.locator("#translate-one").click()
    assert "words.png" in problem(page)
    tab(page, "Train")
    page.get_by_label("My own, as two zips").check()
    page.locator("#own-name input, #own-name textarea").fill("../up")
    page.locator("#start-training").click()
    assert "name: takes letters, digits" in problem(page)
    page.locator("#own-name input, #own-name textarea").fill("never-sent")
    page.locator("#start-training").click()
    assert "the zip of A is missing" in problem(page)


def test_figures_stand_between_floor_and_ceiling(page, app_server):
    tab(page, "Runs")
    table = page.locator("#run-about table")
    table.wait_for()
    # Of the run's evaluations.jsonl: value, the untranslated inputs, real pictures of the target.
    assert "AtoB, at step 40" in table.inner_text()
    cells = table.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells == ["0.0815", "0.117", "0.001", "31%"]
    report = page.frame_locator("#report iframe")
    report.locator("html[data-ready]").wait_for(state="attached")
    page.locator("#run-commands summary").click()
    assert "cyclegan train --resume runs/noto2twemoji/short" in page.locator("#run-commands").inner_text()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_phones_and_screens_by_day_and_by_night(visit, app_server, width, scheme):
    page = visit(app_server.url, width, color_scheme=scheme)
    for name in ("Translate", "Stylize", "Train", "Runs"):
        tab(page, name)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) > 127) == (scheme == "light")


def test_every_control_has_a_name_and_a_tooltip(page):
    """A tooltip is gradio's words beside the label (``info``), or a title on the control or around it."""
    for name in ("Translate", "Stylize", "Train", "Runs"):
        tab(page, name)
        page.wait_for_timeout(1000)
        bare = page.evaluate(
            """() => [...document.querySelectorAll('.block input, .block textarea, .block select, button')]
                .filter(e => e.checkVisibility({opacityProperty: false}) && e.type !== 'file'
                    && e.tabIndex >= 0 && !e.closest('footer, [role=tablist]'))
                .filter(e => !e.closest('[title]') && !e.closest('.block')?.querySelector('[class*=info]'))
                .map(e => e.outerHTML.slice(0, 200))"""
        )
        assert bare == [], name
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea, [role=slider]')].filter(e =>
                e.checkVisibility() && e.type !== 'file' && !(e.ariaLabel || e.title || e.textContent.trim()
                || e.labels?.[0]?.textContent.trim() || e.closest('label')?.textContent.trim()
                || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML.slice(0, 200))"""
        )
        assert nameless == [], name


def test_by_keyboard_alone(page, photograph):
    choose_picture(page, photograph("photo.png", size=(40, 40)))
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id]')?.id"))
        if page.evaluate("document.activeElement.id") == "translate-one":
            page.keyboard.press("Enter")
            break
    page.locator("#slider .slider").wait_for()


def state(page, words: str) -> None:
    page.locator("#train-status").get_by_text(words).wait_for(timeout=5 * PATIENCE_MS)


@pytest.mark.slow
def test_two_zips_become_a_generator_and_nothing_on_the_way_is_lost(visit, trained_run, emoji, tmp_path):
    """Start, reload, kill the server, find it again, stop, resume, translate: all with the mouse."""
    from app_server import AppServer

    unpacked = emoji.parent / "mine"  # where all servers of the tests keep their pictures
    shutil.rmtree(unpacked, ignore_errors=True)
    for side, count in (("A", 24), ("B", 20)):
        with zipfile.ZipFile(tmp_path / f"{side}.zip", "w") as archive:
            for path in sorted((emoji / f"train{side}").iterdir())[:count]:
                archive.write(path, f"{side}/{path.name}")
    server = AppServer(tmp_path)
    try:
        page = visit(server.url, wait=False)
        tab(page, "Train")
        page.get_by_label("My own, as two zips").check()
        page.locator("#own-name input, #own-name textarea").fill("mine")
        # What is chosen shows it with the mouse over it, too.
        colour = page.get_by_label("My own, as two zips").evaluate("e => getComputedStyle(e).backgroundColor")
        assert colour != "rgb(255, 255, 255)"
        for side in "ab":
            page.locator(f"#zip-{side} input[type=file]").set_input_files(tmp_path / f"{side.upper()}.zip")
            # In the list, which stays; on its way up the file's name is shown for a moment only.
            page.locator(f"#zip-{side} td[aria-label='{side.upper()}.zip']").wait_for()
        page.locator("#length input").fill("60")
        page.get_by_label("steps", exact=True).check()
        page.locator("#start-training").click()
        state(page, "is at work")
        page.reload()
        tab(page, "Train")
        state(page, "is at work")
        page.locator("#grid img").wait_for()
        server.kill()
        visit.complaints.clear()  # the browser says that its server is gone, and it is
        page.close()
        server.process.stdout.close()
        server = AppServer(tmp_path)
        page = visit(server.url, wait=False)
        tab(page, "Train")
        state(page, "is at work")
        page.locator("#stop-training:not([disabled])").click()
        state(page, "was stopped")
        (run,) = (tmp_path / "runs" / "mine").iterdir()
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert 0 < steps[-1] < 60
        page.locator("#resume-training:not([disabled])").click()
        state(page, "has come to its end")
        page.locator("#plot svg").wait_for()
        tab(page, "Translate")
        page.wait_for_function("document.querySelector('#generator input')?.value.startsWith('mine ')")
        choose_picture(page, sorted((emoji / "testA").iterdir())[0])
        translate(page)
        found = downloaded(page, "#download-one", tmp_path / "found")
        assert inspect_file(found).label["domain"] == "mine"
        # It resumed exactly: each step was made once, to the last one.
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps)) and steps[-1] == 60
    finally:
        server.close()
        shutil.rmtree(unpacked, ignore_errors=True)
        visit.complaints.clear()  # as above


@pytest.mark.slow
def test_a_stylization_is_seen_at_work_and_can_be_stopped(page, photograph, tmp_path):
    tab(page, "Stylize")
    for name, size in (("content", (96, 72)), ("style", (64, 64))):
        page.locator(f"#{name} input[type=file]").first.set_input_files(photograph(f"{name}.png", size=size))
        page.locator(f"#{name} img").wait_for()
    page.get_by_label("by optimization").check()
    page.locator("#stylize-size input").click()
    page.get_by_role("option", name="its own size").click()
    page.locator("#stylize-go").click()
    page.locator("#at-work img").wait_for()
    page.locator("#stylize-stop").click()
    found = downloaded(page, "#stylize-download", tmp_path / "out")
    assert Image.open(found).size == (96, 72)
    assert "style transfer by optimization" in inspect_file(found).label["system"]


@pytest.mark.slow
def test_files_are_gone_when_the_page_is_closed(visit, app_server, photograph):
    page = visit(app_server.url)
    choose_picture(page, photograph("leave-no-trace.png"))
    translate(page)
    left = lambda: list(app_server.tmp.glob("cyclegan-app-*/**/leave-no-trace*"))  # noqa: E731
    assert len(left()) == 2  # the upload and its translation
    page.context.close()
    until = time.monotonic() + 120
    while left() and time.monotonic() < until:
        time.sleep(1)
    assert left() == []


def test_a_reload_in_the_middle_leaves_a_page_that_works(page, emoji, photograph):
    tab(page, "Many, or a zip")
    page.locator("#pictures input[type=file]").first.set_input_files(sorted((emoji / "testA").iterdir())[:40])
    page.locator("#pictures").get_by_text(".png").first.wait_for()
    page.locator("#translate-many").click()
    page.wait_for_timeout(300)
    page.reload()
    page.wait_for_function("document.querySelector('#generator input')?.value.length > 3")
    choose_picture(page, photograph("photo.png", size=(40, 40)))
    translate(page)
