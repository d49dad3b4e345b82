"""The program of a worker process: it completes the cells that its parent process sends.

The parent starts it as ``python -m robustbench_tin.benchmarks.cells.worker_process`` and writes a listener's
address and a key to its standard input. The worker ends when the parent ends, even if the parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Client, Connection

import torch

from robustbench_tin.benchmarks.cells.assignment import Assignment, opened_context, warnings_told
from robustbench_tin.benchmarks.cells.complete_cell import complete_in_time
from robustbench_tin.benchmarks.cells.worker_messages import Done, Ready, SendingReporter, Stopped
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.errors import RobustTinError
from robustbench_tin.runtime import tune_allocator


def main() -> None:
    """Serve the parent process until it closes the connection."""
    # The parent process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known = json.loads(sys.stdin.readline())
    connection = Client(known["address"], authkey=bytes.fromhex(known["key"]))
    connection.send(os.getpid())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve(connection)
    except (EOFError, ConnectionError):  # the parent no longer listens
        os._exit(1)
    except RobustTinError as error:
        connection.send(Stopped(str(error), error.exit_code))
    except BaseException as error:  # noqa: BLE001 - a defect; the parent process shows it
        connection.send(Stopped(repr(error), RobustTinError.exit_code, traceback.format_exc()))


def _end_with_parent() -> None:
    """End this process as soon as standard input closes: a killed parent's lock is free for other runs."""
    sys.stdin.read()
    os._exit(1)


def _serve(connection: Connection) -> None:
    assignment: Assignment = connection.recv()
    torch.set_num_threads(assignment.threads)
    tune_allocator()
    reporter = SendingReporter(connection)
    with warnings_told(reporter):
        context = opened_context(assignment, reporter)
        connection.send(Ready())
        while True:
            cell: Cell = connection.recv()
            with context.run.files.kept():
                complete_in_time(context, cell)
            connection.send(Done())


if __name__ == "__main__":
    main()
