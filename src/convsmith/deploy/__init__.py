"""A built network made into something fast and shippable, each step checked against eager."""

from convsmith.deploy import backends, clock
from convsmith.deploy.affine import fold_affine
from convsmith.deploy.comparison import Candidate, Comparison, compare
from convsmith.deploy.export import ExportResult, export
from convsmith.deploy.fold import fold_norm
from convsmith.deploy.gates import fuse_gates
from convsmith.deploy.merge import merge_convolutions
from convsmith.deploy.prepare import Prepared, prepare
from convsmith.deploy.quantize import Quantized, quantize
from convsmith.deploy.shift import fold_shift
from convsmith.deploy.ship import Shipment, ship
from convsmith.deploy.shuffles import unshuffle
from convsmith.deploy.tidy import tidy
from convsmith.deploy.trace import NotTraceableError

__all__ = [
    "Candidate",
    "Comparison",
    "ExportResult",
    "NotTraceableError",
    "Prepared",
    "Quantized",
    "Shipment",
    "backends",
    "clock",
    "compare",
    "export",
    "fold_affine",
    "fold_norm",
    "fold_shift",
    "fuse_gates",
    "merge_convolutions",
    "prepare",
    "quantize",
    "ship",
    "tidy",
    "unshuffle",
]
