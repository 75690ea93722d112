"""Trackers, by what they wrote: read back with their own readers, or by their own records."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from poison import poison
from wandb_file import offline_files, read_wandb
from wandb_server import WandbServer

from cyclegan.config import TrainSettings
from cyclegan.datasets.cards import card_digest, load_card
from cyclegan.errors import BadInput
from cyclegan.evaluation.evaluate import Judge
from cyclegan.evaluation.held_out import HeldOut
from cyclegan.images import read_image
from cyclegan.recipes import to_yaml
from cyclegan.reporting.held_out import COLUMNS, Comparison, held_out_rows, means
from cyclegan.reporting.wandb_run import goal_of, wandb_mode
from cyclegan.training import command, loop, watch
from cyclegan.training.command import settings_from
from cyclegan.training.outcome import TrainingFailed
from cyclegan.training.sampling import diversity
from cyclegan.training.train import train

TRACK = Path(__file__).parent / "fixtures" / "track.py"


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@contextlib.contextmanager
def stopped_at(monkeypatch, call):
    """A power cut in the middle of that step."""
    plain, calls = loop.TrainingStep.__call__, []

    def cut(self, *args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(loop.TrainingStep, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        yield
    monkeypatch.setattr(loop.TrainingStep, "__call__", plain)


@pytest.fixture
def with_card(monkeypatch):
    """Small runs pass for runs on the default domain, whose card they carry."""
    plain = loop.open_domain

    def carded(settings):
        card, digest = load_card("noto2twemoji"), card_digest("noto2twemoji")
        return dataclasses.replace(plain(settings), name="noto2twemoji", card=card, digest=digest)

    monkeypatch.setattr(loop, "open_domain", carded)
    return card_digest("noto2twemoji")


def test_an_offline_wandb_run_holds_all_of_it(tiny, monkeypatch, with_card):
    monkeypatch.setenv("WANDB__STATS_SAMPLING_INTERVAL", "0.1")
    result = train(
        tiny(tracker="wandb", samples__every=2, tracking={"group": "g", "tags": ["x", "y"], "notes": "why"})
    )
    run = result.run.folder
    (file,) = offline_files(run)
    assert result.upload == f"wandb sync {file.parent}"
    found = read_wandb(file)
    assert (found.group, found.tags, found.notes, found.exit_code) == ("g", ["x", "y"], "why", 0)
    assert found.config["size"] == 32
    assert found.config["optimizer"]["lr"] == 2e-4
    assert found.config["data_card_sha256"] == with_card
    assert found.config["data_card"]["a"]["licence"] == "Apache-2.0"

    numbers = [row for row in found.rows if "cycle_a" in row]
    for line, row in zip(lines(run), numbers, strict=True):
        assert {key: row[key] for key in line} == line
    assert set(numbers[0]) >= {f"gradient_norm_{name}" for name in ("G_AB", "G_BA", "D_A", "D_B")}
    assert [row["_step"] for row in found.rows] == list(range(len(found.rows)))

    cycle = found.metrics["cycle_a"]
    assert (cycle.step_metric, cycle.summary.min, cycle.summary.last) == ("images_seen", True, True)
    assert found.metrics["images_per_s"].summary.max
    assert found.metrics["*"].step_metric == "images_seen"
    values = [line["cycle_a"] for line in lines(run)]
    assert found.summary["cycle_a"] == {"min": min(values), "last": values[-1]}

    samples = [row for row in found.rows if "samples" in row]
    assert [row["images_seen"] for row in samples] == [4, 8]
    for row in samples:
        kept = file.parent / "files" / row["samples"]["filenames"][0]
        drawn = run / "samples" / f"step-{row['step']:08d}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(kept)), np.asarray(Image.open(drawn)))
        assert "rec" in row["samples"]["captions"][0]
    assert found.system


def judge_files(translated, domain):
    """The figures of pictures as they are, beside the true pictures of the same names."""
    truths = [domain / "testB" / path.name for path in sorted(translated.iterdir())]
    train_b = sorted((domain / "trainB").iterdir())
    data = HeldOut(sorted(translated.iterdir()), truths, train_b, 32, 3, (255, 255, 255), paired=True)
    return {figure.name: figure.value for figure in Judge(data, torch.device("cpu"))(lambda images: images)}


def test_the_table_and_the_artifacts_of_an_offline_run(tiny, with_card, small_domain):
    result = train(tiny(tracker="wandb", samples__translate=6))
    (file,) = offline_files(result.run.folder)
    found = read_wandb(file)
    (row,) = [row for row in found.rows if "held_out/AtoB" in row]
    table = json.loads((file.parent / "files" / row["held_out/AtoB"]["path"]).read_text())
    assert table["columns"] == list(COLUMNS)
    assert len(table["data"]) == 6
    # `cyclegan evaluate` judges those very files, as held-out images that a generator leaves as they are.
    judged = judge_files(result.run.folder / "translated" / "AtoB", small_domain)
    values = [row[table["columns"].index("vgg19_distance_to_truth")] for row in table["data"]]
    assert np.mean(values) == pytest.approx(judged["vgg19_distance_to_truth"], rel=1e-4)
    changes = [row[table["columns"].index("vgg19_distance_to_input")] for row in table["data"]]
    assert all(value > 0 for value in changes)
    by_type = {}
    for artifact in found.artifacts:
        by_type.setdefault(artifact.type, []).append(artifact)
    # The table's pictures lie beside it in an artifact of its own.
    entries = by_type["run_table"][0].manifest.contents
    shown = [entry.local_path for entry in entries if entry.path.endswith(".png")]
    for row in table["data"]:
        translated = read_image(result.run.folder / "translated" / "AtoB" / row[0]).pixels  # on white
        pictures = (np.asarray(Image.open(path)) for path in shown)
        assert any(np.array_equal(picture, translated) for picture in pictures)
    (card,) = by_type["dataset"]
    assert (card.name, card.use_after_commit) == ("noto2twemoji-card", True)
    assert json.loads(card.metadata)["sha256"] == with_card
    assert sorted(a.name for a in by_type["model"]) == ["noto2twemoji-G_AB", "noto2twemoji-G_BA"]
    for artifact in by_type["model"]:
        assert not artifact.use_after_commit
        about = json.loads(artifact.metadata)
        assert (about["card_sha256"], about["images_seen"]) == (with_card, 8)
        names = {entry.path for entry in artifact.manifest.contents}
        assert names == {"model.safetensors", "config.json", "README.md", "examples.png"}
        # What waits for its upload lies in the run's folder.
        assert all(str(result.run.folder.absolute()) in e.local_path for e in artifact.manifest.contents)


@pytest.mark.parametrize("tracker", ["wandb", "wandb,tensorboard"])
def test_a_resumed_run_is_one_wandb_run_with_each_step_once(tiny, here, monkeypatch, tracker):
    changes = {"steps": 12, "tracker": tracker, "samples__every": 3, "checkpoint__every": 4}
    with stopped_at(monkeypatch, 8):  # steps 5 to 7 are told, and lost with the checkpoint at 4
        train(tiny(run_dir=here / "run", **changes))
    result = train(tiny(resume=str(here / "run"), **changes))
    first, second = offline_files(here / "run")
    assert result.upload == f"wandb sync {first.parent} {second.parent}"
    one, other = read_wandb(first), read_wandb(second)
    assert one.run_id == other.run_id
    assert one.exit_code == 1
    rows = one.rows + other.rows
    assert [row["step"] for row in rows if "cycle_a" in row] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows if "samples" in row] == [3, 6, 9, 12]
    # W&B refuses a row below the last one, which is what it would see on their upload.
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    # The later row comes from the checkpoint on: as metrics.jsonl, which was cut back to it.
    logged = {row["step"]: row["cycle_a"] for row in rows if "cycle_a" in row}
    kept = {line["step"]: line["cycle_a"] for line in lines(here / "run")}
    assert list(kept) == [2, 4, 6, 8, 10, 12]
    assert logged == pytest.approx(kept, rel=1e-4)


def test_tensorboard_reads_each_step_once_after_a_resume(tiny, here, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"steps": 12, "tracker": "tensorboard", "samples__every": 3, "checkpoint__every": 4}
    with stopped_at(monkeypatch, 8):
        train(tiny(run_dir=here / "run", **changes))
    train(tiny(resume=str(here / "run"), **changes))
    events = EventAccumulator(str(here / "run" / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    read = {event.step: event.value for event in events.Scalars("cycle_a")}
    assert len(events.Scalars("cycle_a")) == 6
    assert read == pytest.approx({line["step"]: line["cycle_a"] for line in lines(here / "run")})
    pictures = events.Images("samples")
    assert [picture.step for picture in pictures] == [3, 6, 9, 12]
    drawn = Image.open(here / "run" / "samples" / "step-00000012.png")
    assert (pictures[-1].width, pictures[-1].height) == drawn.size
    # The settings, as TensorBoard's HPARAMS page takes them; once.
    assert len(list((here / "run" / "tensorboard").glob("*/hparams.yml"))) == 1


@pytest.mark.slow
def test_trackio_reads_each_step_once_after_a_resume(tiny, here, small_domain, tmp_path):
    """Numbers, settings, grids, and an alert: of a held-out picture that is in training too."""
    pictures = Path(shutil.copytree(small_domain, here / "pictures"))
    shutil.copy(min((pictures / "trainA").iterdir()), pictures / "testA" / "twin.png")
    changes = {"steps": 6, "tracker": "trackio", "checkpoint__every": 4, "project": "here"}
    (here / "mine.yaml").write_text(to_yaml(tiny(**changes, samples__every=2, data__root=pictures)))
    # trackio takes its folder from the environment when it is imported.
    place = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    for words in (["mine.yaml", "--run-dir", "run"], ["--resume", "run", "--steps", "10"]):
        in_a_process("-m", "cyclegan", "train", *words, cwd=here, **place)
    read = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage\n"
        "(run,) = trackio.Api().runs('here')\n"
        "logs, alerts = SQLiteStorage.get_logs('here', run.name), SQLiteStorage.get_alerts('here')\n"
        "print(json.dumps([logs, alerts, run.config]))"
    )
    done = in_a_process("-c", read, cwd=here, **place)
    history, alerts, config = json.loads(done.stdout.splitlines()[-1])
    numbers = {row["step"]: row["cycle_a"] for row in history if "cycle_a" in row}
    assert numbers == pytest.approx({line["step"]: line["cycle_a"] for line in lines(here / "run")})
    assert Counter(row["step"] for row in history if "cycle_a" in row).most_common(1)[0][1] == 1
    assert config["optimizer.lr"] == 2e-4
    grids = {row["step"]: row["samples"]["file_path"] for row in history if "samples" in row}
    assert list(grids) == [2, 4, 6, 8, 10]
    (shown,) = (tmp_path / "trackio").rglob(Path(grids[10]).name)
    drawn = here / "run" / "samples" / "step-00000010.png"
    assert np.array_equal(*(np.asarray(Image.open(path).convert("RGB")) for path in (shown, drawn)))
    assert {alert["title"] for alert in alerts} == {"Twins"}


class Broken:
    """What a tracker's class does when its server is gone."""

    def __init__(self, *_, **__):
        pass

    def start(self):
        pass

    def store_init_configuration(self, values):
        pass

    def log(self, values, step):
        raise ConnectionError("no route\nto host")

    def finish(self):
        raise ConnectionError("still none")


