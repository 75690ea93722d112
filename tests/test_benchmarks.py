"""The programs that docs/performance.md is made with: they run, and say what they are said to say."""

import importlib
import json
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.autograd import DeviceType

from cyclegan.artifacts import read_config
from cyclegan.config import SpeedSettings
from cyclegan.errors import BadInput, Failed
from cyclegan.training.step import TrainingStep

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


NO_FOLDER = "nowhere: no such folder; a generator is a folder with model.safetensors and config.json"
AT_LEAST_16 = "input should be greater than or equal to 16, not"
REFUSED = [
    ("step.py", "--sizes abc", "--sizes: 'abc' is not of the form size/batch, such as 256/1"),
    ("step.py", "--sizes", "--sizes: name one or more, such as 256/1"),
    ("step.py", "--sizes 250/1", "size: must be a multiple of 4 for the generator"),
    ("step.py", "--sizes 0", f"--sizes 0: size: {AT_LEAST_16} 0"),
    (
        "step.py",
        "--sizes 32/0",
        "--sizes 32/0: batch_size: input should be greater than or equal to 1, not 0",
    ),
    ("step.py", "--reference nowhere", "--reference: nowhere is neither a checkout of"),
    ("step.py", "--repeats 0", "--repeats: must be 1 or more, not 0"),
    ("step.py", "--repeats x", "--repeats: takes a whole number, not 'x'"),
    ("step.py", "--repeat 3", "unknown option --repeat; did you mean '--repeats'?"),
    ("step.py", "--speed cuda_graphs", "--sizes 256/1: speed.cuda_graphs records what is compiled"),
    (
        "step.py",
        "--speed compile no-compile",
        "--speed: 'no-compile' is none of compile, cuda_graphs, no-autotune",
    ),
    ("step.py", "--recipe nowhere.yaml", "nowhere.yaml: cannot be read"),
    ("loader.py", "--count 0", "--count: must be 1 or more, not 0"),
    ("loader.py", "--repeats 0", "--repeats: must be 1 or more, not 0"),
    ("loader.py", "--later 0", "--later: must be 1 or more, not 0"),
    ("loader.py", "--pixels 0", "--pixels: must be 1 or more, not 0"),
    ("loader.py", "--workers", "--workers: name one or more"),
    ("loader.py", "--workers 0 -1", "--workers: must be 0 or more, not -1"),
    ("loader.py", "--size 15", f"--size and --batch-size: size: {AT_LEAST_16} 15"),
    ("loader.py", "--batch-size 0", "--size and --batch-size: batch_size: input should be greater"),
    (
        "loader.py",
        "--count 3 --batch-size 4",
        "--batch-size: 4 is more than the 3 files (--count) of a domain",
    ),
    ("loader.py", "--recipe nowhere.yaml", "nowhere.yaml: cannot be read"),
    ("loader.py", "--recipe experiments/sweep.yaml", "experiments/sweep.yaml: method: input should be"),
    ("train.py", "--minutes 0", "--minutes: must be more than 0, not 0"),
    ("train.py", "--minutes nan", "--minutes: must be more than 0, not nan"),
    ("train.py", "--every 0", "--every: must be 1 or more, not 0"),
    ("train.py", "--recipe nowhere.yaml", "nowhere.yaml: cannot be read"),
    ("startup.py", "--repeats 0", "--repeats: must be 1 or more, not 0"),
    ("startup.py", "--size 8", "--size: must be 16 or more, not 8"),
    ("startup.py", "--recipe nowhere.yaml", "nowhere.yaml: cannot be read"),
    ("networks.py", "--size 8", f"--size 8: size: {AT_LEAST_16} 8"),
    ("networks.py", "--size 20", "size: must be 24 or more for the discriminator 'patchgan'"),
    ("networks.py", "--repeats 0", "--repeats: must be 1 or more, not 0"),
    ("networks.py", "--precision fp8", "--precision: 'fp8' is none of auto, bf16, fp16, no"),
    ("numerics.py", "--steps 0", "--steps: must be 1 or more, not 0"),
    ("numerics.py", "--stretch 0", "--stretch: must be 1 or more, not 0"),
    ("numerics.py", "--seeds 1", "--seeds: must be 2 or more, not 1"),
    ("numerics.py", "--size 0", f"--size, --batch-size, --blocks, --filters: size: {AT_LEAST_16} 0"),
    ("evaluate.py", "--images 1", "--images: must be 2 or more, not 1"),
    ("evaluate.py", "--size 0", "--size: must be 16 or more, not 0"),
    ("kill_resume.py", "--kills 0", "--kills: must be 1 or more, not 0"),
    ("kill_resume.py", "--steps 0", "--steps: must be 3 or more, not 0"),
    ("kill_resume.py", "--every 0", "--every: must be 1 or more, not 0"),
    ("kill_resume.py", "--kills 2 --every 24", "--every: 24 of 24 steps leave no save to be killed in"),
    ("kill_resume.py", "--precision fp16", "--precision: 'fp16' is none of bf16, no"),
    ("saving.py", "--steps 0", "--steps: must be 1 or more, not 0"),
    ("saving.py", "--repeats 0", "--repeats: must be 1 or more, not 0"),
    ("saving.py", "--every 0", "--every: must be 1 or more, not 0"),
    ("saving.py", "--size 18", "size: must be a multiple of 4 for the generator 'resnet', not 18"),
    ("stylize.py", "--steps 0", "--steps: must be 1 or more, not 0"),
    ("stylize.py", "--size 15", "--size: must be 16 or more, not 15"),
    ("stylize_memory.py", "--sizes 0", "--sizes: must be 16 or more, not 0"),
    ("stylize_memory.py", "--sizes", "--sizes: name one or more"),
    ("stylize_memory.py", "--steps 0", "--steps: must be 1 or more, not 0"),
    ("tiling.py", "0", "sizes: give one or more, of 16 pixels or more"),
    ("tiling.py", "--ways none", "--ways: 'none' is none of dense, exact, naive, thumbnail, whole"),
    ("tiling.py", "--generator nowhere", NO_FOLDER),
    ("translate.py", "--count 0", "--count: must be 1 or more, not 0"),
    ("translate.py", "--size 8", "--size: must be 16 or more, not 8"),
    ("translate.py", "--names", "--names: name one or more of plain loop"),
    ("app.py", "nowhere", NO_FOLDER),
    ("app.py", "nowhere --users 0", "--users: must be 1 or more, not 0"),
    ("app.py", "nowhere --seconds 0", "--seconds: must be more than 0, not 0"),
    ("contrast.py", "nowhere", NO_FOLDER),
    ("inks.py", "nowhere", NO_FOLDER),
    ("methods.py", "--size 8", "--size: must be 16 or more, not 8"),
    ("methods.py", "--generators nowhere", NO_FOLDER),
    ("gallery.py", "--methods nowhere", "--methods: nowhere: no such folder"),
    ("gallery.py", "--methods tests", "--methods: tests has no style.png"),
    ("gallery.py", "--lowpoly tests", "tests: has no config.json; a generator is a folder"),
    ("gallery.py", "--out nowhere", "--out: nowhere: no such folder"),
    ("zoo.py", "--out nowhere --minutes 0", "--minutes: must be more than 0, not 0"),
    ("zoo.py", "--out nowhere --held-out 0", "--held-out: must be 1 or more, not 0"),
    ("zoo.py", "--out nowhere --only all", "--only: unknown all; known: optimize"),
]


