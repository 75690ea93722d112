"""The states of the random generators that libraries keep: python's, numpy's, torch's on every device.

Nothing of ours draws from them (``chance``): order, pairing, augmentation and pool choices are functions
of the seed and the position, loader processes included, and dropout is seeded anew in each step. What a
custom network or loss draws from them goes on as well all the same.
"""

import random
from typing import Any

import numpy as np
import torch

from cyclegan import chance


def random_states() -> dict[str, Any]:
    """All of them, as numbers and tensors only."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": list(random.getstate()),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "devices": [state.cpu() for state in _device_states()],
    }


def begin_random_states(seed: int, states: dict[str, Any] | None) -> None:
    """Set all of them, just before the first step: to a checkpoint's ``states``, else by the run's seed.

    Devices that this machine has more of than the checkpoint keep their own.
    """
    if states is None:
        random.seed(chance.seed_for(seed, "python", 0))
        np.random.seed(chance.seed_for(seed, "numpy", 0) % 2**32)
        torch.manual_seed(chance.seed_for(seed, "torch", 0) % 2**63)
        return
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    module = _device_module()
    for index, state in enumerate(states["devices"][: 0 if module is None else module.device_count()]):
        module.set_rng_state(state.cpu(), index)


def _device_module() -> Any:
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    module = None if device is None else torch.get_device_module(device)
    return module if hasattr(module, "get_rng_state_all") else None


def _device_states() -> list[torch.Tensor]:
    module = _device_module()
    return [] if module is None else module.get_rng_state_all()
