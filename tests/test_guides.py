"""The Python of the guide's pages runs as it stands there, each page, or a section of it, from first line to last."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs/guide"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "section"), [("nn", ""), ("zoo", ""), ("deploy", "### A folder to ship\n")])
def test_the_code_of_a_page_runs(page, section, tmp_path):
    """In a process of its own: the threads of the runtimes that it loads would stay in the one of other tests."""
    text = (GUIDE / f"{page}.md").read_text()
    if section:
        text = text.partition(section)[2].partition("\n##")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / f"{page}.py").write_text("\n".join(blocks))
    command = [sys.executable, "-W", "error", f"{page}.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
