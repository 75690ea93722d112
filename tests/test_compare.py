"""Runs side by side: what the tables say is what the runs hold and what `cyclegan evaluate` finds."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cyclegan.cli import main
from cyclegan.reporting.comparison import tables, write_comparison
from cyclegan.training.train import train


def call(*args):
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    return caught.value.code


class Reader(HTMLParser):
    """Rows of all tables, pictures, and whatever the page would fetch."""

    def __init__(self):
        super().__init__()
        self.rows, self.images, self.alts, self.fetched, self.cell = [], [], [], [], None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True
        elif tag == "img":
            self.images.append(attrs["src"])
            self.alts.append(attrs["alt"])
        self.fetched += [
            attrs[key] for key in ("src", "href") if not attrs.get(key, "data:").startswith("data:")
        ]

    def handle_endtag(self, tag):
        self.cell = None if tag in ("td", "th") else self.cell

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_two_runs_side_by_side(tiny, here, capsys):
    for name, lr in (("one", 1e-3), ("two", 1e-2)):
        train(tiny(run_dir=here / "runs" / name, steps=2, log_every=1, optimizer={"lr": lr}))
    assert call("compare", "runs/one", "runs/two", "--json", "--pictures", "2") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((here / "comparison" / "compare.json").read_text()) == {
        key: value for key, value in facts.items() if key != "output"
    }
    assert facts["settings_that_differ"] == ["optimizer.lr"]
    assert [run["settings"] for run in facts["runs"]] == [{"optimizer.lr": 1e-3}, {"optimizer.lr": 1e-2}]
    assert [(run["steps"], run["images_seen"]) for run in facts["runs"]] == [(2, 4), (2, 4)]
    assert all(run["images_per_s"] > 0 and run["minutes"] > 0 for run in facts["runs"])
    assert call("evaluate", "runs/two", "--direction", "BtoA", "--json") == 0
    alone = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]
    beside = facts["runs"][1]["figures"]["BtoA"]["metrics"]
    assert beside == {name: alone[name] for name in beside} and "kid_vgg19" in beside

    reader = Reader()
    reader.feed(page := (here / "comparison" / "compare.html").read_text())
    assert reader.fetched == [] and "url(" not in page and "@import" not in page
    rows = {row[0]: row[1:] for row in reader.rows}
    assert rows["optimizer.lr"] == ["0.001", "0.01"]
    text = (here / "comparison" / "compare.md").read_text()
    for run in facts["runs"]:
        found = run["figures"]["BtoA"]["metrics"]["fid_vgg19"]
        assert f"{found['value']:.4g}" in rows["fid_vgg19 ↓"] and f"{found['value']:.4g}" in text
    assert rows["fid_vgg19 ↓"][2:] == [f"{found[key]:.4g}" for key in ("inputs", "target_train")]
    # The page's picture is the file's: 2 rows; input, truth and both runs; tiles of 32 px enlarged to 128.
    grid = Image.open(here / "comparison" / "grid-AtoB.png")
    assert grid.size == (4 * 134 - 6 + 12, 28 + 2 * 134 + 6)
    embedded = Image.open(io.BytesIO(base64.b64decode(reader.images[0].split(",")[1])))
    np.testing.assert_array_equal(np.asarray(embedded), np.asarray(grid))
    assert "run 2 is two" in reader.alts[0]
    columns = [np.asarray(grid)[28:156, 6 + i * 134 :][:, :128].astype(int) for i in range(4)]
    assert np.abs(columns[2] - columns[3]).mean() > 1, "both runs give the same picture"


def facts_of(values, better="lower", inputs=(1.0, 1.0)):
    runs = [
        {"name": f"<{n}> | b", "run": "r", "minutes": None, "images_per_s": 2.5, "steps": 1200, "images_seen": 5,
         "settings": {"generator.name": "resnet"},
         "figures": {"AtoB": {"images": 9, "size": 32, "metrics": {"ssim": {
             "value": value, "interval": None, "inputs": i, "target_train": 0.5, "best": 1.0, "better": better}}}}}
        for n, (value, i) in enumerate(zip(values, inputs, strict=True))
    ]  # fmt: skip
    return {"data": "d", "best": True, "note": "n.", "settings_that_differ": ["generator.name"], "runs": runs}


@pytest.mark.parametrize(
    ("better", "expected"), [("lower", [True, False]), ("higher", [False, True]), ("neither", [False, False])]
)
def test_the_best_of_a_row_stands_out(better, expected):
    row = tables(facts_of([0.25, 0.5], better))[-1][2][0]
    assert [best for _, best in row[1:]] == [*expected, False, False]


def test_anchors_that_differ_are_given_by_run():
    row = tables(facts_of([0.25, 0.5], inputs=(1.0, 2.0)))[-1][2][0]
    assert [text for text, _ in row[3:]] == ["by run", "by run"]
    assert row[2][0] == "0.5\n[inputs 2, train 0.5]"


def test_names_are_text_and_not_markup(tmp_path):
    page, text, _ = write_comparison(tmp_path, facts_of([0.25, 0.5]), {})
    assert "<0>" not in page.read_text() and "&lt;0&gt; | b" in page.read_text()
    row = next(line for line in text.read_text().splitlines() if line.startswith("| name"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert "unknown" in text.read_text() and "1,200" in text.read_text()


def test_what_cannot_be_compared_is_said(tiny, here, capsys):
    (here / "empty").mkdir()
    for words, message in (
        (["compare"], "required"),
        (["compare", "empty"], "empty: has no config.yaml; name the folders of runs"),
    ):
        status = call(*words)
        error = capsys.readouterr().err
        assert status == 2 and error.count("\n") == 1 and (message in error or "name one run" in error)
    for name in ("cats", "dogs"):
        train(tiny(run_dir=here / name, steps=1, domain=name))
    assert call("compare", "cats", "dogs") == 2
    assert "dogs: is of the domain dogs, cats of cats; compare runs of one domain" in capsys.readouterr().err
