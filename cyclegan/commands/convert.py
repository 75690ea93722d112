"""cyclegan convert."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput


def convert(args: list[str]) -> int:
    def command(
        file: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        key: str | None = None,
        norm: Literal["instance", "batch", "none"] | None = None,
        padding: Literal["reflect", "replicate", "zero"] | None = None,
        upsample: Literal["resize", "resize_zero", "bilinear", "bilinear_zero"] | None = None,
        dropout: bool | None = None,
        domain: str | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        source: str | None = None,
        target: str | None = None,
        licence: str | None = None,
        size: int | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Make a generator's folder from a file of weights that another program saved.

        The network is recognised from the tensors; the options say what they leave open.

        Args:
            file: .pth, .pt, .ckpt or .safetensors with a ResNet or U-Net generator; no code in it is run
            output: the generator's new folder
            key: which network, where the file holds several (its dotted name in the file)
            norm: batch: the file's running statistics; instance: each image's own; none: there is none
            padding: of residual blocks at the borders
            upsample: how the network enlarges before a convolution; ..._zero: no mirrored borders after it
            dropout: whether the network drops values while training; translations do not change by it
            domain: name of the domain that it was trained on
            direction: AtoB or BtoA; default as the file's name says (G_B, G_B2A and G_BA are BtoA)
            source: what goes in, in words such as 'photographs'
            target: what comes out, in words such as 'paintings'
            licence: of the generator, as its author states it
            size: height and width of the images that it was trained on
            json: end with one line of JSON
        """
        wishes = {"norm": norm, "padding": padding, "upsample": upsample, "dropout": dropout}
        labels = {"domain": domain, "direction": direction, "source": source, "target": target}
        labels |= {"licence": licence, "size": size}
        return lambda: _convert(file, output, key, wishes, labels, json)

    return parse(command, args, "cyclegan convert")()


def _convert(file: Path, output: Path, key: str | None, wishes: dict, labels: dict, as_json: bool) -> int:
    if labels["size"] is not None and labels["size"] < 16:
        raise BadInput(f"--size: must be 16 or more, not {labels['size']}")
    from cyclegan.artifacts.foreign import Labels, convert
    from cyclegan.artifacts.recognition import Wishes

    config = convert(file, output, Wishes(**wishes), Labels(**labels), key)
    if as_json:
        print_json({"generator": str(output), "config": config.model_dump(mode="json")})
        return 0
    arguments = ", ".join(f"{name} {value}" for name, value in config.network.arguments.items())
    print(f"Converted {file} into {output}: {config.network.name} ({arguments}), {config.direction}.")
    for note in config.converted_from.notes:
        print(f"Taken as given: {note}")
    print(f"Translate a folder: cyclegan translate {output} INPUT OUTPUT")
    return 0
