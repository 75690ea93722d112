"""The report in a real browser: what it draws, that it can be used, that it asks nothing of any network."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import IN_A_BROWSER, chromium, playwright
from PIL import Image

from cyclegan.reporting.report import write_index, write_report

pytestmark = IN_A_BROWSER


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as opened:
        yield opened


@pytest.fixture
def visit(browser) -> Iterator:
    """Opens a file, and at the end of the test sees that it complained of nothing and asked for nothing."""
    complaints, requests, contexts = [], [], []

    def go(path: Path, width: int = 1280, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request))
        page.goto(path.as_uri())
        page.locator("html[data-ready]").wait_for(state="attached")
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    # Pages are opened by the tests; what else is asked for lies inside the page.
    asked = [request.url for request in requests if not request.is_navigation_request()]
    assert [url for url in asked if not url.startswith("data:")] == []


@pytest.fixture
def report(trained_run) -> Path:
    return trained_run / "report.html"


@pytest.fixture
def logged(trained_run) -> list[dict]:
    return [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]


def set_slider(page, selector: str, value: float) -> None:
    page.locator(selector).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def legend(page, title: str) -> dict[str, float]:
    chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
    texts = chart.locator(".legend button").evaluate_all(
        "buttons => buttons.map(b => [b.childNodes[1].textContent, b.querySelector('b').textContent])"
    )
    return {name: float(value) for name, value in texts}


def pixels(source: str | bytes) -> np.ndarray:
    data = base64.b64decode(source.partition(",")[2]) if isinstance(source, str) else source
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_it_is_small_soon_ready_and_asks_for_nothing(visit, report):
    page = visit(report)
    ready, size = float(page.evaluate("document.documentElement.dataset.ready")), report.stat().st_size
    print(f"report of a short run: {size / 1e6:.2f} MB, interactive after {ready:.0f} ms")
    assert size < 10_000_000
    # Two seconds until it is ready, counted in what the page computes: a machine shared by many may be slow.
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    page.locator("html[data-ready]").wait_for(state="attached")
    spent = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    print(f"of which it computes {spent['TaskDuration']:.2f} s")
    assert 0 < spent["TaskDuration"] < 2


def test_the_curves_drawn_are_those_of_metrics_jsonl(visit, report, logged):
    page = visit(report)
    for title, names in {
        "Cycle": ["cycle_a", "cycle_b"],
        "Speed": ["images_per_s"],
        "Learning rate": ["lr_G", "lr_D"],
    }.items():
        found = legend(page, title)
        assert found == {name: pytest.approx(logged[-1][name], rel=1e-3) for name in names}
    # Smoothed by nothing the bold line goes through each figure: its colour is where the figure belongs.
    set_slider(page, "#smoothing", 0)
    places = page.evaluate(
        "charts.Cycle.data[0].map((step, i) => [charts.Cycle.valToPos(step, 'x', true), "
        "charts.Cycle.valToPos(charts.Cycle.data[3][i], 'y', true)])"
    )
    canvas = pixels(page.evaluate("charts.Cycle.ctx.canvas.toDataURL()"))
    drawn = page.evaluate("charts.Cycle.data[3]")
    np.testing.assert_allclose(drawn, [line["cycle_b"] for line in logged], rtol=1e-5)
    orange = page.evaluate("style('--c2')")
    wanted = np.array([int(orange[i : i + 2], 16) for i in (1, 3, 5)])
    for x, y in places[1:-1]:
        patch = canvas[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert np.abs(patch - wanted).sum(axis=2).min() < 60


def test_smoothing_is_the_corrected_moving_average(visit, report, logged):
    page = visit(report)
    set_slider(page, "#smoothing", 0.9)
    values = [line["cycle_a"] for line in logged]
    weights = [[0.9 ** (i - j) for j in range(i + 1)] for i in range(len(values))]
    expected = [np.average(values[: i + 1], weights=weights[i]) for i in range(len(values))]
    np.testing.assert_allclose(page.evaluate("charts.Cycle.data[2]"), expected, rtol=1e-5)


def test_the_pointer_and_the_keyboard_read_single_steps(visit, report, logged):
    page = visit(report)
    chart = page.locator(".chart", has=page.get_by_role("heading", name="Cycle", exact=True))
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    middle = logged[page.evaluate("charts.Cycle.cursor.idx")]
    assert 10 < middle["step"] < 30
    assert chart.locator(".at").text_content() == f"step {middle['step']} · {middle['images_seen']} images"
    assert legend(page, "Cycle")["cycle_a"] == pytest.approx(middle["cycle_a"], rel=1e-3)
    chart.locator(".plot").focus()
    for keys, line in (
        ("Home", logged[0]),
        ("ArrowRight", logged[1]),
        ("End", logged[-1]),
        ("ArrowLeft", logged[-2]),
    ):
        page.keyboard.press(keys)
        assert legend(page, "Cycle")["cycle_b"] == pytest.approx(line["cycle_b"], rel=1e-3)
    chart.get_by_role("button", name="cycle_a").click()
    assert page.evaluate("charts.Cycle.series.map(line => line.show)") == [True, False, False, True, True]


def test_a_finger_reads_the_curves_too(visit, report, logged):
    page = visit(report, 390, has_touch=True)
    chart = page.locator(".chart", has=page.get_by_role("heading", name="Cycle", exact=True))
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + 30)
    touched = logged[page.evaluate("charts.Cycle.cursor.idx")]
    assert 5 < touched["step"] < 18
    assert legend(page, "Cycle")["cycle_a"] == pytest.approx(touched["cycle_a"], rel=1e-3)


def test_the_metric_stands_between_its_anchors_and_has_a_curve(visit, report):
    page = visit(report)
    figure = page.locator(".figure.main")
    assert "0.0815" in figure.text_content()
    # (0.117 - 0.0815) / (0.117 - 0.001) of the way.
    width = figure.locator(".fill").bounding_box()["width"] / figure.locator(".scale").bounding_box()["width"]
    assert width == pytest.approx(0.306, abs=0.005)
    assert legend(page, "kid_vgg19") == {
        "A to B": 0.0815,
        "A to B doing nothing": 0.117,
        "A to B best possible": 0.001,
    }


def test_the_history_shows_each_steps_pictures(visit, report, trained_run):
    page = visit(report)
    images = page.locator("#history-grid img")
    assert images.count() == 3 * 5  # pictures; input, output, truth, back, identity
    shown = {}
    for index, step in enumerate((10, 20, 30, 40)):
        set_slider(page, "#history-slider", index)
        assert page.locator("#history-step").text_content() == str(step)
        shown[step] = images.nth(1).get_attribute("src")
        # The second column of the grid as the run wrote it: 28 px of headings, tiles of 128, gaps of 6.
        grid = np.asarray(Image.open(trained_run / f"samples/step-{step:08d}.png").convert("RGB")).astype(int)
        np.testing.assert_array_equal(pixels(shown[step]), grid[28:156, 140:268][::4, ::4])
    assert len(set(shown.values())) == 4
    page.get_by_role("button", name="B to A").click()
    assert images.nth(1).get_attribute("src") not in shown.values()
    assert "Twemoji" in images.nth(0).get_attribute("alt")


def test_the_history_plays_and_stops(visit, report):
    page = visit(report)
    page.get_by_role("button", name="Play").click()
    playwright.expect(page.locator("#history-step")).to_have_text("20")
    page.get_by_role("button", name="Pause").click()
    still = page.locator("#history-step").text_content()
    page.wait_for_timeout(1600)
    assert page.locator("#history-step").text_content() == still


def test_the_line_between_before_and_after_moves(visit, report):
    page = visit(report)
    compare = page.locator(".compare").first
    before, after = (compare.locator(f"img.{name}").get_attribute("src") for name in ("before", "after"))
    slider = compare.get_by_role("slider")
    slider.focus()
    page.add_style_tag(
        content=".tag, .compare::after { display: none } .compare { outline: none !important }"
    )
    seen = {}
    for key in ("Home", "End"):
        page.keyboard.press(key)
        seen[key] = Image.fromarray(pixels(compare.screenshot()).astype(np.uint8))
    for key, source, other in (("Home", after, "End"), ("End", before, "Home")):
        wanted = pixels(source)
        near, far = (
            np.asarray(seen[each].resize((32, 32), Image.Resampling.BOX)).astype(int) for each in (key, other)
        )
        inside = slice(8, 24)
        assert (
            np.abs(near - wanted)[inside, inside].mean() < 0.5 * np.abs(far - wanted)[inside, inside].mean()
        )
    page.get_by_role("button", name="Against the true picture").first.click()
    assert compare.locator("img.before").get_attribute("src") not in (before, after)
    assert "true picture" in compare.locator("img.before").get_attribute("alt")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_phones_and_screens_by_day_and_by_night(visit, report, width, scheme):
    page = visit(report, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The page follows the system, and its text stands out as WCAG AA asks.
    colours = page.evaluate(
        "['body', '.note', '.meta', 'a'].map(s => getComputedStyle(document.querySelector(s)).color)"
        ".concat(getComputedStyle(document.body).backgroundColor)"
    )
    *inks, paper = (luminance(colour) for colour in colours)
    assert (paper > 0.5) == (scheme == "light")
    for ink in inks:
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_pictures_have_words_and_controls_have_names(visit, report):
    page = visit(report)
    assert page.evaluate("[...document.images].every(image => image.alt.length > 10 && image.complete)")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, [role], a")].filter(e => e.checkVisibility() &&
            !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"history-slider", "play", "smoothing", "plot", "theme"} <= reached


def test_without_scripts_the_newest_pictures_and_figures_are_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".compare img").count() == 12
    assert page.locator("noscript .warning").is_visible()
    assert not page.locator("#history-controls").is_visible()
    context.close()


HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>' onload='alert(3)"


def test_names_from_strangers_stay_words(visit, trained_run, tmp_path):
    run = Path(shutil.copytree(trained_run, tmp_path / "<b>run"))
    about = json.loads((run / "about.json").read_text())
    about |= {"domain": HOSTILE, "machine": {HOSTILE: HOSTILE}}
    about["card"] |= {"title": HOSTILE, "notes": HOSTILE}
    about["card"]["a"] |= {"title": HOSTILE, "licence": HOSTILE, "url": "javascript:alert(4)"}
    (run / "about.json").write_text(json.dumps(about))
    line = {"step": 1, "message": HOSTILE}
    (run / "warnings.jsonl").write_text(json.dumps(line) + "\n")
    metrics = {HOSTILE: {"value": 1, "inputs": 2, "target_train": 0}}
    (run / "evaluations.jsonl").write_text(
        json.dumps({"step": 2, "images_seen": 8, "direction": "AtoB", "metrics": metrics}) + "\n"
    )
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 42, "images_seen": 168, HOSTILE: 1.0}) + "\n")
    page = visit(write_report(run))
    assert page.title().startswith(HOSTILE)
    assert page.locator("img[src=x]").count() == 0
    assert page.locator(".warnings li").first.text_content() == f"Step 1: {HOSTILE}"
    assert HOSTILE in page.locator("#history-grid img").first.get_attribute("alt")
    index = visit(write_index(tmp_path)[0])
    assert index.locator("tbody a").text_content() == "<b>run"
    index.locator("tbody a").click()
    index.wait_for_url("**/report.html")
    index.context.close()


def test_the_index_sorts_by_figures(visit, trained_run, tmp_path):
    for name, value in (("one", 0.1), ("two", 0.02), ("three", None), ("four", 0.003)):
        run = Path(shutil.copytree(trained_run, tmp_path / "runs" / "emoji" / name))
        line = {
            "step": 2,
            "direction": "AtoB",
            "metrics": {"kid_vgg19": {"value": value, "inputs": 1, "target_train": 0}},
        }
        (run / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    page = visit(write_index(tmp_path / "runs")[0], 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    names = page.locator("tbody th")
    heading = page.get_by_role("button", name="kid_vgg19 AtoB")
    heading.click()
    assert names.all_text_contents() == ["four", "two", "one", "three"]
    heading.click()
    assert names.all_text_contents() == ["one", "two", "four", "three"]
    page.get_by_role("button", name="run", exact=True).click()
    assert names.all_text_contents() == ["four", "one", "three", "two"]
    assert page.locator("tbody img").count() == 4 * 4
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
