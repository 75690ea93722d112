"""Which floating-point format a run computes in."""

from pathlib import Path

import torch

from cyclegan.errors import BadInput


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
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "no"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bf16 itself (AVX512-BF16 or AMX); elsewhere it is emulated, slowly."""
    if not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
