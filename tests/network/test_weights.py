import pickle

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.network import load_weights, read_weights, save_weights
from convsmith.nn import Classifier, ConvNormAct

TINY = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 8)], stages=[[cs.spec(ConvNormAct, 8)]], head=cs.spec(Classifier, 4), name="tiny"
)


class Peer(nn.Module):
    """The same network as another library would write it, its last layer stored as a 1 x 1 convolution, and first."""

    def __init__(self):
        super().__init__()
        self.output = nn.Conv2d(8, 4, 1)
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        return self.output(self.b(self.a(x)).mean((2, 3), keepdim=True)).flatten(1)


ORDER = [("head.*", "output.*")]


@pytest.fixture
def peer():
    peer = Peer().eval()
    for norm in (peer.a[1], peer.b[1]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return peer


def equal(a, b):
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(a.eval()(x), b.eval()(x))


def test_an_order_of_patterns_maps_what_position_alone_does_not(peer):
    network = cs.create_model(TINY)
    with pytest.raises(ValueError, match=r"weight 0 .* differs in shape: ours is stem.0.conv.weight \(8, 3, 3, 3\)"):
        cs.transplant(peer.state_dict(), network)
    cs.transplant(peer.state_dict(), network, order=ORDER)
    equal(network, peer)


def test_a_weight_too_many_is_named(peer):
    state = {**peer.state_dict(), "extra.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"the first left over is the source's extra\.weight"):
        cs.transplant(state, cs.create_model(TINY), order=ORDER)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_survive_a_file(tmp_path, peer, suffix):
    network = cs.create_model(TINY)
    cs.transplant(peer.state_dict(), network, order=ORDER)
    path = tmp_path / f"weights.{suffix}"
    save_weights(network, path) if suffix == "safetensors" else torch.save(network.state_dict(), path)
    equal(cs.create_model(TINY, weights=path), peer)


def test_a_peers_file_is_mapped(tmp_path, peer):
    torch.save({"state_dict": peer.state_dict(), "epoch": 3}, tmp_path / "peer.pth")
    network = cs.create_model(TINY)
    load_weights(network, tmp_path / "peer.pth", order=ORDER)
    equal(network, peer)


class Malicious:
    def __reduce__(self):
        return (open, ("/nonexistent/written", "w"))


@pytest.mark.parametrize(
    "content",
    [pickle.dumps({"a": Malicious()}, protocol=2), b"not a state dict", b""],
    ids=["a pickle that calls a function", "something else", "an empty file"],
)
def test_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="can be read without running code") as caught:
        cs.create_model(TINY, weights=path)
    assert "\n" not in str(caught.value)


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"can be read without running code .*save network.state_dict\(\)"):
        read_weights(tmp_path / "module.pth")


def test_other_content_and_missing_files_are_named(tmp_path):
    torch.save({"a": 3}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="must hold a state dict"):
        read_weights(tmp_path / "a.pth")
    (tmp_path / "b.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match="no whole safetensors file"):
        read_weights(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match=r"there is no weights file .*c.pth"):
        read_weights(tmp_path / "c.pth")


def test_weights_of_another_network_do_not_fit(tmp_path):
    cs.create_model("resnet18").save_weights(tmp_path / "resnet18.safetensors")
    with pytest.raises(ValueError, match=r"resnet18.safetensors do not fit the network"):
        cs.create_model(TINY, weights=tmp_path / "resnet18.safetensors")


def test_the_architecture_travels_inside(tmp_path):
    import safetensors

    save_weights(cs.create_model(TINY), tmp_path / "tiny.safetensors")
    with safetensors.safe_open(tmp_path / "tiny.safetensors", "pt") as file:
        assert cs.Architecture.from_json(file.metadata()["architecture"]) == TINY


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "shufflenet_v1_g3_x0_25"])
def test_a_peers_safetensors_is_mapped_although_it_is_sorted(tmp_path, name):
    from safetensors.torch import save_file

    from tests.zoo.peers import build_peer, images, randomise

    peer = build_peer(cs.zoo.variants()[name])
    x = images(64)
    randomise(peer, x)
    save_file({key: value.contiguous() for key, value in peer.state_dict().items()}, tmp_path / "peer.safetensors")
    ours = cs.create_model(name, weights=tmp_path / "peer.safetensors").double().eval()
    with torch.no_grad():
        # The file's float64 weights are rounded to ours.
        torch.testing.assert_close(ours(x), peer(x), rtol=1e-3, atol=1e-3 * peer(x).abs().max().item())


def test_sorted_names_of_an_unknown_library_are_refused(tmp_path, peer):
    from safetensors.torch import save_file

    save_file(peer.state_dict(), tmp_path / "peer.safetensors")
    with pytest.raises(ValueError, match=r"a safetensors file keeps them sorted.*save the state dict with torch\.save"):
        cs.create_model(TINY, weights=tmp_path / "peer.safetensors")


def test_equal_networks_leave_equal_files(tmp_path):
    network = cs.create_model(TINY)
    for name in "ab":
        save_weights(network, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