@pytest.mark.parametrize("part", ["start", "log"])
def test_training_never_stops_for_a_tracker(tiny, monkeypatch, capsys, part):
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if part == "start":
        monkeypatch.setattr(Broken, "start", Broken.finish)
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "swanlab", Broken)
    monkeypatch.setattr("cyclegan.reporting.trackers.find_spec", lambda module: True)
    result = train(tiny(steps=10, tracker="swanlab,tensorboard"))
    assert result.step == 10
    assert list((result.run.folder / "tensorboard").glob("events*"))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("swanlab")]
    expected = {
        "start": ["swanlab did not start (still none)"],
        "log": [
            "swanlab could not take numbers (no route to host)",
            "swanlab failed 3 times in a row",
            "swanlab did not close (still none)",
        ],
    }[part]
    for line, beginning in zip(said, expected, strict=True):
        assert line.startswith(beginning)


def in_a_process(*words, cwd, **environment):
    """A command of Python's in a process of its own, for wandb reads its environment once."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


def test_an_unreachable_server_leaves_an_offline_run(here):
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "k" * 40, "WANDB_MODE": "online"}
    done = in_a_process(TRACK, "run", "wandb", 0, 3, cwd=here, **away, WANDB_INIT_TIMEOUT="2")
    (file,) = offline_files(here / "run")
    assert [row["step"] for row in read_wandb(file).rows] == [1, 2, 3]
    assert "wandb: no server (" in done.stderr
    assert done.stdout.split() == ["wandb", "sync", f"run/wandb/{file.parent.name}"]


@pytest.mark.slow
def test_wandb_itself_uploads_the_pieces_of_a_resumed_run_as_one(tiny, here, monkeypatch, with_card):
    """`wandb sync`, as the run's last line says it, to a server that keeps what it is sent."""
    changes = {"steps": 12, "tracker": "wandb", "samples__every": 3, "checkpoint__every": 4}
    with stopped_at(monkeypatch, 8):
        train(tiny(run_dir=here / "run", **changes))
    result = train(tiny(resume=str(here / "run"), **changes))
    for file in offline_files(here / "run"):
        read_wandb(file)  # waits for its end
    with WandbServer() as server:
        in_a_process("-m", *result.upload.split(), cwd=here, **server.environment())
    (run_id,) = server.rows
    rows = server.history(run_id)
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert [row["step"] for row in rows if "cycle_a" in row] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows if "samples" in row] == [3, 6, 9, 12]
    assert all("images_seen" in row for row in rows)
    assert server.configs[run_id]["optimizer"]["value"]["lr"] == 2e-4
    assert server.summaries[run_id]["cycle_a"]["last"] == lines(here / "run")[-1]["cycle_a"]
    sent = {made["artifactCollectionName"]: made for made in server.artifacts}
    assert {"noto2twemoji-card", "noto2twemoji-G_AB", "noto2twemoji-G_BA"} <= set(sent)
    names = [made["artifactCollectionName"] for made in server.artifacts]
    assert server.used == [f"artifact{names.index('noto2twemoji-card') + 1}"]  # the run's input
    weights = (here / "run" / "generators" / "G_AB" / "model.safetensors").read_bytes()
    assert weights in server.files.values()


