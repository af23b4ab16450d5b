"""Weights that a model names and does not hold, for a runtime of this process, which takes them where they are.

A model of 60 million weights is copied four times on its way into a runtime, each time into fresh memory, which takes
as long as compiling it. ONNX lets a tensor name a file with its values. ONNX Runtime takes values by a tensor's name in
place of any file. OpenVINO reads a name that stands for the memory of the process, the offset being an address; ONNX
Runtime made that up for what it hands to other runtimes.
"""

from __future__ import annotations

from typing import Any

from convsmith.deploy.onnx.packages import imported

MEMORY = "*/_ORT_MEM_ADDR_/*"  # OpenVINO's
GIVEN = "given by name"  # ONNX Runtime's, which needs one and does not look at it
LEAST_BYTES = 1024  # smaller ones stay in the model


class Apart(dict[str, Any]):
    """The large weights of a model, NumPy arrays by their names; `place` is the file that the model names for them."""

    def __init__(self, place: str):
        super().__init__()
        self.place = place

    def take(self, tensor: Any, array: Any) -> bool:
        """Whether the values of a tensor of the model are taken, which are those of an array."""
        if array.nbytes < LEAST_BYTES:
            return False
        self[tensor.name] = array
        tensor.data_location = tensor.EXTERNAL
        for key, value in (("location", self.place), ("offset", array.ctypes.data), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return True


def held(model: bytes, weights: Apart) -> bytes:
    """The model with its weights inside."""
    proto = imported("onnx").load_model_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = weights[tensor.name].tobytes()
    return bytes(proto.SerializeToString())
