"""Groups of processes that lose a member or a network, and W&B over resumes; started as users start them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from wandb_file import leveldb_log, read_wandb

from cyclegan.recipes import to_yaml
from cyclegan.training.checkpoint import checkpoints
from cyclegan.training.train import train

ROOT = Path(__file__).resolve().parent.parent


def torchrun(
    here: Path, run: str, *options: str, processes: int = 2, env=None, prefix=()
) -> subprocess.Popen:
    """Starts training of mine.yaml in the folder ``run``."""
    command = [*prefix, sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [*options, "-m", "cyclegan", "train", "mine.yaml"]
    command += ["--run-dir", run] if run else []
    with (here / f"{run or 'run'}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=here,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )


def finished(process: subprocess.Popen, here: Path, run: str, seconds: float = 600) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"did not end:\n{(here / f'{run}.log').read_text()[-4000:]}")


def logged(run: Path) -> list[dict]:
    if not (run / "metrics.jsonl").exists():
        return []
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for_step(run: Path, step: int, process: subprocess.Popen, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not logged(run) or logged(run)[-1]["step"] < step:
        assert process.poll() is None, "ended before its time"
        assert time.monotonic() < until, f"did not come to step {step}"
        time.sleep(0.01)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "generators" / "G_AB" / "model.safetensors")


def without_speed(run: Path) -> list[dict]:
    return [{**line, "images_per_s": 0} for line in logged(run)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "precision", "workers"),
    [(True, "no", 0), (False, "bf16", 2), (True, "bf16", 0), (True, "no", 2)],
)
def test_a_killed_worker_brings_the_group_back_from_the_last_checkpoint(
    tiny, here, named, precision, workers
):
    """SIGKILL to one of two; torchrun starts both again; the weights are those of the unbroken run.

    With --run-dir and without: the group finds its own run's folder.
    """
    settings = tiny(steps=40, log_every=1, checkpoint__every=8, precision=precision, data__workers=workers)
    (here / "mine.yaml").write_text(to_yaml(settings))
    whole = torchrun(here, "whole", "--standalone")
    assert finished(whole, here, "whole") == 0
    process = torchrun(here, "run" if named else "", "--standalone", "--max-restarts=2")
    folder = here / "run"
    if not named:
        while not (found := list((here / "runs").glob("*/*/metrics.jsonl"))):
            assert process.poll() is None
            time.sleep(0.01)
        folder = found[0].parent
    wait_for_step(folder, 20, process)
    workers = [p for p in psutil.Process(process.pid).children() if "cyclegan" in p.cmdline()]
    (victim,) = (p for p in workers if p.environ()["RANK"] == "1")
    victim.kill()
    assert finished(process, here, "run") == 0
    said = (here / "run.log").read_text()
    assert "Going on from step 16" in said or "Going on from step 24" in said
    # The one left says so, unless torchrun is quicker to end it.
    assert "lost contact with another process" in said or "closing signal SIGTERM" in said
    if not named:
        assert len(list((here / "runs").glob("*/*"))) == 1
    one, other = weights(here / "whole"), weights(folder)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert without_speed(folder) == without_speed(here / "whole")


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_over_two(tiny, here):
    """The same global batches: losses agree with the unbroken run's to rounding, which gradients amplify."""
    rate = {"lr": 1e-5, "schedule": "constant"}
    settings = tiny(steps=12, batch_size=4, log_every=1, optimizer=rate)
    whole = train(settings.model_copy(update={"run_dir": here / "whole"})).run.folder
    half = train(settings.model_copy(update={"run_dir": here / "run", "steps": 6})).run.folder
    (here / "mine.yaml").write_text(to_yaml(settings.model_copy(update={"resume": "auto"})))
    process = torchrun(here, "run", "--standalone")
    assert finished(process, here, "run") == 0, (here / "run.log").read_text()[-3000:]
    assert "Going on from step 6" in (here / "run.log").read_text()
    assert len(logged(half)) == 12
    for one, other in zip(logged(whole)[6:], logged(half)[6:], strict=True):
        for key in one.keys() - {"images_per_s"}:
            near = 0.05 if key.startswith("gradient_norm_") else 2e-3
            assert other[key] == pytest.approx(one[key], rel=near, abs=2e-4), (one["step"], key)


