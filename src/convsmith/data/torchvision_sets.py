"""The classification data sets of torchvision, by name; the user downloads them."""

import inspect
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from convsmith.data.array_split import array_splits
from convsmith.data.dataset import DataSet, Split, checksum, fingerprint
from convsmith.data.image_split import ImageSplit
from convsmith.data.splitting import Labelled, complete

Arguments = dict[str, Any]
Item = tuple[str, int]  # a split that the set brings along, and the index in it


@dataclass(frozen=True)
class Layout:
    """How a set's constructor is asked for its splits (None where it has none), and whether images may be mirrored."""

    train: Arguments
    validation: Arguments | None
    test: Arguments | None
    flip: bool = True


def by_flag(*, flip: bool = True) -> Layout:
    """A set whose constructor takes `train=True` or `train=False`."""
    return Layout({"train": True}, None, {"train": False}, flip)


def by_name(train: str, validation: str | None, test: str | None, *, flip: bool = True) -> Layout:
    """A set whose constructor takes the name of the split."""

    def part(name: str | None) -> Arguments | None:
        return None if name is None else {"split": name}

    return Layout({"split": train}, part(validation), part(test), flip)


def whole(*, flip: bool = True) -> Layout:
    """A set without splits."""
    return Layout({}, None, None, flip)


LAYOUTS = {
    "CIFAR10": by_flag(),
    "CIFAR100": by_flag(),
    "Caltech101": whole(),
    "Caltech256": whole(),
    "Country211": by_name("train", "valid", "test"),
    "DTD": by_name("train", "val", "test"),
    "EMNIST": Layout({"split": "balanced", "train": True}, None, {"split": "balanced", "train": False}, flip=False),
    "EuroSAT": whole(),
    "FER2013": by_name("train", None, "test"),
    "FGVCAircraft": by_name("train", "val", "test"),
    "FakeData": whole(),
    "FashionMNIST": by_flag(),
    "Flowers102": by_name("train", "val", "test"),
    "Food101": by_name("train", None, "test"),
    "GTSRB": by_name("train", None, "test", flip=False),
    "ImageNet": by_name("train", "val", None),
    "Imagenette": by_name("train", "val", None),
    "KMNIST": by_flag(flip=False),
    "MNIST": by_flag(flip=False),
    "OxfordIIITPet": by_name("trainval", None, "test"),
    "PCAM": by_name("train", "val", "test"),
    "Places365": by_name("train-standard", "val", None),
    "QMNIST": by_flag(flip=False),
    "RenderedSST2": by_name("train", "val", "test", flip=False),
    "SEMEION": whole(flip=False),
    "STL10": by_name("train", None, "test"),
    "SUN397": whole(),
    "SVHN": by_name("train", None, "test", flip=False),
    "StanfordCars": by_name("train", None, "test"),
    "USPS": by_flag(flip=False),
}


def torchvision_set(name: str, *, root: Path, input_size: int | None = None, seed: int = 0) -> DataSet:
    """A classification set of torchvision that lies under `root`; what it lacks of the splits is cut from it.

    A set that torchvision holds in memory keeps its own size and channels; with another `input_size`, as any set of
    files (224 unless said), its images are resized one by one.

    Raises:
        ValueError: for a name that is no classification set, with close matches.
        FileNotFoundError: when the files are not there, with the call that downloads them.
    """
    if name not in LAYOUTS:
        lower = {known.lower(): known for known in LAYOUTS}
        close = [lower[match] for match in get_close_matches(name.lower(), lower)]
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"possible are {', '.join(LAYOUTS)}"
        raise ValueError(f"unknown torchvision classification set {name!r}; {hint}")
    layout = LAYOUTS[name]
    asked = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    size = {"image_size": (3, input_size, input_size)} if name == "FakeData" and input_size else {}
    brought = {
        part: open_set(name, root, arguments | size) for part, arguments in asked.items() if arguments is not None
    }
    labels = {part: read_labels(dataset) for part, dataset in brought.items()}
    class_names = read_class_names(brought["train"], labels["train"])
    items: dict[str, list[Labelled[Item]]] = {
        part: [((part, index), label) for index, label in enumerate(values.tolist())] for part, values in labels.items()
    }
    splits = complete(items, seed=seed, class_names=class_names)

    pixels = {part: in_memory_pixels(dataset) for part, dataset in brought.items()}
    arrays = {part: values for part, values in pixels.items() if values is not None}
    facts: list[object] = [(part, len(values), checksum(values)) for part, values in labels.items()]
    made: tuple[Split, ...]
    channels, height, width = arrays["train"].shape[1:] if arrays else (3, 224, 224)
    if arrays and input_size in (None, height):
        facts += [(part, checksum(values)) for part, values in arrays.items()]
        gathered = [gather(items, arrays) for items in splits.values()]
        made = array_splits(gathered, flip=layout.flip)
    else:
        height = width = input_size or 224
        made = tuple(
            ImageSplit(
                Items(brought, [item for item, _ in items]),
                torch.tensor([label for _, label in items]),
                [source(item) for item, _ in items],
                input_size=height,
                channels=channels,
                flip=layout.flip,
            )
            for items in splits.values()
        )
    train, validation, test = made
    return DataSet(
        name=f"torchvision:{name}",
        input_shape=(channels, height, width),
        class_names=class_names,
        fingerprint=fingerprint(name, seed, (channels, height, width), class_names, tuple(facts)),
        train=train,
        validation=validation,
        test=test,
    )