def test_an_online_run_goes_on_on_its_server(here):
    with WandbServer() as server:
        for begin, end in ((0, 6), (4, 9)):  # told up to 6, gone on from a checkpoint at 4
            done = in_a_process(TRACK, "run", "wandb", begin, end, cwd=here, **server.environment())
            assert done.stdout.splitlines()[-1] == "None"
    (run_id,) = server.rows
    assert [(row["_step"], row["step"]) for row in server.history(run_id)] == [(i, i + 1) for i in range(9)]


@pytest.mark.slow
def test_a_key_refused_on_the_way_does_not_stop_training(tiny, here):
    (here / "mine.yaml").write_text(to_yaml(tiny(steps=20, tracker="wandb")))
    with WandbServer(refuse_after=1) as server:
        words = ("-m", "cyclegan", "train", "mine.yaml", "--run-dir", "run")
        done = in_a_process(*words, cwd=here, **server.environment())
        assert len(lines(here / "run")) == 10
        assert not server.rows
    (command,) = [line for line in done.stdout.splitlines() if "wandb sync" in line]
    command = command[command.index("wandb sync") :]
    with WandbServer() as server:
        in_a_process("-m", *command.split(), cwd=here, **server.environment())
    (run_id,) = server.rows
    assert [row["step"] for row in server.history(run_id) if "cycle_a" in row] == list(range(2, 21, 2))