@pytest.fixture
def on_path(monkeypatch):
    """Programs find each other, as where one is called by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def refusal(program, words, monkeypatch, capsys):
    """What a program says to words that it refuses, without its own name."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / program), *words])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(sys.argv[0], run_name="__main__")
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and said.startswith(f"{program}: ") and said.count("\n") == 1
    return said.removeprefix(f"{program}: ")


@pytest.mark.parametrize(("program", "words", "said"), REFUSED)
def test_bad_words_get_one_line(program, words, said, on_path, monkeypatch, capsys):
    assert refusal(program, words.split(), monkeypatch, capsys).startswith(said)


def test_a_folder_is_not_worked_in_twice(tmp_path, on_path, monkeypatch, capsys):
    (tmp_path / "pictures").mkdir()
    said = refusal("kill_resume.py", ["--folder", str(tmp_path)], monkeypatch, capsys)
    assert said.startswith(f"--folder: {tmp_path} has pictures already")


def test_every_program_begins_alike():
    programs = {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    assert programs == {program for program, *_ in REFUSED}


def test_inks_and_contrast_say_which_generator_they_take(tmp_path, on_path, monkeypatch, capsys):
    on_path("translate").make_generator(tmp_path / "generator", 32, 4, 1)
    said = refusal("inks.py", [str(tmp_path / "generator")], monkeypatch, capsys)
    assert "takes no references" in said and "--" not in said
    said = refusal("contrast.py", [str(tmp_path / "generator")], monkeypatch, capsys)
    assert said == f"{tmp_path / 'generator'}: takes images of 3 channels, and slices have 1\n"
    assert read_config(tmp_path / "generator").channels == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has CUDA graphs")
def test_what_one_side_cannot_use_is_said_by_the_other():
    words = ["--sizes", "32/1", "--precisions", "no", "--blocks", "1", "--filters", "4"]
    command = [sys.executable, str(BENCHMARKS / "step.py"), *words, "--speed", "compile", "cuda_graphs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("step.py: speed.cuda_graphs: needs a CUDA GPU")


class Peer:
    """The other end of a side's pipe: what it asks, and what it was told."""

    def __init__(self, *words, notice=lambda: None):
        self.words, self.told, self.notice, self.noticed = [*words, "end"], [], notice, []

    def recv(self):
        return self.words.pop(0)

    def send(self, said):
        self.told.append(said)
        self.noticed.append(self.notice())


def side(step, shape="32/2", recipe=None, reference=None, words=("step",), notice=lambda: None, **changes):
    small = {"generator": {"blocks": 1, "filters": 4}, "discriminator": {"filters": 4}}
    settings = step.step_settings(shape, recipe or {}, {**small, **changes})
    peer = Peer(*words, notice=notice)
    step.serve(peer, settings, "no", reference, False)
    return peer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "reference.py has no function model(settings)"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def model(settings):\n    raise ValueError('of no\\nsize')", "ValueError: of no size"),
    ],
)
def test_a_reference_that_fails_says_so(text, said, tmp_path, on_path):
    (tmp_path / "reference.py").write_text(text)
    (told,) = side(on_path("step"), reference=tmp_path / "reference.py").told
    assert isinstance(told, BadInput) and str(told).startswith("--reference: ") and str(told).endswith(said)


