"""Checkpoints on a disk that fails, settings that changed, signals: nothing is lost but steps since the last save."""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from cyclegan.errors import BadInput
from cyclegan.recipes import to_yaml
from cyclegan.training import checkpoint as checkpoint_module
from cyclegan.training import loop
from cyclegan.training.chance_state import begin_random_states, random_states
from cyclegan.training.changes import check_changes
from cyclegan.training.checkpoint import checkpoints, mark_best
from cyclegan.training.outcome import TrainingFailed, TrainingStopped
from cyclegan.training.saving import Saver, copied
from cyclegan.training.train import train


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{**line, "images_per_s": None} for line in lines]


def same_weights(one: Path, other: Path) -> bool:
    pairs = [
        [load_file(run / "generators" / name / "model.safetensors") for run in (one, other)]
        for name in ("G_AB", "G_BA")
    ]
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)


@contextlib.contextmanager
def power_cut(at: int):
    """Ends the training in an instant when it begins its ``at``-th step."""
    plain, calls = loop.TrainingStep.__call__, []

    def step(self, *args):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return plain(self, *args)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop.TrainingStep, "__call__", step)
        yield


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("workers", [0, 2])
def test_log_and_weights_after_a_resume_are_those_of_the_unbroken_run(tiny, here, workers, precision):
    """Saved between two lines of the log, in the middle of an epoch; every line after it is the same."""
    changes = {"steps": 9, "log_every": 3, "checkpoint__every": 4, "data__workers": workers}
    changes["precision"] = precision
    whole = train(tiny(run_dir=here / "whole", **changes)).run.folder
    with power_cut(7):
        train(tiny(run_dir=here / "broken", **changes))
    train(tiny(resume=str(here / "broken"), **changes))
    assert same_weights(whole, here / "broken")
    assert metrics(here / "broken") == metrics(whole)


def test_every_random_state_goes_on(tmp_path):
    """What libraries draw after a restore is what they would have drawn."""
    begin_random_states(3, None)
    random.random(), np.random.normal(), torch.rand(3)
    file = tmp_path / "states.pt"
    torch.save(random_states(), file)
    drawn = [random.random(), random.gauss(0, 1), float(np.random.normal()), torch.rand(2).tolist()]
    begin_random_states(4, None)
    begin_random_states(3, torch.load(file, weights_only=True))
    assert drawn == [random.random(), random.gauss(0, 1), float(np.random.normal()), torch.rand(2).tolist()]


def test_a_checkpoint_holds_the_gradient_scaler(tiny):
    """fp16 needs a GPU; the scaler that goes with it counts on a CPU as well."""
    from cyclegan.training.state import restore, state_of

    trainer = loop.Trainer(tiny())
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7)
    state = state_of(trainer.step, trainer.averaged, trainer.meter.state())
    folder = trainer.run.checkpoints
    recorded = trainer.settings.model_dump(mode="json")
    saved = checkpoint_module.save_checkpoint(
        folder, state, trainer.progress, recorded, trainer.settings.checkpoint
    )
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    restore(saved, trainer.step, trainer.averaged, trainer.meter)
    assert trainer.accelerator.scaler.get_scale() == 1024.0
    assert trainer.accelerator.scaler.get_growth_interval() == 7


def test_retention_keeps_the_newest_the_best_and_every_nth(tiny, here):
    run = here / "run"
    train(tiny(steps=3, checkpoint={"every": 1, "keep": 1}, run_dir=run))
    mark_best(run / "checkpoints", 3, "kid", 0.1)
    train(tiny(steps=9, checkpoint={"every": 1, "keep": 2, "keep_every": 4}, resume=str(run)))
    assert names(run) == ["best.json"] + [f"step-{step:08d}" for step in (3, 4, 8, 9)]
    mark_best(run / "checkpoints", 8, "kid", 0.05)
    train(tiny(steps=11, checkpoint={"every": 1, "keep": 1}, resume=str(run)))
    assert names(run) == ["best.json"] + [f"step-{step:08d}" for step in (8, 11)]


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


