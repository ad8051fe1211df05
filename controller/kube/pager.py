"""A list in pages (client-go's ``tools/pager``), or whole where the server forgets what it began with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from controller.api.meta import KubeObject
from controller.kube.decoding import Malformed, decode_page
from controller.kube.errors import Gone
from controller.kube.resources import Resource
from controller.kube.transport import Response

T = TypeVar("T", bound=KubeObject)
PAGE: Final = 500
"""Objects per page: short enough to be decoded on the loop, about 6 ms for pods."""
Get = Callable[[Mapping[str, str]], Awaitable[Response]]
"""Asks for the page that these parameters mean."""


class ListResult(msgspec.Struct, Generic[T], frozen=True):
    """All objects of a list at one resourceVersion."""

    items: tuple[T, ...]
    resource_version: str
    malformed: tuple[Malformed, ...] = ()


class _ContinueGone(Exception):  # noqa: N818
    """The continue token expired."""


async def all_pages(get: Get, resource: Resource[T], params: Mapping[str, str], limit: int) -> ListResult[T]:
    """Get page after page; once more and whole where a continue token has expired meanwhile.

    Raises:
        ApiError: A page was refused; the first one with Gone where the version that params name cannot be served.
        NetworkError: No answer.
    """
    try:
        return await _pages(get, resource, params, limit)
    except _ContinueGone:
        return await _pages(get, resource, params, 0)


async def _pages(get: Get, resource: Resource[T], params: Mapping[str, str], limit: int) -> ListResult[T]:
    items: list[T] = []
    malformed: list[Malformed] = []
    asked = {**params, "limit": str(limit)} if limit else dict(params)
    while True:
        try:
            response = await get(asked)
        except Gone as error:
            if "continue" in asked:
                raise _ContinueGone from error
            raise
        meta = decode_page(resource, response.body, items, malformed)
        if not meta.continue_:
            return ListResult(tuple(items), meta.resource_version, tuple(malformed))
        asked = {**_selected(params), "limit": str(limit), "continue": meta.continue_}


def _selected(params: Mapping[str, str]) -> dict[str, str]:
    """Only the selectors: a continue token brings its own resourceVersion and refuses another."""
    return {name: value for name, value in params.items() if name.endswith("Selector")}
