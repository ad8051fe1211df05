"""The flags of ``run`` that say where and to whom it serves."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from controller.server.http import MetricsAccess

R = TypeVar("R")
_OPTIONS: Final = (
    click.option(
        "--listen",
        default="127.0.0.1:8080",
        show_default=True,
        help="host:port of /healthz and /readyz; of /metrics too where it is on loopback and --metrics-listen is not given.",
    ),
    click.option("--metrics-listen", default="", help="host:port of /metrics alone, such as :8443."),
    click.option(
        "--metrics-auth/--no-metrics-auth",
        default=False,
        show_default=True,
        help="Serve /metrics only to bearer tokens whose user may get the non-resource URL /metrics, which the API server"
        " is asked (TokenReview, SubjectAccessReview). Needs --metrics-listen.",
    ),
    click.option(
        "--metrics-tls-cert-file",
        default="",
        help="PEM certificate chain: serve --metrics-listen over TLS (1.2 or newer). Followed when it is renewed.",
    ),
    click.option("--metrics-tls-private-key-file", default="", help="PEM private key of that certificate."),
)


def serving_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the flags; the command gets ``listen``, and the others as ``metrics``, a MetricsAccess."""

    @functools.wraps(command)
    def with_access(
        *,
        metrics_listen: str,
        metrics_auth: bool,
        metrics_tls_cert_file: str,
        metrics_tls_private_key_file: str,
        **others: Any,
    ) -> R:
        access = MetricsAccess(metrics_listen, metrics_auth, metrics_tls_cert_file, metrics_tls_private_key_file)
        return command(metrics=access, **others)

    decorated: Callable[..., R] = with_access
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
