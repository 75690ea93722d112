"""Discriminators that look through fixed features get to know the domains before the first step."""

from collections.abc import Mapping

import torch
from torch import nn

from cyclegan.datasets.unpaired import UnpairedImages

IMAGES = 64  # of each domain
# Where images are large fewer will do, for each place counts: VGG-19 takes 1.5 GiB for so many pixels.
PIXELS, FEWEST = IMAGES * 128**2, 8


def calibrate(networks: Mapping[str, nn.Module], dataset: UnpairedImages, device: torch.device) -> None:
    """Show the first training images of both domains to every network that wants to see some.

    They are the same ones for any number of processes. A resumed run has the outcome in its checkpoint,
    which counts unless ``discriminator.detail`` changed.
    """
    wanting = [network for network in networks.values() if hasattr(network, "calibrate")]
    if not wanting:
        return
    samples = [dataset[0]]
    count = min(IMAGES, max(FEWEST, PIXELS // samples[0]["real_a"][0].numel()))
    samples += [dataset[position] for position in range(1, count)]
    images = torch.stack([sample[side] for side in ("real_a", "real_b") for sample in samples]).to(device)
    for network in wanting:
        network.calibrate(images)
