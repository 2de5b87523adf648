"""`run`: the program `hf-attn-mi`, a process that runs one command and ends."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from typing import NoReturn

from hf_attn_mi.cli.loading import Process
from hf_attn_mi.cli.main import main


def run() -> NoReturn:
    """Run the command line of this process and end it with the exit status of the command.

    Python would free every object of torch and transformers one by one before it ends, which takes longer than many
    commands. Here everything else that belongs to an orderly end is done, and the memory is left to the system.
    """
    status: list[int] = []
    Process.ends_with_command = True
    atexit.register(_end_at_once, status)  # registered first, so that it runs last: after those of all libraries
    status.append(main())
    sys.exit(status[0])


def _end_at_once(status: list[int]) -> None:
    """End the process; if the command was left by an exception, or output cannot be written, Python ends it."""
    gc.unfreeze()  # where Python ends the process it frees everything
    if not status:
        return
    logging.shutdown()  # its own handler was registered earlier, and would not run any more
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(status[0])
