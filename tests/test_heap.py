"""What a training step frees is there for the next one, without the system's help."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from cyclegan.training.heap import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else False
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    maps = [torch.zeros(48, 2**20 // 4) for _ in range(4)]  # 48 MiB each
    del maps
print(int(kept), faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_second_step_needs_no_new_pages():
    found = {}
    for name in ("kept", "plain"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, check=True
        )
        found[name] = [int(word) for word in done.stdout.split()]
    if not found["kept"][0]:
        pytest.skip("the C library has no mallopt")
    assert found["plain"][1] > 4 * 48 * 64  # huge pages aside, 256 small ones a MiB
    assert found["kept"][1] < 1000
