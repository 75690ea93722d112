"""The commands as users call them: what they print, and with which status they end."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from cyclegan.cli import VERBS, _compute_as_alone, main
from cyclegan.recipes import project_files, to_yaml
from cyclegan.reporting.report.figures import newest
from cyclegan.reporting.report.folder import read_run


def call(capsys, *args):
    """Exit status, standard output, standard error."""
    try:
        main(list(args))
        status = 0
    except SystemExit as error:
        status = error.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_overview_names_every_command(capsys):
    status, out, _ = call(capsys, "--help")
    assert status == 0
    for verb in VERBS:
        assert f"cyclegan {verb} " in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help(capsys, verb):
    status, out, _ = call(capsys, verb, "--help")
    assert status == 0
    assert "--json" in out


# rich, which prints the tables, ends with 1.
@pytest.mark.parametrize(
    ("words", "status"), [("--help", 0), ("--version", 0), ("data list", 1), ("train --help", 0)]
)
def test_a_reader_who_goes_away_gets_no_stack_trace(words, status):
    """As ``head`` does."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "cyclegan", *words.split()]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(writing)
    assert (done.returncode, done.stderr) == (status, "")


def test_the_settings_people_change_most_have_short_names(capsys):
    _, out, _ = call(capsys, "train", "--help")
    short = "--steps --epochs --minutes --batch-size --size --precision --seed --tracker --run-dir --resume --dry-run"
    for option in short.split():
        assert option in out


def test_train_translate_evaluate(tiny, here, small_domain, capsys):
    (here / "mine.yaml").write_text(to_yaml(tiny()))
    status, out, _ = call(capsys, "train", "mine.yaml", "--steps", "3")
    assert status == 0
    *_, grid, command = out.strip().splitlines()
    assert grid.startswith("Grid: runs/") and (here / grid.removeprefix("Grid: ")).exists()
    words = command.removeprefix("Translate a folder: ").split()
    generator = words[words.index("translate") + 1]
    # The printed command works as it is, with the two folders filled in.
    target = here / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cyclegan",
            "translate",
            generator,
            str(small_domain / "testA"),
            str(target),
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said.pop("backend") == "torch" and said.pop("precision") in ("fp32", "bf16")
    assert said.pop("images_per_s") > 0
    assert said == {"translated": 6, "kept": 0, "failed": {}, "output": str(target)}
    status, out, _ = call(capsys, "evaluate", generator, "--json")
    assert status == 0
    report = json.loads(out)
    # Truth, content, collapse and copying; G_BA lies beside it, so the cycle as well.
    assert {"kid_vgg19", "fid_vgg19", "psnr_to_truth", "vgg19_distance_to_truth", "cycle_l1", "colour_shift",
            "vgg19_pairwise_distance", "vgg19_nearest_train"} <= set(report["metrics"])  # fmt: skip
    for figure in report["metrics"].values():
        assert {"value", "interval", "inputs", "target_train", "best", "better"} <= set(figure)
    # What was found is kept beside the weights, and in the model card, which shows examples as well.
    assert json.loads((here / generator / "metrics.json").read_text())["metrics"] == report["metrics"]
    card = (here / generator / "README.md").read_text()
    assert f"{report['metrics']['fid_vgg19']['value']:.4g} |" in card and "(examples.png)" in card
    status, out, _ = call(
        capsys, "evaluate", str(here / generator).rsplit("/generators", 1)[0], "--direction", "BtoA"
    )
    assert status == 0 and "untranslated" in out and "only KID can be compared" in " ".join(out.split())
    assert "vgg19_style_distance_to_truth" in out and "…" not in out
    # The run's report was written anew, with what training itself leaves out; what judges and what only
    # describes stays told apart, and figures on other pictures are not taken for this run's.
    run = (here / generator).parents[1]
    assert "vgg19_distance_to_input" in (run / "report.html").read_text()
    figures = {figure.name: figure for figure in newest(read_run(run).evaluations)[0].figures}
    assert figures["vgg19_distance_to_truth"].floor == 0 and figures["l1_to_truth"].way is not None
    assert figures["colour_shift"].way is None and not figures["vgg19_nearest_train"].judges
    call(capsys, "evaluate", generator, "--data", str(shutil.copytree(small_domain, here / "others")))
    assert [judged.direction for judged in newest(read_run(run).evaluations)] == ["BtoA"]


def test_a_bad_file_gives_status_1_and_the_others_are_done(tiny, here, small_domain, capsys):
    from cyclegan.training.train import train

    result = train(tiny(steps=1))
    (here / "in").mkdir()
    (here / "in" / "bad.png").write_text("x")
    (here / "in" / "good.png").write_bytes(next((small_domain / "testA").iterdir()).read_bytes())
    status, out, err = call(capsys, "translate", str(result.run.generator("G_AB")), "in", "out")
    assert status == 1
    assert re.fullmatch(
        r"Translated 1 of 2 images into out at \S+ (images/s|s an image), 1 could not be \(see above\).\n",
        out,
    )
    assert "in/bad.png: is not a JPEG" in err


