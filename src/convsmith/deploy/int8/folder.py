"""The folder that ships a quantised network: its files, a loader, and a README with what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from convsmith.arch import check_takes_files, write_whole_bytes
from convsmith.deploy.backends import Artefact

README = """# A network in int8

{summary}

    pip install {packages}

```python
import numpy
from loader import load

network = load(threads=1)
logits = network(images)  # images: a float32 NumPy array of shape {shape}, prepared as in training
```

| | |
|---|---|
{table}

Made by convsmith {version}. int8 is fastest on processors with integer dot products (VNNI, Arm's dot product).
"""


def check_folder(folder: Path) -> None:
    """Raise ValueError when something in the folder would be mixed with what is written, or it cannot be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"the folder to write must be new or empty, and {folder} is not; name another one")
    check_takes_files(folder)


def write_folder(
    folder: Path, write: Callable[[Path], Artefact], shape: str, summary: str, facts: Mapping[str, object]
) -> list[Path]:
    """Write the files, `loader.py`, `README.md` and the facts as `int8.json`; the paths written.

    Raises ValueError when the folder is not empty.
    """
    from convsmith import __version__

    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:  # on its file system, which may be another than its parent's
        draft = Path(name)
        artefact = write(draft)
        for file in artefact.files:
            (draft / file).replace(folder / file)
    table = "\n".join(f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in facts.items())
    readme = README.format(
        summary=summary, packages=" ".join(artefact.packages), shape=shape, table=table, version=__version__
    )
    texts = {"loader.py": artefact.loader, "README.md": readme, "int8.json": json.dumps(dict(facts), indent=1) + "\n"}
    for file, text in texts.items():
        write_whole_bytes(folder / file, text.encode())
    return [folder / file for file in (*artefact.files, *texts)]


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
