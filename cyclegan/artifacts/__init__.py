"""A saved generator: write, read, describe."""

from cyclegan.artifacts.generator import (
    CONFIG,
    MODEL_CARD,
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
