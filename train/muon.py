"""Muon for convolutions: the momentum of a layer is made orthogonal, so that all of its directions learn equally fast.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024 (kellerjordan.github.io/posts/muon);
steps as long as Adam's after Liu et al., "Muon is scalable for LLM training", 2025, section 2.2. torch.optim.Muon takes
matrices alone; that of a convolution is (outputs) × (inputs · k · k).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from model.masked_unet import MaskedUNet

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the Newton–Schulz polynomial, from the blog post
ROUNDS = 5
ADAM_RMS = 0.2  # root mean square of Adam's step over its rate, as Liu et al. measured it


def orthogonal(matrix: Tensor) -> Tensor:
    """U·Vᵀ of the matrix's singular value decomposition U·S·Vᵀ, roughly: its singular values end at 0.7 to 1.2.

    matrix: (rows, columns), any scale but 0. Newton–Schulz in bfloat16, which is exact enough for a direction.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of hidden convolutions, Adam for the last layer and for biases.

    Both take steps of the same length at the same learning rate, so that one schedule fits both.
    """

    def __init__(
        self,
        net: MaskedUNet,
        learning_rate: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
        fused: bool = False,
    ):
        last = set(net.decoder[0].parameters())
        hidden = [weight for weight in net.parameters() if weight.ndim == 4 and weight not in last]
        rest = [weight for weight in net.parameters() if weight.ndim != 4 or weight in last]
        groups: Iterable[dict[str, Any]] = [{"params": hidden, "hidden": True}, {"params": rest, "hidden": False}]
        super().__init__(
            groups, {"lr": learning_rate, "betas": betas, "momentum": momentum, "eps": 1e-8, "fused": fused}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        # As of PyTorch's fused optimisers: 1 where the gradient is not finite, and nothing is to change.
        bad: Tensor | None = getattr(self, "found_inf", None) if self.defaults["fused"] else None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["hidden"]:
                for weight in weights:
                    self._muon(weight, group, bad)
            elif weights:
                self._adam(weights, group, bad)

    def _muon(self, weight: Tensor, group: dict[str, Any], bad: Tensor | None) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"]
        if bad is not None:
            gradient = torch.where(bad > 0, 0, gradient)
            momentum.mul_(group["momentum"] + (1 - group["momentum"]) * bad).add_(gradient)
        else:
            momentum.mul_(group["momentum"]).add_(gradient)
        direction = orthogonal((gradient + group["momentum"] * momentum).flatten(1))
        if bad is not None:
            direction = direction.mul_(1 - bad)
        length = ADAM_RMS * max(direction.shape) ** 0.5
        weight.sub_(direction.view_as(weight), alpha=group["lr"] * length)

    def _adam(self, weights: list[Tensor], group: dict[str, Any], bad: Tensor | None) -> None:
        for weight in weights:
            if not self.state[weight]:
                step = torch.zeros((), device=weight.device if group["fused"] else None)
                self.state[weight].update(step=step, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        means, squares, steps = ([self.state[one][name] for one in weights] for name in ("mean", "square", "step"))
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        first, second = group["betas"]
        adam(
            weights, gradients, means, squares, [], steps, fused=group["fused"], found_inf=bad,
            amsgrad=False, maximize=False, beta1=first, beta2=second,
            lr=group["lr"], weight_decay=0.0, eps=group["eps"],
        )  # fmt: skip
