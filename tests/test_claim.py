"""Who may write into a run's folder, what must not be in its way, and pictures that are not those of before."""

import fcntl
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image

from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.recipes import to_yaml
from cyclegan.training import claim
from cyclegan.training.checkpoint import checkpoints
from cyclegan.training.claim import Claim
from cyclegan.training.pictures import changed, pictures_of
from cyclegan.training.train import train


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(claim, "PATIENCE_S", 0.3)


def refused(capsys, *words):
    """The one line that a command leaves with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main(list(words))
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_two_trainings_in_one_folder_and_none_after_a_kill(tiny, here, capsys, impatient):
    """SIGKILL to the trainer alone: its loader processes live on for a while and hold nothing."""
    (here / "mine.yaml").write_text(
        to_yaml(tiny(steps=100000, log_every=1, checkpoint__every=2, data__workers=2))
    )
    run = here / "run"
    words = ["train", "mine.yaml", "--run-dir", "run", "--resume", "auto"]
    process = subprocess.Popen([sys.executable, "-m", "cyclegan", *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while len(checkpoints(run / "checkpoints")) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    kept = {path.name for path in run.iterdir()}
    line = refused(capsys, *words)
    assert "run: another training is at work in it (process " in line and str(process.pid) in line
    assert "another training" in refused(capsys, "train", "--resume", "run")
    assert {path.name for path in run.iterdir()} == kept and process.poll() is None
    loaders = psutil.Process(process.pid).children()
    assert loaders
    for loader in loaders:
        loader.suspend()  # that they cannot see that their trainer is gone
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        (saved,) = checkpoints(run / "checkpoints")[-1:]
        steps = int(saved.name.removeprefix("step-")) + 2
        result = train(tiny(resume=str(run), steps=steps, log_every=1, data__workers=2))
        assert result.step >= steps and all(loader.is_running() for loader in loaders)
    finally:
        for loader in loaders:
            loader.kill()


HOLDER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from cyclegan.training.claim import Claim
held = Claim()
held.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_that_another_has_just_begun_in(tiny, here, capsys, impatient):
    """Nothing of it is there yet but the lock; the trackers that had not begun are not in the way."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, "run"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        (here / "mine.yaml").write_text(to_yaml(tiny(tracker="tensorboard")))
        line = refused(capsys, "train", "mine.yaml", "--run-dir", "run")
        assert "another training is at work" in line and "name another --run-dir" in line
        assert [path.name for path in (here / "run").iterdir()] == [".lock"]
    finally:
        holder.kill()
        holder.wait()
    assert train(tiny(run_dir=here / "run")).step == 4


def test_a_claim_ends_with_the_training(tiny, here):
    run = train(tiny(run_dir=here / "run")).run.folder
    script = "import sys; from pathlib import Path; from cyclegan.training.claim import Claim\n"
    script += "Claim().take(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(run)], check=True, timeout=300)


def test_a_file_system_without_locks_costs_a_line(here, capsys, monkeypatch):
    def none(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with Claim() as held:
        held.take(here / "run")
    assert "run: cannot be locked (No locks available)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["checkpoints", "samples", "generators", "translated", ""])
def test_a_file_in_a_folders_place_is_found_at_the_start(tiny, here, capsys, name):
    path = here / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file")
    (here / "mine.yaml").write_text(to_yaml(tiny()))
    line = refused(capsys, "train", "mine.yaml", "--run-dir", "run")
    assert f"{path.relative_to(here)}: is a file where a run keeps a folder; remove it, or" in line
    assert path.read_text() == "a file"


def test_a_folder_in_a_files_place_is_found_at_the_start(tiny, here, capsys):
    (here / "run" / "metrics.jsonl").mkdir(parents=True)
    (here / "mine.yaml").write_text(to_yaml(tiny()))
    line = refused(capsys, "train", "mine.yaml", "--run-dir", "run")
    assert "run/metrics.jsonl: is a folder where a run keeps a file" in line


def test_a_resume_finds_them_too(tiny, here):
    run = train(tiny(run_dir=here / "run")).run.folder
    (run / "samples").rename(here / "away")
    (run / "samples").write_text("a file")
    with pytest.raises(BadInput, match="samples: is a file where"):
        train(tiny(resume=str(run), steps=6))


def test_pictures_that_changed_since_the_checkpoint_are_said_once(tiny, here, small_domain, capsys):
    import shutil

    data = here / "mine"
    shutil.copytree(small_domain, data)
    run = train(tiny(run_dir=here / "run", data__root=data, steps=2)).run.folder
    moved = data.rename(here / "moved")
    capsys.readouterr()
    train(tiny(resume=str(run), data__root=moved, steps=3))
    assert "pictures have changed" not in capsys.readouterr().err  # a folder may move
    Image.new("RGB", (72, 72), "red").save(moved / "trainA" / "new.png")
    victim = sorted((moved / "trainB").iterdir())[0]
    victim.rename(victim.with_name("renamed.png"))
    train(tiny(resume=str(run), data__root=moved, steps=4))
    said = capsys.readouterr().err
    assert said.count("pictures have changed since the checkpoint") == 1
    assert "25 of A where there were 24, other files of B, by their names and sizes" in said
    assert "pictures have changed" in (run / "warnings.jsonl").read_text()
    train(tiny(resume=str(run), data__root=moved, steps=5))
    assert "pictures have changed" not in capsys.readouterr().err


def test_a_checkpoint_from_before_pictures_were_kept_says_nothing(small_domain):
    now = pictures_of({"A": SimpleNamespace(paths=sorted((small_domain / "trainA").iterdir()))}, {})
    assert changed(None, now) is None and changed({"A": list(now["A"])}, now) is None
