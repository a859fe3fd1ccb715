"""The losses: eq. 5 to 12 of the paper for HDR, and those of Liu et al. 2018 for inpainting.

Every ‖·‖₁ is taken as the mean over all elements of the batch, as the λ of both papers assume. Pictures are
(N,3,H,W). A mask M is 1 where the input is valid and 0 where the network must fill in.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.constants import LOG_RANGE
from train.config import LossSettings

Features = Callable[[Tensor], list[Tensor]]  # a picture in [0,1] → activations of pool1, pool2, pool3

RMS_SHARE = 0.005  # of a picture: where less is clipped it counts less, a handful of pixels hardly at all
RMS_SMALL = 0.02  # natural log: the root has no slope to speak of below this
CHROMA_FLOOR = 1 / 255  # linear; keeps log ratios of dark channels finite


def mu_law(hdr: Tensor, mu: float = 500.0) -> Tensor:
    """Eq. 10: log(1 + μH) / log(1 + μ), which takes [0,1] to [0,1]."""
    return torch.log1p(mu * hdr) / math.log1p(mu)


def linear(log_hdr: Tensor) -> Tensor:
    """The linear picture of a log prediction: exp(Y) − 1, with Y clamped to [0, 10]."""
    return torch.expm1(log_hdr.clamp(*LOG_RANGE))


def floor_of(ldr: Tensor, gamma: float = 2.0) -> Tensor:
    """log(1 + T^γ), below which no truth lies in a clipped channel; (N,3,H,W) for T in [0,1]."""
    return torch.log1p(ldr.clamp(0.0, 1.0) ** gamma)


def log_distance(log_hdr: Tensor, truth: Tensor, floor: Tensor | None = None) -> Tensor:
    """|Ŷ − log(H + 1)|, (N,3,H,W).

    With `floor` (of `floor_of`) the picture shows max(Ŷ, floor), so that is what is measured. Where Ŷ lies under the
    floor and the truth above, the maximum would pass no gradient, and the distance of the bare Ŷ is taken instead.
    """
    target = torch.log1p(truth)
    if floor is None:
        return (log_hdr - target).abs()
    shown = torch.maximum(log_hdr, floor)
    sunk = F.relu(floor - log_hdr) * (target > floor)
    return (shown - target).abs() + sunk


def reconstruction_loss(log_hdr: Tensor, truth: Tensor, mask: Tensor, floor: Tensor | None = None) -> Tensor:
    """Eq. 6: mean |(1 − M) ⊙ (Ŷ − log(H + 1))|. floor: as in `log_distance`."""
    return ((1 - mask) * log_distance(log_hdr, truth, floor)).mean()


def rms_loss(log_hdr: Tensor, truth: Tensor, mask: Tensor, floor: Tensor | None = None) -> Tensor:
    """Mean over the pictures of √(mean of (Ŷ − log(H + 1))² over what is clipped, 1 − M). Not in the paper.

    Eq. 6 alone asks for the median of what may be behind a clipped pixel, which is dim where one window in three is a
    sun, and a picture counts by how much of it is clipped. Here every picture has the same weight, and the mean
    is asked for.
    """
    clipped = 1 - mask
    square = (clipped * log_distance(log_hdr, truth, floor).square()).mean(dim=(1, 2, 3))
    return (square / (clipped.mean(dim=(1, 2, 3)) + RMS_SHARE) + RMS_SMALL**2).sqrt().mean()


def composite(log_hdr: Tensor, truth: Tensor, mask: Tensor, floor: Tensor | None = None) -> Tensor:
    """Eq. 9, linear: the truth where the input is well exposed, the network's prediction where it is not."""
    shown = log_hdr if floor is None else torch.maximum(log_hdr, floor)
    return mask * truth + (1 - mask) * linear(shown)


