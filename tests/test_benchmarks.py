"""The programs that docs/performance.md is made with: they run, and say what they are said to say."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
REFERENCE = """
class Model:
    def set_input(self, images):
        self.images = images
    def optimize_parameters(self):
        assert self.images["A"].shape == (2, 3, 32, 32)
def model(settings):
    return Model()
"""


def report(program, *words):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *words, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_step_beside_a_reference(tmp_path):
    (tmp_path / "reference.py").write_text(REFERENCE)
    small = ["--sizes", "32/2", "--precisions", "no", "--blocks", "1", "--filters", "4", "--repeats", "1"]
    found = report("step.py", *small, "--profile", "--reference", str(tmp_path / "reference.py"))
    ours, theirs = found["rows"]
    assert (ours["side"], theirs["side"]) == ("cyclegan", "reference")
    assert ours["images_per_s"] == pytest.approx(2 / ours["seconds"], rel=0.05)
    ratio = theirs["seconds"] / ours["seconds"]
    assert ours["ratio_to_reference"] == pytest.approx(ratio, abs=0.01)
    assert 0 < ours["convolution_share"] < 1 and ours["share_of_peak"] < 1 and ours["peak_mib"] > 50
    assert ours["gflop"] > 0 and ours["first_step_seconds"] > 0 and found["threads"] >= 1


def test_a_recipes_step_with_a_setting_of_speed():
    words = ["--sizes", "32/2", "--recipe", "experiments/photo2prints.yaml", "--repeats", "1"]
    found = report("step.py", *words, "--precisions", "no", "--speed", "recompute")
    assert found["rows"][0]["size"] == 32


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "abc"], "--sizes: 'abc' is not of the form size/batch, such as 256/1"),
        (["--sizes", "250/1"], "size: must be a multiple of 4 for the generator"),
        (["--reference", "nowhere"], "--reference: nowhere is neither a checkout of"),
        (["--repeats", "0"], "--repeats: must be 1 or more, not 0"),
    ],
)
def test_bad_words_get_one_line(words, said):
    command = [sys.executable, str(BENCHMARKS / "step.py"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"step.py: {said}")
    assert done.stderr.count("\n") == 1


def test_the_data_path():
    small = ["--count", "6", "--pixels", "40", "--size", "32", "--workers", "0", "--repeats", "1"]
    found = report("loader.py", *small, "--later", "1", "--steps", "0")
    speeds = {row["side"]: row["images_per_s"] for row in found["rows"]}
    assert set(speeds) == {"reference's transforms", "first epoch", "later epochs"}
    share = speeds["later epochs"] / speeds["reference's transforms"]
    assert found["best"]["later_epochs_to_best"] == pytest.approx(share, abs=0.01)
    assert found["decoded_bytes"] == 2 * 6 * 3 * 36**2  # resized to 286/256 of 32


@pytest.mark.slow
def test_a_whole_run():
    found = report("train.py", "--minutes", "0.5", "--every", "4")
    assert found["steps"] > 0 and found["images_per_s"] <= 1.05 * found["bare_step_images_per_s"]
    assert found["grids"] > 0 and found["checkpoints"] > 0 and found["checkpoints_percent"] > 0
    assert {"overhead_percent", "beside_median_steps_percent", "data_percent"} <= set(found)


@pytest.mark.slow
def test_numerics_and_starting():
    small = ["--steps", "4", "--stretch", "2", "--size", "32", "--batch-size", "2", "--blocks", "1"]
    found = report("numerics.py", *small, "--filters", "4")
    assert found["threads"] >= 1
    found = report("startup.py", "--repeats", "1", "--size", "64")
    assert found["threads"] >= 1


@pytest.fixture
def share_of_convolutions(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from step import share_of_convolutions

    return share_of_convolutions


def event(key, device=DeviceType.CPU, own=0.0, kernels=0.0, whole=0.0):
    return SimpleNamespace(
        key=key,
        device_type=device,
        self_cpu_time_total=own,
        self_device_time_total=kernels,
        cpu_time_total=whole,
    )


def test_a_gpus_kernels_count_once(share_of_convolutions):
    """The profiler lists them twice: as the operator's that started them, and by their own names."""
    events = [
        event("aten::cudnn_convolution", own=5, kernels=80),
        event("sm90_xmma_fprop_implicit_gemm", DeviceType.CUDA, kernels=80),
        event("aten::relu_", own=5, kernels=20),
        event("vectorized_elementwise_kernel", DeviceType.CUDA, kernels=20),
    ]
    assert share_of_convolutions(events, on_gpu=True) == pytest.approx(0.8)
    assert share_of_convolutions(events, on_gpu=False) == pytest.approx(0.5)
