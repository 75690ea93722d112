"""What VGG-19 sees of a picture: content as it is, style as Gram matrices; of a large one, piece by piece.

At 2048 px one activation of the first block is 1 GiB, and its gradient another. So a large picture's
activations are not kept for the gradient but computed again, block by block, Gram matrices and all; and the
first block in strips, whose matrices add up to the whole picture's.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cyclegan.losses import gram
from cyclegan.networks.vgg19 import VGG19

STRIP = 256  # rows, an even number
HALO = 2  # rows around, which the first block's two convolutions look at


class Seen(NamedTuple):
    """``content`` by layer, (1, C, H, W); ``grams`` for each guide, by layer, (1, C, C)."""

    content: dict[str, Tensor]
    grams: list[dict[str, Tensor]]


def look(
    network: VGG19,
    image: Tensor,
    content_layers: Collection[str],
    style_layers: Collection[str],
    guides: Sequence[Tensor | None] = (None,),
    save_memory: bool = False,
) -> Seen:
    """Look at (1, 3, H, W) in [-1, 1].

    Args:
        guides: masks (h, w) in [0, 1] of where style counts, or None for everywhere.
        save_memory: compute twice rather than keep.
    """
    layers = sorted({*content_layers, *style_layers})
    last = int(layers[-1][4])
    seen = Seen({}, [{} for _ in guides])

    def block(x: Tensor, number: int, wanted: list[str]) -> tuple[Tensor, Seen]:
        x, found = network.block(x, number, wanted, number == last)
        content = {layer: f for layer, f in found.items() if layer in content_layers}
        grams = [
            {layer: gram(f, guide_for(guide, f)) for layer, f in found.items() if layer in style_layers}
            for guide in guides
        ]
        return x, Seen(content, grams)

    x = network.normalized(image)
    for number in range(1, last + 1):
        wanted = [layer for layer in layers if layer[4] == str(number)]
        in_strips = number == 1 < last and wanted in ([], ["relu1_1"]) and "relu1_1" not in content_layers
        if save_memory and in_strips:
            x, grams = _first_block(network, x, guides)
            here = Seen({}, [{"relu1_1": matrix} if wanted else {} for matrix in grams])
        elif save_memory:
            x, here = checkpoint(block, x, number, wanted, use_reentrant=False)
        else:
            x, here = block(x, number, wanted)
        seen.content.update(here.content)
        for known, new in zip(seen.grams, here.grams, strict=True):
            known.update(new)
    return seen


def guide_for(mask: Tensor | None, features: Tensor) -> Tensor | None:
    """A mask as a layer sees it: (h, w) averaged down to (1, 1, H, W)."""
    if mask is None:
        return None
    return F.interpolate(mask[None, None].to(features), size=features.shape[2:], mode="area")


def _first_block(network: VGG19, x: Tensor, guides: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
    """The first block strip by strip, and the Gram matrices of relu1_1."""
    fitted = [guide_for(guide, x) for guide in guides]
    pooled: list[Tensor] = []
    sums: list[Tensor] = []
    # A last row of its own would leave nothing when it is pooled; it goes with the strip before it.
    tops = [top for top in range(0, x.shape[2], STRIP) if top == 0 or x.shape[2] - top > 1]
    for top, bottom in zip(tops, [*tops[1:], x.shape[2]], strict=True):
        piece, partial = checkpoint(_strip, network, x, fitted, top, bottom, use_reentrant=False)
        pooled.append(piece)
        sums = [a + b for a, b in zip(sums, partial, strict=True)] if sums else partial
    places = [x.shape[2] * x.shape[3] if g is None else g.square().sum().clamp(min=1e-8) for g in fitted]
    channels = sums[0].shape[1]
    return torch.cat(pooled, dim=2), [s / (channels * n) for s, n in zip(sums, places, strict=True)]


def _strip(
    network: VGG19, x: Tensor, guides: Sequence[Tensor | None], top: int, bottom: int
) -> tuple[Tensor, list[Tensor]]:
    above, below = min(HALO, top), min(HALO, x.shape[2] - bottom)
    first, second = network.convolutions["1_1"], network.convolutions["1_2"]
    seen = F.relu(first(x[:, :, top - above : bottom + below]))
    own = seen[:, :, above : above + bottom - top]
    sums = []
    for guide in guides:
        flat = (own if guide is None else own * guide[:, :, top:bottom]).flatten(2)
        sums.append(flat @ flat.transpose(1, 2))
    made = F.relu(second(seen))[:, :, above : above + bottom - top]
    return F.max_pool2d(made, 2), sums
