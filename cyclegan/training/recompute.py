"""Less memory for more time: features that are computed anew for the backward pass."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """A generator that keeps its input alone for the backward pass, and then goes forward again.

    Chen et al., "Training deep nets with sublinear memory cost" (2016). Of the passes of a step only one at
    a time has its features in memory.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Tensor:
        return checkpoint(self.network, *images, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        # Batch norms have counted these images in the first pass.
        return contextlib.nullcontext(), statistics_kept(self.network)


@contextlib.contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """What passes through meanwhile leaves batch norms' running statistics as they were."""
    kept = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.data.copy_(before)  # unseen by autograd, which may hold the buffer for another pass
