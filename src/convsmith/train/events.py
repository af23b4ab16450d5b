"""TensorBoard events of a training, where TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Row = dict[str, float]


@contextmanager
def event_log(folder: Path, history: list[Row]) -> Iterator[Callable[[Row], None]]:
    """Log rows of figures into a folder, one step per epoch; without TensorBoard (the extra `tensorboard`), nowhere.

    Event files of earlier starts are replaced by one that begins with the history, so that no epoch is there twice.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    writer = SummaryWriter(str(folder))

    def log(row: Row) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    try:
        for row in history:
            log(row)
        yield log
    finally:
        writer.close()
