"""What a process frees it keeps: new pages are the system's to give, and it counts them."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, statistics, sys
import torch
from cyclegan.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    return sum(held.sum() for held in [torch.ones(4, 2**20) for _ in range(6)])
found = []
for _ in range(15):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# Where other memory lies in between, a heap grows once more now and then: the usual step is what counts.
print(statistics.median(found))
"""


def new_pages(how):
    # What glibc keeps by itself depends on where things happen to lie; with this it gives all back.
    given = {} if how == "keep" else {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_steps_after_the_first_take_no_new_memory():
    assert new_pages("keep") < 2000 < new_pages("as ever")


def test_another_c_library_is_left_alone(monkeypatch):
    from cyclegan import allocation

    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    assert not allocation.keep_freed_memory()
    assert not allocation.share_heaps() and not allocation.give_memory_back()


HEAPS = """
import ctypes, sys, threading, xml.etree.ElementTree as xml
from cyclegan.allocation import share_heaps
if sys.argv[1] == "share":
    assert share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(12)
def work():
    together.wait()
    assert libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.open_memstream.restype = ctypes.c_void_p
text, size = ctypes.c_char_p(), ctypes.c_size_t()
stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
libc.malloc_info(0, stream)
libc.fclose(stream)
print(len(xml.fromstring(text.value).findall("heap")))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_threads_share_two_heaps():
    def heaps(how):
        command = [sys.executable, "-c", HEAPS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert heaps("share") <= 2 < heaps("as ever")
