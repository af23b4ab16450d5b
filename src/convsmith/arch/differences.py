"""Where two JSON values differ: settings of runs, and architectures as their files have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

LONGEST_SHOWN = 80


def differences(there: Any, here: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """`(path, there, here)` of each leaf in which two JSON values differ; what only one of them has is None there."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            yield from differences(there.get(key), here.get(key), f"{where}.{key}" if where else key)
    elif isinstance(there, list) and isinstance(here, list) and there != here:
        for i, (a, b) in enumerate(zip_longest(there, here)):
            yield from differences(a, b, f"{where}[{i}]")
    elif there != here:
        yield where, there, here


def shown(value: Any) -> str:
    """The value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
