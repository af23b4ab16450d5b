"""Training: one loop, recipes, schedules, optimisers, checkpoints, and the folder of a run."""

from convsmith.train import recipes
from convsmith.train.evaluation import evaluate
from convsmith.train.loop import TrainResult, fit
from convsmith.train.optimizer import OPTIMIZERS, make_optimizer, parameter_groups
from convsmith.train.recipe import Recipe
from convsmith.train.schedule import Schedule, cosine, with_warmup

__all__ = [
    "OPTIMIZERS",
    "Recipe",
    "Schedule",
    "TrainResult",
    "cosine",
    "evaluate",
    "fit",
    "make_optimizer",
    "parameter_groups",
    "recipes",
    "with_warmup",
]
