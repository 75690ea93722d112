"""The size of each network's gradient, for the log."""

import math

import torch

from cyclegan.training.step import TrainingStep


def gradient_norms(step: TrainingStep) -> dict[str, float]:
    """``gradient_norm_<network>``: the L2 norm of the gradient that the latest update was made with.

    It costs one pass over the gradients and one wait for the device, so it belongs to log steps. The
    gradients of several processes are averaged already, and a scaler's have been scaled back, for Adam
    as it is used here takes none that are not. An update that a scaler skipped has no norm.
    """
    found = {}
    for name, network in step.networks.items():
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if gradients:
            found[f"gradient_norm_{name}"] = torch.nn.utils.get_total_norm(gradients).float()
    if not found:
        return {}
    values = torch.stack(list(found.values())).tolist()
    return {name: value for name, value in zip(found, values, strict=True) if math.isfinite(value)}
