"""How much memory a network takes for each pixel."""

import copy

import torch
from torch import Tensor, nn

# Convolutions hold their input and output once more, in the layout that they compute in.
WORKING_COPIES = 2


def twin(network: nn.Module) -> nn.Module:
    """A copy of the layers that shares their weights: a second set would be memory for nothing."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, shared)


def bytes_per_pixel(network: nn.Module, channels: int, side: int) -> float:
    """Memory that ``network`` takes for each pixel of an image, found on ``side`` x ``side`` pixels."""
    network = twin(network)  # another thread may be computing an image by it, which is not to be measured
    peak = 0

    def measure(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal peak
        peak = max(peak, sum(x.numel() * x.element_size() for x in (*inputs, output)))

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(measure)
    image = torch.zeros(1, channels, side, side)
    with torch.inference_mode():
        network(image.to(next(network.parameters(), image)))
    return WORKING_COPIES * peak / side**2
