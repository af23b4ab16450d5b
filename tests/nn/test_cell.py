import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import ActConvNorm, BatchNorm, DropPath, FactorizedReduction, NasCell, StackedSeparable
from convsmith.nn.cell_operation import OPERATIONS, build_operation
from convsmith.nn.same_padding import SamePad, same_pads

IDENTITY = cs.spec(cs.nn.Identity)  # a norm that does nothing, so that outcomes can be computed by hand


def one(channels, side):
    """1, 2, 3, ... as a map."""
    return torch.arange(1.0, channels * side * side + 1).view(1, channels, side, side)


def transparent(cell):
    """The cell with projections that leave positive maps as they are."""
    for module in (cell.previous, cell.current):
        if isinstance(module, ActConvNorm):
            module.conv.weight.data = torch.eye(module.conv.out_channels, module.conv.in_channels)[:, :, None, None]
    return cell.eval()


def toy_cell(*operations, in_channels=(1, 1), filters=1, **arguments):
    return transparent(NasCell(in_channels, filters=filters, operations=operations, norm=IDENTITY, **arguments))


def test_combinations_add_two_operations_and_read_earlier_ones():
    current, previous = one(1, 5), 1000 * one(1, 5)
    cell = toy_cell(("max_3x3", 0, "identity", 1), ("identity", 2, "avg_3x3", 0), ("identity", 1, "identity", 3))
    handed, output = cell((previous, current))
    maximum = torch.tensor([[7.0, 8, 9, 10, 10], [12, 13, 14, 15, 15], [17, 18, 19, 20, 20]])
    maximum = torch.cat([maximum, torch.tensor([[22.0, 23, 24, 25, 25], [22, 23, 24, 25, 25]])])
    mean = current.clone()  # of a linear map, but at the borders, where the zeros outside are not counted
    mean[..., 0] += 0.5
    mean[..., -1] -= 0.5
    mean[..., 0, :] += 2.5
    mean[..., -1, :] -= 2.5
    second = maximum + previous
    third = second + mean
    torch.testing.assert_close(output, previous + third)
    assert handed is current


def test_the_output_concatenates_the_listed_states_in_their_order():
    maps = (100 * one(1, 4), one(1, 4))
    operations = [("identity", 0, "identity", 0), ("identity", 1, "identity", 2)]
    _, output = toy_cell(*operations, concat=(3, 1, 2, 0))(maps)
    current, previous = maps[1], maps[0]
    expected = [previous + 2 * current, previous, 2 * current, current]
    torch.testing.assert_close(output, torch.cat(expected, 1))


def test_by_default_the_combinations_that_no_other_one_reads_are_concatenated():
    operations = [("identity", 0, "identity", 1), ("identity", 2, "identity", 0), ("identity", 1, "identity", 1)]
    cell = toy_cell(*operations)
    assert cell.concat == (3, 4)
    assert cell.out_channels == (1, 2)


def test_the_stride_is_taken_where_an_input_of_the_cell_is_read():
    maps = (100 * one(1, 6), one(1, 6))
    cell = toy_cell(("max_3x3", 0, "max_3x3", 1), ("max_3x3", 2, "identity", 2), stride=2, concat=(2, 3))
    handed, output = cell(maps)
    # Symmetric padding: windows around the rows and columns 0, 2, 4.
    maximum = one(1, 6)[..., [1, 3, 5], :][..., [1, 3, 5]]
    again = maximum[..., [1, 2, 2], :][..., [1, 2, 2]]
    torch.testing.assert_close(output, 101 * torch.cat([maximum, maximum + again], 1))
    assert handed is output  # nothing else has this size


def test_a_strided_cell_hands_on_one_of_its_inputs_reduced():
    maps = (torch.randn(1, 3, 8, 8), torch.randn(1, 5, 8, 8))
    operations = (("max_3x3", 0, "max_3x3", 1),)
    for source, raw in (("previous", maps[0]), ("current", maps[1])):
        cell = NasCell((3, 5), filters=4, operations=operations, stride=2, hand_on=(source, 6)).eval()
        handed, output = cell(maps)
        torch.testing.assert_close(handed, cell.reduce(raw))
        assert (handed.shape, output.shape) == ((1, 6, 4, 4), (1, 4, 4, 4))
        assert cell.out_channels == (6, 4)


