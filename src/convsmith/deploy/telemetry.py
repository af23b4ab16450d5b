"""OpenVINO and NNCF imported without the messages that they send home.

`import openvino` and every `nncf.quantize` start a process that reports to Google Analytics unless the user has opted
out. Both decide when they are imported, and stay silent for good in continuous integration: so it is told them for just
that moment. What the user's own code imported before is the user's business.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

SILENCE = {"CI": "true", "NNCF_CI": "1"}


def unreported(name: str, extra: str = "openvino") -> Any:
    """The imported module, `openvino` or `nncf`.

    Raises ImportError that names the extra of convsmith when it is not installed.
    """
    before = {key: os.environ.get(key) for key in SILENCE}
    os.environ.update(SILENCE)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed and not installed; pip install 'convsmith[{extra}]'") from error
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
