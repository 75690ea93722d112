"""Instance norm whose mean and variance belong to the image, not to the tile.

Instance norm (Ulyanov et al. 2016) sees one tile at a time and normalizes each by its own contrast, so
that neighbours disagree. Here the statistics of every layer are gathered once, from patches spread over
the whole image, and are then the same for all tiles.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from cyclegan.errors import BadInput
from cyclegan.translation.tiling.lazy import Moments
from cyclegan.translation.tiling.memory import twin


class SharedInstanceNorm(nn.Module):
    """Normalizes by ``mean`` and ``variance``, each (C,), which are given to it."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.mean: Tensor | None = None
        self.variance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        # Half-precision images are normalized by fp32 numbers; torch wants all of these alike.
        weight, bias = (None if p is None else p.to(self.mean.dtype) for p in (self.weight, self.bias))
        return F.batch_norm(x, self.mean, self.variance, weight, bias, training=False, eps=self.eps)


def depends_on_all_pixels(network: nn.Module) -> bool:
    """Whether a layer normalizes by statistics of the image before it."""
    return any(_is_instance_norm(module) for module in network.modules())


def with_statistics_of(network: nn.Module, patches: Iterable[Tensor]) -> nn.Module:
    """A copy of ``network`` (weights shared) that normalizes every image by the statistics of ``patches``.

    Each layer sees all patches before the next layer sees one, as if they went through the network at
    once. Groups of patches one after the other would be less to hold, and wrong: what the first ones say of a
    layer would decide what the others show to all layers behind it.

    Args:
        network: in evaluation mode, made of layers that torch.fx can follow.
        patches: (N, C, H, W) each, in [-1, 1], taken together as a sample of one image.

    Raises:
        BadInput: a network that cannot be followed layer by layer.
    """
    steady = _with_shared_norms(network)
    _LayerAfterLayer(steady).run(_Group(list(patches)))
    return steady


def held_bytes_per_pixel(network: nn.Module, channels: int, side: int) -> float:
    """Memory that a pixel takes in ``with_statistics_of``, found on ``side`` x ``side`` pixels."""
    layers = _LayerAfterLayer(_with_shared_norms(network))
    image = torch.zeros(1, channels, side, side)
    layers.run(_Group([image.to(next(network.parameters(), image))]))
    return layers.most_held / side**2


def _with_shared_norms(network: nn.Module) -> nn.Module:
    steady = twin(network)
    for parent in list(steady.modules()):
        for name, child in parent.named_children():
            if _is_instance_norm(child):
                setattr(parent, name, SharedInstanceNorm(child))
    return steady


def _is_instance_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.InstanceNorm2d) and not module.track_running_stats


@dataclass
class _Group:
    """What one layer made of each patch; what nobody needs any more is None."""

    parts: list[Tensor | None]

    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self.parts if part is not None)


class _Tracer(fx.Tracer):
    """Sees layers, and what happens between them."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not list(module.children())


class _LayerAfterLayer(fx.Interpreter):
    """Runs a network's graph on a group of patches; a patch's map goes as soon as its next one is made."""

    def __init__(self, network: nn.Module) -> None:
        try:
            graph = _Tracer().trace(network)
        except (fx.proxy.TraceError, TypeError, ValueError) as error:
            raise BadInput(
                f"--tiling dense: cannot follow {type(network).__name__} layer by layer ({error}); "
                "use --tile off"
            ) from error
        super().__init__(fx.GraphModule(network, graph))
        self.extra_traceback = False  # it would write the graph into our one line
        self.last_used: list[_Group] = []
        self.most_held = 0  # bytes

    @torch.no_grad()
    def run(self, group: _Group) -> _Group:
        return super().run(group)

    def run_node(self, node: fx.Node) -> Any:
        used = [self.env[source] for source in self.user_to_last_uses.get(node, [])]
        self.last_used = [group for group in used if isinstance(group, _Group)]
        made = super().run_node(node)
        # Twice the same group, as dropout in evaluation gives back what it got, is one.
        groups = {id(group): group for group in (*self.env.values(), made) if isinstance(group, _Group)}
        self.most_held = max(self.most_held, sum(group.bytes() for group in groups.values()))
        return made

    def call_module(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Group:
        layer = self.fetch_attr(target)
        if isinstance(layer, SharedInstanceNorm):
            moments = Moments()
            for part in args[0].parts:
                moments.add(part)
            device = args[0].parts[0].device
            layer.mean, layer.variance = (v.float().to(device) for v in (moments.mean, moments.variance))
        return self._patch_by_patch(layer, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Group:
        return self._patch_by_patch(target, args, kwargs)

    def call_method(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Group:
        return self._patch_by_patch(
            lambda x, *rest, **named: getattr(x, target)(*rest, **named), args, kwargs
        )

    def _patch_by_patch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Group:
        groups: list[_Group] = []
        map_aggregate((args, kwargs), lambda a: groups.append(a) if isinstance(a, _Group) else None)
        made = []
        for i in range(len(groups[0].parts)):

            def own(a: Any, i: int = i) -> Any:
                return a.parts[i] if isinstance(a, _Group) else a

            made.append(function(*map_aggregate(args, own), **map_aggregate(kwargs, own)))
            for group in self.last_used:
                group.parts[i] = None
        return _Group(made)
