"""Where the API server is and who we are there: kubeconfig files and the pod's service account.

Looked for in controller-runtime's order: the given file, ``$KUBECONFIG``, the service account where the process runs in
a pod, ``~/.kube/config``. The work is kubernetes_asyncio's, which knows tokens, token files, client certificates, exec
plugins, OIDC and GCP; this is the only module that imports it, and :class:`Connection` is all that comes out.

Credentials are not for ever. They are read again at most every minute (service account tokens rotate, exec credentials
expire), and at once when the server answers 401 (:meth:`Connection.refresh`). Renewed client certificates go into the
same SSL context and so into the next connection.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, Protocol

from controller.kube.errors import ConfigError, escape
from controller.kube.proxies import proxy_for

RELOAD_SECONDS: Final = 60.0
FORCED_RELOAD_SECONDS: Final = 5.0
"""At most one renewal per this time, however many requests are refused."""
PLUGIN_SECONDS: Final = 30.0
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
_PACKAGE: Final = "kubernetes_asyncio"

logger = logging.getLogger(__name__)


class Credentials(Protocol):
    """Something that can be asked for the Authorization header again and again."""

    async def load(self, *, force: bool) -> str | None:
        """Read the header's present value; force renews it even if it has not expired. None where there is none."""


@dataclass
class Connection:
    """How to reach the API server, and as whom.

    Attributes:
        server: URL without a trailing slash.
        namespace: The pod's, or the context's; ``default`` where neither says.
        source: Where this comes from, for messages.
        tls: None for plain http.
        server_name: TLS server name where it is not the URL's host.
        proxy: URL of an HTTP proxy.
        credentials: None for an anonymous connection or one by client certificate alone.
    """

    server: str
    namespace: str = "default"
    source: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: str | None = None
    credentials: Credentials | None = None
    clock: Callable[[], float] = time.monotonic
    _header: str | None = field(default=None, repr=False)
    _loaded_at: float = float("-inf")
    _forced_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def authorization(self) -> str | None:
        """The value of the Authorization header, or None. Keeps the last one where it cannot be read again."""
        if self.credentials is not None and self.clock() - self._loaded_at >= RELOAD_SECONDS:
            async with self._lock:
                if self.clock() - self._loaded_at >= RELOAD_SECONDS:
                    await self._load(force=False)
        return self._header

    async def refresh(self, refused: str | None) -> bool:
        """Renew the credentials after a 401 to this Authorization header.

        Returns:
            Whether another try is worthwhile: the header is another one now, or there may be a new certificate.
        """
        if self.credentials is None:
            return False
        async with self._lock:
            if self._header == refused and self.clock() - self._forced_at >= FORCED_RELOAD_SECONDS:
                self._forced_at = self.clock()
                await self._load(force=True)
                return self._header != refused or refused is None
        return self._header != refused

    async def _load(self, *, force: bool) -> None:
        assert self.credentials is not None
        self._loaded_at = self.clock()
        try:
            async with asyncio.timeout(PLUGIN_SECONDS):
                self._header = await self.credentials.load(force=force)
        except Exception as error:  # noqa: BLE001 - plugins and files fail in any way; the last credentials may still be good
            logger.warning("cannot renew credentials", extra={"source": self.source, "error": escape(str(error))})


async def load(kubeconfig: str | None = None, context: str | None = None) -> Connection:
    """Find and load the configuration.

    Args:
        kubeconfig: Path of a file, or several separated as in ``$KUBECONFIG``; None to look for it.
        context: Context of the kubeconfig; None for its current one.

    Raises:
        ConfigError: There is none, or it is wrong; the message names the file and context, and the remedy.
    """
    chosen = kubeconfig or os.environ.get("KUBECONFIG")
    if not chosen and not context and os.environ.get(_HOST_VARIABLE):
        return await load_in_cluster()
    return await load_kubeconfig(chosen or str(Path.home() / ".kube" / "config"), context)


async def load_in_cluster(directory: Path = SERVICE_ACCOUNT) -> Connection:
    """Load the pod's service account.

    Raises:
        ConfigError: A file or environment variable is missing.
    """
    module = _import("incluster_config")
    loader = module.InClusterConfigLoader(str(directory / "token"), str(directory / "ca.crt"))
    settings = _settings()
    source = f"service account in {directory}"
    with _explained(source, "let the pod mount its service account token (automountServiceAccountToken: true)"):
        loader.load_and_set(settings)
        namespace = _read(directory / "namespace")
        return await _connect(settings, namespace, source, _ServiceAccount(loader))


