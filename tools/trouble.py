"""What may go wrong in a tool for reasons that are not its defects: told in a sentence, without a traceback."""

import asyncio
import signal

from tools.controllerprocess import ControllerError
from tools.controlplane.api import ApiError
from tools.controlplane.build import BuildError
from tools.controlplane.gotoolchain import ToolchainError
from tools.controlplane.kubeconfig import KubeconfigError
from tools.controlplane.process import ComponentError

FAILED = 1
INTERRUPTED = 130
_KNOWN = (ControllerError, ApiError, BuildError, ToolchainError, KubeconfigError, ComponentError, TimeoutError)


def stop_when_asked() -> None:
    """Cancels the current task on SIGTERM and SIGHUP, as asyncio.run does on Ctrl-C: so everything is stopped in order."""
    task = asyncio.current_task()
    assert task is not None, "call it in the program's main task"
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def cause(error: BaseException) -> BaseException:
    """The first error inside a group of errors, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def known(error: BaseException) -> str:
    """What to tell about an error that is no defect of the tool; empty for any other."""
    found = cause(error)
    return (str(found) or type(found).__name__) if isinstance(found, _KNOWN) else ""
