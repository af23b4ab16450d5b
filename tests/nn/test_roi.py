import itertools
import math

import pytest
import torch
from torchvision.ops import ps_roi_align, roi_align

import convsmith as cs
from convsmith.nn import DeformablePSRoIPool, DeformableRoIPool, deformable_roi_pool

SCALE = 0.25
# Inside, across a border, of less than a pixel, larger than the map; not in the order of the images.
BOXES = torch.tensor(
    [[2, 3, 5, 30, 33.0], [0, -9, 4, 17, 40], [2, 10, 10, 11, 12], [0, 0, 0, 70, 50], [2, 1, 2, 33, 20]],
    dtype=torch.float64,
)


def maps(channels, height=9, width=11):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, channels, height, width, dtype=torch.float64, generator=generator)


def random_offsets(sets, k, scale=2.0):
    generator = torch.Generator().manual_seed(2)
    return scale * torch.randn(len(BOXES), 2 * sets, k, k, dtype=torch.float64, generator=generator)


def read(image, row, column):
    """The bilinear value of an (H, W) image that goes on for one more pixel as at its border, and is 0 behind that."""
    height, width = image.shape
    if not (-1 <= row <= height and -1 <= column <= width):
        return 0.0
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    value, top, left = 0.0, math.floor(row), math.floor(column)
    for i, j in itertools.product((top, top + 1), (left, left + 1)):
        share = (1 - abs(row - i)) * (1 - abs(column - j))
        if share > 0:
            value += share * image[i, j].item()
    return value


def by_loops(x, boxes, offsets, *, n, gamma, position_sensitive):
    """Every bin of every box: its place, moved, and the mean of its n x n points."""
    k, sets = offsets.shape[2], offsets.shape[1] // 2
    channels = x.shape[1] // (k * k if position_sensitive else 1)
    y = torch.zeros(len(boxes), channels, k, k, dtype=torch.float64)
    for r, c, i, j in itertools.product(*map(range, y.shape)):
        image, x1, y1, x2, y2 = boxes[r].tolist()
        left, top, w, h = x1 * SCALE - 0.5, y1 * SCALE - 0.5, (x2 - x1) * SCALE, (y2 - y1) * SCALE
        own = c // (channels // sets)
        left += gamma * w * offsets[r, 2 * own, i, j].item()
        top += gamma * h * offsets[r, 2 * own + 1, i, j].item()
        source = x[int(image), (c * k + i) * k + j if position_sensitive else c]
        for a, b in itertools.product(range(n), range(n)):
            row, column = top + h / k * (i + (a + 0.5) / n), left + w / k * (j + (b + 0.5) / n)
            y[r, c, i, j] += read(source, row, column) / n**2
    return y


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("k", [1, 3])
def test_unmoved_bins_are_those_of_torchvision(k, n):
    module = DeformableRoIPool(4, output_size=k, spatial_scale=SCALE, sampling_ratio=n).double()
    x = maps(4)
    torch.testing.assert_close(module(x, BOXES), roi_align(x, BOXES, k, SCALE, n, aligned=True))
    sensitive = DeformablePSRoIPool(4, 6, output_size=k, spatial_scale=SCALE, sampling_ratio=n, offset_sets=3).double()
    expected = ps_roi_align(sensitive.maps(x), BOXES, k, SCALE, n)
    torch.testing.assert_close(sensitive(x, BOXES), expected)


@pytest.mark.parametrize(
    ("sets", "channels", "position_sensitive"), [(1, 4, False), (2, 4, False), (1, 18, True), (2, 18, True)]
)
def test_moved_bins_are_those_of_the_formula(sets, channels, position_sensitive):
    x, offsets = maps(channels), random_offsets(sets, 3)
    y = deformable_roi_pool(
        x,
        BOXES,
        offsets,
        spatial_scale=SCALE,
        sampling_ratio=2,
        gamma=0.3,
        position_sensitive=position_sensitive,
    )
    expected = by_loops(x, BOXES, offsets, n=2, gamma=0.3, position_sensitive=position_sensitive)
    torch.testing.assert_close(y, expected)


