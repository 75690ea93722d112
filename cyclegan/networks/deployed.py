"""A generator made fast to run: which number format this machine is fast at, and layers without copies."""

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.layers import replace_layers
from cyclegan.networks.winograd import with_fewer_products

# Past this many pixels fp32 sums lose what the fast statistics below leave unguarded.
_FAST_PIXELS = 2**20

_CPUINFO = Path("/proc/cpuinfo")


def cpu_has_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor multiplies bf16 itself (AVX512-BF16 or AMX); elsewhere it is emulated, slowly."""
    flags = _cpu_flags(cpuinfo)
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cpu_has_amx(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor has units for products of bf16 matrices, several times as fast as all else."""
    return "amx_bf16" in _cpu_flags(cpuinfo)


def _cpu_flags(cpuinfo: Path) -> set[str]:
    """The processor's words for what it has, less those that oneDNN, which computes, is to do without."""
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit in ("", "ALL", "DEFAULT") or "AMX" in limit:
        return flags
    with_bf16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
    return flags - ({"amx_bf16"} if limit in with_bf16 else {"amx_bf16", "avx512_bf16"})


def gpu_half_format() -> str:
    """``bf16`` where the CUDA GPU computes in it, else ``fp16``."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For what is small: threads that meet after each piece wait ever so long on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def cpu_is_faster_in_bf16() -> bool:
    """Whether a convolution takes less time in bf16 than in fp32 here.

    With AMX it does. AVX512-BF16 alone promises twice, but where it shares its port with fp32 it was
    measured slower, so there one convolution of a residual block decides.
    """
    if cpu_has_amx():
        return True
    if not cpu_has_bf16():
        return False
    # By one thread, for on a busy machine two wait for each other most of the time; in turns, so that
    # other work meets both.
    with one_thread():
        rounds = [tuple(map(_convolution_seconds, (torch.bfloat16, torch.float32))) for _ in range(5)]
    in_bf16, in_fp32 = map(min, zip(*rounds, strict=True))
    return in_bf16 * 1.2 < in_fp32


@torch.inference_mode()
def _convolution_seconds(dtype: torch.dtype) -> float:
    images = torch.ones(1, 256, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    convolution = nn.Conv2d(256, 256, 3, dtype=dtype).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        convolution(images)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class FastInstanceNorm(nn.InstanceNorm2d):
    """nn.InstanceNorm2d for inference on CPUs: the same values without its copies.

    torch makes its input contiguous and repeats its arguments; at bf16 that took half of a generator's
    time. Group norm with one channel a group is the same function, and so is batch norm of one image.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            # On channels_last memory group norm sums naively, so it is kept off it.
            return F.group_norm(x.contiguous(), self.num_features, self.weight, self.bias, self.eps)
        if x.shape[0] == 1 and 1 < x.shape[2] * x.shape[3] <= _FAST_PIXELS:
            mean, variance = _statistics(x)
            scale, shift = (None if p is None else p.float() for p in (self.weight, self.bias))
            return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, self.eps)
        return super().forward(x)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of (1, C, H, W), fp32; torch rounds them where it is given none."""
    running = (torch.zeros(x.shape[1]), torch.ones(x.shape[1]))  # of training; here they set the precision
    return torch.batch_norm_update_stats(x, *running, momentum=1.0)


def for_cpu(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Make ``network`` ready to infer single images on a CPU; it is changed in place.

    Its weights become channels_last where that is faster: with 9 blocks at 256 px 1.1 times at fp32 with
    batch norm, 1.9 times at bf16; at fp32 with instance norm it is not. At fp32 convolutions between many
    channels take fewer multiplications: 1.3 times.

    Args:
        network: in evaluation mode.
        dtype: of its weights and of the images that it takes.
    """
    replace_layers(network, _fast)
    norms = any(isinstance(module, nn.InstanceNorm2d) for module in network.modules())
    if dtype == torch.float32:
        with_fewer_products(network)
    layout = torch.contiguous_format if norms and dtype == torch.float32 else torch.channels_last
    return network.to(dtype=dtype, memory_format=layout)


def _fast(layer: nn.Module) -> nn.Module | None:
    if type(layer) is nn.InstanceNorm2d and not layer.track_running_stats:
        return FastInstanceNorm(layer.num_features, layer.eps)
    return None