def test_nan_sends_alerts_and_marks_the_run_failed(tiny, monkeypatch, here):
    poison(monkeypatch)
    with pytest.raises(TrainingFailed):
        train(tiny(tracker="wandb", run_dir=here / "run", numbers={"refused": 2}))
    found = read_wandb(offline_files(here / "run")[0])
    assert [alert.title for alert in found.alerts] == ["NaN", "NaN", "The run ended"]
    assert "step 1 was not applied" in found.alerts[0].text
    assert "NaN or infinite in 2 steps in a row" in found.alerts[-1].text
    assert found.exit_code == 1


def test_collapse_sends_an_alert(tiny, monkeypatch, here):
    monkeypatch.setattr(watch, "LONG", 0)
    monkeypatch.setattr(watch, "ALIKE", 1e9)
    train(tiny(tracker="wandb", run_dir=here / "run", samples__count=4))
    found = read_wandb(offline_files(here / "run")[0])
    assert [alert.title for alert in found.alerts] == ["G_AB collapsed", "G_BA collapsed"]


def test_diversity_is_the_ratio_of_mean_distances_in_pairs():
    draw = torch.Generator().manual_seed(0)
    real = torch.rand(4, 3, 8, 8, generator=draw)
    fake = torch.rand(4, 3, 8, 8, generator=draw) ** 3

    def apart(images):
        return np.mean([float((x - y).norm()) for i, x in enumerate(images) for y in images[:i]])

    assert diversity(real, fake) == pytest.approx(apart(fake) / apart(real), rel=1e-5)
    assert diversity(real, fake[:1].expand(4, -1, -1, -1)) == 0
    assert diversity(real[:1], fake[:1]) == 1