def test_a_map_that_was_handed_on_reduced_is_not_projected_again():
    operations = (("identity", 0, "identity", 1),)
    assert isinstance(NasCell((4, 8), filters=4, operations=operations).previous, torch.nn.Identity)
    assert isinstance(NasCell((8, 8), filters=4, operations=operations).previous, ActConvNorm)
    always = NasCell((4, 8), filters=4, operations=operations, project_previous="always")
    assert isinstance(always.previous, ActConvNorm)
    raw = NasCell((8, 8), filters=4, operations=operations, project_previous=False)
    assert isinstance(raw.previous, torch.nn.Identity)
    assert isinstance(raw.combinations[0].right, ActConvNorm)  # the identity from 8 to 4 channels


def test_an_input_in_the_concatenation_is_brought_to_the_size_and_width_of_the_output():
    operations = (("max_3x3", 0, "max_3x3", 1),)
    strided = NasCell((3, 5), filters=4, operations=operations, concat=(2, 0), stride=2).eval()
    maps = (torch.randn(1, 3, 8, 8), torch.randn(1, 5, 8, 8))
    _, output = strided(maps)
    state = strided.current(maps[1])
    halves = F.conv2d(state[..., ::2, ::2], strided.joins[1].straight.weight)
    torch.testing.assert_close(output[:, 4:6], halves / (1 + 1e-5) ** 0.5)  # no activation in front of it
    raw = NasCell((3, 5), filters=4, operations=operations, concat=(1, 2), project_previous=False).eval()
    _, output = raw(maps)
    torch.testing.assert_close(output[:, :4], F.conv2d(maps[0], raw.joins[0].conv.weight) / (1 + 1e-5) ** 0.5)


def test_a_factorised_reduction_reads_even_pixels_and_odd_ones():
    block = FactorizedReduction(1, 2, norm=IDENTITY, act="relu")
    block.straight.weight.data.fill_(1)
    block.shifted.weight.data.fill_(10)
    with torch.no_grad():
        even = block(torch.arange(-1.0, 15).view(1, 1, 4, 4))
        odd = block(one(1, 3))
    torch.testing.assert_close(even[0], torch.tensor([[[0.0, 1], [7, 9]], [[40, 60], [120, 140]]]))
    torch.testing.assert_close(odd[0], torch.tensor([[[1.0, 3], [7, 9]], [[50, 0], [0, 0]]]))