DAMAGE = {
    "cut short": (lambda f: os.truncate(f / "state.pt", 1000), r"state\.pt has 1000 bytes, \d+ were written"),
    "one bit": (flip_a_byte, r"state\.pt is not what was written"),
    "a file gone": (
        lambda f: (f / "progress.json").unlink(),
        r"progress\.json cannot be read \(No such file",
    ),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), r"manifest\.json is missing"),
    "half a manifest": (lambda f: os.truncate(f / "manifest.json", 40), r"manifest\.json cannot be read"),
}


@pytest.fixture(scope="module")
def run_with_two_checkpoints(tmp_path_factory, small_domain):
    from conftest import tiny as fixture

    folder = tmp_path_factory.mktemp("two")
    make = fixture.__wrapped__(small_domain, folder)
    train(make(steps=4, checkpoint__every=2, run_dir=folder / "run"))
    return folder / "run"


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_newest_checkpoint_is_named_and_set_aside(how, run_with_two_checkpoints, tmp_path, capsys):
    from cyclegan.training.checkpoint import newest_good

    shutil.copytree(run_with_two_checkpoints, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    damage, message = DAMAGE[how]
    damage(folder / "step-00000004")
    said = []
    assert newest_good(folder, said.append) == folder / "step-00000002"
    assert len(said) == 1 and "step-00000004: " in said[0]
    assert re.search(message, said[0])
    assert names(tmp_path / "run") == ["damaged-step-00000004", "step-00000002"]


def test_training_goes_on_from_the_one_before_a_damaged_checkpoint(tiny, here, capsys):
    whole = train(tiny(run_dir=here / "whole", steps=6, checkpoint__every=2)).run.folder
    run = train(tiny(run_dir=here / "run", steps=6, checkpoint__every=2)).run.folder
    flip_a_byte(run / "checkpoints" / "step-00000006")
    with pytest.raises(BadInput, match=r"step-00000006: state\.pt is not what was written"):
        train(tiny(resume=str(run / "checkpoints" / "step-00000006"), steps=6))
    train(tiny(resume=str(run), steps=6, checkpoint__every=2))
    assert "Going on from step 4" in capsys.readouterr().err
    assert same_weights(whole, run)
    flip_a_byte(run / "checkpoints" / "step-00000006")
    flip_a_byte(run / "checkpoints" / "step-00000004")
    with pytest.raises(BadInput, match="has no checkpoint to resume from"):
        train(tiny(resume=str(run), steps=6))
    result = train(tiny(resume="auto", run_dir=run, steps=6, checkpoint__every=2))
    assert result.step == 6 and same_weights(whole, run)


def test_newer_checkpoints_than_the_one_resumed_from_are_set_aside(tiny, here):
    run = train(tiny(run_dir=here / "run", steps=6, checkpoint={"every": 2, "keep": 3})).run.folder
    train(tiny(resume=str(run / "checkpoints" / "step-00000002"), steps=3))
    assert names(run) == [
        "step-00000002", "step-00000003", "superseded-step-00000004", "superseded-step-00000006",
    ]  # fmt: skip


@pytest.fixture
def on_the_disk(monkeypatch):
    """In their order, what was flushed to the disk and what took a new name."""
    done, fsync, rename, replace = [], os.fsync, Path.rename, Path.replace

    def flushed(handle):
        done.append(("flush", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renamed(plain, path, target):
        done.append(("rename", Path(path).name, Path(target).name))
        return plain(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", lambda path, target: renamed(rename, path, target))
    monkeypatch.setattr(Path, "replace", lambda path, target: renamed(replace, path, target))
    return done


def test_all_is_on_the_disk_before_a_name_says_that_it_is(tiny, here, on_the_disk):
    """Each file and the folder, then the name, then the folder that the name is in."""
    trainer = loop.Trainer(tiny(run_dir=here / "run"))
    on_the_disk.clear()
    trainer._save(at_once=True)
    partial = f".step-00000000.{os.getpid()}.part"
    at = on_the_disk.index(("rename", partial, "step-00000000"))
    before = on_the_disk[:at]
    assert {name for _, name in before} == {
        "state.pt",
        "progress.json",
        "settings.json",
        "manifest.json",
        partial,
    }
    assert before[-1] == ("flush", partial) and on_the_disk[at + 1] == ("flush", "checkpoints")


def test_a_runs_small_files_outlive_a_power_cut_too(here, on_the_disk):
    """config.yaml, the log cut back, best.json: an empty one would end a run that its checkpoints could go on with."""
    (here / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    checkpoint_module.cut_back(here / "metrics.jsonl", 1)
    mark_best(here, 1, "kid", 0.1)
    for name in ("metrics.jsonl", "best.json"):
        (at,) = (i for i, done in enumerate(on_the_disk) if done[0] == "rename" and done[2] == name)
        assert on_the_disk[at - 1] == ("flush", on_the_disk[at][1])
        assert on_the_disk[at + 1] == ("flush", here.name)


def test_what_a_killed_save_leaves_is_swept_away(tiny, here):
    run = train(tiny(run_dir=here / "run")).run.folder
    for left in ("checkpoints/.step-00000008.77.part", "generators/.G_AB.77.part", "checkpoints/.step-1.old"):
        (run / left).mkdir()
        (run / left / "state.pt").write_bytes(b"half")
    # Killed between two renames: the generator's old folder has lost its name.
    (run / "generators" / "G_BA").rename(run / "generators" / ".G_BA.77.old")
    train(tiny(resume=str(run), steps=4))
    assert names(run) == ["step-00000004"]
    assert sorted(path.name for path in (run / "generators").iterdir()) == ["G_AB", "G_BA"]


def disk_full(when, monkeypatch):
    """torch.save writes half and meets a full disk, while ``when`` says so."""
    plain = torch.save

    def save(state, path):
        if when():
            Path(path).write_bytes(b"x" * 4096)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        plain(state, path)

    monkeypatch.setattr(checkpoint_module.torch, "save", save)


def test_a_disk_full_for_a_while_costs_a_line(tiny, here, monkeypatch, capsys):
    tries = iter(range(1000))
    disk_full(lambda: next(tries) in (1, 2), monkeypatch)
    run = train(tiny(run_dir=here / "run", steps=40, checkpoint={"every": 10, "keep": 9})).run.folder
    said = capsys.readouterr().err
    assert said.count("could not be saved (No space left on device; free some space)") == 2
    assert "step 20 could not be saved" in said
    kept = [checkpoint_module.step_of(path) for path in checkpoints(run / "checkpoints")]
    assert kept[0] == 10 and kept[-2:] == [30, 40]
    assert 20 not in kept and any(20 < step < 30 for step in kept)  # tried again before the next was due
    assert not list((run / "checkpoints").glob(".*"))


def test_a_disk_full_at_the_end_stops_cleanly(tiny, here, monkeypatch):
    tries = iter(range(1000))
    disk_full(lambda: next(tries) >= 1, monkeypatch)
    with pytest.raises(TrainingFailed, match=r"^step 4 could not be saved \(No space left on device"):
        train(tiny(run_dir=here / "run", checkpoint__every=2))
    assert names(here / "run") == ["step-00000002"]
    checkpoint_module.verify(here / "run" / "checkpoints" / "step-00000002")


def test_a_full_disk_under_the_log_stops_cleanly(tiny, here, monkeypatch):
    """/dev/full refuses every byte, as a full disk does."""
    run, plain = here / "run", loop.TrainingStep.__call__

    def step(self, *args):
        if not (run / "metrics.jsonl").is_symlink():
            (run / "metrics.jsonl").symlink_to("/dev/full")
        return plain(self, *args)

    monkeypatch.setattr(loop.TrainingStep, "__call__", step)
    with pytest.raises(TrainingFailed, match="No space left on device; free some space"):
        train(tiny(run_dir=run))


def test_what_is_saved_is_what_was_there_when_the_save_began():
    state = {"weights": torch.ones(3), "pool": [torch.zeros(2)], "step": 1}
    written, gate = [], threading.Event()

    def prepare():
        snapshot = copied(state)

        def write():
            gate.wait(10)
            written.append(snapshot)

        return write

    saver = Saver(print)
    saver.begin(prepare, "step 1")
    state["weights"].add_(1)
    state["pool"][0].add_(1)
    gate.set()
    saver.wait()
    assert torch.equal(written[0]["weights"], torch.ones(3))
    assert torch.equal(written[0]["pool"][0], torch.zeros(2))


def test_a_defect_in_saving_is_not_swallowed():
    def write():
        raise KeyError("a defect")

    saver = Saver(print)
    saver.begin(lambda: write, "step 1")
    with pytest.raises(KeyError, match="a defect"):
        saver.wait()


CHANGES = {
    "harmless": ({"steps": 99, "log_every": 7, "checkpoint__keep": 5, "precision": "bf16"}, None),
    "network": ({"generator__blocks": 3}, r"^generator\.blocks: the checkpoint was made with 1, not 3"),
    "channels": ({"data__channels": 1}, r"^data\.channels: the checkpoint was made with 3, not 1"),
    "rate": ({"optimizer__lr": 0.5}, r"^optimizer\.lr: .*--resume-with optimizer\.lr=0\.5"),
    "two": ({"seed": 5, "batch_size": 4}, r"^batch_size: .* \(seed as well\)"),
    "meant": ({"seed": 5, "resume_with": ("seed=5",), "resume": "latest"}, None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_settings_are_taken_or_refused_by_name(what, tiny):
    then = json.loads(tiny().model_dump_json())
    changes, refusal = CHANGES[what]
    said = []
    if refusal is None:
        check_changes(tiny(**changes), then, said.append)
        assert len(said) == 1 and said[0].startswith("Changed since the checkpoint: ")
        for name in changes.keys() - {"resume", "resume_with"}:
            assert f"{name.replace('__', '.')} " in said[0]
    else:
        with pytest.raises(BadInput, match=refusal):
            check_changes(tiny(**changes), then, said.append)


def test_unchanged_settings_are_passed_over_in_silence(tiny):
    check_changes(tiny(), json.loads(tiny().model_dump_json()), pytest.fail)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_finishes_the_step_saves_and_stops(number, tiny, here, monkeypatch):
    whole = train(tiny(run_dir=here / "whole", steps=6)).run.folder
    plain, calls = loop.TrainingStep.__call__, []

    def step(self, *args):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return plain(self, *args)

    before = signal.getsignal(number)
    monkeypatch.setattr(loop.TrainingStep, "__call__", step)
    with pytest.raises(TrainingStopped, match=f"stopped by {number.name} after step 3; all is saved"):
        train(tiny(run_dir=here / "run", steps=6))
    assert signal.getsignal(number) == before
    assert names(here / "run") == ["step-00000003"]
    train(tiny(resume=str(here / "run"), steps=6))
    assert same_weights(whole, here / "run")


def start(here: Path, settings, *options: str) -> subprocess.Popen:
    (here / "mine.yaml").write_text(to_yaml(settings))
    command = [sys.executable, "-m", "cyclegan", "train", "mine.yaml", "--run-dir", "run", *options]
    return subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def logged(here: Path, steps: int):
    file = here / "run" / "metrics.jsonl"
    return lambda: file.exists() and len(file.read_text().splitlines()) >= steps


def test_a_stopped_command_leaves_with_75_and_auto_goes_on(tiny, here):
    settings = tiny(steps=100000, log_every=1, data__workers=2)
    process = start(here, settings, "--resume", "auto")
    wait_for(logged(here, 3))
    # As a scheduler does: to every process of the job, the loaders as well.
    for child in psutil.Process(process.pid).children(recursive=True):
        child.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 75
    assert "Traceback" not in said and "SIGTERM: finishing the step" in said
    (saved,) = checkpoints(here / "run" / "checkpoints")
    assert f"after step {checkpoint_module.step_of(saved)}" in said
    step = checkpoint_module.step_of(saved)
    result = train(tiny(run_dir=here / "run", resume="auto", log_every=1, steps=step + 2))
    assert [line["step"] for line in metrics(result.run.folder)] == list(range(1, step + 3))


def test_a_second_ctrl_c_stops_at_once(tiny, here, monkeypatch):
    """The step that the first one waits for never ends."""
    script = (
        "import time\n"
        "from accelerate import Accelerator\n"
        "from cyclegan.training.signals import StopRequest\n"
        "with StopRequest(Accelerator(cpu=True)):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == b"\n"
    assert b"Ctrl-C stops at once" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == -signal.SIGINT