def test_an_evaluation_goes_up_with_its_anchors_and_goals(tiny, here):
    from accelerate import Accelerator

    from cyclegan.reporting.tracking import Tracking

    tracking = Tracking(Accelerator(cpu=True), tiny(tracker="wandb"), here / "run")
    (here / "run").mkdir()
    tracking.start("name", {}, 0, None)
    figure = {"value": 0.04, "interval": [0.03, 0.05], "inputs": 0.1, "target_train": 0.001}
    for step in (10, 20, 20):  # the second 20 is a repetition
        metrics = {"kid_vgg19": figure, "psnr": {**figure, "value": 20.0, "interval": None}}
        line = {"step": step, "images_seen": 2 * step, "direction": "AtoB", "metrics": metrics}
        tracking.log_evaluation(line, step)
    tracking.finish()
    found = read_wandb(offline_files(here / "run")[0])
    assert [row["step"] for row in found.rows] == [10, 20]
    row = found.rows[0]
    assert (row["AtoB/kid_vgg19"], row["AtoB/kid_vgg19/low"], row["AtoB/kid_vgg19/inputs"]) == (
        0.04,
        0.03,
        0.1,
    )
    assert found.metrics["AtoB/kid_vgg19"].summary.min and found.metrics["AtoB/psnr"].summary.max
    assert "AtoB/kid_vgg19/inputs" not in found.metrics


