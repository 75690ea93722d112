"""Numbers that go wrong: an update whose losses or gradients are NaN or infinite is not applied."""

from collections.abc import Iterable, Mapping

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from cyclegan.training.outcome import TrainingFailed

# Adam squares its gradients; past this the square is infinite in fp32, and stays in its state for ever.
LARGEST_GRADIENT = 1e18


class Guard:
    """Judges each update before it is applied; all processes come to the same verdict.

    With fp16 an infinite gradient is the gradient scaler's business: it leaves the update out and lowers
    its scale, as it must now and then. Then the losses alone are judged here, until the scale has fallen
    below 1: from there on it is not the scale that makes gradients infinite.
    """

    def __init__(self, accelerator: Accelerator, networks: Mapping[str, nn.Module]) -> None:
        self.accelerator, self.networks = accelerator, networks
        self.wrong: list[str] = []  # what was not finite in the last step; empty if all of it was applied
        self._kept: dict[str, list[Tensor]] = {}

    def begin(self) -> None:
        """A new step: keep what a forward pass alone changes, the statistics of batch norms."""
        self.wrong = []
        self._kept = {
            name: [buffer.clone() for buffer in network.buffers()] for name, network in self.networks.items()
        }

    def allows(self, who: str, parameters: Iterable[nn.Parameter], losses: Mapping[str, Tensor]) -> bool:
        """Whether the update that the gradients are ready for may be applied.

        Args:
            who: ``G`` or ``D``, the first letter of the networks that are to be updated.
            parameters: theirs, with their gradients.
            losses: what was found so far in this step, by name.
        """
        names = list(losses)
        values = [loss.detach().float() for loss in losses.values()]
        if self.accelerator.scaler is None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            # By the L2 norm, ten times as fast as the largest value, and no smaller than it.
            largest = torch.stack(torch._foreach_norm(gradients)).max()
            names.append(f"a gradient of {who}")
            values.append(torch.where(largest <= LARGEST_GRADIENT, largest, torch.inf).float())
        flags = (~torch.stack(values).isfinite()).float()
        if self.accelerator.num_processes > 1:
            # Losses differ between processes: one that would leave an update out alone would hang the others.
            flags = self.accelerator.reduce(flags, "sum")
        self.wrong = [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]
        if self.wrong:
            # A refused update of the generators is followed by none of the discriminators.
            self._put_back(self.networks if who == "G" else [n for n in self.networks if n[0] == who])
        return not self.wrong

    @torch.no_grad()
    def _put_back(self, names: Iterable[str]) -> None:
        for name in names:
            for buffer, kept in zip(self.networks[name].buffers(), self._kept[name], strict=True):
                buffer.copy_(kept)

    def applied(self, who: str, optimizer: AcceleratedOptimizer) -> None:
        """Look at what fp16's scaler made of the update."""
        scaler = self.accelerator.scaler
        if scaler is not None and optimizer.step_was_skipped and scaler.get_scale() < 1:
            self.wrong = [f"a gradient of {who}, at any scale of fp16"]


def refuse_not_finite(networks: Iterable[Mapping[str, nn.Module]], otherwise: str) -> None:
    """Networks that hold a NaN or an infinity must never be saved.

    Raises:
        TrainingFailed: one does; the message says what is ``otherwise`` not done.
    """
    wrong = {name for named in networks for name, network in named.items() if not _is_finite(network)}
    if wrong:
        raise TrainingFailed(
            f"{otherwise}: the weights of {', '.join(sorted(wrong))} are NaN or infinite; what was saved "
            "before is good: resume from it with a lower --optimizer.lr"
        )


def _is_finite(network: nn.Module) -> bool:
    tensors = (tensor for tensor in network.state_dict().values() if tensor.is_floating_point())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
