import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith import deploy

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def small_network():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network in training mode, its state before, and the result of exporting it with an example of one image."""
    torch.manual_seed(1)
    network = small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("export") / "new folder" / "network.onnx"
    result = deploy.export(network, path, torch.randn(1, 3, 9, 9), metadata={"trial": "17"})
    return network, before, result


def test_the_file_computes_what_eager_computes_at_any_batch_size(exported):
    network, _, result = exported
    session = onnxruntime.InferenceSession(str(result.path), providers=["CPUExecutionProvider"])
    network = copy.deepcopy(network).eval()
    for batch in (1, 2, 3, 5):
        x = torch.randn(batch, 3, 9, 9)
        (actual,) = session.run(None, {"input": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(actual), network(x), rtol=1e-4, atol=1e-5)


def test_the_result_says_what_was_written(exported):
    _, _, result = exported
    model = onnx.load(result.path)
    onnx.checker.check_model(model, full_check=True)
    assert result.bytes == result.path.stat().st_size
    assert [entry.version for entry in model.opset_import if not entry.domain] == [result.opset]
    assert 0 <= result.largest_difference <= result.tolerance == 1e-4
    assert result.batch_sizes == (1, 3)
    assert result.folded_norms == 1
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "convsmith_version": cs.__version__,
        "trial": "17",
    }
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "output"]
    assert [p.name for p in result.path.parent.iterdir()] == ["network.onnx"]


def test_the_file_tells_nothing_of_the_machine(exported):
    _, _, result = exported
    assert torch.__file__.rpartition("/torch/")[0].encode() not in result.path.read_bytes()


def test_the_module_is_untouched(exported):
    network, before, _ = exported
    assert all(part.training for part in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Batchwise(nn.Module):
    """Correct for the batch that it was made for, as a file with a fixed batch size would be."""

    def forward(self, x):
        return x.reshape(2, -1)


class DataDependent(nn.Module):
    def forward(self, x):
        return 2 * x if x.sum() > 0 else x


class BatchDependent(nn.Module):
    def forward(self, x):
        return 2 * x if x.shape[0] > 3 else x


@pytest.mark.parametrize("network", [Batchwise(), DataDependent(), BatchDependent(), nn.Sequential(DataDependent())])
def test_branches_that_a_file_cannot_have_are_refused(network, tmp_path, capfd):
    with pytest.raises(ValueError, match=r"forward must not branch on values or on the batch size") as caught:
        deploy.export(network, tmp_path / "network.onnx", torch.randn(2, 3, 4, 4))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("wrong", [lambda y: y * 1.01, lambda y: y * float("nan"), lambda y: y[None]])
def test_a_file_that_differs_from_eager_is_refused(monkeypatch, tmp_path, wrong):
    load = deploy.onnx.load
    monkeypatch.setattr(deploy.onnx, "load", lambda model, threads: lambda x: wrong(load(model, threads)(x)))
    path = tmp_path / "network.onnx"
    path.write_text("an older file")
    with pytest.raises(ValueError, match=r"may differ from eager by 0\.0001 of the largest output, and differs by"):
        deploy.export(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), path, torch.randn(2, 3, 2, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_text() == "an older file"


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_an_error_in_one_batch_size_alone_is_noticed(monkeypatch, tmp_path, wrong):
    load = deploy.onnx.load
    monkeypatch.setattr(
        deploy.onnx, "load", lambda model, threads: lambda x: load(model, threads)(x) + (wrong if len(x) == 3 else 0.0)
    )
    with pytest.raises(ValueError, match="may differ from eager"):
        deploy.export(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), tmp_path / "a.onnx", torch.randn(1, 3, 2, 2))


def test_outputs_that_hardly_depend_on_the_input_are_told(tmp_path):
    network = small_network()
    list(network.parameters())[-1].data.fill_(1e6)  # the last bias
    with pytest.warns(UserWarning, match="agreement with eager within 0.0001 shows nothing") as warned:
        deploy.export(network, tmp_path / "network.onnx", torch.randn(2, 3, 16, 16))
    assert warned[0].filename == __file__


def test_a_failing_write_leaves_no_file(monkeypatch, tmp_path):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        deploy.export(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), tmp_path / "a.onnx", torch.randn(1, 3, 2, 2))
    assert list(tmp_path.iterdir()) == []


class Misread(nn.Module):
    """torch.fx takes the other branch: there, the norm could be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(1.0)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y if isinstance(x, torch.Tensor) else self.norm(y)


def test_a_network_that_folding_misreads_is_exported_unfolded(tmp_path):
    result = deploy.export(Misread(), tmp_path / "network.onnx", torch.randn(2, 3, 4, 4))
    assert result.folded_norms == 0
    assert result.largest_difference <= result.tolerance


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x


class NotFinite(nn.Module):
    def forward(self, x):
        return x / 0


IMAGES = torch.randn(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("network", "example", "options", "message"),
    [
        (nn.Identity(), IMAGES, {"format": "onxx"}, "unknown format 'onxx'; the formats are onnx"),
        (nn.Identity(), IMAGES, {"tolerance": 0.0}, "tolerance must be positive"),
        (nn.Identity(), IMAGES, {"metadata": {"trial": 17}}, "metadata must map text to text, got 'trial': 17"),
        (nn.Identity(), IMAGES.int(), {}, "the example must be a floating-point tensor .* got torch.int32"),
        (nn.Identity(), torch.tensor(1.0), {}, "with a batch dimension"),
        ("resnet18", IMAGES, {}, r"a network must be a torch\.nn\.Module, got 'resnet18'; build it by cs\.create"),
        (nn.Identity(), torch.randn(0, 3), {}, "with a batch dimension"),
        (TwoOutputs(), IMAGES, {}, "must return one tensor, and TwoOutputs returns a tuple; wrap it"),
        (NotFinite(), IMAGES, {}, "outputs must be finite"),
        (nn.Conv2d(4, 4, 1), IMAGES, {}, r"must take torch.float32 of shape \(2, 3, 4, 4\), and fails"),
    ],
)
def test_wrong_arguments_are_refused(network, example, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        deploy.export(network, tmp_path / "network.onnx", example, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="the path must name a file"):
        deploy.export(nn.Identity(), tmp_path, IMAGES)


def test_a_missing_package_names_the_extra():
    code = """
import sys, torch
sys.modules.update(dict.fromkeys(["onnx", "onnxruntime"]))
from convsmith import deploy
print(*("onnxruntime" in names for names in (deploy.backends.names(), deploy.backends.installed())))
for attempt in (
    lambda: deploy.export(torch.nn.Identity(), "never.onnx", torch.zeros(1, 1)),
    lambda: deploy.prepare(torch.nn.Identity(), torch.zeros(1, 1), backend="onnxruntime"),
):
    try:
        attempt()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    known, *errors = done.stdout.splitlines()
    assert known == "True False"
    assert len(errors) == 2
    assert all("pip install 'convsmith[onnx]'" in error for error in errors)