def open_set(name: str, root: Path, arguments: Arguments) -> Any:
    """The set as torchvision opens it, never downloading."""
    constructor = getattr(datasets, name)
    parameters = inspect.signature(constructor).parameters
    if "root" not in parameters:
        return constructor(**arguments)
    offline = {"download": False} if "download" in parameters else {}  # SEMEION downloads unless told not to
    try:
        if not root.is_dir():  # some constructors create it
            raise FileNotFoundError(f"no folder {root}")
        return constructor(str(root), **arguments, **offline)
    except ImportError:
        raise
    except Exception as error:  # what is missing or damaged shows in many ways, assertions and unpickling errors too
        if offline or issubclass(constructor, datasets.MNIST):
            given = "".join(f", {key}={value!r}" for key, value in arguments.items())
            remedy = f"download it with torchvision.datasets.{name}({str(root)!r}{given}, download=True)"
        else:
            remedy = f"put its files there as the page of torchvision.datasets.{name} says"
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"torchvision:{name} must lie complete under the root {root}, but opening it failed ({reason}); {remedy}, "
            "or pass another root"
        ) from error


def read_labels(dataset: Any) -> Tensor:
    """Labels (N,) int64 from wherever the set keeps them; else from its items, which decodes every image."""
    for attribute in ("targets", "labels", "_labels", "y"):
        labels = torch.as_tensor(getattr(dataset, attribute, ()))
        if labels.shape == (len(dataset),):
            return labels.to(torch.int64)
    if hasattr(dataset, "_samples"):
        return torch.tensor([label for _, label in dataset._samples])
    return torch.tensor([dataset[index][1] for index in range(len(dataset))])


def read_class_names(dataset: Any, labels: Tensor) -> tuple[str, ...]:
    """The set's class names, numbers where it has none; an ImageNet class has several, joined here."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or range(int(labels.max()) + 1)
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)


def in_memory_pixels(dataset: Any) -> Tensor | None:
    """Pixels (N, C, H, W) uint8 of a set that holds them in one array, None for any other."""
    if not hasattr(dataset, "data"):
        return None
    pixels = torch.as_tensor(dataset.data)
    if pixels.ndim == 3:
        return pixels.unsqueeze(1)
    return pixels.permute(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels


def gather(items: list[Labelled[Item]], arrays: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[tuple[str, ...]]]:
    """Pixels, labels and sources of a split, whose items all come from one part of the set."""
    part = items[0][0][0]
    indices = torch.tensor([index for (_, index), _ in items])
    return arrays[part][indices], torch.tensor([label for _, label in items]), [source(item) for item, _ in items]


def source(item: Item) -> tuple[str]:
    """Name of an item in `Split.sources`, such as `train/17`."""
    return (f"{item[0]}/{item[1]}",)


class Items:
    """Images of a set, some of its items in a given order."""

    def __init__(self, brought: dict[str, Any], items: list[Item]) -> None:
        self.brought, self.items = brought, items

    def __getitem__(self, index: int) -> Image.Image:
        part, position = self.items[index]
        image: Image.Image = self.brought[part][position][0]
        return image