def test_a_dry_run_prints_settings_that_give_themselves(here, capsys):
    status, out, _ = call(
        capsys, "train", "photo2monet", "--dry-run", "--size", "128", "--augment.load-size", "143"
    )
    assert status == 0
    (here / "again.yaml").write_text(out)
    assert call(capsys, "train", "again.yaml", "--dry-run")[1] == out
    assert "size: 128" in out
    assert json.loads(call(capsys, "train", "photo2monet", "--dry-run", "--json")[1])["size"] == 256


@pytest.mark.parametrize("method", ["cyclegan", "cut", "fastcut"])
@pytest.mark.parametrize("recipe", sorted(project_files("experiments")))
def test_every_recipe_goes_with_every_method(recipe, method, capsys):
    status, out, err = call(capsys, "train", recipe, "--method", method, "--dry-run")
    assert (status, err) == (0, "") and f"method: {method}" in out


def test_data_list(capsys):
    assert "photo2monet" in call(capsys, "data", "list")[1]
    listed = json.loads(call(capsys, "data", "list", "--json")[1])["domains"]
    assert len(listed) >= 14
    assert all(entry["a"]["licence"] for entry in listed)


MISTAKES = {
    "trian": "cyclegan: there is no command 'trian'; did you mean 'train'?",
    "train nowhere": "cyclegan train: nowhere: there is no such domain",
    "train horse2zebra --generator.block 3": "unknown option --generator.block; did you mean '--generator.blocks'?",
    "train horse2zebra --generator.name unett": "generator.name: there is no 'unett'; did you mean 'unet'?",
    "train horse2zebra --generator.name unet --generator.blocks 9": "generator.blocks: the generator 'unet' has no such setting",
    "train horse2zebra --size 130": "size: must be a multiple of 4 for the generator 'resnet', not 130",
    "train horse2zebra --losses.adversarial gan": "losses.adversarial: there is no 'gan'",
    "train horse2zebra --resume": "has no checkpoint to resume from; train without --resume",
    "train --steps 3": "no data: name a DOMAIN",
    "train --data.root nowhere": "nowhere/trainA: no such folder",
    "translate a b": "cyclegan translate: Missing from cyclegan translate",
    "translate a b c d": "there is no argument 'd'",
    "translate a b c": "b: no such folder",
    "translate a b c --quality 300": "quality: must be 1 to 100, not 300",
    "translate a b c --size 3": "size: must be 16 or more, not 3",
    "convert nowhere.pth out": "cyclegan convert: nowhere.pth: cannot be read (No such file or directory)",
    "convert nowhere.pth out --size 3": "--size: must be 16 or more, not 3",
    "convert nowhere.pth out --paddings zero": "unknown option --paddings; did you mean '--padding'?",
    "evaluate nowhere": "nowhere/generators/G_AB: no such folder",
    "data fetch": "'fetch' is none of",
    "data prepare": "prepare: name a DOMAIN",
    "data prepare hors2zebra": "there is no data/hors2zebra.yaml; did you mean 'horse2zebra'?",
    "data verify horse2zebra": "datasets/horse2zebra: is not prepared",
    "data prepare cityscapes": "cityscapes: The licence does not allow",
    "data audit": "audit: name a DOMAIN ('cyclegan data list' shows them) or a FOLDER",
    "data audit nowhere": "nowhere: no such domain or folder",
    "data audit . --require-license CC-BY": "'CC-BY' is no SPDX identifier (https://spdx.org/licenses); did you mean 'CC-BY-4.0'?",
    "data list --require-license CC0-1.0": "--require-license: goes with audit, not with list",
    "train --data.root x --require-license cc0": "'cc0' is no SPDX identifier (https://spdx.org/licenses); did you mean 'CC0-1.0'?",
    "train --data.root x --require-license ,": "require_license: name one licence or more",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_get_one_line_and_status_2(words, here, capsys):
    status, out, err = call(capsys, *words.split())
    assert status == 2
    assert MISTAKES[words] in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3"}),  # a user's own wish
        (
            {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"},
            {"WORLD_SIZE": "2", "OMP_WAIT_POLICY": "passive"},
        ),
        (
            {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"},
            {"ACCELERATE_MIXED_PRECISION": "no"},
        ),
    ],
)
def test_a_launcher_does_not_decide_on_the_threads_that_compute_a_folder(given, left):
    _compute_as_alone(given)
    assert given == left


def test_a_recipe_gives_up_what_another_network_has_no_setting_for(capsys):
    """Which of a recipe's networks' settings fit another one nobody need know."""
    for words, name, lost in (
        ("noto2twemoji --generator.name unet", "unet", "generator.blocks"),
        ("horse2zebra --discriminator.name=pixel", "pixel", "discriminator.layers"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["train", *words.split(), "--dry-run"])
        said = capsys.readouterr()
        assert ended.value.code == 0 and lost in said.err and "left out" in said.err
        assert f"name: {name}" in said.out
