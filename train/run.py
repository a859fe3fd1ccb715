"""What the rooms of a training run share: the run's state, and how it reports to whoever started it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from model.masked_unet import MaskedUNet
from train.budget import Budget
from train.config import Settings
from train.journal import Journal
from train.losses import Features
from train.vgg import VGG19Features

Terms = dict[str, Tensor]  # a batch by name, or the terms of a loss by name


@dataclass
class Progress:
    """A logged step; `wait` is the share of the time spent waiting for data.

    `exchange`: of the `seconds` of a step, those spent waiting for other processes' gradients; None for one process.
    """

    step: int
    max_steps: int | None
    loss: float
    terms: dict[str, float]
    learning_rate: float
    patches_per_second: float
    wait: float
    hours_left: float | None
    seconds: float
    exchange: float | None = None


class Listener:
    """Receives a run's reports. This one ignores them; the command line has one that prints them."""

    def message(self, text: str) -> None:
        """One sentence: validation figures, warnings, files written."""

    def progress(self, progress: Progress) -> None:
        """A logged step."""


@dataclass
class Position:
    """How far a run has come: everything in a checkpoint that is not a tensor."""

    step: int = 0
    seconds: float = 0.0
    rate_factor: float = 1.0  # by which plateaus have lowered the learning rate
    stalled: int = 0  # validations since the last progress
    plateau_best: float = math.inf
    best: float = math.inf
    best_step: int = 0


@dataclass
class Run:
    """A run under way."""

    settings: Settings
    fabric: Any
    wrapped: Any  # the network as Fabric runs it
    net: MaskedUNet  # the same network without Fabric's wrapper
    average: MaskedUNet  # the moving average of its weights
    optimiser: Any
    vgg: VGG19Features | None
    listener: Listener
    credits: dict[str, str] = field(default_factory=dict)  # strings for the metadata of the weights
    position: Position = field(default_factory=Position)
    budget: Budget = field(default_factory=Budget)
    journal: Journal | None = None  # of the first process only
    on_device: bool = False  # whether samples are made on the device
    warned_of_dead_channels: bool = False

    @property
    def out(self) -> Path:
        return Path(self.settings.run.out)

    @property
    def patches_per_step(self) -> int:
        optimiser = self.settings.optimiser
        return optimiser.batch_size * optimiser.accumulate * self.fabric.world_size

    def features(self) -> Features | None:
        """What the perceptual terms compare, computed in the run's precision; None for a run without them."""
        if self.vgg is None:
            return None
        vgg: Callable[[Tensor], list[Tensor]] = self.vgg

        def look(picture: Tensor) -> list[Tensor]:
            with self.fabric.autocast():
                return vgg(picture)

        return look