def test_on_a_ramp_a_bin_moves_by_gamma_times_the_size_of_its_box():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    x = torch.stack((columns, rows))[None]
    boxes = [torch.tensor([[40.0, 60.0, 80.0, 140.0]])]  # 10 wide and 20 high on the map
    offsets = torch.zeros(1, 2, 3, 3)
    still = deformable_roi_pool(x, boxes, offsets, spatial_scale=SCALE)
    offsets[0, 0, 1, 2], offsets[0, 1, 1, 2] = 2.0, -3.0
    moves = deformable_roi_pool(x, boxes, offsets, spatial_scale=SCALE) - still
    expected = torch.zeros(1, 2, 3, 3)
    expected[0, 0, 1, 2], expected[0, 1, 1, 2] = 0.1 * 10 * 2.0, 0.1 * 20 * -3.0
    torch.testing.assert_close(moves, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("sets", "channels", "position_sensitive"), [(1, 2, False), (2, 8, True)])
def test_gradients(sets, channels, position_sensitive):
    x = maps(channels, 4, 5).requires_grad_()
    offsets = random_offsets(sets, 2, 0.5).requires_grad_()

    boxes = BOXES / 2
    boxes[:, 0] = BOXES[:, 0]

    def forward(x, offsets):
        return deformable_roi_pool(
            x, boxes, offsets, spatial_scale=SCALE, sampling_ratio=2, position_sensitive=position_sensitive
        )

    assert torch.autograd.gradcheck(forward, (x, offsets))


def test_the_offsets_come_from_a_full_connection_to_the_unmoved_bins():
    module, x = DeformableRoIPool(4, output_size=3, spatial_scale=SCALE, sampling_ratio=2, gamma=0.2).double(), maps(4)
    with torch.no_grad():
        module.offset.weight.normal_()
        module.offset.bias.normal_()
    unmoved = roi_align(x, BOXES, 3, SCALE, 2, aligned=True)
    offsets = unmoved.flatten(1) @ module.offset.weight.flatten(1).T + module.offset.bias
    expected = by_loops(x, BOXES, offsets.view(-1, 2, 3, 3), n=2, gamma=0.2, position_sensitive=False)
    torch.testing.assert_close(module(x, BOXES), expected)


@pytest.mark.parametrize(("offset_sets", "sets"), [(None, 4), (2, 2)])
def test_the_position_sensitive_offsets_are_pooled_from_maps_of_their_own(offset_sets, sets):
    module = DeformablePSRoIPool(3, 4, output_size=2, spatial_scale=SCALE, sampling_ratio=2, offset_sets=offset_sets)
    module, x = module.double(), maps(3)
    with torch.no_grad():
        module.offset.weight.normal_()
        module.offset.bias.normal_()
    assert len(module.offset.bias) == 2 * 2 * 2 * sets
    offset_maps = torch.einsum("nchw,oc->nohw", x, module.offset.weight[..., 0, 0]) + module.offset.bias[:, None, None]
    offsets = by_loops(offset_maps, BOXES, torch.zeros(len(BOXES), 2, 2, 2), n=2, gamma=0.0, position_sensitive=True)
    expected = by_loops(module.maps(x), BOXES, offsets, n=2, gamma=0.1, position_sensitive=True)
    torch.testing.assert_close(module(x, BOXES), expected)


def modules():
    return [
        DeformableRoIPool(4, output_size=3, spatial_scale=SCALE),
        DeformablePSRoIPool(4, 6, output_size=3, spatial_scale=SCALE),
    ]


@pytest.mark.parametrize("module", modules(), ids=["plain", "position-sensitive"])
def test_offsets_start_at_zero_and_learn(module):
    cs.network.initialise(module)
    module = module.double()
    assert not any(parameter.any() for parameter in module.offset.parameters())
    x = maps(4).requires_grad_()
    module(x, BOXES).square().sum().backward()
    assert all(parameter.grad.any() for parameter in (x, *module.parameters()))


