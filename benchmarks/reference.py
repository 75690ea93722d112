"""Another implementation's training step, and whether it is the same step as ours."""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan.config import TrainSettings
from cyclegan.config.idle import changed
from cyclegan.errors import BadInput

# What of ours junyanz/pytorch-CycleGAN-and-pix2pix has under its defaults; filters and channels are free.
# Its networks' class names follow the number of blocks, and it has these two.
COMPARABLE: dict[str, dict[str, tuple[Any, ...]]] = {
    "generator": {
        "name": ("resnet",), "blocks": (6, 9), "norm": ("instance",), "upsample": ("transpose",),
        "downsample": ("stride",), "padding": ("reflect",), "dropout": (False,), "residual": (False,),
    },
    "discriminator": {
        "name": ("patchgan",), "layers": (3,), "norm": ("instance",), "spectral_norm": (False,),
    },
}  # fmt: skip


def checked(reference: Path, settings: TrainSettings) -> None:
    """Refuse what is no reference, and of a checkout settings that it has no like of.

    Raises:
        BadInput: in one line, which.
    """
    if reference.is_file():
        return
    if not (reference / "models" / "cycle_gan_model.py").is_file():
        raise BadInput(
            f"--reference: {reference} is neither a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, with "
            "models/cycle_gan_model.py, nor a Python file"
        )
    if other := list(_unlike(settings)):
        raise BadInput(
            f"--reference: {reference} trains resnets of 6 or 9 blocks and patchgans of 3 layers with the "
            f"paper's norms and losses, and has none of {', '.join(other)}"
        )


def _unlike(settings: TrainSettings) -> Iterator[str]:
    """The settings in which a checkout's step would be another step."""
    for table, theirs in COMPARABLE.items():
        for name, value in getattr(settings, table).model_dump(exclude_none=True).items():
            if name != "filters" and value not in theirs.get(name, ()):
                yield f"{table}.{name} {value}"
    given = {
        "method": settings.method if settings.method != "cyclegan" else None,
        "gradient_accumulation": settings.gradient_accumulation,
        "optimizer.discriminator_updates": settings.optimizer.discriminator_updates,
    }
    yield from (f"{name} {value}" for name, value in given.items() if value not in (None, 1))
    for name in changed(settings.losses):
        if f"losses.{name}" not in settings.idle:
            yield f"losses.{name} {getattr(settings.losses, name)}"


def reference_step(path: Path, settings: TrainSettings) -> Callable[[Tensor, Tensor], None]:
    """Of a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, or of a file with a function ``model``."""
    model = _junyanz(path, settings) if path.is_dir() else _of_file(path, settings)

    def step(real_a: Tensor, real_b: Tensor) -> None:
        model.set_input({"A": real_a, "B": real_b, "A_paths": [], "B_paths": []})
        model.optimize_parameters()

    return step


def _of_file(path: Path, settings: TrainSettings) -> Any:
    spec = importlib.util.spec_from_file_location("reference_file", path)
    if spec is None:
        raise BadInput(f"--reference: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "model", None)):
        raise BadInput(f"--reference: {path} has no function model(settings)")
    return module.model(settings)


def _junyanz(checkout: Path, settings: TrainSettings) -> Any:
    """Its CycleGAN with its own defaults: 64 filters, instance norm, identity loss, pools of 50 images."""
    sys.path.insert(0, str(checkout))
    from models.cycle_gan_model import CycleGANModel

    on_gpu = torch.cuda.is_available()
    blocks, filters = settings.generator.blocks or 9, settings.generator.filters or 64
    channels = settings.data.channels
    options = {
        "input_nc": channels, "output_nc": channels, "ngf": filters,
        "ndf": settings.discriminator.filters or 64,
        "netG": f"resnet_{blocks}blocks", "netD": "basic", "n_layers_D": 3, "norm": "instance",
        "no_dropout": True, "init_type": "normal", "init_gain": 0.02, "gpu_ids": [0] if on_gpu else [],
        "device": torch.device("cuda" if on_gpu else "cpu"), "isTrain": True, "name": "reference",
        "checkpoints_dir": tempfile.gettempdir(), "preprocess": "resize_and_crop", "lambda_A": 10.0,
        "lambda_B": 10.0, "lambda_identity": 0.5, "pool_size": settings.pooled, "gan_mode": "lsgan",
        "lr": 2e-4, "beta1": 0.5, "direction": "AtoB",
    }  # fmt: skip
    return CycleGANModel(argparse.Namespace(**options))
