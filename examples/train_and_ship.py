"""Train a small network on the handwritten digits, ship it as ONNX, and use the file."""

import tempfile
from pathlib import Path

import onnxruntime
import torch

import convsmith as cs

digits = cs.data.load("digits")
task = cs.tasks.Classification(digits.num_classes)
architecture = cs.zoo.for_small_inputs(cs.zoo.get("mobilenet_v2_x0_35", num_classes=10, in_channels=1), 8)
torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    # The same call on the same run_dir resumes after a crash, and ends in the same weights.
    result = cs.train.fit(
        task.network(architecture), task, digits, cs.train.Recipe(epochs=2), run_dir=Path(folder) / "run"
    )
    images, labels = next(iter(digits.test.batches(100)))
    exported = cs.deploy.export(result.network, Path(folder) / "model.onnx", images[:2])
    print(f"differs from eager by {exported.largest_difference:.1e}")
    (logits,) = onnxruntime.InferenceSession(exported.path).run(None, {"input": images.numpy()})
    print(
        f"accuracy of the file on 100 test images: {(torch.from_numpy(logits).argmax(1) == labels).float().mean():.2f}"
    )