def test_a_side_that_is_gone_is_no_riddle(on_path):
    def gone():
        raise EOFError

    with pytest.raises(Failed, match="the process of reference ended"):
        on_path("step").answer(SimpleNamespace(recv=gone), "reference")


CHECKOUT = """
class CycleGANModel:
    def __init__(self, opt):
        assert opt.netG in ("resnet_6blocks", "resnet_9blocks") and opt.input_nc == opt.output_nc
    def set_input(self, images):
        pass
    def optimize_parameters(self):
        pass
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--blocks 4", "generator.blocks 4"),
        (
            "--recipe experiments/noto2twemoji.yaml",
            "generator.blocks 4, generator.norm batch, generator.upsample resize, generator.residual True, discriminator.name projected, losses.adversarial hinge",
        ),
        ("--recipe experiments/photo2prints.yaml", "generator.name modnet"),
        ("--recipe cut.yaml", "method cut"),
    ],
)
def test_a_checkout_is_beside_its_own_step_alone(words, said, tmp_path, on_path, monkeypatch, capsys):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cycle_gan_model.py").write_text(CHECKOUT)
    (tmp_path / "cut.yaml").write_text("method: cut")
    words = words.replace("cut.yaml", str(tmp_path / "cut.yaml"))
    words = [*words.split(), "--sizes", "64/1", "--reference", str(tmp_path)]
    found = refusal("step.py", words, monkeypatch, capsys)
    assert found.startswith(f"--reference: {tmp_path} trains") and f"has none of {said}" in found


def test_papers_recipes_are_comparable(tmp_path, on_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cycle_gan_model.py").write_text(CHECKOUT)
    step, recipe = on_path("step"), on_path("entry").read_recipe
    for name in ("horse2zebra", "photo2monet", "custom"):
        given = recipe(ROOT / "experiments" / f"{name}.yaml")
        on_path("reference").checked(tmp_path, step.step_settings("64/1", given, {}))


def by_hand(size, batch, filters, blocks, channels=3):
    """Operations of a step of both 3-layer PatchGANs and resnets, and of one pass of a generator."""

    def conv(inputs, outputs, kernel, side):  # side: of the output, of a transposed convolution the input
        return 2 * batch * inputs * outputs * kernel**2 * side**2

    f, s = filters, size
    first = conv(channels, f, 7, s)
    generator = first + conv(f, 2 * f, 3, s // 2) + conv(2 * f, 4 * f, 3, s // 4)
    generator += 2 * blocks * conv(4 * f, 4 * f, 3, s // 4)
    generator += conv(4 * f, 2 * f, 3, s // 4) + conv(2 * f, f, 3, s // 2) + conv(f, channels, 7, s)
    first_d = conv(channels, f, 4, s // 2)
    discriminator = first_d + conv(f, 2 * f, 4, s // 4) + conv(2 * f, 4 * f, 4, s // 8)
    discriminator += conv(4 * f, 8 * f, 4, s // 8 - 1) + conv(8 * f, 1, 4, s // 8 - 2)
    # Forth, to the weights and to the input; but real images take no gradient, which are four of six inputs.
    of_generators = 6 * 3 * generator - 4 * first
    # While the generators learn two fakes are judged without gradients of weights; then two reals and two fakes.
    of_discriminators = 2 * 2 * discriminator + 4 * (3 * discriminator - first_d)
    return of_generators + of_discriminators, generator


def test_operations_are_those_of_the_formula(on_path):
    step = on_path("step")
    whole, generator = by_hand(32, 2, 4, 1)
    assert side(step).told[-1]["flop"] == whole
    assert side(step, speed={"recompute": True}).told[-1]["flop"] == whole + 6 * generator


def test_nothing_is_compiled_behind_the_first_step(on_path, monkeypatch):
    """With the hook that counts in place, torch would compile again, then and in the step behind it."""
    compiled, of_torch = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network, mode=None: of_torch(network, backend=compiled))
    torch._dynamo.reset()
    peer = side(
        on_path("step"), words=("step", "step"), notice=lambda: compiled.frame_count, speed={"compile": True}
    )
    torch._dynamo.reset()
    ready, *later = peer.noticed
    assert ready == 4 and set(later) == {ready}  # two generators, two discriminators
    assert peer.told[-1]["flop"] == by_hand(32, 2, 4, 1)[0]


def test_images_are_drawn_before_the_clock_starts(tmp_path, on_path, monkeypatch):
    (tmp_path / "reference.py").write_text(REFERENCE)
    rand = torch.rand

    def slowly(*given, **options):
        time.sleep(0.2 if "generator" in options else 0)
        return rand(*given, **options)

    monkeypatch.setattr(torch, "rand", slowly)
    _, (seconds, _), found = side(on_path("step"), reference=tmp_path / "reference.py").told
    assert seconds < 0.2 and found["first"] < 0.2


def test_memory_is_that_of_the_process_alone():
    """Linux' getrusage would tell of the parent's, from before this program began."""
    child = "import sys, types; sys.modules['torch'] = types.ModuleType('torch'); sys.path.insert(0, sys.argv[1]); from machine import peak_mib; print(peak_mib())"
    parent = "import subprocess, sys; held = bytearray(300 << 20); subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"
    words = [sys.executable, "-c", parent, child, str(BENCHMARKS)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 150


@pytest.fixture
def losses_of_steps(monkeypatch):
    """The names of the losses of each step that is taken."""
    found, step = [], TrainingStep.__call__

    def noted(self, *given):
        losses = step(self, *given)
        found.append(set(losses))
        return losses

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    return found


@pytest.mark.slow
def test_every_recipes_step_can_be_measured(on_path, losses_of_steps):
    """With discriminators: the first steps of a recipe with pre-training are without."""
    step, read_recipe = on_path("step"), on_path("entry").read_recipe
    paths = sorted(path for path in (ROOT / "experiments").glob("*.yaml") if path.stem != "sweep")
    assert len(paths) >= 9
    for path in paths:
        small = {"generator": {"filters": 4}, "discriminator": {"filters": 4}}
        settings = step.step_settings("32/2", read_recipe(path), small)
        real = tuple(torch.rand(2, settings.data.channels, 32, 32) for _ in "ab")
        step.our_step(settings, "no", real)(*real)
        assert {"D_A", "D_B"} <= losses_of_steps[-1]
        assert ("style_ab" in losses_of_steps[-1]) == (settings.losses.lambda_style > 0)


def test_a_recipes_channels_and_parts_are_taken(on_path):
    recipe = {"gradient_accumulation": 2, "data": {"channels": 1}}
    ready, found = side(on_path("step"), recipe=recipe, words=()).told
    assert ready == "ready" and found["flop"] == by_hand(32, 2, 4, 1, channels=1)[0]


def test_speed_changes_what_it_names_alone(tmp_path, on_path, monkeypatch, capsys):
    step, measured = on_path("step"), []
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("speed: {recompute: true, tf32: false}\ngenerator: {filters: 8}\n")
    monkeypatch.setattr(step, "measure", lambda settings, *_: measured.append(settings) or [])
    step.main(sizes=("32/1",), precisions=("no",), recipe=recipe, speed=("compile", "no-fewer_products"))
    (settings,) = measured
    assert settings.speed == SpeedSettings(recompute=True, tf32=False, compile=True, fewer_products=False)
    assert settings.generator.filters == 8


def test_the_loader_waits_for_what_a_recipe_trains(tmp_path, on_path, losses_of_steps):
    loader = on_path("loader")
    for name in "AB":
        on_path("translate").make_photographs(tmp_path / f"train{name}", 2, 40)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("""
