"""Calibrations of the command line: where they lie, and how they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convsmith.measure import LatencyPredictor
    from convsmith.measure.predictor import About

CALIBRATIONS = Path("calibrations")


def calibration_file(device: str, backend: str, threads: int) -> Path:
    """Where a calibration is kept that the command line does not name."""
    return CALIBRATIONS / f"{device}-{backend}-{threads}.safetensors"


def opened(named: Path | None, backend: str, threads: int, *, elsewhere: bool = False) -> LatencyPredictor:
    """The predictor of the file that is named, or of the one where `calibrate` keeps it.

    Raises ValueError for a back end that cannot be calibrated and for a file that is of another back end or number of
    threads, and FileNotFoundError, with the command that makes it, where there is none.
    """
    from convsmith import measure
    from convsmith.measure.predictor.engines import ENGINES
    from convsmith.measure.predictor.runtime import check_supported

    if backend not in ENGINES or not elsewhere:  # another machine's runtime need not be installed here
        check_supported("cpu", backend)
    file = named or calibration_file("cpu", backend, threads)
    if not file.is_file():
        command = f"convsmith calibrate --backend {backend} --threads {threads}"
        command += "" if named is None else f" --out {file}"
        raise FileNotFoundError(f"there is no calibration {file}; make it by `{command}`")
    predictor = measure.LatencyPredictor.load(file, elsewhere=elsewhere)
    check_calibration(predictor.about, backend, threads, file)
    return predictor


def check_calibration(about: About, backend: str, threads: int, file: Path) -> None:
    """Raise ValueError where a calibration is of another back end or number of threads than asked for."""
    if (about.backend, about.threads) != (backend, threads):
        raise ValueError(
            f"the calibration must be of {_run(backend, threads)}, and {file} is of "
            f"{_run(about.backend, about.threads)}; give --backend and --threads accordingly"
        )


def _run(backend: str, threads: int) -> str:
    return f"{backend} on {threads} thread{'s' * (threads != 1)}"
