"""The Python of the guide's pages runs as it stands there, each page, or a section of it, from first line to last."""

import re
import runpy
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs/guide"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "section"), [("nn", ""), ("zoo", ""), ("deploy", "### A folder to ship\n")])
def test_the_code_of_a_page_runs(page, section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (GUIDE / f"{page}.md").read_text()
    if section:
        text = text.partition(section)[2].partition("\n##")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / f"{page}.py").write_text("\n".join(blocks))
    runpy.run_path(f"{page}.py")
