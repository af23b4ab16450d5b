"""What holds for every test: one thread, a fixed seed, no network, and `gpu` tests only where a GPU is."""

import ipaddress
import os
import random
import socket
import sys
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

NAMES_OF_THIS_MACHINE = {"", "localhost", socket.gethostname()}


def _stays_here(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in NAMES_OF_THIS_MACHINE
    return address.is_loopback or address.is_unspecified


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook, so that it holds during collection too and for every way to reach a socket from Python."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        connection, address = arguments
        host = address[0] if connection.family in {socket.AF_INET, socket.AF_INET6} and address else None
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = arguments[0]
    else:
        return
    if not _stays_here(host):
        raise RuntimeError(f"tests use no network, but one called {event} for {host!r}; use a file made by the test")


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same generator states, whichever tests its worker ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (the legacy generator is the one that libraries share)
    torch.manual_seed(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