size: 32
batch_size: 2
precision: 'no'
gradient_accumulation: 2
data: {channels: 1, a: x, b: y}
generator: {filters: 4, blocks: 1}
discriminator: {filters: 4, layers: 2}
losses: {lambda_style: 0.5, style_layers: [relu1_1]}
pretrain: {steps: 9, patch: 8}
""")
    found = loader.waiting(recipe, tmp_path, 1, None)
    assert found["precision"] == "no" and 0 < found["waiting_percent"] < 100
    assert len(losses_of_steps) == 2 and {"D_A", "style_ab", "style_ba"} <= losses_of_steps[-1]


def test_only_images_that_are_shown_count(on_path, monkeypatch, capsys):
    """Of five files and batches of two, four a side."""
    loader, seen, seconds = on_path("loader"), [], {}
    kept, plain, ours = loader.on_device, loader.plain_seconds, loader.our_seconds
    decoded = loader.Plain.__getitem__

    def on_device(batch, device):
        seen.append(sum(len(images) for name, images in kept(batch, device).items() if name != "position"))
        return kept(batch, device)

    def plain_seconds(*given):
        seconds["plain"] = plain(*given)
        return seconds["plain"]

    def our_seconds(*given):
        seconds["ours"] = ours(*given)
        return seconds["ours"]

    shown = []
    monkeypatch.setattr(loader, "on_device", on_device)
    monkeypatch.setattr(loader, "plain_seconds", plain_seconds)
    monkeypatch.setattr(loader, "our_seconds", our_seconds)
    monkeypatch.setattr(loader.Plain, "__getitem__", lambda self, i: shown.append(i) or decoded(self, i))
    small = {"count": 5, "pixels": 40, "size": 32, "batch_size": 2, "workers": (0,), "repeats": 1}
    loader.main(**small, later=1, steps=0, json=True)
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    rates = {row["side"]: row["images_per_s"] for row in rows}
    assert len(shown) == 4 and seen == [4, 4] * 2  # a batch has both sides; an epoch, and one more
    first, later, _ = seconds["ours"]
    assert rates["reference's transforms"] == pytest.approx(2 * len(shown) / seconds["plain"], rel=0.01)
    assert rates["first epoch"] == pytest.approx(sum(seen[:2]) / first, rel=0.01)
    assert rates["later epochs"] == pytest.approx(sum(seen[2:]) / later, rel=0.01)


def tiny_recipe(folder, on_path):
    on_path("saving").draw_pictures(folder / "pictures", 32)
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"""
data: {{root: {folder / "pictures"}}}
size: 32
precision: 'no'
generator: {{filters: 4, blocks: 1}}
discriminator: {{filters: 4, layers: 2}}
samples: {{every: 100000, count: 1}}
checkpoint: {{every: 100000}}
""")
    return ["--recipe", str(recipe)]


@pytest.mark.slow
def test_a_short_run_has_grids_and_checkpoints(tmp_path, on_path):
    found = report("train.py", *tiny_recipe(tmp_path, on_path), "--minutes", "0.05")
    assert found["grids"] >= 3 and found["checkpoints"] >= 3 and found["steps"] > found["grids_every"] > 1


@pytest.mark.slow
def test_a_run_without_them_says_so(tmp_path, on_path):
    words = [*tiny_recipe(tmp_path, on_path), "--minutes", "0.02", "--every", "5000"]
    command = [sys.executable, str(BENCHMARKS / "train.py"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "no grids and no checkpoints within the time: the overhead is without them" in done.stdout


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
def share_of_convolutions(on_path):
    return on_path("step").share_of_convolutions


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
