"""What is logged of requests that are no HTTP.

aiohttp logs them as exceptions, and their text quotes the line that could not be read: an Authorization header with one
wrong character would be in the log, token and all. They are everyday traffic of a port that others can reach (scanners,
TLS on a plain port), so here they are one line at level debug, without their text.
"""

import logging

from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger(__name__)
_aiohttp = logging.getLogger(f"{__name__}.aiohttp")


class _Malformed(logging.Filter):
    """Takes the log records about malformed requests out."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        logger.debug("malformed request refused", extra={"error": type(error).__name__})
        return False


def quiet_logger() -> logging.Logger:
    """Return the logger to hand to aiohttp's server."""
    if not _aiohttp.filters:
        _aiohttp.addFilter(_Malformed())
    return _aiohttp
