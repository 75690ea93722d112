"""The pixel-wise vision transformer of UVCGAN (Torbunov et al., arXiv 2203.02557, §3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.errors import BadInput


class TransformerBlock(nn.Module):
    """y = x + a * attention(norm(x)), then y + a * feed_forward(norm(y)).

    Maps (N, L, features) to the same. The one ``a`` begins at 0 (ReZero, Bachlechner et al. 2020), so that
    a deep stack begins as the identity.
    """

    attends_to_all = True

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(features), nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * features)
        self.joined = nn.Linear(features, features)
        self.feed_forward = nn.Sequential(
            nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features)
        )
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gate * self._attention(self.norm_attention(x))
        return x + self.gate * self.feed_forward(self.norm_forward(x))

    def _attention(self, x: Tensor) -> Tensor:
        # (N, L, 3 * features) to three times (N, heads, L, features / heads).
        parts = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        return self.joined(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class PixelwiseTransformer(nn.Module):
    """Every pixel of a feature map a token, with a learned Fourier embedding of where it is.

    Maps (N, channels, H, W) to the same shape, for any H and W: positions count from -1 to 1 over the map
    at hand, so that a larger map is a finer sampling of the square that training saw.

    Args:
        channels: of the feature map.
        features: of a token.
        heads: of each attention; divides ``features``.
        blocks: transformer blocks.
    """

    def __init__(self, channels: int, features: int, heads: int, blocks: int) -> None:
        super().__init__()
        if features % heads:
            raise BadInput(f"generator.heads: {heads} heads do not divide {features} features")
        self.position = nn.Linear(2, features)
        self.enter = nn.Linear(features + channels, features)
        self.blocks = nn.Sequential(*(TransformerBlock(features, heads) for _ in range(blocks)))
        self.leave = nn.Linear(features, channels)

    def forward(self, x: Tensor, style: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The feature map transformed, and what became of the style token.

        Args:
            x: (N, channels, H, W).
            style: (N, features), one more token for each image, that has no place in it.
        """
        places = torch.sin(self.position(positions(x))).expand(x.shape[0], -1, -1)
        tokens = self.enter(torch.cat([places, x.flatten(2).transpose(1, 2)], dim=2))
        if style is not None:
            # First and not last, so that no length of the others is needed to part them again.
            tokens = torch.cat([style[:, None].to(tokens.dtype), tokens], dim=1)
        tokens = self.blocks(tokens)
        # All of them, the style's too: a slice would tie an exported graph to the batch's size.
        left = self.leave(tokens).transpose(1, 2)
        if style is not None:
            style, left = tokens[:, 0], left[:, :, 1:]
        # Not a transposed view, whose order of memory would fix an exported graph's batch.
        return left.unflatten(2, x.shape[2:]).contiguous(), style


def positions(x: Tensor) -> Tensor:
    """(1, H * W, 2): row and column of each pixel of (N, C, H, W), -1 at the first and 1 at the last."""
    sides = []
    for length in x.shape[2:]:
        steps = torch.arange(length, device=x.device, dtype=torch.float32)
        # As a tensor, for an exported graph has no number for the last; a single pixel is at -1.
        sides.append(2 * steps / steps[-1:].clamp(min=1) - 1)
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=1)[None].to(x.dtype)