async def load_kubeconfig(paths: str, context: str | None) -> Connection:
    """Load one context of a kubeconfig.

    Raises:
        ConfigError: No file, no such context, or something in it is wrong.
    """
    if not _exists(paths):
        raise ConfigError(f"kubeconfig {paths} does not exist: name one with --kubeconfig or $KUBECONFIG")
    source = f"kubeconfig {paths}, " + (f"context {context}" if context else "current context")
    settings = _settings()
    with _explained(source, "`kubectl config get-contexts` lists the contexts; `kubectl config view` shows the file"):
        async with asyncio.timeout(PLUGIN_SECONDS):
            loader = await _import("kube_config").load_kube_config(paths, context, settings)
        chosen = loader.current_context["context"]
        return await _connect(settings, chosen.get("namespace") or "default", source, _Kubeconfig(loader, settings))


async def _connect(settings: Any, namespace: str, source: str, credentials: "_ServiceAccount | _Kubeconfig") -> Connection:
    if not settings.host:
        raise ValueError("its cluster names no server")
    context = _ssl_context(settings) if settings.host.startswith("https:") else None
    credentials.tls = context
    connection = Connection(
        server=settings.host,
        namespace=namespace,
        source=source,
        tls=context,
        server_name=settings.tls_server_name,
        proxy=proxy_for(settings.host, settings.proxy),
        credentials=credentials if "BearerToken" in settings.api_key or settings.cert_file else None,
    )
    await connection.authorization()
    return connection


class _ServiceAccount:
    """The token that the kubelet writes anew long before it expires."""

    tls: ssl.SSLContext | None = None

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    async def load(self, *, force: bool) -> str | None:  # noqa: ARG002 - reading the file is all there is
        self._loader._read_token_file()  # noqa: SLF001 - its own hook does the same, but at fixed times only
        return str(self._loader.token).strip()


class _Kubeconfig:
    """Whatever the user entry of a context says."""

    tls: ssl.SSLContext | None = None

    def __init__(self, loader: Any, settings: Any) -> None:
        self._loader = loader
        self._settings = settings
        self._first = True

    async def load(self, *, force: bool) -> str | None:
        """Ask the loader again; it runs a plugin only if its last credentials expired, which force pretends."""
        if force:
            vars(self._loader).pop("exec_plugin_expiry", None)
        if not self._first and (force or self._expires()):
            before = self._settings.cert_file
            await self._loader.load_and_set(self._settings)
            if self.tls is not None and self._settings.cert_file and self._settings.cert_file != before:
                self.tls.load_cert_chain(self._settings.cert_file, self._settings.key_file)
        self._first = False
        token = self._settings.api_key.get("BearerToken")
        return token and str(token).strip()

    def _expires(self) -> bool:
        """Whether reading again can bring something new without running a plugin that gave no expiry."""
        user = self._loader._user  # noqa: SLF001 - there is no other way to see it
        return user is not None and ("exec" not in user or hasattr(self._loader, "exec_plugin_expiry"))


def _exists(paths: str) -> bool:
    return any(Path(part).expanduser().is_file() for part in paths.split(os.pathsep))


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()


def _settings() -> Any:
    """What kubernetes_asyncio's loaders fill in: the few fields of its Configuration that we read."""
    files = {"ssl_ca_cert": None, "cert_file": None, "key_file": None}
    return SimpleNamespace(host="", api_key={}, verify_ssl=True, tls_server_name=None, proxy=None, **files)


def _ssl_context(settings: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    # Python 3.13 refuses the cluster CAs that lack RFC 5280's key identifiers, which are many; Go does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    if not settings.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _explained(source: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the loaders raise whatever the data makes them stumble over
        detail = escape(str(error)) or type(error).__name__
        raise ConfigError(f"{source}: {detail}: {remedy}") from error


def _import(name: str) -> ModuleType:
    """Import one module of ``kubernetes_asyncio.config`` without the rest of kubernetes_asyncio.

    Its package imports 900 generated models with it, 38 MiB that nobody uses here, a third of the memory that the whole
    controller may take. The config modules need of it only two names, in places that we do not call; so they are
    imported under stand-ins for the packages above them. Where that fails, the ordinary import does it.
    """
    full = f"{_PACKAGE}.config.{name}"
    spec = importlib.util.find_spec(_PACKAGE)
    if _PACKAGE in sys.modules or spec is None or not spec.submodule_search_locations:
        return importlib.import_module(full)
    root = Path(next(iter(spec.submodule_search_locations)))
    try:
        for package in (_PACKAGE, f"{_PACKAGE}.client", f"{_PACKAGE}.config"):
            stand_in = ModuleType(package)
            stand_in.__path__ = [str(root.joinpath(*package.split(".")[1:]))]
            vars(stand_in).update(Configuration=object, ApiClient=object)
            sys.modules[package] = stand_in
        return importlib.import_module(full)
    except ImportError:
        _forget_package()
        return importlib.import_module(full)
    finally:
        if not hasattr(sys.modules.get(_PACKAGE), "__version__"):
            _forget_package()


def _forget_package() -> None:
    for loaded in [module for module in sys.modules if module.partition(".")[0] == _PACKAGE]:
        del sys.modules[loaded]
