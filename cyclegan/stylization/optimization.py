"""Neural style transfer by optimization (Gatys et al. 2016): a picture is changed until it has both.

Coarse to fine (Gatys et al. 2017, §6): large shapes of the style settle at a small size, where a step is
cheap, and each doubling adds what only the larger picture can show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cyclegan import chance
from cyclegan.errors import BadInput
from cyclegan.networks.vgg19 import VGG19
from cyclegan.stylization.colour import grey, match_luminance, with_colours_of
from cyclegan.stylization.descent import LBFGS, Adam, Descent
from cyclegan.stylization.look import guide_for
from cyclegan.stylization.objective import Objective
from cyclegan.stylization.options import Optimization
from cyclegan.stylization.styles import Style, at_scale, refuse_black, refuse_none, resized, scaled_shape

HISTORY_BYTES = 1 << 30  # of L-BFGS, which keeps two vectors of the picture's size for each step it knows
MOST_HISTORY = 100


@dataclass(frozen=True)
class Progress:
    """Where an optimization stands after one step.

    Args:
        step, steps: counted over all scales, from 1.
        height, width: of the present scale.
        losses: the weighted terms of the best picture so far: ``content``, ``style``, ``total variation``.
        best: that picture, (1, 3, height, width), as it is worked on.
        finish: gives a picture the range and the colours that it is to have.
    """

    step: int
    steps: int
    height: int
    width: int
    losses: dict[str, float]
    best: Tensor
    finish: Callable[[Tensor], Tensor]

    @property
    def image(self) -> Tensor:
        """The best picture so far, (1, 3, height, width) in [-1, 1]; made only where somebody looks at it."""
        return self.finish(self.best)

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


OnStep = Callable[[Progress], bool | None]


def optimize(
    network: VGG19,
    content: Tensor,
    styles: Sequence[Style],
    options: Optimization,
    on_step: OnStep | None = None,
    fast: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Give ``content`` the look of ``styles``.

    Args:
        network: VGG-19 with its weights, in evaluation mode, on the device of ``content``.
        content: (3, H, W) in [-1, 1].
        on_step: told after each step; what it returns ends the optimization when it is true.
        fast: maps (1, 3, H, W) in [-1, 1], of any size, to the same shape, for ``options.start`` ``fast``.

    Returns:
        (3, h, w) in [-1, 1], at ``options.size`` or the content's own, as good as it was found.

    Raises:
        BadInput: no style, none that ``fast`` is for, a mask that is black at the size of its picture, or
            weights that leave no number.
    """
    refuse_none(styles)
    _refuse_black_masks(styles, options, *content.shape[1:])
    original = content[None]
    if options.keep_colours:
        content = grey(original)[0]
    scales = options.scales(*content.shape[1:])
    steps = [options.steps_at(scale) for scale in range(len(scales))]
    image, done, stopped = None, 0, False

    def finished(image: Tensor) -> Tensor:
        if not options.keep_colours:
            return image.clamp(-1, 1)
        return with_colours_of(image, resized(original, *image.shape[2:]).clamp(-1, 1))

    for (height, width), count in zip(scales, steps, strict=True):
        here = resized(content[None], height, width).clamp(-1, 1)
        image = _started(here, options, fast) if image is None else resized(image, height, width)
        if not stopped:
            objective = Objective(network, here, _styles_at(styles, here, options), options)
            run = _Run(objective, image, options, count)
            image, stopped = run.to_the_end(on_step, finished, done, sum(steps))
            run.refuse_no_number()
        done += count
    assert image is not None
    return finished(image)[0]


def _refuse_black_masks(styles: Sequence[Style], options: Optimization, height: int, width: int) -> None:
    finest = options.scales(height, width)[-1]
    for number, style in enumerate(styles, 1):
        refuse_black(f"--masks: number {number}", style.where, *min((height, width), finest))
        shape = scaled_shape(style, options.style_pixels(*finest))
        refuse_black(f"--style-masks: number {number}", style.part, *shape)


def _styles_at(styles: Sequence[Style], content: Tensor, options: Optimization) -> list[tuple[Tensor, Style]]:
    pixels = options.style_pixels(*content.shape[2:])
    found = []
    for style in styles:
        image = at_scale(style, pixels).to(content)
        if options.keep_colours:
            masks = guide_for(style.part, image), guide_for(style.where, content)
            image = match_luminance(image, content, *masks)
        found.append((image, style))
    return found


def _started(content: Tensor, options: Optimization, fast: Callable[[Tensor], Tensor] | None) -> Tensor:
    if options.start == "noise":
        noise = chance.rng(options.seed, "stylization", 0).normal(0, 0.25, tuple(content.shape))
        return torch.from_numpy(noise).to(content)
    if options.start == "fast":
        if fast is None:
            raise BadInput(
                "start: 'fast' begins with what fast= makes, such as fast_network(styles); give that, or "
                "start from 'content'"
            )
        return fast(content)
    return content.clone()


class _Run:
    """The steps at one scale, and the best picture among them."""

    def __init__(self, objective: Objective, image: Tensor, options: Optimization, steps: int) -> None:
        self.objective, self.steps = objective, steps
        self.image = self.best = image.detach().clone()  # the best only once a step's loss is a number
        self.best_loss = float("inf")
        self.losses: dict[str, float] = {}
        self.descent: Descent
        if options.optimizer == "adam":
            self.descent = Adam(self.image)
        else:
            bytes_a_step = 2 * image.numel() * image.element_size()
            self.descent = LBFGS(self.image, min(MOST_HISTORY, max(4, HISTORY_BYTES // bytes_a_step)))

    def to_the_end(
        self, on_step: OnStep | None, finish: Callable[[Tensor], Tensor], done: int, steps: int
    ) -> tuple[Tensor, bool]:
        """The best picture found, and whether ``on_step`` wanted no more."""
        height, width = self.image.shape[2:]
        for step in range(1, self.steps + 1):
            self.one_step()
            told = Progress(done + step, steps, height, width, self.losses, self.best, finish)
            if on_step is not None and on_step(told):
                return self.best, True
        return self.best, False

    def refuse_no_number(self) -> None:
        if self.best_loss == float("inf"):
            raise BadInput(
                "content_weight, style_weight, tv_weight: not one step had a loss that is a number; "
                "take smaller ones"
            )

    def one_step(self) -> None:
        """Look at the present picture, keep it if it is the best, and go on to the next."""
        image = self.image.detach().requires_grad_(True)
        terms = self.objective(image)
        total = torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(total, image)
        image, loss = image.detach(), float(total.detach())
        if loss < self.best_loss:
            self.best, self.best_loss = image, loss
            self.losses = {name: float(term.detach()) for name, term in terms.items()}
        self.image = self.descent.tell(loss, gradient)
