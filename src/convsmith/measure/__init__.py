"""What a network costs and how fast it runs, for any module: counts, latency, and the device beside them."""

from convsmith.measure.advice import Finding, Gain, NormChoice, choose_norm
from convsmith.measure.advise import advise
from convsmith.measure.cost import Cost, cost
from convsmith.measure.count import Counts, ModuleCounts, OperatorCounts, count
from convsmith.measure.device import DeviceSpeed, device_speed
from convsmith.measure.latency import Latency, latencies, latency
from convsmith.measure.predictor import LatencyPredictor, UnknownKernelWarning
from convsmith.measure.profile import Profile, profile
from convsmith.measure.receptive_field import Field, ReceptiveField, receptive_field
from convsmith.measure.remote import RemoteError, RemoteLatency, Target, check_reachable, parse_target, remote_latency
from convsmith.measure.roofs import Roofs, device_roofs
from convsmith.measure.summary import Layer, Summary, summary

__all__ = [
    "Cost",
    "Counts",
    "DeviceSpeed",
    "Field",
    "Finding",
    "Gain",
    "Latency",
    "LatencyPredictor",
    "Layer",
    "ModuleCounts",
    "NormChoice",
    "OperatorCounts",
    "Profile",
    "ReceptiveField",
    "RemoteError",
    "RemoteLatency",
    "Roofs",
    "Summary",
    "Target",
    "UnknownKernelWarning",
    "advise",
    "check_reachable",
    "choose_norm",
    "cost",
    "count",
    "device_roofs",
    "device_speed",
    "latencies",
    "latency",
    "parse_target",
    "profile",
    "receptive_field",
    "remote_latency",
    "summary",
]
