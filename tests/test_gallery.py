import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def gallery():
    location = importlib.util.spec_from_file_location("make_gallery", DOCS / "make_gallery.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_committed_gallery_is_the_one_that_the_zoo_makes(gallery):
    stale = [path for path, text in gallery.pages().items() if (DOCS / path).read_text() != text]
    assert not stale, f"make gallery writes {', '.join(stale)} anew"


def test_every_row_of_a_family_stands_in_the_lectures_page(gallery):
    page = (DOCS / "lecture.md").read_text()
    for family in gallery.FAMILIES:
        row = gallery.import_module(f"convsmith.zoo.{family}").ABOUT.row
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {row} |")]
        assert f"zoo/{family}.py" in line, f"row {row} of docs/lecture.md does not name zoo/{family}.py"


def test_what_the_lectures_page_names_is_there():
    page = (DOCS / "lecture.md").read_text()
    source = DOCS.parent / "src/convsmith"
    named = {part for part in page.split("`") if part.endswith(".py")}
    assert len(named) > 20
    assert [path for path in named if not any((root / path).is_file() for root in (source, DOCS.parent))] == []
