import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest
import torch

import convsmith as cs
from convsmith.cli.calibrations import check_calibration
from convsmith.cli.findings import print_findings
from convsmith.cli.foreign import foreign
from convsmith.cli.main import COMMANDS
from convsmith.measure import Finding
from convsmith.measure.predictor import About, reading
from convsmith.measure.profile import Slowdown
from convsmith.search import spaces
from tests.cli.tiny import TINY


def from_json(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(convsmith, command):
    code, out, _ = convsmith(command, "--help")
    assert code == 0
    assert f"Example: convsmith {command}" in " ".join(out.split())
    assert "--json" in out


def test_the_module_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "convsmith", "--help"], capture_output=True, text=True, check=True)
    assert all(command in ran.stdout for command in COMMANDS)


def test_list(convsmith):
    rows = from_json(convsmith("list", "resnet1*", "--json"))
    assert [row["name"] for row in rows] == cs.zoo.names("resnet1*")
    assert rows[0]["params"] == 11_689_512
    assert "arXiv:1512.03385" in rows[0]["paper"]
    assert (rows[0]["year"], rows[0]["row"]) == (2016, 2)
    code, out, _ = convsmith("list", "mobilenet*")
    assert code == 0
    assert "300.8" in out


def test_list_cuts_no_figure(convsmith):
    code, out, _ = convsmith("list")
    assert code == 0
    assert "4,089.2" in out
    assert "…" not in out


def test_list_filters_and_sorts(convsmith):
    chosen = from_json(convsmith("list", "--family", "*net_v2", "--max-macs", "1e8", "--sort", "macs", "--json"))
    macs = [row["macs"] for row in chosen]
    expected = [v.macs for n, v in cs.zoo.variants().items() if cs.zoo.families()[n].endswith("net_v2")]
    assert macs == sorted(m for m in expected if m <= 1e8)
    assert {row["name"] for row in from_json(convsmith("list", "--row", 7, "--json"))} == set(cs.zoo.names("resnext*"))
    code, _, err = convsmith("list", "resnet*", "--row", 99)
    assert code == 2
    assert "no architecture of family '*' matches 'resnet*' in row 99" in err


def test_diff(convsmith):
    found = from_json(convsmith("diff", "resnet18", "resnet34", "--json"))
    assert found["params"] == {"before": 11_689_512, "after": 21_797_672}
    assert {change["kind"] for change in found["changes"]} == {"added"}
    assert len(found["changes"]) == 8
    code, out, _ = convsmith("diff", "resnet50", "resnet50_v1")
    assert code == 0
    assert "stride_in 3x3 → 1x1" in out
    code, _, err = convsmith("diff", "resnet18", "resnet*")
    assert code == 2
    assert "names" in err


def test_show_draws_and_tells_the_sizes(convsmith, tmp_path):
    shown = from_json(convsmith("show", "mobilenet_v2", "--svg", tmp_path / "net.svg", "--json"))
    assert [size["stride"] for size in shown["resolutions"]] == [2, 4, 8, 16, 32]
    assert (tmp_path / "net.svg").read_text().startswith("<svg")


def test_show(convsmith):
    code, out, _ = convsmith("show", "mobilenet_v2", "--input-size", 160)
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("stage 2"))
    assert line.split()[:2] == ["stage", "2"]
    assert "24, stride=2" in line
    assert "24 × 40 × 40" in line
    shown = from_json(convsmith("show", "tiny.json", "--json"))
    assert shown["params"] == sum(block["params"] for block in shown["blocks"]) == 438


