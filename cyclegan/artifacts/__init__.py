"""A saved generator: write, read, describe."""

from cyclegan.artifacts.generator import (
    CONFIG,
    WEIGHTS,
    ConvertedFrom,
    GeneratorConfig,
    NetworkConfig,
    load_generator,
    network_arguments,
    new_folder,
    read_config,
    save_generator,
)
from cyclegan.artifacts.model_card import MODEL_CARD

__all__ = [
    "CONFIG",
    "MODEL_CARD",
    "WEIGHTS",
    "ConvertedFrom",
    "GeneratorConfig",
    "NetworkConfig",
    "load_generator",
    "network_arguments",
    "new_folder",
    "read_config",
    "save_generator",
]
