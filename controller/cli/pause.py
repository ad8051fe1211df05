"""``pause`` and ``resume``: hold a policy's rollout back, and let it go on.

Policies of our kinds have a field for it; on other operators' kinds, whose content is theirs, an annotation says it.
"""

import click

from controller.api.policy import PolicyObject
from controller.cli.common import CommandError, Target, suggest, target_options, with_client
from controller.kube.client import Client
from controller.kube.errors import NotFound
from controller.operate.caches import policy_resource
from controller.operate.options import Options
from controller.upgrade.keys import TRUE, paused_key
from controller.upgrade.policy import Policy, resolve
from controller.upgrade.sources import Source

Found = tuple[Source, PolicyObject, Policy]


@click.command()
@click.argument("policy")
@target_options
def pause(*, policy: str, target: Target) -> None:
    """Start no further node of POLICY. Nodes that are under way are finished.

    POLICY is a name, namespace/name, or Kind/namespace/name.
    """
    click.echo(with_client(target, lambda client: _set(client, target.options, policy, paused=True)))


@click.command()
@click.argument("policy")
@target_options
def resume(*, policy: str, target: Target) -> None:
    """Let a paused POLICY go on."""
    click.echo(with_client(target, lambda client: _set(client, target.options, policy, paused=False)))


async def _set(client: Client, options: Options, wanted: str, *, paused: bool) -> str:
    source, obj, policy = await find(client, options, wanted)
    if policy.paused is paused:
        return f"{policy.full_name} is {'paused already' if paused else 'not paused'}"
    body = _field(source, paused=paused) if source.ours else _annotation(options, paused=paused)
    resource = policy_resource(source)
    answer = await client.patch(resource, obj.name, body, namespace=obj.namespace)
    after = resolve(answer, source, domain=options.domain)
    if after.paused is not paused:
        raise CommandError(f"{policy.full_name} is still paused, by annotation {paused_key(options.domain)}: remove it")
    return f"{policy.full_name} is paused: nodes under way are finished" if paused else f"{policy.full_name} goes on"


def _field(source: Source, *, paused: bool) -> dict[str, object]:
    body: dict[str, object] = {"paused": paused}
    for part in reversed(source.path.split(".")):
        body = {part: body}
    return body


def _annotation(options: Options, *, paused: bool) -> dict[str, object]:
    return {"metadata": {"annotations": {paused_key(options.domain): TRUE if paused else None}}}


async def find(client: Client, options: Options, wanted: str) -> Found:
    """Return the one policy that a name, ``namespace/name`` or ``Kind/namespace/name`` means.

    Raises:
        CommandError: There is none, or several.
    """
    known = await policies(client, options)
    meant = [f for f in known if wanted in _names(f[2])]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise CommandError(f"{wanted} could be any of {', '.join(sorted(f[2].full_name for f in meant))}: say it in full")
    if not known:
        raise CommandError("there is no upgrade policy in the cluster, or none in the namespaces given")
    near = suggest(wanted, (name for f in known for name in _names(f[2])))
    raise CommandError(f"there is no policy {wanted}{near or ': there are ' + ', '.join(f[2].full_name for f in known[:5])}")


async def policies(client: Client, options: Options) -> list[Found]:
    """Read all policies, of the driver namespaces if any were given.

    Raises:
        KubeError: They could not be listed.
        CommandError: The API server knows none of their kinds.
    """
    found, kinds = [], 0
    for source in options.sources:
        try:
            objects = (await client.list(policy_resource(source))).items
        except NotFound:
            continue
        kinds += 1
        found += [(source, obj, resolve(obj, source, domain=options.domain)) for obj in objects]
    if not kinds:
        raise CommandError("the API server knows no upgrade policies: driver-upgrade crd | kubectl apply -f -")
    return [f for f in found if not options.driver_namespaces or f[2].namespace in options.driver_namespaces]


def _names(policy: Policy) -> tuple[str, ...]:
    return policy.name, f"{policy.namespace}/{policy.name}", policy.full_name
