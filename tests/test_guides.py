"""The Python of the guide's pages runs as it stands there, each page from its first line to its last."""

import re
import runpy
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs/guide"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["nn", "zoo"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (GUIDE / f"{page}.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / f"{page}.py").write_text("\n".join(blocks))
    runpy.run_path(f"{page}.py")
