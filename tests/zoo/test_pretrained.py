"""Pretrained weights, with made ones in the places where the libraries keep what they have fetched."""

import hashlib

import pytest
import torch

import convsmith as cs
from tests.zoo.peers import assert_equal_outputs, build_peer, images, randomise


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Empty caches, and a failure instead of a download."""

    def refuse(*_, **__):
        raise AssertionError("something was to be fetched")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("socket.socket.connect", refuse)
    return tmp_path


def made_peer(name, size):
    peer = build_peer(cs.zoo.variants()[name])
    randomise(peer, images(size))
    return peer.float()


def in_torchvisions_cache(folder, file, peer):
    checkpoints = folder / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(peer.state_dict(), checkpoints / file)


@pytest.fixture
def resnet18(no_network):
    peer = made_peer("resnet18", 64)
    in_torchvisions_cache(no_network, "resnet18-f37072fd.pth", peer)
    return peer.double()


def outputs(network, x):
    with torch.no_grad():
        return network.double().eval()(x)


@pytest.mark.parametrize("source", ["torchvision", "torchvision/IMAGENET1K_V1"])
def test_torchvisions_weights(resnet18, source):
    network = cs.create_model("resnet18", weights=source)
    x = images(64)
    assert network.training
    assert_equal_outputs(outputs(network, x), outputs(resnet18, x))


def test_grey_images_give_what_three_equal_channels_gave(resnet18):
    grey = images(64, channels=1)
    network = cs.create_model("resnet18", weights="torchvision", in_channels=1)
    assert network.stem[0].conv.weight.shape[1] == 1
    assert_equal_outputs(
        outputs(network, grey), outputs(resnet18, grey.repeat(1, 3, 1, 1)), tolerance=1e-5
    )  # sums of float32


def test_more_channels_share_the_first_convolution(resnet18):
    x = images(64)
    network = cs.create_model("resnet18", weights="torchvision", in_channels=6)
    assert_equal_outputs(outputs(network, torch.cat((x, x), 1)), outputs(resnet18, x), tolerance=1e-5)


def test_another_number_of_classes_gets_a_fresh_head_on_the_same_features(resnet18):
    x = images(64)
    network = cs.create_model("resnet18", weights="torchvision", num_classes=7).double().eval()
    assert network(x).shape == (4, 7)
    whole = cs.create_model("resnet18", weights="torchvision").double().eval()
    assert torch.equal(network.features(x)[-1], whole.features(x)[-1])
    fresh = cs.create_model("resnet18", num_classes=7)
    assert network.head.linear.weight.std().item() == pytest.approx(fresh.head.linear.weight.std().item(), rel=0.1)


def test_a_library_that_scales_its_inputs_itself_and_has_auxiliary_heads(no_network):
    import torchvision

    peer = torchvision.models.googlenet(aux_logits=True, init_weights=False, transform_input=True)
    peer = peer.double().eval()
    randomise(peer, images(96))
    in_torchvisions_cache(no_network, "googlenet-1378be20.pth", peer.float())
    network = cs.create_model("googlenet", weights="torchvision")
    x = images(96)
    peer.transform_input = False
    assert_equal_outputs(outputs(network, x), outputs(peer, x))


@pytest.mark.slow
@pytest.mark.parametrize("aux_heads", [False, True])
def test_a_library_whose_weights_always_have_an_auxiliary_head(no_network, aux_heads):
    import torchvision

    peer = torchvision.models.inception_v3(aux_logits=True, init_weights=False).double().eval()
    randomise(peer, images(96))
    in_torchvisions_cache(no_network, "inception_v3_google-0cc3c7bd.pth", peer.float())
    network = cs.create_model("inception_v3", weights="torchvision", aux_heads=aux_heads)
    x = images(96)
    assert_equal_outputs(outputs(network, x), outputs(peer, x))
    if aux_heads:
        assert torch.equal(network.aux[0].linear.weight, peer.AuxLogits.fc.weight)


def test_timms_weights_by_their_name(no_network, monkeypatch):
    import timm

    peer = timm.create_model("resnet18").double().eval()
    randomise(peer, images(64))
    fetched = []
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf",
        lambda repo, *_, **__: (fetched.append(repo), dict(peer.float().state_dict()))[1],
    )
    network = cs.create_model("resnet18", weights="timm/resnet18.a1_in1k")
    assert fetched == ["timm/resnet18.a1_in1k"]
    x = images(64)
    assert_equal_outputs(outputs(network, x), outputs(peer.double(), x))


def test_pytorchcvs_weights_in_its_own_order(no_network, monkeypatch):
    name = "shufflenet_v2_x0_5_paper"
    peer = made_peer(name, 64)
    store = no_network / "home/.torch/models"
    store.mkdir(parents=True)
    torch.save(peer.state_dict(), store / "made.pth")
    sha1 = hashlib.sha1((store / "made.pth").read_bytes()).hexdigest()
    (store / "made.pth").rename(store / f"shufflenetv2b_wd2-1234-{sha1[:8]}.pth")
    monkeypatch.setattr(
        "pytorchcv.models.common.model_store.get_model_name_suffix_data", lambda model: ("1234", sha1, "v0.0.0")
    )
    network = cs.create_model(name, weights="pytorchcv")
    x = images(64)
    assert_equal_outputs(outputs(network, x), outputs(peer.double(), x))


def test_another_network_of_the_same_shapes_is_found_by_its_outputs(no_network):
    # The stride in another convolution: the same shapes, other outputs.
    peer = build_peer(cs.zoo.variants()["resnet50"])
    randomise(peer, images(64))
    in_torchvisions_cache(no_network, "resnet50-11ad3fa6.pth", peer.float())
    with pytest.raises(
        ValueError, match=r"resnet50_v1 .* must give the library's outputs, they differ by .* the same sh"
    ):
        cs.create_model("resnet50_v1", weights="torchvision/resnet50")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet50_v1", "torchvision", r"torchvision has no such network or weights: resnet50_v1 .* torchvision/NAME"),
        ("resnet18", "torchvision/IMAGENET1K_V9", r"torchvision has no such network or weights"),
        ("resnet18", "timm/resnet19", r"timm has no such network or weights: resnet19"),
        ("resnet50", "timm/resnet50.nope", r"timm has no such network or weights: resnet50.nope"),
        ("resnet18", "pytorchcv/resnet19", r"pytorchcv has no such network or weights: resnet19"),
        ("resnet18", "keras", r"there is no weights file keras; "),
    ],
)
def test_what_is_not_there_is_said(no_network, name, weights, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cs.create_model(name, weights=weights)


def test_weights_of_another_network_do_not_fit(resnet18):
    with pytest.raises(
        ValueError, match=r"weights of torchvision/resnet18 do not fit resnet34: weight 25 .* differs in shape"
    ):
        cs.create_model("resnet34", weights="torchvision/resnet18")


@pytest.mark.parametrize(
    ("name", "like"),
    [("resnet18", "torchvision"), ("resnet18", "timm/resnet18"), ("shufflenet_v2_x0_5_paper", "pytorchcv")],
)
def test_weights_go_back_under_the_librarys_names(name, like):
    network = cs.create_model(name, num_classes=5).double().eval()
    randomise(network, images(64))
    state = cs.export_state_dict(network, like=like)
    variant = cs.zoo.variants()[name]
    if like.startswith("timm"):
        import timm

        peer = timm.create_model("resnet18", num_classes=5)
    elif like == "torchvision":
        import torchvision

        peer = torchvision.models.resnet18(num_classes=5)
    else:
        from pytorchcv.model_provider import get_model

        peer = get_model(variant.peer, num_classes=5, in_size=(64, 64))
        peer.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    peer = peer.double().eval()
    peer.load_state_dict(state, strict=True)
    x = images(64)
    assert_equal_outputs(outputs(peer, x), outputs(network, x))


def test_auxiliary_heads_go_back_too():
    import torchvision

    network = cs.create_model("googlenet", aux_heads=True)
    state = cs.export_state_dict(network, like="torchvision")
    peer = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    peer.load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    ("name", "like", "message"),
    [
        ("resnet18", "keras", "the library must be one of torchvision, timm, pytorchcv, got 'keras'"),
        ("googlenet_paper", "torchvision/googlenet", "googlenet_paper has no form like torchvision/googlenet"),
    ],
)
def test_what_has_no_such_form_is_refused(name, like, message):
    with pytest.raises(ValueError, match=message):
        cs.export_state_dict(cs.create_model(name), like=like)


def test_one_file_rebuilds_the_network(tmp_path):
    network = cs.create_model("mobilenet_v2_x0_35", num_classes=4, in_channels=1)
    randomise(network.double(), images(64, channels=1))
    cs.network.save_weights(network.float(), tmp_path / "mine.safetensors")
    again = cs.create_model(tmp_path / "mine.safetensors")
    x = images(64, channels=1)
    assert again.architecture == network.architecture
    assert torch.equal(outputs(again, x), outputs(network, x))
    other = cs.create_model(tmp_path / "mine.safetensors", num_classes=9).double().eval()
    assert other(x).shape == (4, 9)
    assert torch.equal(other.features(x)[-1], again.eval().features(x)[-1])


def test_a_file_of_a_peer_fits_with_other_classes_and_channels(tmp_path):
    peer = made_peer("resnet18", 64)
    torch.save(peer.state_dict(), tmp_path / "theirs.pth")
    grey = images(64, channels=1)
    network = cs.create_model("resnet18", num_classes=3, in_channels=1, weights=tmp_path / "theirs.pth")
    whole = cs.create_model("resnet18", weights=tmp_path / "theirs.pth").double().eval()
    features = network.double().eval().features(grey)[-1]
    torch.testing.assert_close(features, whole.features(grey.repeat(1, 3, 1, 1))[-1], rtol=1e-4, atol=1e-4)


def test_a_file_without_architecture_is_no_network(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"holds no architecture; name the architecture"):
        cs.create_model(tmp_path / "plain.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        cs.create_model(tmp_path / "missing.safetensors")


def test_a_state_dict_in_memory_is_taken_as_it_is():
    peer = made_peer("resnet18", 64)
    x = images(64)
    assert_equal_outputs(outputs(cs.create_model("resnet18", weights=peer.state_dict()), x), outputs(peer.double(), x))
    with pytest.raises(ValueError, match="the weights in a state dict do not fit the network"):
        cs.create_model("resnet34", weights=peer.state_dict())


def test_every_convolution_that_reads_the_image_is_adapted(tmp_path):
    network = cs.create_model("fractalnet_cifar")
    randomise(network.double(), images(32))
    cs.network.save_weights(network.float(), tmp_path / "mine.safetensors")
    grey = images(32, channels=1)
    adapted = cs.create_model("fractalnet_cifar", in_channels=1, weights=tmp_path / "mine.safetensors")
    assert_equal_outputs(outputs(adapted, grey), outputs(network, grey.repeat(1, 3, 1, 1)), tolerance=1e-5)


def test_weights_with_auxiliary_heads_serve_without_them(tmp_path):
    network = cs.create_model("googlenet", aux_heads=True)
    cs.network.save_weights(network, tmp_path / "mine.safetensors")
    plain = cs.create_model("googlenet", weights=tmp_path / "mine.safetensors")
    x = images(64)
    assert torch.equal(outputs(plain, x), outputs(network, x))
