"""Work of users on the real node: a pod that takes its time to end, and writes down what it was allowed to do."""

from pathlib import Path

from tests.e2e.site import TIMEOUT, Site
from tools.controlplane import scene
from tools.controlplane.resources import PODS, Object
from tools.e2e import node

WORK = "work"
"""Its namespace."""
PYTHON = "/opt/driver-upgrade/bin/python3"
DIARY = Path("/run/diary")
REAL = {"kubernetes.io/hostname": node.NAME}


def workload(name: str) -> Object:
    """A Deployment of one pod on the real node, which takes its time to end and may."""
    # Ready is who has begun: before that, the first process of a container does not feel SIGTERM.
    begun = "import os; open('/diary/' + os.environ['NAME'])"
    container = {
        "name": "work",
        "readinessProbe": {"exec": {"command": [PYTHON, "-S", "-c", begun]}, "periodSeconds": 1, "timeoutSeconds": 10},
        "image": "local/work:1",
        "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [{"name": "diary", "mountPath": "/diary"}],
    }
    volume = {"name": "diary", "hostPath": {"path": str(DIARY), "type": "DirectoryOrCreate"}}
    spec = {"containers": [container], "volumes": [volume], "nodeSelector": REAL, "terminationGracePeriodSeconds": 60}
    return scene.deployment(name, WORK, spec=spec)


def diary(pod: Object) -> list[str]:
    """What a pod of the workload wrote down."""
    return (DIARY / str(pod["metadata"]["name"])).read_text().splitlines()


async def the_pod(site: Site, namespace: str, app: str) -> Object:
    """The one pod of an app, once it is ready."""
    ready = scene.all_ready(1)
    pods = await site.api.wait_for(
        PODS, lambda pods: list(pods) if ready(pods) else [], namespace, labels=f"app={app}", timeout=TIMEOUT, what=app
    )
    return pods[0]
