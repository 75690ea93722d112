"""Ways down: each is told the loss and the gradient where it stands, and says where to look next.

So a step is one evaluation, whatever the way, and costs the same.
"""

from collections import deque
from typing import Protocol

import torch
from torch import Tensor

ADAM_RATE = 0.02  # a hundredth of the range
FIRST_MOVE = 0.1  # of the pixel that moves most, before anything is known of the curvature
ENOUGH = 1e-4  # of the decrease that the slope promises (Nocedal and Wright 2006, eq. 3.4)
MOST_TRIES = 8  # along one direction


class Descent(Protocol):
    def tell(self, loss: float, gradient: Tensor) -> Tensor:
        """Take in what was found at the last point, and give the next."""
        ...


class Adam:
    """Kingma and Ba 2015, by torch."""

    def __init__(self, start: Tensor) -> None:
        self.x = start.detach().clone().requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.x], lr=ADAM_RATE)

    def tell(self, loss: float, gradient: Tensor) -> Tensor:
        self.x.grad = gradient
        self.optimizer.step()
        return self.x.detach().clone()


class LBFGS:
    """Limited-memory BFGS (Nocedal and Wright 2006, algorithms 7.4 and 7.5) with backtracking.

    A step of full length is tried first, and mostly taken; one that does not lower the loss as its slope
    promises is made shorter. torch's own, without a line search, leaps from noise to worse and worse; with
    one, it evaluates each point twice.

    Args:
        start: where it begins.
        history: how many steps it remembers, each with two tensors like ``start``.
    """

    def __init__(self, start: Tensor, history: int) -> None:
        self.x, self.loss, self.gradient = start.detach(), float("inf"), torch.zeros_like(start)
        self.pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=history)
        self.direction, self.slope, self.length, self.tries = self.gradient, 0.0, 0.0, 0

    def tell(self, loss: float, gradient: Tensor) -> Tensor:
        if loss <= self.loss + ENOUGH * self.length * self.slope:
            self._take(loss, gradient)
        else:
            self.tries += 1
            self.length = self._shorter(loss)
            if self.tries > MOST_TRIES:
                self.pairs.clear()
                self._turn()
        return self.x + self.length * self.direction

    def _take(self, loss: float, gradient: Tensor) -> None:
        if self.length:
            s, y = self.length * self.direction, gradient - self.gradient
            curvature = float(_dot(s, y))
            if curvature > 1e-10 * float(_dot(y, y)):
                self.pairs.append((s, y, curvature))
            self.x = self.x + s
        self.loss, self.gradient = loss, gradient
        self._turn()

    def _turn(self) -> None:
        """A new direction from here, to be tried at full length."""
        self.direction = self._towards_minimum()
        self.slope = float(_dot(self.gradient, self.direction))
        if not self.pairs or self.slope >= 0:
            self.pairs.clear()
            largest = float(self.gradient.abs().max())
            self.direction = -self.gradient * (FIRST_MOVE / largest if largest else 0.0)
            self.slope = float(_dot(self.gradient, self.direction))
        self.length, self.tries = 1.0, 0

    def _towards_minimum(self) -> Tensor:
        """Minus the inverse Hessian, as the remembered steps have it, times the gradient."""
        q = -self.gradient
        if not self.pairs:
            return q
        shares = []
        for s, y, curvature in reversed(self.pairs):
            shares.append(float(_dot(s, q)) / curvature)
            q = q - shares[-1] * y
        _, y, curvature = self.pairs[-1]
        q = q * (curvature / float(_dot(y, y)))
        for (s, y, curvature), share in zip(self.pairs, reversed(shares), strict=True):
            q = q + s * (share - float(_dot(y, q)) / curvature)
        return q

    def _shorter(self, loss: float) -> float:
        """Where the parabola through what is known has its lowest point, within bounds (ibid., eq. 3.58)."""
        above = loss - self.loss - self.length * self.slope
        lowest = -self.slope * self.length**2 / (2 * above) if 0 < above < float("inf") else 0.0
        return min(max(lowest, 0.1 * self.length), 0.5 * self.length)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())
