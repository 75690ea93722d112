"""Batch norm whose batch is that of all processes, so that several compute what one does."""

import torch
import torch.distributed.nn.functional as distributed
from torch import Tensor, nn

from cyclegan.networks.layers import replace_layers, summing

_HERE = (0, 2, 3)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over all processes, on any device; all of them must call it, with as many images each.

    In evaluation it is nn.BatchNorm2d. torch's own SyncBatchNorm does the same on GPUs alone, and once.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        processes = torch.distributed.get_world_size()
        wide = x.to(summing(x.dtype))
        mean = distributed.all_reduce(wide.mean(_HERE)) / processes
        centred = wide - mean[:, None, None]
        variance = distributed.all_reduce(centred.square().mean(_HERE)) / processes
        count = processes * x.numel() / x.shape[1]
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def share_batch_norm(network: nn.Module, device: torch.device, derived_twice: bool = False) -> None:
    """Let all batch norms of ``network``, which is changed in place, see the batches of all processes.

    Args:
        derived_twice: gradients of its gradients are wanted, which torch's SyncBatchNorm does not give.
    """
    if device.type == "cuda" and not derived_twice:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    else:
        replace_layers(network, _shared)


def _shared(layer: nn.Module) -> nn.Module | None:
    if type(layer) is not nn.BatchNorm2d:
        return None
    return SharedBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
