"""The learning rate: warm-up, constant, cosine, and lower at every plateau of the validation loss."""

import math

from train.config import Settings
from train.run import Position


def learning_rate(settings: Settings, position: Position) -> float:
    """The rate of the step after `position.step`: warm-up, then the schedule. A cosine ends at 1 % of the rate."""
    optimiser, run = settings.optimiser, settings.run
    rate = optimiser.learning_rate * min(1.0, (position.step + 1) / (optimiser.warmup + 1))
    if optimiser.schedule == "plateau":
        return rate * position.rate_factor
    if optimiser.schedule == "constant":
        return rate
    shares = [position.step / run.max_steps] if run.max_steps else []
    shares += [position.seconds / 3600 / run.max_hours] if run.max_hours else []
    done = min(1.0, max(shares, default=0.0))
    return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def lower_rate_on_plateau(settings: Settings, position: Position, validation_loss: float) -> bool:
    """Halves the rate once `patience` validations in a row have brought no progress. Returns whether it did."""
    if validation_loss < position.plateau_best * (1 - 1e-4):
        position.plateau_best, position.stalled = validation_loss, 0
        return False
    position.stalled += 1
    if settings.optimiser.schedule != "plateau" or position.stalled < settings.optimiser.patience:
        return False
    position.rate_factor, position.stalled = position.rate_factor / 2, 0
    return True