GOALS = {"cycle_a": "min", "AtoB/kid_vgg19": "min", "BtoA/psnr": "max", "AtoB/ssim": "max", "lr_G": None,
         "images_seen": None, "gradient_norm_D_A": None, "AtoB/diversity": "max", "AtoB/psnr/inputs": None,
         "AtoB/colour_shift": None, "BtoA/vgg19_nearest_train": None, "AtoB/vgg19_distance_to_truth": "min"}  # fmt: skip


def test_goals():
    assert {name: goal_of(name) for name in GOALS} == GOALS


def test_per_image_figures_against_their_formulas(tmp_path):
    draw = np.random.default_rng(0)
    files = {}
    for name in ("source", "translated", "truth"):
        files[name] = draw.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(files[name]).save(tmp_path / f"{name}.png")
    comparison = Comparison(*(tmp_path / f"{name}.png" for name in files))
    alone = dataclasses.replace(comparison, truth=None)
    rows = list(held_out_rows([comparison, alone], 3, (255, 255, 255)))
    row = dict(zip(COLUMNS, rows[0], strict=True))
    x, y, z = (files[name] / 255 for name in files)
    assert row["change_l1"] == pytest.approx(np.abs(y - x).mean())
    assert row["colour_shift"] == pytest.approx(math.dist(y.mean((0, 1)), x.mean((0, 1))))
    assert row["truth_l1"] == pytest.approx(np.abs(y - z).mean())
    assert row["truth_psnr"] == pytest.approx(20 * math.log10(1 / math.sqrt(((y - z) ** 2).mean())))
    assert row["input_truth_l1"] == pytest.approx(np.abs(x - z).mean())
    assert rows[1][3] is None and rows[1][6:] == [None] * 5 and rows[0][9:] == [None, None]

    def distance(p, q):
        """Given pixels as files have them."""
        assert p.dtype == q.dtype == np.uint8
        return 100 * np.abs(p / 255 - q / 255).mean()

    judged = held_out_rows([comparison, alone], 3, (255, 255, 255), distance)
    assert [row[9:] for row in judged] == [
        pytest.approx([100 * row["change_l1"], 100 * row["truth_l1"]]),
        [pytest.approx(100 * row["change_l1"]), None],
    ]
    assert means(rows)["truth_l1"] == pytest.approx(row["truth_l1"])
    same = dataclasses.replace(comparison, truth=comparison.translated)
    assert (
        dict(zip(COLUMNS, next(held_out_rows([same], 3, (255, 255, 255))), strict=True))["truth_psnr"] == 100
    )


