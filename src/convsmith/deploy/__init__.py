"""A built network made into something fast and shippable, each step checked against eager."""

from convsmith.deploy import backends, clock
from convsmith.deploy.export import ExportResult, export
from convsmith.deploy.fold import fold_norm
from convsmith.deploy.prepare import Prepared, prepare
from convsmith.deploy.shift import fold_shift
from convsmith.deploy.shuffles import unshuffle
from convsmith.deploy.trace import NotTraceableError

__all__ = [
    "ExportResult",
    "NotTraceableError",
    "Prepared",
    "backends",
    "clock",
    "export",
    "fold_norm",
    "fold_shift",
    "prepare",
    "unshuffle",
]
