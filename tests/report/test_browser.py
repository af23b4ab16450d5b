"""The pages in a real browser, where one is installed: plots drawn, hovers, both colour schemes, nothing fetched."""

import json
import re
import shutil
import subprocess
from collections import Counter
from html import escape
from html.parser import HTMLParser

import pytest

import convsmith as cs
from tests.report.profiles import made_profile
from tests.report.runs import Evaluation, Page, multiply, results, search_run, train_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    # Browsers call their makers in spite of all that: no name resolves.
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the path"),
]


class Drawn(HTMLParser):
    """A page as the browser has it: points by plot, the text of hovers, colours, console messages, requests."""

    def __init__(self, path, folder, *flags):
        super().__init__()
        log = folder / "net.json"
        shutil.rmtree(folder / "profile", ignore_errors=True)
        command = [BROWSER, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
        done = subprocess.run([*command, path.resolve().as_uri()], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        self.console = re.findall(r"CONSOLE[^\"]*\"(.*?)\", source", done.stderr, re.DOTALL)
        self.requests = requests(json.loads(log.read_text()))
        self.points, self.fills, self.hover = Counter(), {}, ""
        self.stack = []
        self.feed(done.stdout)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in Page.VOID:
            self.stack.append((tag, attributes))
        if tag == "path" and attributes.get("class") == "point":
            plot = next(a["id"] for _, a in reversed(self.stack) if "plot" in (a.get("class") or "").split())
            self.points[plot] += 1
            fill = re.search(r"fill: (rgb\([^)]*\))", attributes["style"])
            self.fills.setdefault(plot, fill[1] if fill else None)

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if any("hoverlayer" in (a.get("class") or "") for _, a in self.stack):
            self.hover += data + "\n"


def requests(log):
    """Addresses that the page asked for; the browser's own requests have no origin."""
    kinds = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    parameters = [e.get("params", {}) for e in log["events"] if kinds[e["type"]] == "URL_REQUEST_START_JOB"]
    return [p["url"] for p in parameters if "url" in p and p.get("initiator") != "not an origin"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    search_run(folder, evaluation=Evaluation([ValueError('<script>alert(1)</script> "no" luck & more')]))
    (folder / "results.json").write_text(json.dumps(results()))
    return folder


def test_a_fetching_page_would_be_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><img src="https://example.invalid/a.png"><script>missing()</script>')
    drawn = Drawn(page, tmp_path)
    assert drawn.requests == ["https://example.invalid/a.png"]
    assert drawn.console == ["Uncaught ReferenceError: missing is not defined"]


def test_a_search_is_drawn_without_errors_and_requests(searched, tmp_path):
    path = cs.report.write(searched)
    page, drawn = Page(path), Drawn(path, tmp_path)
    assert drawn.console == []
    assert drawn.requests == []
    assert drawn.points["history"] == len(page.heads()) > 24
    data = page.figures["pareto-1"]["figure"]["data"]
    assert drawn.points["pareto-1"] == sum(len(trace["x"]) for trace in data)
    assert sum(len(trace.get("customdata", ())) for trace in data) == len(page.heads())


def test_a_training_is_drawn_without_errors_and_requests(tmp_path):
    train_run(tmp_path / "run")
    drawn = Drawn(cs.report.write(tmp_path / "run"), tmp_path)
    assert drawn.console == []
    assert drawn.requests == []
    assert drawn.points == {"curve-1": 8, "curve-2": 4, "curve-3": 4}


def test_a_profile_is_drawn_without_errors_and_requests(tmp_path):
    path = cs.report.write_profile(made_profile(), tmp_path / "page.html", name="net", input_shape=(1, 3, 4, 4))
    hovering = "<script>Plotly.Fx.hover('roofline', [{curveNumber: 3, pointNumber: 1}])</script></body>"
    copy = tmp_path / "hovering.html"
    copy.write_text(re.sub(r"<meta http-equiv[^>]*>", "", Page(path).html).replace("</body>", hovering))
    plain, hovered = Drawn(path, tmp_path), Drawn(copy, tmp_path)
    assert plain.console == []
    assert plain.requests == []
    assert plain.points == {"roofline": 2, "traffic": 2}  # a pie and bars are drawn without points
    assert "5 GMAC/s, 5% of the peak" in hovered.hover


def test_colours_follow_the_scheme(searched, tmp_path):
    path = cs.report.write(searched)
    fills = [Drawn(path, tmp_path, *flags).fills["history"] for flags in ((), (DARK,))]
    assert fills == ["rgb(0, 114, 178)", "rgb(86, 180, 233)"]


@pytest.mark.parametrize("state", ["complete", "failed"])
def test_the_hover_says_the_decisions_in_words(searched, tmp_path, state):
    page = Page(cs.report.write(searched))
    curve, trace = next((i, t) for i, t in enumerate(page.figures["history"]["figure"]["data"]) if t["name"] == state)
    position = trace["customdata"][0]
    target = json.dumps([{"curveNumber": curve, "pointNumber": 0}])
    hovering = f"<script>Plotly.Fx.hover('history', {target}, ['x{trace.get('yaxis', 'y')}'])</script></body>"
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page.html)
    copy = tmp_path / "hovering.html"
    copy.write_text(without_policy.replace("</body>", hovering), encoding="utf-8")
    drawn = Drawn(copy, tmp_path)
    words = " ".join(drawn.hover.split())
    assert words.startswith(" ".join(page.heads()[position][0].split()))
    trial = next(t for t in cs.search.History.open(searched) if t.number == position)
    architecture = cs.search.History.open(searched).space.resolve(trial.decisions)
    assert f"depth {len(architecture.stages[0])} block" in words
    assert f"block {architecture.stages[0][0].block}, width {architecture.stages[0][0].get('out_channels')}" in words
    if state == "failed":
        assert '<script>alert(1)</script> "no" luck & more' in words
    assert escape("<script>alert(1)") not in words


def test_10_000_trials_are_drawn(searched, tmp_path):
    shutil.copytree(searched, tmp_path / "many")
    multiply(tmp_path / "many", 10_000)
    drawn = Drawn(cs.report.write(tmp_path / "many"), tmp_path)
    assert drawn.console == []
    assert drawn.points["history"] == 10_000