@pytest.mark.parametrize("module", modules(), ids=["plain", "position-sensitive"])
def test_boxes_may_be_listed_by_image(module):
    module, x = module.double(), maps(4)
    listed = [BOXES[BOXES[:, 0] == image, 1:] for image in range(3)]
    order = [1, 3, 0, 2, 4]
    torch.testing.assert_close(module(x, listed), module(x, BOXES)[order])
    assert len(listed[1]) == 0


@pytest.mark.parametrize("boxes", [torch.zeros(0, 5), [torch.zeros(0, 4)] * 3], ids=["tensor", "list"])
@pytest.mark.parametrize("module", modules(), ids=["plain", "position-sensitive"])
def test_no_boxes_give_an_empty_result_with_gradients(module, boxes):
    x = maps(4).float().requires_grad_()
    module.zero_grad()
    y = module(x, boxes)
    assert y.shape == (0, module.out_channels, 3, 3)
    y.sum().backward()
    assert not any(parameter.grad.any() for parameter in (x, *module.parameters()))


@pytest.mark.parametrize("boxes", [torch.zeros(0, 5), []], ids=["tensor", "list"])
@pytest.mark.parametrize("module", modules(), ids=["plain", "position-sensitive"])
def test_no_images_give_an_empty_result(module, boxes):
    x = maps(4)[:0].float().requires_grad_()
    y = module(x, boxes)
    assert y.shape == (0, module.out_channels, 3, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DeformableRoIPool(4, output_size=0), "output_size must be positive, got 0"),
        (lambda: DeformablePSRoIPool(4, 6, sampling_ratio=0), "sampling_ratio must be positive, got 0"),
        (lambda: DeformablePSRoIPool(4, 6, offset_sets=4), "out_channels must be divisible by offset_sets"),
        (lambda: modules()[0](maps(4), BOXES[:, 1:]), r"boxes must be \(R, 5\).*got \(5, 4\)"),
        (lambda: modules()[0](maps(4)[:2], BOXES), "one of 2 images, counted from 0, got 2"),
        (lambda: modules()[0](maps(4), [BOXES[:, 1:]]), "an entry for each image, got 1 for 3 images"),
        *(
            (
                lambda entry=entry: modules()[0](maps(4), [BOXES[:2, 1:], entry, BOXES[:2, 1:]]),
                rf"entry of a list of boxes must be \(R, 4\).*got \({shape}\) for image 1; leave out the image number",
            )
            for entry, shape in ((BOXES[:4], "4, 5"), (BOXES[:3], "3, 5"), (BOXES[0, 1:], "4,"))
        ),
        (
            lambda: deformable_roi_pool(maps(4), BOXES, random_offsets(3, 2), spatial_scale=SCALE),
            r"got \(5, 6, 2, 2\) for 5 boxes and 4 channels",
        ),
        (
            lambda: deformable_roi_pool(
                maps(6), BOXES, random_offsets(1, 2), spatial_scale=SCALE, position_sensitive=True
            ),
            r"got \(5, 2, 2, 2\) for 5 boxes and 6 channels",
        ),
        (
            lambda: deformable_roi_pool(maps(4), BOXES[:3], random_offsets(1, 2), spatial_scale=SCALE),
            r"got \(5, 2, 2, 2\) for 3 boxes and 4 channels",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("pool", [DeformableRoIPool(8, output_size=3), DeformablePSRoIPool(8, 4, output_size=3)])
def test_bfloat16_is_close_to_float32(pool):
    x = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 16.0, 16.0, 160.0, 200.0]])
    expected = pool(x, boxes)
    torch.testing.assert_close(pool.bfloat16()(x.bfloat16(), boxes).float(), expected, rtol=0.1, atol=0.05)


def test_a_program_of_one_graph_pools_boxes():
    pool, x = DeformableRoIPool(4, output_size=3, spatial_scale=SCALE), maps(4).float()
    exported = torch.export.export(pool, (x, BOXES.float())).module()
    assert torch.equal(exported(x, BOXES.float()), pool(x, BOXES.float()))
