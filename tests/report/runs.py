"""Runs made by the real search and the real training, in seconds, and a reader of their pages."""

import json
import sqlite3
from html.parser import HTMLParser
from random import Random

import convsmith as cs
from convsmith.measure import cost
from convsmith.search import Constraint, search, strategies
from tests.train.tiny import RECIPE, TASK, tiny_data, tiny_network

SHAPE = (1, 1, 8, 8)
LIMIT = 12_000  # MACs that a trial may have


class Evaluation:
    """Accuracy that grows with the size, without training; `troubles` says what each further trial meets."""

    def __init__(self, troubles=(), facts=None):
        self.troubles, self.own_facts = iter(troubles), facts or {}

    def __call__(self, architecture, *, seed, report):
        trouble = next(self.troubles, None)
        if trouble is not None:
            raise trouble
        counted = cost(architecture, SHAPE)
        accuracy = 1 - 50 / counted.macs**0.6 - 0.02 * Random(seed).random()
        return {"accuracy": accuracy, "loss": 1 - accuracy, "params": counted.params, "seconds": 0.25}

    def facts(self):
        return {"data": "digits 0123456789abcdef", "input_shape": list(SHAPE[1:]), **self.own_facts}


def macs(architecture):
    return float(cost(architecture, SHAPE).macs)


MACS = Constraint("macs", maximum=LIMIT, measure=macs)


def space():
    """972 networks for 8x8 images of one channel."""
    width = cs.choice(4, 8, 12, name="stage1_width")
    kernel = cs.choice(1, 3, name="stage1_kernel_size")
    block = cs.choice(
        cs.spec(cs.nn.ConvNormAct, width, kernel_size=kernel),
        cs.spec(cs.nn.InvertedResidual, width, kernel_size=3, expansion=cs.choice(1.0, 2.0, name="stage1_expansion")),
        name="stage1_block",
    )
    return cs.Architecture(
        name="small",
        in_channels=1,
        stem=[cs.spec(cs.nn.ConvNormAct, cs.choice(2, 4, 6), stride=cs.choice(1, 2))],
        stages=[[cs.choice((block,), (block, block), (block,) * 3, name="stage1_depth")]],
        head=cs.spec(cs.nn.Classifier, 10),
    )


def search_run(folder, *, trials=24, constraints=(MACS,), objective="accuracy", evaluation=None, **options):
    """A folder with a finished search."""
    evaluation = Evaluation() if evaluation is None else evaluation
    options = {"space": space(), "strategy": strategies.Random(), **options}
    names = {"trials": trials, "objective": objective, "constraints": constraints, "seed": 1, "run_dir": folder}
    return search(options["space"], options["strategy"], evaluation, **names)


def train_run(folder, *, network=None, **options):
    """A folder with a finished training of four epochs."""
    return cs.train.fit(network or tiny_network(), TASK, tiny_data(), RECIPE, run_dir=folder, progress=False, **options)


def multiply(folder, count):
    """Let the trials of a search stand in its history again and again, under further numbers, up to `count`."""
    with sqlite3.connect(folder / "history.sqlite") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(trials)")]
        (known,) = connection.execute("SELECT count(*) FROM trials").fetchone()
        shifted = [f"{name} + :shift" if name in ("number", "position") else name for name in columns]
        statement = f"INSERT INTO trials SELECT {', '.join(shifted)} FROM trials WHERE number < :rest"
        for shift in range(known, count, known):
            connection.execute(statement, {"shift": shift, "rest": min(known, count - shift)})
    connection.close()


def change_document(folder, **changes):
    """Change `run.json`; None removes a key."""
    path = folder / "run.json"
    document = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def results(**changes):
    """What the demo leaves beside its search."""
    winner = {"name": "winner", "test_accuracy": 0.9889, "test_accuracy_error": 0.0055, "params": 1234, "macs": 9000}
    baseline = {"name": "resnet18", "test_accuracy": 0.9917, "test_accuracy_error": 0.0048, "params": 11_172_810}
    return {
        "winner": {**winner, "latency_ms": 0.31, "budget_ms": 0.33},
        "baselines": [{**baseline, "latency_ms": 0.66, "macs": 8_000_000}],
        "test_images": 360,
        "device": {"name": "a CPU", "cores": 2},
        "artifacts": {"architecture": "elsewhere/winner.json"},
        **changes,
    }


class Page(HTMLParser):
    """What a page holds: elements, text, and the cells of each table by its caption."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.tables, self.words, self.data = [], [], {}, [], {}
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())
        if "figures" in self.data:
            self.figures = {entry["id"]: entry for entry in json.loads(self.data["figures"])}

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))
        if tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"</{tag}> closes <{self.open[-1][0]}>"
        self.open.pop()
        if tag == "table":
            self.tables[" ".join(self.caption.split())] = [[" ".join(cell.split()) for cell in r] for r in self.rows]

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if "script" in tags or "style" in tags:
            if identifier := self.open[-1][1].get("id"):
                self.data[identifier] = self.data.get(identifier, "") + data
            return
        self.words.append(data)
        if "caption" in tags:
            self.caption += data
        elif "td" in tags or "th" in tags:
            self.rows[-1][-1] += data

    def table(self, start):
        """The rows of the table whose caption begins so."""
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))

    def heads(self):
        """The first lines of the hovers."""
        return [head for head, _ in json.loads(self.data["hover"])["trials"]]
