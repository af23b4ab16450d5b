"""A built network made into something fast and shippable, each step checked against eager."""

from convsmith.deploy import backends, clock
from convsmith.deploy.comparison import Candidate, Comparison, compare
from convsmith.deploy.export import ExportResult, export
from convsmith.deploy.passes.affine import fold_affine
from convsmith.deploy.passes.fold import fold_norm
from convsmith.deploy.passes.gates import fuse_gates
from convsmith.deploy.passes.merge import merge_convolutions
from convsmith.deploy.passes.shift import fold_shift
from convsmith.deploy.passes.shuffles import unshuffle
from convsmith.deploy.passes.tidy import tidy
from convsmith.deploy.passes.trace import NotTraceableError
from convsmith.deploy.prepare import Prepared, prepare
from convsmith.deploy.quantize import Quantized, quantize
from convsmith.deploy.ship import Shipment, ship

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
