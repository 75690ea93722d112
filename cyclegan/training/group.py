"""Processes that belong together: how they meet, and how what one decides becomes known to all.

They join so that a group that was started again meets only itself.

torchrun (2.15) keeps one store for all of its restarts: a process that is quicker than the others finds
the addresses of those that died there, and the group fails again and again. So the processes agree on a
new name first, and keep everything under it.
"""

import gc
import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

# DistributedDataParallel imports it. If the group exists by then, it is in the defaults of its functions, and
# never ends (torch 2.14).
import torch.distributed.nn.functional
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

T = TypeVar("T")
_POLL_S = 0.01


def decided_by_main(accelerator: Accelerator, decide: Callable[[], T]) -> T:
    """What the main process decides, on every process; all of them must call it."""
    return broadcast_object_list([decide() if accelerator.is_main_process else None])[0]


def join_group(timeout: timedelta) -> None:
    """Begin the process group, where torchrun's own store would serve it; else accelerate does it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size == 1:
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, size, is_master=False, timeout=timeout)
    name = _agree(dist.PrefixStore("cyclegan", store), rank, size, timeout)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        backend, store=dist.PrefixStore(name, store), rank=rank, world_size=size, timeout=timeout
    )


def end_threads() -> None:
    """End the group's threads, once nobody has a network or an accelerator of a training any more.

    gloo's lay down their last tensors on their own time. If Python has begun to leave by then, the process
    is aborted: "terminate called without an active exception".
    """
    gc.collect()  # DistributedDataParallel is in cycles, and has the group


def _agree(store: dist.Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name that only the living know, though the store remembers the dead.

    Each says hello by a name of its own, made up just now. The first answers whatever name it finds,
    of the dead as well, but only a living one reads the answer to its own and confirms it.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"hello {rank}", mine)
        name = store.get(f"answer {mine}").decode()  # waits for it
        store.set(f"confirm {name} {rank}", "")
        return name
    until = time.monotonic() + timeout.total_seconds()
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"hello {other}"]):
                store.set(f"answer {store.get(f'hello {other}').decode()}", mine)
            if store.check([f"confirm {mine} {other}"]):
                missing.discard(other)
        if time.monotonic() > until:
            raise dist.DistStoreError(f"processes {sorted(missing)} did not come within {timeout}")
        time.sleep(_POLL_S)
    return mine