def test_cost_of_names_globs_files_and_other_libraries(convsmith):
    rows = from_json(convsmith("cost", "tiny.json", "mobilenet_v2*", "torchvision:resnet18", "timm:resnet18", "--json"))
    by_name = {row["name"]: row for row in rows}
    assert len(rows) == 1 + len(cs.zoo.names("mobilenet_v2*")) + 2
    numbers = {"params", "macs", "activations", "memory_bytes", "macs_per_byte", "uncounted"}
    assert set(rows[0]) == {"name", "input_size", *numbers}
    assert by_name["tiny.json"]["macs"] == 6992
    assert by_name["torchvision:resnet18"]["macs"] == by_name["timm:resnet18"]["macs"] == 1_814_073_344
    halved = from_json(convsmith("cost", "resnet18", "--input-size", 112, "--batch", 2, "--json"))
    assert halved[0]["macs"] == 2 * cs.measure.cost(cs.zoo.get("resnet18"), (1, 3, 112, 112)).macs
    code, out, _ = convsmith("cost", "resnet18")
    assert code == 0
    assert out.splitlines()[0].split()[:2] == ["name", "input"]
    assert out.splitlines()[1].split()[:4] == ["resnet18", "224", "×", "224"]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet50", 224),
        ("inception_v3", 299),
        ("quantized_inception_v3", 299),
        ("efficientnet_b4", 380),
        ("swin_v2_t", 256),
        ("vit_h_14", 224),  # the default of its weights is tuned at 518, and the network is built for 224
        ("r3d_18", 112),
        ("lraspp_mobilenet_v3_large", 224),
        ("ssd300_vgg16", 224),
    ],
)
def test_torchvisions_networks_get_the_size_that_they_are_made_for(name, side):
    assert foreign(f"torchvision:{name}")[:2] == (3, side)


def test_published_names_of_timm_are_known(convsmith, monkeypatch):
    paths = []
    monkeypatch.setattr(cs.deploy, "export", lambda _, path, *__, **___: paths.append(path) or 1 / 0)
    (row,) = from_json(convsmith("cost", "timm:resnet18.a1_in1k", "--json"))
    assert row["macs"] == 1_814_073_344
    assert foreign("timm:tf_efficientnet_b4.ns_jft_in1k")[:2] == (3, 380)
    assert convsmith("export", "timm:resnet18.a1_in1k", "--input-size", 32)[0] == 1
    assert convsmith("export", "tiny.json")[0] == 1
    assert paths == [Path("resnet18.a1_in1k.onnx"), Path("tiny.onnx")]


def test_cost_by_parts(convsmith):
    (row,) = from_json(convsmith("cost", "tiny.json", "--by", "stage", "--json"))
    assert [stage["stage"] for stage in row["by_stage"]] == ["stem", "stages.0", "head"]
    assert sum(stage["macs"] for stage in row["by_stage"]) == row["macs"] == 6992
    (row,) = from_json(convsmith("cost", "tiny.json", "--by", "operator", "--json"))
    assert sum(operator["macs"] for operator in row["by_operator"]) == 6992
    code, out, _ = convsmith("cost", "torchvision:resnet18", "--by", "module", "--depth", 1)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.startswith("layer")] == [
        "layer",
        *map("layer{}".format, "1234"),
    ]
    code, _, err = convsmith("cost", "torchvision:resnet18", "--by", "stage")
    assert code == 2
    assert "stages are known of architectures, and torchvision:resnet18 is a module; take --by module" in err


def test_receptive_field(convsmith):
    found = from_json(convsmith("receptive-field", "tiny.json", "--effective", "--json"))
    assert (found["path"], found["size"], found["stride"], found["start"]) == ("stages.0.0", [5, 5], [2, 2], [-2, -2])
    assert found["by_module"]["stem.0"]["size"] == [3, 3]
    assert max(found["effective"]["size"]) <= 5
    code, out, _ = convsmith("receptive-field", "tiny.json", "--at", "stem.0")
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("stem.0")).split()[-9:-6] == ["3", "×", "3"]
    code, _, err = convsmith("receptive-field", "resnet1*")
    assert code == 2
    assert "takes one network, got 'resnet1*'" in err


@pytest.mark.slow
def test_receptive_field_says_what_stands_behind_a_map_and_why_its_field_is_unknown(convsmith):
    """A vision transformer takes inputs of one size; the attention behind its patches sees all of them."""
    code, _, err = convsmith("receptive-field", "torchvision:vit_b_16")
    assert code == 0
    assert "the field of conv_proj is unknown: the network takes no larger input" in err
    assert "behind it encoder.layers.encoder_layer_0.self_attention sees the whole input" in err


def test_what_could_not_be_judged_is_no_row_of_the_findings(capsys):
    judged = Finding("G2", ("stages.0",), 4.0, "groups", "why", "no groups")
    print_findings([Finding("receptive field", (), None, "", "not judged", ""), judged], title="a network")
    out = capsys.readouterr().out
    assert "G2" in out
    assert "receptive field" not in out


