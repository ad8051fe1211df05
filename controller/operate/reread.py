"""Reading a node again that turned out to be another than it was decided on: 409, or 404.

Its event is usually on the way. But a watch that hangs brings none, and until it is renewed every write of the node would
break on the same precondition while the deadlines of its upgrade run. So what the server has is read, and taken over.
"""

import logging

from controller.api.node import Node
from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.kube.resources import NODES
from controller.kube.resourceversion import newer
from controller.kube.store import Store

logger = logging.getLogger(__name__)


async def read_again(client: Client, nodes: Store[Node], name: str) -> bool:
    """Read what is newest of a node into its cache, also that it is gone. Returns whether it could be read."""
    try:
        node, at = await client.look_up_at(NODES, name)
    except KubeError as error:
        logger.warning("node could not be read again", extra={"node": name, "error": str(error)})
        return False
    held = nodes.get(name)
    if node is not None:
        nodes.observe_write(node)
    elif held is not None and newer(at, held.metadata.resource_version):
        nodes.delete(held, at)
    return True