def test_a_factorised_reduction_to_an_odd_number_gives_the_second_half_one_more():
    block = FactorizedReduction(3, 5)
    assert (block.straight.out_channels, block.shifted.out_channels) == (2, 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_separable_convolution_is_applied_twice_with_its_stride_in_the_first_one(stride):
    block = StackedSeparable(3, 4, kernel_size=5, stride=stride, norm=cs.spec(BatchNorm, eps=1e-3)).double().eval()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    y = x
    for layer, step in ((block.first, stride), (block.second, 1)):
        y = F.conv2d(y.clamp(min=0), layer.depthwise.weight, stride=step, padding=2, groups=y.shape[1])
        y = F.conv2d(y, layer.pointwise.weight) / 1.001**0.5
    with torch.no_grad():
        torch.testing.assert_close(block(x), y)


def test_same_padding_is_tensorflows():
    # tf.nn.conv2d(..., padding="SAME"): total = max((ceil(n / s) - 1) * s + k - n, 0), the smaller half in front.
    for size in range(3, 12):
        for kernel_size in (3, 5, 7):
            for stride in (1, 2, 3):
                total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
                assert same_pads(size, kernel_size, stride) == (total // 2, -(-total // 2))


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 7), (7, 6)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_with_same_padding_leaves_out_what_lies_outside(kind, height, width):
    x = torch.randn(1, 2, height, width)
    pads = [pad for size in (width, height) for pad in same_pads(size, 3, 2)]
    outside = F.pad(x, pads, value=torch.nan)
    windows = F.unfold(outside.view(2, 1, *outside.shape[2:]), 3, stride=2)
    expected = windows.nanmean(1) if kind == "avg" else windows.nan_to_num(-torch.inf).amax(1)
    pool = build_operation(f"{kind}_3x3", 2, 2, stride=2, padding="same", norm=None, act="relu")
    torch.testing.assert_close(pool(x).flatten(2), expected.view(1, 2, -1))


def test_conventions_of_padding_differ_where_they_say():
    x = torch.randn(1, 2, 6, 6) + 1

    def pooled(kind, padding, x):
        return build_operation(f"{kind}_3x3", 2, 2, stride=2, padding=padding, norm=None, act="relu")(x)

    even, odd = x, x[..., :5, :5]
    torch.testing.assert_close(pooled("max", "same", even), pooled("max", "same_counted", even))
    torch.testing.assert_close(pooled("avg", "same", odd), pooled("avg", "symmetric", odd))
    assert not torch.allclose(pooled("avg", "same", even), pooled("avg", "symmetric", even))
    torch.testing.assert_close(pooled("avg", "same_counted", even), F.avg_pool2d(F.pad(even, (0, 1, 0, 1)), 3, 2))
    torch.testing.assert_close(SamePad((5, 5), (2, 2))(even), F.pad(even, (1, 2, 1, 2)))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("padding", ["symmetric", "same", "same_counted"])
@pytest.mark.parametrize("side", [5, 6])
def test_operations_halve_rounding_up_and_leave_their_input_alone(name, padding, side):
    x = torch.randn(2, 3, side, side)
    before = x.clone()
    y = build_operation(name, 3, 4, stride=2, padding=padding, norm=None, act="relu")(x)
    assert y.shape == (2, 4, 3, 3)
    assert torch.equal(x, before)
    keeps = build_operation(name, 3, 3, stride=1, padding=padding, norm=None, act="relu")
    assert keeps(x).shape == x.shape
    assert bool(list(keeps.parameters())) == ("conv" in name or "sep" in name or "dil" in name)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    block = DropPath(3, rate=0.25).train()
    x = torch.rand(4000, 3, 2, 2) + 1
    scale = block(x) / x
    assert (scale.amax((1, 2, 3)) - scale.amin((1, 2, 3))).abs().max() < 1e-6
    torch.testing.assert_close(scale[scale > 0], torch.full_like(scale[scale > 0], 4 / 3))
    assert 0.22 < (scale[:, 0, 0, 0] == 0).double().mean() < 0.28
    assert block.eval()(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("cast", [False, True], ids=["map", "map and block"])
def test_low_rates_drop_in_every_precision(dtype, cast):
    block = DropPath(1, rate=0.001).train()
    torch.manual_seed(0)
    y = (block.to(dtype) if cast else block)(torch.ones(200_000, 1, 1, 1, dtype=dtype))
    assert y.dtype == dtype
    assert 150 < (y == 0).sum() < 250


def test_what_drops_in_single_precision_is_drawn_from_the_seed():
    torch.manual_seed(3)
    kept = torch.rand(50, 1, 1, 1) < 0.7
    torch.manual_seed(3)
    assert torch.equal(DropPath(1, rate=0.3).train()(torch.ones(50, 1, 1, 1)) > 0, kept)


def test_a_scheduled_rate_grows_with_the_steps_of_training():
    x = torch.ones(4000, 1, 1, 1)
    block, constant = DropPath(1, rate=0.8, scheduled=True).train(), DropPath(1, rate=0.8).train()
    for step, dropped in ((0, 0.0), (50, 0.4), (100, 0.8), (200, 0.8)):
        block.on_step(step, 100)
        constant.on_step(step, 100)
        assert abs((block(x) == 0).double().mean() - dropped) < 0.04
        assert abs((constant(x) == 0).double().mean() - 0.8) < 0.04
    assert not block.state_dict()


def test_a_cell_drops_operations_but_not_identities():
    operations = (("sep_3x3", 0, "identity", 1), ("avg_3x3", 0, "identity", 2))
    cell = NasCell((4, 4), filters=4, operations=operations, drop_path_rate=0.3)
    drops = {name: module for name, module in cell.named_modules() if isinstance(module, DropPath)}
    assert list(drops) == ["combinations.0.left.1", "combinations.1.left.1"]
    assert all(module.rate == 0.3 and module.scheduled for module in drops.values())


def test_a_cell_drops_a_skip_where_it_has_weights():
    def dropped(operation, stride):
        cell = NasCell((4, 4), filters=4, operations=((operation, 0, "max_3x3", 1),), stride=stride, drop_path_rate=0.3)
        return isinstance(cell.combinations[0].left, torch.nn.Sequential)

    assert [dropped("skip", 1), dropped("skip", 2)] == [False, True]  # as DARTS
    assert [dropped("identity", 1), dropped("identity", 2)] == [False, False]  # as NASNet


def test_the_gradient_reaches_every_parameter_and_both_inputs():
    operations = (("sep_3x3", 0, "max_3x3", 1), ("identity", 2, "sep_5x5", 1))
    cell = NasCell((6, 5), filters=4, operations=operations, concat=(1, 2, 3), stride=2, hand_on=("previous", 8))
    cell = cell.double()
    maps = tuple(torch.randn(2, c, 8, 8, dtype=torch.float64, requires_grad=True) for c in (6, 5))
    handed, output = cell(maps)
    weights = [torch.randn_like(y) for y in (handed, output)]
    ((handed * weights[0]).sum() + (output * weights[1]).sum()).backward()
    assert not [name for name, p in cell.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert all(x.grad.abs().max() > 0 for x in maps)


def test_cells_in_a_chain_read_the_two_latest_maps():
    """previous, current = (a, b) -> (b, c) -> (c, d): each cell sees the outputs of the two before it."""
    add = (("identity", 0, "identity", 1),)
    cell = cs.spec(NasCell, filters=1, operations=add, norm=IDENTITY)
    architecture = cs.Architecture(stages=[[cell] * 4, [cell]], in_channels=1)
    network = cs.create_model(architecture)
    for module in network.modules():
        if isinstance(module, NasCell):
            transparent(module)
    # Behind one map the first cell reads it twice; then each sum is that of the two before: 2, 3, 5, 8, 13.
    torch.testing.assert_close(network(torch.ones(1, 1, 3, 3)), torch.full((1, 1, 3, 3), 13.0))
    assert [f.mean().item() for f in network.features(torch.ones(1, 1, 3, 3))] == [8, 13]


def test_a_cell_survives_a_file_and_its_operations_may_be_left_open():
    open_cell = cs.spec(
        NasCell,
        filters=4,
        operations=((cs.choice("sep_3x3", "max_3x3"), 0, "identity", cs.choice(0, 1)), ("avg_3x3", 2, "identity", 1)),
        hand_on=("current", 8),
        stride=2,
    )
    space = cs.Architecture(stages=[[open_cell]], name="cells")
    assert cs.Architecture.from_json(space.to_json()) == space
    assert space.size() == 4
    found = space.resolve({"stages.0.0.operations.0.0": 1, "stages.0.0.operations.0.3": 0}).stages[0][0]
    assert found.get("operations")[0] == ("max_3x3", 0, "identity", 0)
    assert cs.Architecture.from_json(cs.Architecture(stages=[[found]]).to_json()).stages[0][0] == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": (("sep_9x9", 0, "identity", 1),)}, "must be one of identity, .*avg_3x3, .*, got 'sep_9x9'"),
        ({"operations": (("identity", 0, "identity", 2),)}, "makes state 2 must read states 0 to 1, got 0 and 2"),
        ({"operations": (("identity", -1, "identity", 1),)}, "must read states 0 to 1, got -1 and 1"),
        ({"operations": ()}, "at least one combination"),
        ({"concat": (2, 2)}, r"different states of 0 to 2, got concat=\(2, 2\)"),
        ({"concat": (3,)}, r"different states of 0 to 2, got concat=\(3,\)"),
        ({"concat": ()}, r"different states of 0 to 2, got concat=\(\)"),
        ({"filters": 0}, "positive filters and stride, .* got filters=0"),
        ({"stride": 0}, "positive filters and stride, .* stride=0"),
        ({"hand_on": ("current", 1)}, r"at least 2 channels, .* hand_on=\('current', 1\)"),
        ({"drop_path_rate": 1.0}, "rate of a dropped path must be at least 0 and below 1, got rate=1.0"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(arguments, message):
    defaults = {"filters": 4, "operations": (("avg_3x3", 0, "identity", 1),)}
    with pytest.raises(ValueError, match=message):
        cs.spec(NasCell, **{**defaults, **arguments}).build((4, 4))