def test_gradient_norms_are_those_of_the_loss_with_and_without_a_scaler(monkeypatch):
    """The norm of the generators' gradient, from autograd on the objective itself."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from cyclegan.training.gradients import gradient_norms

    settings = TrainSettings(
        batch_size=2,
        size=32,
        generator={"filters": 4, "blocks": 1},
        discriminator={"filters": 4, "layers": 2},
    )
    real_a, real_b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = {"real_a": real_a, "real_b": real_b, "position": torch.arange(2)}
    found = []
    for scale in (None, 1024.0):
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True)
        if scale:
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        step = loop.TrainingStep(settings, accelerator)
        networks = step.networks
        for name in ("D_A", "D_B"):
            networks[name].requires_grad_(False)
        total = step.objective_G(batch, networks)[0]
        parameters = list(networks["G_AB"].parameters())
        gradients = torch.autograd.grad(total, parameters)
        expected = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        step([batch], 1.0)
        norms = gradient_norms(step)
        assert set(norms) == {f"gradient_norm_{name}" for name in networks}
        assert norms["gradient_norm_G_AB"] == pytest.approx(expected, rel=1e-4)
        found.append(norms)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


TRACKERS = {
    "--tracker wandb tensorboard": ("wandb", "tensorboard"),
    "--tracker wandb,tensorboard": ("wandb", "tensorboard"),
    "--tracker=tensorboard,wandb,wandb": ("tensorboard", "wandb"),
    "--tracker none": (),
    "": ("wandb",),
}


@pytest.mark.parametrize("words", TRACKERS)
def test_one_or_several_trackers_and_a_domain_after_them(words):
    settings, _ = settings_from([*words.split(), "horse2zebra"])
    assert settings.trackers == TRACKERS[words]
    assert settings.domain == "horse2zebra"


def test_a_recipe_may_list_trackers_and_keeps_them(here):
    (here / "mine.yaml").write_text("domain: noto2twemoji\ntracker: [wandb, tensorboard]\n")
    settings, _ = settings_from(["mine.yaml"])
    (here / "again.yaml").write_text(to_yaml(settings))
    assert settings_from(["again.yaml"])[0].trackers == ("wandb", "tensorboard")


MISTAKES = {
    "wandbb": "tracker: there is no 'wandbb'; did you mean 'wandb'?",
    "wandb,none": "there is no 'none'",
    "comet_ml": "tracker: comet_ml is not installed; pip install comet-ml",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_tracker_that_cannot_be_had_is_named_with_its_package(name, tiny, here):
    for call in (
        lambda: settings_from(["horse2zebra", "--tracker", name]),
        lambda: train(tiny(tracker=name)),
    ):
        with pytest.raises(BadInput) as caught:
            call()
        assert MISTAKES[name] in str(caught.value)
    assert not (here / "runs").exists()


def test_without_an_account_wandb_stays_offline(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


SWEEP = Path(__file__).resolve().parent.parent / "experiments" / "sweep.yaml"


@pytest.mark.parametrize("end", [0, -1])
def test_the_sweep_gives_a_command_line_that_trains_with_its_values(end, here):
    """The agent's own code writes the words; `--dry-run` says what they mean."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load(SWEEP.read_text())
    chosen = {
        name: space["values"][end] if "values" in space else space[("min", "max")[end]]
        for name, space in sweep["parameters"].items()
    }
    given = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    words = []
    for word in create_sweep_command(list(sweep["command"])):
        macros = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable], "${args}": given["args"]}
        words += macros.get(word, [word])
    done = subprocess.run(
        [*words, "--dry-run", "--json"], cwd=here, capture_output=True, text=True, check=True
    )
    settings = json.loads(done.stdout)
    for name, value in chosen.items():
        found = settings
        for key in name.split("."):
            found = found[key]
        assert found == value, name
    assert (settings["domain"], settings["project"]) == ("noto2twemoji", sweep["project"])


def test_wandb_takes_the_sweep(here):
    with WandbServer() as server:
        done = in_a_process("-m", "wandb", "sweep", SWEEP, cwd=here, **server.environment())
    assert "wandb agent someone/cyclegan/a-sweep" in done.stderr
    (config,) = [given["config"] for name, given in server.operations if not name]
    assert yaml.safe_load(config) == yaml.safe_load(SWEEP.read_text())


@pytest.mark.parametrize("value", ["True", "False", "true", "false"])
def test_agents_write_flags_as_values(value):
    settings, _ = settings_from(
        ["horse2zebra", f"--augment.flip={value}", "--batch_size=4", f"--data.skip_bad={value}"]
    )
    assert (settings.augment.flip, settings.data.skip_bad) == (value.lower() == "true",) * 2
    assert settings.batch_size == 4


@pytest.mark.parametrize("given", [["--generator.residual", "true"], ["--generator.residual=true"]])
def test_options_spell_true_as_recipes_do(given):
    settings, _ = settings_from(["horse2zebra", *given, "--discriminator.spectral-norm", "false"])
    assert settings.generator.residual is True and settings.discriminator.spectral_norm is False
    settings, _ = settings_from(["horse2zebra", "--generator.residual", "coarse"])
    assert settings.generator.residual == "coarse"


def test_what_is_meant_on_resuming_stays_as_it_is_said():
    meant = ["horse2zebra", "--resume", "latest", "--resume-with", "augment.flip=false", "data.skip_bad=true"]
    assert command._as_recipes_say(meant) == meant