@pytest.mark.slow
def test_five_kills_one_of_them_inside_a_save_lose_nothing(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_resume.py"), "--kills", "5", "--json"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--workers", "2", "--precision", "bf16"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["identical"] and report["kills"] == 5 and report["inside_a_save"] >= 1


def offline_steps(run: Path) -> list[int]:
    """The steps of history in all of W&B's offline files, in the order of an upload."""
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    return [step for file in files for step in steps_in(file.read_bytes())]


@pytest.mark.slow
def test_the_same_wandb_run_goes_on_with_no_step_twice_and_none_missing(tiny, here, monkeypatch):
    """Killed with SIGKILL, tracker and all, 4 steps past a checkpoint; a line that W&B lost is sent anew."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    changes = {"tracker": "wandb", "log_every": 1, "checkpoint__every": 6, "samples__every": 5, "steps": 16}
    (here / "mine.yaml").write_text(to_yaml(tiny(**changes)))
    command = [sys.executable, "-m", "cyclegan", "train", "mine.yaml", "--run-dir", "run"]
    process = subprocess.Popen(
        command, cwd=here, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_step(here / "run", 10, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.1)  # W&B names its folders by the second
    assert checkpoints(here / "run" / "checkpoints")
    before = offline_steps(here / "run")
    result = train(tiny(resume=str(here / "run"), **changes))
    folders = sorted((here / "run" / "wandb").glob("offline-run-*"))
    assert len({folder.name.rsplit("-", 1)[1] for folder in folders}) == 1  # one run's id
    assert len(folders) == 2 and result.upload == f"wandb sync {folders[0]} {folders[1]}"
    assert offline_steps_when_complete(here / "run", 16) == list(range(1, 17))
    assert before == list(range(1, len(before) + 1))


def offline_steps_when_complete(run: Path, last: int) -> list[int]:
    """W&B's service writes the last lines after it has said that it is done."""
    until = time.monotonic() + 120
    while (steps := offline_steps(run))[-1:] != [last] and time.monotonic() < until:
        time.sleep(0.1)
    return steps


def test_lines_that_wandb_lost_are_read_from_the_log(tiny, here, monkeypatch):
    """The offline file is cut in the middle, as by a power cut."""
    changes = {"tracker": "wandb", "log_every": 1, "steps": 6}
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    train(tiny(run_dir=here / "run", **changes))
    assert offline_steps_when_complete(here / "run", 6) == list(range(1, 7))
    (file,) = (here / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    data = file.read_bytes()
    size = next(n for n in range(len(data), 0, -64) if steps_in(data[:n]) == [1, 2, 3])
    file.write_bytes(data[:size])
    time.sleep(1.1)  # W&B's folders are named by the second
    train(tiny(resume=str(here / "run"), **{**changes, "steps": 8}))
    assert offline_steps_when_complete(here / "run", 8) == list(range(1, 9))


def steps_in(data: bytes) -> list[int]:
    from wandb.proto.wandb_internal_pb2 import Record

    steps = []
    for record_bytes in leveldb_log(data[7:], offset=7):
        record = Record()
        try:
            record.ParseFromString(record_bytes)
        except Exception:  # cut short: protobuf's own kind of error
            break
        row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        if "epoch" in row:  # a line of the log, and not a picture
            steps.append(json.loads(row["step"]))
    return steps


@pytest.fixture
def two_machines():
    """Two network namespaces with one cable between them; skipped where they cannot be made."""
    names = [f"cyclegan{os.getpid()}{side}" for side in "ab"]
    ends = [f"cg{os.getpid()}{side}" for side in "ab"]
    refusal = "there is no ip command (iproute2)"
    if shutil.which("ip"):
        made = [
            subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True) for name in names
        ]
        refusal = made[0].stderr.strip() if made[0].returncode else ""
    if refusal:
        print(f"no network namespaces here: {refusal}")
        pytest.skip(f"no network namespaces here: {refusal}")
    try:
        ip("-n", names[0], "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("-n", name, "address", "add", f"10.231.7.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, ends, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.mark.slow
def test_a_machine_cut_off_in_the_middle_leaves_the_other_to_finish(tiny, here, two_machines):
    settings = tiny(steps=40, log_every=1, checkpoint__every=5, timeout_minutes=0.4)
    (here / "mine.yaml").write_text(to_yaml(settings))
    started = []
    for number, (name, end) in enumerate(two_machines, 1):
        options = ["--nnodes=1:2", "--rdzv-backend=c10d", "--rdzv-id=two", "--max-restarts=5"]
        options += ["--rdzv-endpoint=10.231.7.1:29511", f"--local-addr=10.231.7.{number}"]
        # Host names mean nothing in a namespace: said is which machine keeps the rendezvous.
        patience = "last_call_timeout=10,keep_alive_interval=2,keep_alive_max_attempt=2"
        options += [f"--rdzv-conf=is_host={int(number == 1)},{patience}"]
        started.append(
            torchrun(
                here,
                "run",
                *options,
                processes=1,
                env={"GLOO_SOCKET_IFNAME": end},
                prefix=("ip", "netns", "exec", name),
            )
        )
    first = started[0]
    try:
        wait_for_step(here / "run", 12, first)
        assert "fp32 on 2 x cpu" in (here / "run.log").read_text()
        ip("-n", two_machines[1][0], "link", "set", two_machines[1][1], "down")
        assert finished(first, here, "run") == 0
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = (here / "run.log").read_text()
    assert "fp32 on 1 x cpu" in said and "Going on from step " in said
    assert [line["step"] for line in logged(here / "run")] == list(range(1, 41))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_slurm_script_requeues_itself_until_it_is_done(tiny, here, processes):
    """SLURM is not here; what it does is: USR1 to the script, then the same script again."""
    (here / "mine.yaml").write_text(to_yaml(tiny(steps=100000, log_every=1)))
    (here / "bin").mkdir()
    (here / "bin" / "scontrol").write_text('#!/bin/sh\necho "$@" >> requeued\n')
    (here / "bin" / "scontrol").chmod(0o755)
    path = os.pathsep.join([str(here / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "SLURM_JOB_ID": "41", "RUN": "run", "PROCESSES": str(processes)}
    command = ["bash", str(ROOT / "docs" / "slurm" / "train.sbatch"), "mine.yaml"]
    with (here / "run.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=here, env=env, stdout=log, stderr=log, start_new_session=True)
        wait_for_step(here / "run", 3, process)
        process.send_signal(signal.SIGUSR1)
        status = finished(process, here, "run")
        assert status == 75 if processes == 1 else status != 0
        assert (here / "requeued").read_text() == "requeue 41\n"
        (saved,) = checkpoints(here / "run" / "checkpoints")
        steps = int(saved.name.removeprefix("step-")) + 2
        process = subprocess.Popen(
            [*command, "--steps", str(steps)],
            cwd=here,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        assert finished(process, here, "run") == 0
    assert (here / "requeued").read_text() == "requeue 41\n"
    assert logged(here / "run")[-1]["step"] == steps


def test_a_run_killed_before_its_first_checkpoint_begins_anew_and_mixes_with_nothing(tiny, here, monkeypatch):
    """In the same folder: a W&B run of its own, TensorBoard with each step once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    changes = {"tracker": ["wandb", "tensorboard"], "log_every": 1}
    (here / "mine.yaml").write_text(to_yaml(tiny(steps=100000, checkpoint__every=100000, **changes)))
    command = [sys.executable, "-m", "cyclegan", "train", "mine.yaml", "--run-dir", "run"]
    process = subprocess.Popen(
        command, cwd=here, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_step(here / "run", 9, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not checkpoints(here / "run" / "checkpoints")
    time.sleep(1.1)  # W&B's folders are named by the second
    result = train(tiny(run_dir=here / "run", resume="auto", steps=5, **changes))
    first, second = sorted((here / "run" / "wandb").glob("offline-run-*"))
    assert first.name.rsplit("-", 1)[1] != second.name.rsplit("-", 1)[1]
    assert result.upload == f"wandb sync {second}"
    (file,) = second.glob("run-*.wandb")
    assert [row["step"] for row in read_wandb(file).rows if "cycle_a" in row] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in logged(here / "run")] == [1, 2, 3, 4, 5]
    events = EventAccumulator(str(here / "run" / "tensorboard"), {"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("cycle_a")] == [1, 2, 3, 4, 5]