def test_advise(convsmith, tmp_path):
    options = ("--device-batch", 2, "--devices", 4, "--task", "detection", "--no-timed")
    found = from_json(convsmith("advise", "tiny.json", *options, "--save", "edited", "--json"))
    by_rule = {finding["rule"]: finding for finding in found}
    assert by_rule["norm"]["where"] == ["stem.0.norm", "stages.0.0.norm"]
    assert by_rule["norm"]["gain"]["macs_ratio"] == 1
    edited = cs.Architecture.load(by_rule["norm"]["file"])
    assert edited.stem[0].get("norm").block == "cross_device_batch_norm"
    assert "use" not in by_rule
    code, out, err = convsmith("advise", "shufflenet_v2_x0_5", "--no-timed", "--input-size", 64, "--save", "kept")
    assert "wrote kept/" in err
    assert (tmp_path / "kept").is_dir()
    assert code == 0
    assert "norm" not in [line.split()[0] for line in out.splitlines() if line]
    use = next(line for line in err.splitlines() if line.startswith("use: "))
    assert cs.zoo.about("shufflenet_v2_x0_5").use in use
    header = out.splitlines()[1]
    assert "MACs" in header
    assert not {"time", "latency"} & set(header.split())  # nothing was measured
    code, _, err = convsmith("advise", "tiny.json", "--no-timed", "--calibration", "none.safetensors")
    assert code == 2
    assert "none.safetensors" in err
    Path("calibrations").mkdir()
    Path("calibrations/cpu-onnxruntime-1.safetensors").write_text("of an older version")
    code, _, err = convsmith("advise", "tiny.json", "--no-timed")  # nobody asked for it
    assert (code, "gains are not predicted: " in err) == (0, True)
    code, _, err = convsmith("advise", "tiny.json", "--device", "toaster", "--no-timed")
    assert code == 2
    assert "unknown device 'toaster'" in err


def test_latency(convsmith):
    rows = from_json(convsmith("latency", "tiny.json", "--batch", 3, "--threads", 1, "--backend", "eager", "--json"))
    assert {"name", "backend", "device", "batch", "threads", "median_ms"} <= rows[0].keys()
    assert (rows[0]["name"], rows[0]["batch"], rows[0]["backend"]) == ("tiny.json", 3, "eager")
    assert rows[0]["low_ms"] <= rows[0]["median_ms"] <= rows[0]["high_ms"]
    options = ("--precision", "bfloat16", "--layout", "channels_last", "--rounds", 3, "--seconds", 0.1)
    (row,) = from_json(convsmith("latency", "tiny.json", *options, "--json"))
    assert (row["precision"], row["layout"], row["rounds"]) == ("bfloat16", "channels_last", 3)
    code, out, err = convsmith("latency", "tiny.json", "resnet18", "--input-size", 8, "--rounds", 2)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "with 50% probability" in err


def test_profile(convsmith, monkeypatch):
    roofs = cs.measure.Roofs(gmacs_per_s=100.0, source="made up", copies=((2**20, 50.0),))
    monkeypatch.setattr(sys.modules["convsmith.measure.profile.run"], "device_roofs", lambda **_: roofs)
    found = from_json(convsmith("profile", "tiny.json", "--batch", 2, "--json"))
    assert (found["name"], found["input_shape"], found["backend"]) == ("tiny.json", [2, 1, 8, 8], "eager")
    assert sum(layer["macs"] for layer in found["by_layer"]) == 2 * 6992
    assert sum(row["share"] for row in found["by_category"]) == pytest.approx(1)
    for view, text in (("category", "elementwise"), ("operator", "batch_norm"), ("module", "stem.0.conv")):
        code, out, err = convsmith("profile", "tiny.json", "--by", view)
        assert code == 0
        assert text in out
        assert "the peak of 100 GMAC/s (made up)" in err
    assert found["keeping_memory_ms"] is None
    code, out, _ = convsmith("profile", "tiny.json", "--by", "layer")
    assert "of peak" in out.splitlines()[0]
    assert "stem.0.conv" in out


def test_auto_says_what_it_chose_from(convsmith):
    code, _, err = convsmith("latency", "tiny.json", "--backend", "auto", "--rounds", 3, "--seconds", 0.1)
    assert code == 0
    (line,) = (line for line in err.splitlines() if re.match(r"tiny\.json: \w+ of ", line))
    assert all(f"{name} " in line for name in cs.deploy.backends.installed(thorough=False))
    (row,) = from_json(
        convsmith("latency", "tiny.json", "--backend", "auto", "--rounds", 3, "--seconds", 0.1, "--json")
    )
    assert row["backend"] == min(row["tried_ms"], key=row["tried_ms"].get)


