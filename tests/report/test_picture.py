import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

import convsmith as cs
from convsmith.report import architecture_rows, architecture_svg, resolutions

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["mobilenet_v2", "nasnet_a_mobile"])
def test_every_block_is_in_a_box_of_the_picture(name):
    architecture = cs.zoo.get(name)
    picture = ElementTree.fromstring(architecture_svg(architecture, (3, 224, 224)))
    titles = [group.find(f"{SVG}title").text for group in picture.iter(f"{SVG}g")]
    shown = [line.partition(":")[0] for title in titles for line in title.splitlines()]
    assert shown == [path for path, _ in architecture.blocks()]


def test_boxes_follow_the_maps_and_lie_beside_each_other():
    picture = ElementTree.fromstring(architecture_svg(cs.zoo.get("mobilenet_v2"), (3, 224, 224)))
    boxes = [{k: float(r.get(k)) for k in ("x", "width", "height")} for r in picture.iter(f"{SVG}rect")]
    heights = [box["height"] for box in boxes]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 6  # 112, 56, 28, 14 and 7 pixels, and the logits
    assert all(a["x"] + a["width"] < b["x"] for a, b in pairwise(boxes))
    assert boxes[-1]["x"] + boxes[-1]["width"] < float(picture.get("width"))


def test_names_cannot_break_the_picture():
    architecture = cs.zoo.get("resnet18").replace(name='<script>"&')
    text = architecture_svg(architecture, (3, 64, 64))
    assert ElementTree.fromstring(text).find(f"{SVG}title").text.startswith('<script>"&')
    assert not re.search(r"<script>", text)


def test_shares_of_the_sizes_add_up():
    rows = architecture_rows(cs.zoo.get("shufflenet_v1_g3"), (3, 224, 224))
    sizes = resolutions(rows, 224)
    assert [size.stride for size in sizes] == [2, 4, 8, 16, 32]
    head = rows[-1].macs / sum(row.macs for row in rows)
    assert sum(size.share_of_macs for size in sizes) + head == pytest.approx(1)
    assert sum(size.blocks for size in sizes) == len(rows) - 1
    # "Fast downsampling": 94 % of the work is done at a stride of 8 or more.
    assert sum(size.share_of_macs for size in sizes if size.stride >= 8) + head > 0.93
