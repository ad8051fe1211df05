"""From answers' bodies to typed objects: what cannot be decoded is an error that names it, and costs nobody else.

A page of a list is decoded in one go; only where that fails is each of its items decoded by itself, so that an object that
breaks its own schema is reported by name and the others go on.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from controller.api.meta import KubeObject
from controller.kube import errors
from controller.kube.errors import NetworkError, Status
from controller.kube.resources import DECODE_ERRORS, ListMeta, Page, RawPage, Resource
from controller.kube.transport import Response

T = TypeVar("T", bound=KubeObject)
logger = logging.getLogger(__name__)
_RAW_PAGE = msgspec.json.Decoder(RawPage)
_STATUS = msgspec.json.Decoder(Status)


class _Identity(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Identified(msgspec.Struct, frozen=True, gc=False):
    metadata: _Identity = _Identity()


class _Spec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    node_name: str = ""


class _Bound(msgspec.Struct, frozen=True, gc=False):
    spec: _Spec = _Spec()


_IDENTIFIED = msgspec.json.Decoder(_Identified)
_BOUND = msgspec.json.Decoder(_Bound)


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """An object that could not be decoded: its key where that much was readable, and what was wrong with it."""

    key: str
    error: str
    resource_version: str = ""
    node: str = ""
    """``spec.nodeName`` where it is a pod and that was readable."""


class MalformedObjects(dict[str, Malformed]):
    """Objects that exist but cannot be decoded, by key.

    Args:
        resource: What they are, for the log.
        told: Called with each of them, and once more when it can be decoded again, or is gone.
    """

    def __init__(self, resource: Resource[Any], told: Callable[[Malformed], None]) -> None:
        super().__init__()
        self._resource = resource
        self._told = told

    def report(self, bad: Malformed) -> None:
        """An object cannot be decoded; logged when it has not been said of it before."""
        if bad.key not in self or self[bad.key].error != bad.error:
            logger.warning("malformed object", extra={"resource": str(self._resource), "key": bad.key, "error": bad.error})
        self[bad.key] = bad
        self._told(bad)

    def settle(self, key: str) -> None:
        """What perhaps could not be decoded can be, or is gone."""
        if bad := self.pop(key, None):
            self._told(bad)


def malformed(raw: msgspec.Raw | bytes, error: Exception) -> Malformed:
    """Describe an object that could not be decoded."""
    try:
        meta = _IDENTIFIED.decode(raw).metadata
    except DECODE_ERRORS:
        meta = _Identity()
    try:
        node = _BOUND.decode(raw).spec.node_name
    except DECODE_ERRORS:
        node = ""
    key = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
    return Malformed(key, errors.escape(str(error)), meta.resource_version, node)


def decode(resource: Resource[T], response: Response) -> T:
    """Return the object of an answer.

    Raises:
        NetworkError: It cannot be decoded; whoever retries may read better.
    """
    try:
        return resource.decoder.decode(response.body)
    except DECODE_ERRORS as error:
        raise NetworkError(f"unreadable answer about {resource}: {errors.escape(str(error))}") from error


def decode_or_status(resource: Resource[T], response: Response) -> T | Status:
    """Return the object of an answer, or the Status that some requests are answered with instead.

    Raises:
        NetworkError: It is neither.
    """
    try:
        status = _STATUS.decode(response.body)
    except DECODE_ERRORS:
        return decode(resource, response)  # an object's own status is not a string
    return status if status.kind == "Status" else decode(resource, response)


def decode_page(resource: Resource[T], body: bytes, items: list[T], bad: list[Malformed]) -> ListMeta:
    """Append the page's objects to items, its malformed ones to bad, and return its metadata.

    Raises:
        NetworkError: It is no list.
    """
    try:
        page: Page[T] = resource.page_decoder.decode(body)
        items.extend(page.items or ())
        return page.metadata
    except DECODE_ERRORS as error:
        return _decode_each(resource, body, items, bad, error)


def _decode_each(resource: Resource[T], body: bytes, items: list[T], bad: list[Malformed], cause: Exception) -> ListMeta:
    try:
        page = _RAW_PAGE.decode(body)
    except DECODE_ERRORS:
        raise NetworkError(f"unreadable list of {resource}: {errors.escape(str(cause))}") from cause
    for raw in page.items or ():
        try:
            items.append(resource.decoder.decode(raw))
        except DECODE_ERRORS as error:
            bad.append(malformed(raw, error))
    return page.metadata