def perceptual_pictures(mixed: Tensor, truth: Tensor, mu: float, peak: float) -> tuple[Tensor, Tensor]:
    """T(H̃) and T(H) of eq. 8 and 11: both divided by the truth's maximum of each picture, at least 1 and at most
    `peak`, since otherwise the μ-law leaves [0,1], the range that VGG was trained on."""
    scale = truth.amax(dim=(1, 2, 3), keepdim=True).clamp(1.0, peak)
    return mu_law(mixed / scale, mu), mu_law(truth.clamp_min(0) / scale, mu)


def vgg_loss(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Eq. 8: Σ_l mean |φ_l(T(H̃)) − φ_l(T(H))| over the layers' activations."""
    return torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(ours, theirs, strict=True)]).sum()


def gram(features: Tensor) -> Tensor:
    """Eq. 12: φᵀφ / (C·H·W) of (N,C,H,W), as (N,C,C). In float32, since sums over a whole layer overflow half."""
    n, c, h, w = features.shape
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().reshape(n, c, h * w)
        return flat @ flat.transpose(1, 2) / (c * h * w)


def style_loss(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Eq. 11: Σ_l mean |G_l(T(H̃)) − G_l(T(H))|."""
    return torch.stack([(gram(a) - gram(b)).abs().mean() for a, b in zip(ours, theirs, strict=True)]).sum()


def chroma_loss(mixed: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Distance of colour, whatever the brightness: mean |log(H̃_c / mean H̃) − log(H_c / mean H)| with geometric
    means over the channels, where any channel is clipped. Not in the paper; it acts against coloured blotches."""
    weight = 1 - mask.amin(dim=1, keepdim=True)

    def ratio(hdr: Tensor) -> Tensor:
        log = torch.log(hdr.clamp_min(0) + CHROMA_FLOOR)
        return log - log.mean(dim=1, keepdim=True)

    return (weight * (ratio(mixed) - ratio(truth)).abs()).mean()


def gradient_loss(mixed: Tensor, truth: Tensor, scales: int = 3) -> Tensor:
    """Mean difference of the gradients of log(H + 1) at 1, 1/2, 1/4 … of the size. Not in the paper."""
    error = torch.log1p(mixed.clamp_min(0)) - torch.log1p(truth.clamp_min(0))
    total = error.new_zeros(())
    for scale in range(scales):
        if scale:
            error = F.avg_pool2d(error, 2)
        total = total + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return total / scales


def crop_corners(mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Tops and lefts, (N,), of the size × size windows that hold most of what is clipped (to 1/8 of size)."""
    step = max(1, size // 8)
    share = F.avg_pool2d((1 - mask).mean(dim=1, keepdim=True), size, stride=step)
    best = share.flatten(1).argmax(dim=1)
    return best // share.shape[3] * step, best % share.shape[3] * step


def _crop(picture: Tensor, corners: tuple[Tensor, Tensor], size: int) -> Tensor:
    """size × size windows of (N, C, H, W); their places are not read, or the host would wait."""
    n, c, _, wide = picture.shape
    rows, columns = (corner[:, None] + torch.arange(size, device=picture.device) for corner in corners)
    strip = picture.gather(2, rows.view(n, 1, size, 1).expand(n, c, size, wide))
    return strip.gather(3, columns.view(n, 1, 1, size).expand(n, c, size, size))


def hdr_loss(
    log_hdr: Tensor,
    batch: dict[str, Tensor],
    settings: LossSettings,
    vgg: Features | None = None,
    floor: bool = False,
    gamma: float = 2.0,
) -> dict[str, Tensor]:
    """Eq. 5 and 7: λ₁L_r + λ₂(λ₃L_v + λ₄L_s), and our RMS, chroma and gradient terms where their λ are above 0.

    Args:
        log_hdr: Ŷ, (N,3,H,W).
        batch: "ldr" T in [0,1], "mask" M in [0,1] and "truth" H, linear, of eq. 1's scale; all (N,3,H,W).
        vgg: from `load_vgg`; None leaves the perceptual terms out.
        floor: whether the network's picture is max(Ŷ, log(1 + T^γ)) in clipped channels.

    Returns:
        The terms by name, unweighted, and their weighted sum as "loss".
    """
    mask, truth = batch["mask"], batch["truth"]
    low = floor_of(batch["ldr"], gamma) if floor else None
    terms = {"reconstruction": reconstruction_loss(log_hdr, truth, mask, low)}
    loss = settings.lambda_reconstruction * terms["reconstruction"]
    if settings.lambda_rms:
        terms["rms"] = rms_loss(log_hdr, truth, mask, low)
        loss = loss + settings.lambda_rms * terms["rms"]
    mixed = composite(log_hdr, truth, mask, low)
    if settings.lambda_chroma:
        terms["chroma"] = chroma_loss(mixed, truth, mask)
        loss = loss + settings.lambda_chroma * terms["chroma"]
    if settings.lambda_gradient:
        terms["gradient"] = gradient_loss(mixed, truth)
        loss = loss + settings.lambda_gradient * terms["gradient"]
    if vgg is not None:
        ours, theirs = perceptual_pictures(mixed, truth, settings.mu, settings.peak)
        size = settings.perceptual_crop
        if 0 < size < min(mask.shape[2:]):
            corners = crop_corners(mask, size)
            ours, theirs = _crop(ours, corners, size), _crop(theirs, corners, size)
        seen = vgg(ours)
        with torch.no_grad():
            wanted = vgg(theirs)
        terms["vgg"] = vgg_loss(seen, wanted)
        terms["style"] = style_loss(seen, wanted)
        weighted = settings.lambda_vgg * terms["vgg"] + settings.lambda_style * terms["style"]
        loss = loss + settings.lambda_perceptual * weighted
    return {"loss": loss, **terms}


def total_variation_loss(picture: Tensor, mask: Tensor) -> Tensor:
    """Liu et al. 2018, eq. 6: mean |differences of neighbours| within the hole dilated by a pixel."""
    hole = F.max_pool2d(1 - mask, 3, stride=1, padding=1)
    across = picture.diff(dim=3).abs() * hole[..., 1:] * hole[..., :-1]
    down = picture.diff(dim=2).abs() * hole[..., 1:, :] * hole[..., :-1, :]
    return (across.sum() + down.sum()) / picture.numel()


def inpainting_loss(
    output: Tensor, batch: dict[str, Tensor], settings: LossSettings, vgg: Features | None = None
) -> dict[str, Tensor]:
    """Liu et al. 2018, eq. 7: 1·valid + 6·hole + 0.05·perceptual + 120·style + 0.1·TV.

    Args:
        output: the network's picture, (N,3,H,W), meant to be in [0,1].
        batch: "mask", binary, 0 in holes, and "truth" in [0,1]; both (N,3,H,W).
        vgg: from `load_vgg`; None leaves perceptual and style out.

    Returns:
        The terms by name, unweighted, and their weighted sum as "loss".
    """
    mask, truth = batch["mask"], batch["truth"]
    error = (output - truth).abs()
    terms = {"valid": (mask * error).mean(), "hole": ((1 - mask) * error).mean()}
    mixed = mask * truth + (1 - mask) * output
    terms["variation"] = total_variation_loss(mixed, mask)
    loss = settings.lambda_valid * terms["valid"] + settings.lambda_hole * terms["hole"]
    loss = loss + settings.lambda_variation * terms["variation"]
    if vgg is not None:
        pictures = [output, mixed, truth]
        size = settings.perceptual_crop
        if 0 < size < min(mask.shape[2:]):
            corners = crop_corners(mask, size)
            pictures = [_crop(p, corners, size) for p in pictures]
        bare, filled = vgg(pictures[0]), vgg(pictures[1])
        with torch.no_grad():
            wanted = vgg(pictures[2])
        terms["vgg"] = vgg_loss(bare, wanted) + vgg_loss(filled, wanted)
        terms["style"] = style_loss(bare, wanted) + style_loss(filled, wanted)
        loss = loss + settings.inpainting_perceptual * terms["vgg"] + settings.inpainting_style * terms["style"]
    return {"loss": loss, **terms}
