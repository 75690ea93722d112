"""All that decides the next step, besides settings and progress: taken out, and put back."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from cyclegan.errors import BadInput
from cyclegan.training.chance_state import random_states
from cyclegan.training.checkpoint import Progress, read_checkpoint
from cyclegan.training.meter import Meter
from cyclegan.training.step import TrainingStep

# What a picture looks like when a style is learned of it, and which layers look.
_STYLE_SETTINGS = {"size", "augment.preset", "augment.load_size", "data.background", "losses.style_layers"}


def state_of(
    step: TrainingStep, averaged: Mapping[str, nn.Module], meter: Mapping[str, Any]
) -> dict[str, Any]:
    """Networks and their averages, optimizers, pools, queues, styles, random states, fp16's scaler.

    The rate and the sampler's place are functions of the progress. ``meter`` holds the losses since the
    log's last line, so that the next one is what it would have been.
    """
    scaler = step.accelerator.scaler
    return {
        **{name: network.state_dict() for name, network in step.networks.items()},
        "averaged": {name: network.state_dict() for name, network in averaged.items()},
        "optimizer_G": step.optimizer_G.state_dict(),
        "optimizer_D": step.optimizer_D.state_dict(),
        **{f"pool_{side.lower()}": pool.state() for side, pool in step.pools.items()},
        "queues": {kind: queue.state() for kind, queue in step.queues.items()},
        "styles": step.perceptual.state(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "meter": meter,
        "random": random_states(),
    }


def _load_optimizer(optimizer: AcceleratedOptimizer, state: dict[str, Any]) -> None:
    """Adam's memory, in this machine's layout, for its kernel and with this run's settings."""
    chosen = [{key: group[key] for key in ("fused", "betas")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, chosen, strict=True):
        group.update(own)
        for parameter in group["params"]:
            values = optimizer.state.get(parameter, {})
            for key, value in values.items():
                if key == "step":  # the fused kernel wants it where the weights are
                    values[key] = value.to(parameter.device if group["fused"] else "cpu")
                elif value.stride() != parameter.stride():
                    values[key] = torch.empty_like(parameter).copy_(value)


def _other_network(checkpoint: Path, name: str, changed: Collection[str], error: Exception) -> str:
    of_networks = ("method", "size", "generator.", "discriminator.", "nce.", "data.channels")
    suspects = sorted(key for key in changed if key.startswith(of_networks))
    if suspects:
        remedy = f"go on without another {' or '.join(suspects)}, or begin a run of its own"
    else:
        remedy = " ".join(str(error).split())[:300]
    return f"{checkpoint}: its {name} is another network than the settings name; {remedy}"


def restore(
    checkpoint: Path,
    step: TrainingStep,
    averaged: Mapping[str, nn.Module],
    meter: Meter,
    changed: Collection[str] = (),
) -> tuple[Progress, dict[str, Any]]:
    """Put a checkpoint's state back; returns how far it had come, and the random states to begin with.

    Args:
        changed: names of settings that it was made with other values of. What was kept for those is left
            out: pools and queues of another size, and styles, which are learned anew.

    Raises:
        BadInput: the checkpoint holds other networks than the settings name.
    """
    device, scaler = step.accelerator.device, step.accelerator.scaler
    state, progress = read_checkpoint(checkpoint)
    kept = [(name, network, state) for name, network in step.networks.items()]
    for name, network, source in kept + [(name, each, state["averaged"]) for name, each in averaged.items()]:
        try:
            network.load_state_dict(source[name])
        except (RuntimeError, KeyError) as error:
            raise BadInput(_other_network(checkpoint, name, changed, error)) from error
    _load_optimizer(step.optimizer_G, state["optimizer_G"])
    _load_optimizer(step.optimizer_D, state["optimizer_D"])
    step.goes_on_from(progress.step, progress.images_seen)
    if "size" not in changed:
        for side, pool in step.pools.items():
            pool.load(state[f"pool_{side.lower()}"], device)
        for kind, queue in step.queues.items():
            queue.load(state["queues"][kind], device)
    if _STYLE_SETTINGS.isdisjoint(changed):
        styles = state.get("styles", {})
        fixed = {side for side in styles if f"losses.style_picture_{side.lower()}" not in changed}
        step.perceptual.load({side: styles[side] for side in fixed})
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    meter.load(state["meter"])
    return progress, state["random"]
