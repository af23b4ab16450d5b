"""An ssh server of the tests' own, small models, and programs that pretend to be ssh or adb."""

from __future__ import annotations

import getpass
import math
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SERVER = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={folder}/device
"""
CLIENT = """
IdentityFile {folder}/user_key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile none
"""


class Server:
    """Where the server listens, and the client's configuration; its temporary files go to `device`."""

    def __init__(self, folder: Path, port: int):
        self.folder, self.port = folder, port
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
        self.config, self.device = folder / "config", folder / "device"


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """OpenSSH's server on a free port of this machine, with keys of its own."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs OpenSSH's server (Debian: openssh-server)")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # root's server insists on it
    folder = tmp_path_factory.mktemp("sshd")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / key]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (folder / "device").mkdir()
    (folder / "server").write_text(SERVER.format(port=port, folder=folder))
    (folder / "config").write_text(CLIENT.format(folder=folder))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    log = (folder / "log").open("w")
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "server"], stderr=log, stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield Server(folder, port)
    finally:
        server.terminate()
        server.wait(10)
        log.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two ONNX models of a free batch, the second with about two hundred times the work."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make = onnx.helper
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, channels in (("small", 4), ("large", 64)):
        sizes = {"w0": (channels, 3, 3, 3), "w1": (channels, channels, 3, 3)}
        weights = [make.make_tensor(w, 1, size, [0.01] * math.prod(size)) for w, size in sizes.items()]
        nodes = [make.make_node("Conv", ["input", "w0"], ["middle"]), make.make_node("Conv", ["middle", "w1"], ["out"])]
        shapes = (("input", ["batch", 3, 32, 32]), ("out", ["batch", channels, 28, 28]))
        ends = [[make.make_tensor_value_info(end, 1, shape)] for end, shape in shapes]
        graph = make.make_graph(nodes, "two", *ends, weights)
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
        paths[name] = folder / f"{name} of it's.onnx"  # words that a shell would take apart
        paths[name].write_bytes(model.SerializeToString())
    return paths


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell's script under a name first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return put
