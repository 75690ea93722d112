"""Chance is a function, not a history: every random choice comes from (seed, purpose, index).

Nothing here keeps a state, so a choice can be made again from its index alone, in any process,
in any order.
"""

import hashlib

import numpy as np


def seed_for(seed: int, purpose: str, index: int) -> int:
    """A 128-bit seed for one choice: the run's ``seed``, what it is for, and which one it is."""
    key = f"{seed}/{purpose}/{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")


def below(seed: int, purpose: str, index: int, *bounds: int) -> list[int]:
    """Up to four fair draws for one choice, each from 0 up to its bound; a tenth of the cost of ``rng``."""
    bits = seed_for(seed, purpose, index)
    # 32 bits for each, scaled: uneven by one in 2**32 / bound at most.
    return [((bits >> 32 * i & 0xFFFFFFFF) * bound) >> 32 for i, bound in enumerate(bounds)]


def rng(seed: int, purpose: str, index: int) -> np.random.Generator:
    """A fresh generator for one choice; Philox takes the key as it is, so making one is cheap."""
    return np.random.Generator(np.random.Philox(key=seed_for(seed, purpose, index)))


def permutation(seed: int, purpose: str, epoch: int, length: int) -> np.ndarray:
    """The order in which ``length`` items are shown in one ``epoch``."""
    return rng(seed, purpose, epoch).permutation(length)
