"""Which floating-point format a run computes in."""

import torch

from cyclegan.config import SpeedSettings
from cyclegan.errors import BadInput
from cyclegan.networks.deployed import cpu_has_bf16, gpu_half_format


def resolve_precision(wanted: str) -> str:
    """``no``, ``fp16`` or ``bf16`` for what the settings want on this machine.

    ``auto`` is bf16 where a GPU or the CPU computes in it, fp16 on older GPUs, else fp32 (``no``).

    Raises:
        BadInput: fp16 without a GPU, for its gradients need a scaler that CPUs do not have.
    """
    on_gpu = torch.cuda.is_available()
    if wanted == "fp16" and not on_gpu:
        raise BadInput("precision: fp16 needs a CUDA GPU and there is none here; use bf16, no or auto")
    if wanted != "auto":
        return wanted
    if on_gpu:
        return gpu_half_format()
    return "bf16" if cpu_has_bf16() else "no"


def set_up_cuda(speed: SpeedSettings) -> None:
    """How CUDA GPUs, if there are any, multiply fp32, and whether cuDNN tries its convolutions for speed."""
    torch.backends.cuda.matmul.allow_tf32 = speed.tf32
    torch.backends.cudnn.allow_tf32 = speed.tf32
    torch.backends.cudnn.benchmark = speed.autotune
