"""What gradio keeps of every visit, forgotten when the visit is over: a server is to run for months."""

import asyncio
import sys
from collections import OrderedDict
from typing import Any

import gradio as gr

from cyclegan.allocation import give_memory_back
from cyclegan.app.sessions import SWEEP_S, Sessions


class _LeanSessions(OrderedDict[str, Any]):
    """gradio's sessions without the page's whole description in each, which only its deep links read.

    It is a third of a MiB, and a program is a new session at each call.
    """

    def __setitem__(self, name: str, session: Any) -> None:
        session.config_values.clear()
        super().__setitem__(name, session)


def keep_little(blocks: gr.Blocks) -> None:
    """No description of the page for each session, and no statistics of requests, which nothing here shows.

    Called once ``blocks`` has its queue.
    """
    blocks.state_holder.session_data = _LeanSessions()
    blocks._queue.ANALYTICS_MAX_EVENTS = 1
    blocks._queue.ANAYLTICS_CACHE_FREQUENCY = 2**62  # gradio's spelling; computing them loads pandas


async def keep_forgetting(blocks: gr.Blocks, sessions: Sessions) -> None:
    """Forget again and again; freed memory goes back to the system once there is nothing to forget.

    Should another gradio keep things elsewhere, that is said once, and the server goes on without.
    """
    owed = False
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            forgotten = forget_quiet_sessions(blocks, sessions)
        except (AttributeError, KeyError, TypeError) as error:
            print(
                f"warning: gradio {gr.__version__} cannot be made to forget visits ({error}); "
                "its memory grows with each: restart it now and then, or install the version in setup.cfg",
                file=sys.stderr,
            )
            return
        if owed and not forgotten:
            await asyncio.to_thread(give_memory_back)
        owed = forgotten


def forget_quiet_sessions(blocks: gr.Blocks, sessions: Sessions) -> bool:
    """Drop what belongs to visits that nobody holds a line to and that were not heard of for a while.

    gradio keeps 10,000 sessions, and without end whom it has answered and the name of each file that a
    component has shown. To be called where gradio answers, in its event loop: between two of its own steps.

    Returns:
        Whether there was anything.
    """
    holder, queue = blocks.state_holder, blocks._queue
    quiet = [session for session in list(holder.session_data) if sessions.is_quiet(session)]
    with holder.lock:
        for session in quiet:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)
    messages, awaited = queue.pending_messages_per_session, queue.pending_event_ids_session
    # What was computed and not yet fetched stays: it is among the last 2,000, or gradio has dropped it.
    answered = [session for session, events in awaited.items() if not events or session not in messages]
    for session in answered:
        awaited.pop(session)
        messages.pop(session, None)
    for names in blocks.temp_file_sets:
        names.clear()  # the folders of visits know what is whose
    return bool(quiet or answered)
