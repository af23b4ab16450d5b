"""Buffers that no state dict holds: what gives them their values where the meta device is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn


class Unsaved(nn.Module, ABC):
    """A module whose buffers outside of the state dict start with the same values on every device.

    A module from the meta device gets memory by `to_empty`, and no `load_state_dict` fills these buffers then.
    """

    @abstractmethod
    def fill(self) -> None:
        """Write the values with which these buffers start."""

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        was_on_meta = self._unsaved().is_meta
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if was_on_meta and not self._unsaved().is_meta:
            with torch.device(self._unsaved().device), torch.no_grad():
                self.fill()
        return self

    def _unsaved(self) -> Tensor:
        """One of these buffers; they lie on one device."""
        return self.get_buffer(min(self._non_persistent_buffers_set))
