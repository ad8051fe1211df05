"""The TLS certificate of a server, renewed on disk by someone else (cert-manager, a mounted Secret) and followed here.

The files are looked at when a client begins a handshake, at most every :data:`RELOAD_SECONDS` (the bound of
controller-runtime's certwatcher): nothing polls, and no client sees a certificate that was replaced longer ago than that.
A new pair is loaded into a context of its own, which takes over only if it loads whole. So a pair that is half written,
does not fit together or cannot be read changes nothing: the old one serves on, and the log says why, once.
"""

import hashlib
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controller.kube.errors import escape

RELOAD_SECONDS: Final = 10.0

logger = logging.getLogger(__name__)


class CertificateError(Exception):
    """The pair cannot be used. The message names the files and says what is wrong."""


class Certificates:
    """Serves one pair of files, whichever contents they have.

    Args:
        cert_file: PEM: the certificate, then those that link it to its authority.
        key_file: PEM: its private key, without a passphrase.
        clock: Monotonic seconds.

    Raises:
        CertificateError: The pair cannot be used now; at the start there is no other one to serve on with.
    """

    def __init__(self, cert_file: str, key_file: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._clock = clock
        self._looked_at = clock()
        # Of the contents that were looked at last, whether they could be used or not: they are not judged twice.
        self._seen = self._digest()
        self._current = self._load()
        self.context: Final = _new_context()
        """What to listen with. It has no certificate: each handshake is handed the present context."""
        self.context.sni_callback = self._hand_over

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called by OpenSSL for each handshake, whether the client names a server or not; must not raise."""
        if self._clock() - self._looked_at >= RELOAD_SECONDS:
            self._looked_at = self._clock()
            self._reload()
        connection.context = self._current

    def _reload(self) -> None:
        seen = self._digest()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._current = self._load()
        except CertificateError as error:
            logger.warning("certificate not reloaded, the old one serves on", extra={"error": str(error)})
        else:
            logger.info("certificate reloaded", extra={"file": self._cert_file})

    def _digest(self) -> bytes:
        """What is in the files; an error of reading them is a content like any other, and told by loading it."""
        digest = hashlib.sha256()
        for name in (self._cert_file, self._key_file):
            try:
                content = Path(name).read_bytes()
            except OSError as error:
                content = str(error).encode()
            digest.update(hashlib.sha256(content).digest())
        return digest.digest()

    def _load(self) -> ssl.SSLContext:
        context = _new_context()
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password=_no_passphrase)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            text = escape(str(error))
            raise CertificateError(f"{self._cert_file} with {self._key_file}: {text}") from error
        return context


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_passphrase() -> str:
    """Without this OpenSSL would ask for one on the terminal, and wait."""
    raise ValueError("the private key has a passphrase: give one without")
