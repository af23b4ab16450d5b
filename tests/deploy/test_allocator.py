import subprocess
import sys

import pytest

# How many pages the kernel must hand out for twenty buffers of 32 MiB, one after the other.
FAULTS = """
import ctypes, resource, sys
from convsmith.deploy.allocator import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def use():
    buffer = libc.malloc(2**25)
    ctypes.memset(buffer, 1, 2**25)
    libc.free(buffer)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(setting):
    command = [sys.executable, "-c", FAULTS, setting]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_asking_the_kernel():
    pages = 2**25 // 4096
    # The C library itself learns to keep blocks up to 32 MiB; what is larger it returns each time.
    assert faults("kept") < pages / 10
    assert faults("left alone") > 10 * pages
