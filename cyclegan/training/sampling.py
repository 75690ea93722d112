"""The sample grid: the averaged generators on the same held-out images, again and again."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import Domain, spread_readable
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.reporting.grids import sample_grid
from cyclegan.training.objectives import takes_reference
from cyclegan.training.perceptual import pictures_as_trained

STYLE_PICTURES = 8  # whatever ``samples.count`` is: what is shown has no say in what is learned


class Samples:
    """A fixed choice of held-out images, spread over the files; of training images if none is held out."""

    def __init__(self, domain: Domain, settings: TrainSettings, device: torch.device) -> None:
        self.paired = domain.is_paired
        self.diversity: dict[str, float] = {}  # of the latest grid, by direction
        paths = {"A": domain.test_a or domain.train_a, "B": domain.test_b or domain.train_b}
        self.real_a, self.real_b = (_whole(paths[side], settings).to(device) for side in "AB")
        self.styles: dict[str, list[Tensor]] = {}
        if settings.generator.style == "reference":
            # Not of the held-out ones, by which the generator is judged.
            trained = {"A": domain.train_a, "B": domain.train_b}
            self.styles = {
                side: [one.to(device) for one in pictures_as_trained(settings, files, STYLE_PICTURES)]
                for side, files in trained.items()
            }
        # By direction the images, what the latest grid's generators made of them, and real targets.
        self.translated: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def grid(
        self, networks: Mapping[str, nn.Module], autocast: contextlib.AbstractContextManager
    ) -> Image.Image:
        """real, fake, rec and identity for both directions, and the true picture where there is one.

        Where one direction is trained there is no rec, and the identity is that of its own target.
        """
        G_AB = networks["G_AB"].eval()
        with autocast:
            fake_b, idt_b = self._b(G_AB, self.real_a), self._b(G_AB, self.real_b)
            forth = [("real_a", self.real_a), ("fake_b", fake_b)]
            back = [("real_b", self.real_b)]
            self.translated = {"AtoB": (self.real_a, fake_b, self.real_b)}
            if "G_BA" in networks:
                G_BA = networks["G_BA"].eval()
                fake_a, idt_a = self._a(G_BA, self.real_b), self._a(G_BA, self.real_a)
                rec_a, rec_b = self._a(G_BA, fake_b), self._b(G_AB, fake_a)
                self.translated["BtoA"] = (self.real_b, fake_a, self.real_a)
                back.append(("fake_a", fake_a))
        if self.paired:
            forth.append(("true b", self.real_b))
        if "G_BA" in networks:
            if self.paired:
                back.append(("true a", self.real_a))
            forth += [("rec_a", rec_a), ("idt_a", idt_a)]
            back.append(("rec_b", rec_b))
        back.append(("idt_b", idt_b))
        self.diversity = {
            direction: diversity(real, fake) for direction, (real, fake, _) in self.translated.items()
        }
        return sample_grid([forth, back])

    def _a(self, network: nn.Module, images: Tensor) -> Tensor:
        return _rendered(network, images, self.real_a)

    def _b(self, network: nn.Module, images: Tensor) -> Tensor:
        return _rendered(network, images, self.real_b)

    def set_styles(self, networks: Mapping[str, nn.Module]) -> None:
        """Generators that take references are saved with the mean style of some images of their target."""
        for name, network in networks.items():
            if takes_reference(network):
                network.use_style_of(self.styles[name[-1]])


def _rendered(network: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    """Each image in the style of another of the references, where the generator takes some."""
    if not takes_reference(network):
        return network(images)
    return network(images, references[torch.arange(len(images)) % len(references)])


def diversity(real: Tensor, fake: Tensor) -> float:
    """How far translations (N, C, H, W) lie apart, in pairs, as a share of their inputs' distances.

    Near 0 the generator draws one picture, whatever it is shown; without two different inputs it is 1.
    """
    apart, fakes_apart = (torch.pdist(images.flatten(1).float()).mean() for images in (real, fake))
    return float(fakes_apart / apart) if len(real) > 1 and apart > 0 else 1.0


def _whole(paths: list[Path], settings: TrainSettings) -> Tensor:
    """Some files, whole, at the training size: (N, C, size, size)."""

    def load(path: Path) -> Tensor:
        picture = read_image(path, settings.data.channels, settings.data.background)
        return to_tensor(resize(picture.pixels, settings.size, settings.size))

    return torch.stack(list(spread_readable(paths, settings.samples.count, load)))