def test_other_libraries_networks_fetch_nothing(convsmith, monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("weights are fetched")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    (row,) = from_json(convsmith("cost", "torchvision:lraspp_mobilenet_v3_large", "--input-size", 32, "--json"))
    assert row["params"] == 3_221_538  # torchvision's page


def test_other_libraries_warnings_do_not_leak(convsmith):
    found = from_json(convsmith("cost", "torchvision:googlenet", "--json"))  # warnings are errors here
    assert found[0]["macs"] > 10**9


def test_a_search_under_a_latency_keeps_freed_memory(convsmith, monkeypatch):
    kept = []
    monkeypatch.setattr(cs.deploy.allocator, "keep_memory", lambda: not kept.append(True))
    limit = ("--max-latency-ms", 1, "--backend", "nope")  # refused once the constraint is made
    assert convsmith("search", "--data", "digits", *limit)[0] == 2
    assert kept == [True]
    assert convsmith("search", "--data", "digits", "--objective", "nothing")[0] == 2
    assert kept == [True]


def test_advice_and_the_demo_keep_freed_memory_where_they_measure(convsmith, monkeypatch):
    from convsmith.cli import demo_steps

    kept = []
    monkeypatch.setattr(cs.deploy.allocator, "keep_memory", lambda: not kept.append(True))
    monkeypatch.setattr(cs.measure, "advise", lambda *_, **__: [])
    monkeypatch.setattr(demo_steps, "run_demo", lambda *_, **__: {"winner": {}})
    for number, command in enumerate((("advise", "tiny.json"), ("demo", "--json")), start=1):
        code, _, err = convsmith(*command)
        assert (code, err.count("mallopt"), len(kept)) == (0, 1, number)
    code, _, err = convsmith("advise", "tiny.json", "--no-timed")
    assert (code, err.count("mallopt"), len(kept)) == (0, 0, 2)


def test_predict_offers_what_it_can_predict(convsmith):
    code, out, _ = convsmith("predict", "--help")
    assert code == 0
    assert "timm:" not in out


def test_profile_writes_a_page(convsmith, monkeypatch):
    roofs = cs.measure.Roofs(gmacs_per_s=100.0, source="made up", copies=((2**20, 50.0),))
    monkeypatch.setattr(sys.modules["convsmith.measure.profile.run"], "device_roofs", lambda **_: roofs)
    found = from_json(convsmith("profile", "tiny.json", "--html", "new/page.html", "--json"))
    page = Path("new/page.html").read_text()
    assert "convsmith profile tiny.json --html new/page.html --json" in page
    assert f"<dd>{found['latency_ms']:.3g} ms" in page
    code, _, err = convsmith("profile", "tiny.json", "--html", "new")
    assert code == 2
    assert "the path must name a file, and new is a folder; add a file name" in err


def test_profile_measures_again_where_memory_went_back(convsmith, monkeypatch):
    run = sys.modules["convsmith.measure.profile.run"]
    roofs = cs.measure.Roofs(gmacs_per_s=100.0, source="made up", copies=((2**20, 50.0),))
    monkeypatch.setattr(run, "device_roofs", lambda **_: roofs)
    returned = Slowdown("returned_memory", 0.5, "pages")
    monkeypatch.setattr(run, "eager_slowdowns", lambda *_, **__: (returned,))
    kept = []
    monkeypatch.setattr(cs.deploy.allocator, "keep_memory", lambda: not kept.append(True))
    assert from_json(convsmith("profile", "tiny.json", "--json"))["keeping_memory_ms"] > 0
    assert kept == [True]
    code, _, err = convsmith("profile", "tiny.json")
    assert code == 0
    assert "with freed memory kept, measured after it:" in err


@pytest.mark.slow
def test_export(convsmith, tmp_path):
    torch.manual_seed(0)
    cs.network.save_weights(network := cs.create_model(TINY).eval(), tmp_path / "w.safetensors")
    result = from_json(convsmith("export", "tiny.json", "--weights", "w.safetensors", "--out", "m.onnx", "--json"))
    assert result["largest_difference"] <= result["tolerance"]
    import onnxruntime

    x = torch.randn(5, 1, 8, 8)
    (logits,) = onnxruntime.InferenceSession("m.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("always")
def test_an_export_that_shows_nothing_says_so_in_one_line(convsmith, tmp_path):
    network = cs.create_model(TINY)
    torch.nn.init.zeros_(list(network.parameters())[-2])
    cs.network.save_weights(network, tmp_path / "w.safetensors")
    code, _, err = convsmith("export", "tiny.json", "--weights", "w.safetensors", "--out", "m.onnx")
    assert code == 0
    assert "convsmith: agreement with eager within 0.0001 shows nothing" in err
    assert "UserWarning" not in err


def test_export_for_the_fastest_back_end(convsmith, tmp_path):
    command = ("export", "tiny.json", "--backend", "auto", "--out", "shipped")
    code, out, err = convsmith(*command)
    assert code == 0, err
    assert out.splitlines()[0].split()[:3] == ["back", "end", "precision"]
    assert {line.split()[0] for line in out.splitlines()[1:]} >= {"eager", "onnxruntime"}
    assert err.count("mallopt") == 1
    assert {"README.md", "loader.py"} < {path.name for path in (tmp_path / "shipped").iterdir()}
    assert "must be new or empty" in convsmith(*command)[2]
    found = from_json(convsmith("export", "tiny.json", "--backend", "onnxruntime", "--out", "other", "--json"))
    assert found["chosen"]["backend"] == "onnxruntime"
    assert found["keeps_memory"] is True
    assert found["loader_difference"] <= 1e-4


@pytest.mark.slow
def test_a_search_under_a_predicted_latency_shows_what_was_measured_too(convsmith, monkeypatch):
    limit = cs.search.Constraint("latency_ms", maximum=9.0, measure=lambda _: 2.0, confirm=lambda _: 1.0, how="told")
    monkeypatch.setattr(sys.modules["convsmith.cli.search"], "latency_limit", lambda *_, **__: limit)
    command = ("search", "--data", "digits", "--trials", 4, "--epochs", 1, "--strategy", "random", "--run-dir", "r")
    code, out, err = convsmith(*command, "--max-latency-ms", 9, "--latency", "predicted")
    assert code == 0, err
    header, *rows = (line.split() for line in out.splitlines())
    assert header[-2:] == ["latency_ms", "predicted_latency_ms"]
    assert rows[0][-2:] == ["1", "2"]  # the best one
    assert any(len(row) < len(header) for row in rows)  # never the best: not measured
    assert "latency_ms is measured where predicted_latency_ms stands beside it" in err


@pytest.mark.slow
def test_search_status_report_and_resuming(convsmith, tmp_path):
    command = ("search", "--data", "digits", "--trials", 2, "--epochs", 1, "--max-params", 3000, "--run-dir", "r")
    found = from_json(convsmith(*command, "--population", 2, "--sample", 1, "--json"))
    assert found["counts"]["complete"] == 2
    assert found["best"]["metrics"]["params"] <= 3000
    assert cs.Architecture.load(found["architecture"]).found_by
    status = from_json(convsmith("status", "r", "--json"))
    assert status["best"]["number"] == found["best"]["number"]
    assert {"number", "state", "decisions", "metrics", "error"} == status["trials"][0].keys()
    again = from_json(convsmith(*command, "--population", 2, "--sample", 1, "--json"))
    assert again == found
    code, _, err = convsmith(*command, "--population", 2, "--sample", 1, "--seed", 1)
    assert code == 2
    assert "seed" in err
    assert (tmp_path / from_json(convsmith("report", "r", "--json"))["report"]).stat().st_size > 10_000


@pytest.mark.slow
def test_train_takes_the_classes_and_channels_of_the_data(convsmith):
    result = from_json(
        convsmith(
            "train", "--arch", "mobilenet_v2_x0_35", "--data", "digits", "--epochs", 2, "--run-dir", "t", "--json"
        )
    )
    network = cs.create_model("mobilenet_v2_x0_35", num_classes=10, in_channels=1)
    cs.network.load_weights(network, result["weights"])
    assert 0 <= result["test"]["accuracy"] <= 1
    assert (
        from_json(
            convsmith(
                "train", "--arch", "mobilenet_v2_x0_35", "--data", "digits", "--epochs", 2, "--run-dir", "t", "--json"
            )
        )
        == result
    )


def test_train_trains_where_it_is_told(convsmith, monkeypatch):
    places = []

    def refuse(*arguments, device, **options):
        places.append(device)
        raise ValueError("seen")

    monkeypatch.setattr("convsmith.train.fit", refuse)
    for options in ((), ("--device", "cuda:1")):
        assert convsmith("train", "--arch", "mobilenet_v2_x0_35", "--data", "digits", *options)[0] == 2
    assert places == ["cpu", "cuda:1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cost", "resnet5"), "unknown architecture 'resnet5'; did you mean 'resnet50'"),
        (("cost", "resnet9*"), "no architecture matches 'resnet9*'"),
        (("cost", "missing.json"), "there is no architecture file missing.json"),
        (("cost", "timm:resnet5"), "unknown network 'timm:resnet5'; did you mean"),
        (("cost", "timm:resnet18.a9_in1k"), "unknown network 'timm:resnet18.a9_in1k'; did you mean resnet18.a"),
        (("cost", "torchvision:r3d_18"), "); a command gives a batch of images, or of what --input-size says (SIDE, "),
        (("cost", "torchvision:raft_small"), "takes one input, and RAFT takes image1, image2; a command gives a batch"),
        (("quantize", "timm:resnet18", "--weights", "w", "--data", "digits"), "cs.deploy.quantize quantises it"),
        (("train", "--arch", "timm:resnet18", "--data", "digits"), "cs.train.fit trains any module"),
        (("latency", "tiny.json", "--precision", "int8"), "by cs.deploy.quantize, or by `convsmith quantize`"),
        (("cost", "keras:resnet50"), "unknown library 'keras'"),
        (("cost", "broken.json"), "broken.json is no architecture file: no JSON"),
        (("cost", "unknown.json"), "stem[0]: unknown block 'conv_norm_acts'; did you mean 'conv_norm_act'"),
        (("cost", "wrong.json"), "wrong.json states 1 params and 6,992 MACs at 8x8, a recount gives 438"),
        (("cost", "resnet18", "--input-size", "0"), "--input-size"),
        (("cost",), "Missing argument"),
        (("latency", "tiny.json", "--backend", "tensorrrt"), "unknown back end 'tensorrrt'"),
        (("latency", "googlenet", "--input-size", "4"), "an input of 4x4 does not fit googlenet"),
        (("latency", "tiny.json", "--threads", "0"), "--threads"),
        (("latency", "tiny.json", "--layout", "nhwc"), "unknown layout 'nhwc'; the layouts are contiguous, channels_l"),
        (("latency", "tiny.json", "--precision", "fp4"), "unknown precision 'fp4'"),
        (("latency", "tiny.json", "--seconds", "0"), "must be a finite positive number"),
        (("latency", "tiny.json", "--device", "cuda:7"), "device"),
        (("profile", "tiny.json", "--by", "block"), "unknown view 'block' of a profile; the views are category"),
        (("profile", "resnet*"), "takes one network, got 'resnet*'"),
        (("export", "tiny.json", "--precision", "bfloat16"), "--backend is not given; add --backend auto"),
        (("profile", "tiny.json", "--backend", "onnxruntim"), "unknown back end 'onnxruntim'; did you mean"),
        (("profile", "googlenet", "--input-size", "4"), "an input of 4x4 does not fit googlenet"),
        (("profile", "tiny.json", "--device", "cuda:7"), "device"),
        (("profile", "tiny.json", "--batch", "0"), "--batch"),
        (("search", "--data", "digits", "--trials", "0"), "--trials"),
        (("search", "--data", "digits", "--max-latency-ms", "nan"), "must be a finite positive number"),
        (("search", "--data", "digits", "--max-params", "-1"), "must be a finite positive number"),
        (("search",), "--data"),
        (("search", "--data", "digitz"), "digits"),
        (("search", "--data", "digits", "--space", "stage"), "unknown space 'stage'; did you mean 'stages'"),
        (("search", "--data", "digits", "--strategy", "randm"), "unknown strategy 'randm'; did you mean 'random'"),
        (("search", "--data", "digits", "--executor", "threads"), "unknown executor 'threads'"),
        (("search", "--data", "digits", "--objective", "acc"), "nothing gives the metric 'acc'"),
        (("search", "--data", "digits", "--max-latency-ms", "1", "--backend", "nope"), "unknown back end 'nope'"),
        (("search", "--data", "digits", "--strategy", "random", "--population", "3"), "belong to regularized"),
        (("cost", "negative.json"), "out_channels must be positive, got -4"),
        (("cost", "torchvision:vit_b_16", "--input-size", "100"), "an input of shape (1, 3, 100, 100), and fails in"),
        (("profile", "tiny.json", "--backend", "compile"), "compile cannot be profiled: its kernels compute parts of"),
        (("profile", "tiny.json", "--backend", "nope"), "unknown back end 'nope'; give eager, onnxruntime, open"),
        (
            ("search", "--data", "digits", "--max-latency-ms", "1", "--latency", "predicted"),
            "a predictor can be calibrated for onnxruntime or openvino, got 'eager'; measure latency with it",
        ),
        (("search", "--data", "digits", "--calibration", "a.file"), "--calibration says how a limit on"),
        (("search", "--data", "digits", "--latency", "predicted"), "none is given; add --max-latency-ms"),
        (("calibrate", "--out", "."), "the path must name a file, and "),
        (("calibrate", "--out", "tiny.json/a"), "must lie where files can be written, and "),
        (("calibrate", "--out", "tiny.json"), "tiny.json is no calibration"),
        (("advise", "tiny.json", "--calibration", "."), "a calibration is a file, and "),
        (("advise", "tiny.json", "--save", "tiny.json"), "tiny.json must lie where files can be written, and "),
        (("latency", "tiny.json", "--threads", "99999999"), "threads must be at most "),
        (("export", "tiny.json", "--out", "tiny.json/a.onnx"), "must lie where files can be written, and "),
        (("export", "tiny.json", "--backend", "auto", "--out", "tiny.json/a"), "must lie where files can be written"),
        (("profile", "tiny.json", "--html", "tiny.json/a.html"), "must lie where files can be written, and "),
        (("show", "tiny.json", "--svg", "tiny.json/a.svg"), "tiny.json cannot be used (File exists); look at the path"),
        (("calibrate", "--space", "mobil"), "unknown space 'mobil'; did you mean 'mobile'"),
        (("calibrate", "--input-size", "32"), "--input-size is that of the members of --space, and none is given"),
        (("cost", "torchvision:nothing_like_it"), "torchvision.models.list_models() names them all"),
        (("export", "tiny.json", "--weights", "bad.pt"), "bad.pt is no state dict that can be read"),
        (("train", "--arch", "resnet18", "--data", "no_folder/"), "no_folder"),
        (("train", "--arch", "resnet18", "--data", "digits", "--recipe", "fast"), "unknown recipe 'fast'"),
        (("train", "--arch", "tiny.json", "--data", "cluttered_digits"), "channels"),
        (("train", "--arch", "resnet18", "--data", "digits", "--device", "toaster"), "got 'toaster'"),
        (("export", "tiny.json", "--format", "tflite"), "unknown format 'tflite'; the formats are onnx"),
        (("export", "tiny.json", "--weights", "none.pth"), "there is no weights file none.pth"),
        (("status", "nothing"), "there is no run nothing"),
        (("report", "nothing"), "there is no run nothing"),
        (("show", "resnet*"), "show takes one zoo name or .json file"),
        (("frobnicate",), "frobnicate"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_code_2(convsmith, tmp_path, arguments, message):
    document = json.loads((tmp_path / "tiny.json").read_text())
    (tmp_path / "broken.json").write_text("{")
    wrong = {**document, "reference": {**document["reference"], "params": 1}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    (tmp_path / "bad.pt").write_bytes(b"t\x08\xb9Qc")
    document.pop("reference")
    document["stem"][0]["args"]["out_channels"] = -4
    (tmp_path / "negative.json").write_text(json.dumps(document))
    document["stem"][0]["block"] = "conv_norm_acts"
    (tmp_path / "unknown.json").write_text(json.dumps(document))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = convsmith(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 or lines[0].startswith("Usage:")
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written


def test_a_failure_at_run_time_is_exit_code_1(convsmith, monkeypatch):
    monkeypatch.setattr(cs.measure, "cost", lambda *_: 1 / 0)
    code, out, err = convsmith("cost", "tiny.json")
    assert (code, out) == (1, "")
    assert err == "convsmith: ZeroDivisionError: division by zero (CONVSMITH_TRACEBACK=1 shows where)\n"


def test_ctrl_c_is_told_how_to_go_on_where_that_is_so(convsmith, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cs.measure, "cost", interrupted)
    assert convsmith("cost", "tiny.json") == (130, "", "convsmith: stopped\n")
    monkeypatch.setattr(cs.measure.LatencyPredictor, "calibrate", interrupted)
    told = "convsmith: stopped; the same command goes on where it was\n"
    assert convsmith("calibrate", "--out", "a.file") == (130, "", told)


def test_members_of_several_spaces_are_measured_in_turns(convsmith, monkeypatch):
    def expected(space, number):
        tree = spaces.get(space, num_classes=1000, in_channels=3, input_size=64)
        return tree.sample(Random(number)), (1, 3, 64, 64)

    def calibrate(*_, architectures, **__):
        given.extend(islice(architectures, 4))
        raise KeyboardInterrupt

    given = []
    monkeypatch.setattr(cs.measure.LatencyPredictor, "calibrate", calibrate)
    for names in (("mobile", "stages"), ("stages",)):
        given.clear()
        options = [part for name in names for part in ("--space", name)]
        command = ("calibrate", "--out", f"{len(names)}.file", "--input-size", 64, *options)
        assert convsmith(*command, "--no-zoo")[0] == 130
        assert given == [expected(names[number % len(names)], number) for number in range(4)]
    given.clear()
    assert convsmith(*command[:1], "--out", "zoo.file", *command[3:])[0] == 130
    assert [architecture.name for architecture, _ in given[1::2]] == ["stages"] * 2
    for architecture, shape in given[::2]:
        assert architecture == cs.zoo.get(architecture.name)
        assert shape == (1, 3, *[architecture.reference.input_size] * 2)
        assert architecture.reference.macs <= 6e9
    zoo = [name for name in cs.zoo.variants() if name != "resnet18"]
    monkeypatch.setattr(reading, "load", lambda path: (Mock(names=[*zoo, "stages"]), {}, {}))
    Path("zoo.file").touch()
    given.clear()
    assert convsmith(*command[:1], "--out", "zoo.file", *command[3:])[0] == 130
    assert [architecture.name for architecture, _ in given] == ["resnet18", *["stages"] * 3]


def test_a_predicted_limit_needs_a_calibration_of_what_is_asked_for(convsmith):
    search = ("search", "--data", "digits", "--max-latency-ms", "1")
    code, _, err = convsmith(*search, "--latency", "guessed")
    assert (code, "--latency is measured or predicted, got 'guessed'" in err) == (2, True)
    code, _, err = convsmith(*search, "--calibration", "some.file")
    assert (code, "--calibration belongs to --latency predicted" in err) == (2, True)
    code, _, err = convsmith(*search, "--latency", "predicted")
    assert (code, "can be calibrated for onnxruntime or openvino, got 'eager'" in err) == (2, True)
    code, _, err = convsmith(*search, "--latency", "predicted", "--backend", "onnxruntime", "--calibration", "a.file")
    assert (code, "there is no calibration a.file; make it by" in err) == (2, True)


def test_predictions_need_a_calibration(convsmith):
    code, _, err = convsmith("predict", "resnet18")
    assert (code, "make it by `convsmith calibrate --backend onnxruntime --threads 1`" in err) == (2, True)
    code, _, err = convsmith("predict", "resnet18", "--backend", "openvino", "--threads", 2, "--calibration", "a.file")
    assert "make it by `convsmith calibrate --backend openvino --threads 2 --out a.file`" in err
    assert "unknown back end 'nope'" in convsmith("predict", "resnet18", "--backend", "nope")[2]
    code, _, err = convsmith("calibrate", "--backend", "eager")
    assert (code, "can be calibrated for onnxruntime or openvino, got 'eager'" in err) == (2, True)


def test_a_calibration_of_other_threads_is_refused():
    about = About("cpu", "a processor", "onnxruntime", "1.32.0", 1, 16, "2026-11-26", 1.0)
    check_calibration(about, "onnxruntime", 1, Path("file"))
    with pytest.raises(ValueError, match="must be of onnxruntime on 2 threads, and file is of onnxruntime on 1"):
        check_calibration(about, "onnxruntime", 2, Path("file"))
