"""How a network is trained, as data."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from convsmith.train.optimizer import OPTIMIZERS

FORMAT = "convsmith/recipe/1"
ADDED = ("group_lasso",)  # settings that the first recipes did not have


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Epochs, batch size and optimiser settings of a training; ValueError for a value that makes no sense.

    `batch_size` is per process. The learning rate rises linearly from 0 to `lr` during `warmup_epochs`, then falls to 0
    along half a cosine, step by step. Norms and biases do not decay unless `decay_norm_and_bias`. `group_lasso` is the
    weight, in the loss, of the group lasso of learned group convolutions (CondenseNet: 1e-5 on ImageNet); a network
    without them has none. `augment` and `channels_last` (memory format of network and batches) are switches. All
    randomness of a training comes from `seed`.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = False
    group_lasso: float = 0.0
    warmup_epochs: float = 0.0
    optimizer: str = "sgd"
    augment: bool = True
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            self._check(name, int, lambda value: value > 0, "a positive int")
        self._check("seed", int, lambda value: value >= 0, "an int that is not negative")
        self._check("lr", float, lambda value: 0 < value < math.inf, "a positive finite number")
        self._check("momentum", float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")
        for name in ("weight_decay", "group_lasso"):
            self._check(name, float, lambda value: 0 <= value < math.inf, "a finite number that is not negative")
        self._check(
            "warmup_epochs", float, lambda value: 0 <= value < self.epochs, f"at least 0 and below epochs={self.epochs}"
        )
        for name in ("nesterov", "decay_norm_and_bias", "augment", "channels_last"):
            self._check(name, bool, lambda value: True, "True or False")
        self._check("optimizer", str, lambda value: value in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"nesterov needs a momentum above 0, got momentum={self.momentum}; set nesterov=False")

    def to_json(self) -> str:
        """The file format `convsmith/recipe/1`."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    def recorded(self) -> dict[str, Any]:
        """The settings as a run records and compares them: a run from before one was added has it at its default."""
        left_out = [
            field.name
            for field in dataclasses.fields(self)
            if field.name in ADDED and field.default == getattr(self, field.name)
        ]
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read the file format; a missing key takes its default, anything else that is wrong is a ValueError."""
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"a recipe is JSON, got {error.msg} in line {error.lineno}, column {error.colno}; "
                "Recipe(...).to_json() writes one"
            ) from None
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ValueError(f'a recipe is a JSON object with "format": "{FORMAT}"; Recipe(...).to_json() writes one')
        names = [field.name for field in dataclasses.fields(Recipe)]
        unknown = [key for key in document if key not in names]
        if unknown:
            raise ValueError(f"a recipe has {', '.join(names)}, got the unknown key {unknown[0]!r}; remove it")
        return Recipe(**document)

    def _check(self, name: str, kind: type, holds: Any, rule: str) -> None:
        value = getattr(self, name)
        if kind is float and type(value) is int:
            value = float(value)
            object.__setattr__(self, name, value)
        if type(value) is not kind or not holds(value):
            raise ValueError(f"{name} must be {rule}, got {value!r}")
