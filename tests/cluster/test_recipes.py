"""What the pages tell people to write for `kubectl apply -k` can be built, and permissions, flags and fence fit each other.

A page shows the files of an overlay as YAML whose first line is a comment with the file's path; the overlay lies beside
`manifests`. Nothing is applied here, `test_manifests.py` does that with what is shipped, and with the recipe for TLS.
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.cli.sources import OWN, SEED, sources_of
from controller.upgrade.keys import keys_for
from controller.upgrade.sources import Source, seed_kind
from tools import manifests
from tools.controlplane.resources import Object, Objects
from tools.manifests import FENCE, NAME, built, containers, of_kinds, one, rules

DOCS = manifests.MANIFESTS.parent / "docs"
SHIPPED = ["base", *(f"overlays/{path.name}" for path in sorted((manifests.MANIFESTS / "overlays").iterdir()))]
FILE = re.compile(r"^( *)```yaml\n *# ([\w-]+(?:/[\w-]+)*/[\w-]+\.yaml)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
DRIVER = f"{NAME}-driver"
SOURCES = f"{NAME}-sources"


def shown() -> dict[tuple[str, str], dict[str, str]]:
    """The files of every overlay on every page, by page and folder."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for page in sorted(DOCS.glob("*.md")):
        for indent, path, text in FILE.findall(page.read_text()):
            files = found.setdefault((page.name, path.partition("/")[0]), {})
            assert path not in files, f"{page.name} shows {path} twice"
            files[path] = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
    return found


SHOWN = shown()
RECIPES = [*SHIPPED, *(f"{page}:{folder}" for page, folder in SHOWN)]


def written(recipe: str, directory: Path) -> Path:
    """The folder of a page's recipe, with its files and what they refer to."""
    page, _, folder = recipe.rpartition(":")
    root = directory / page
    shutil.copytree(manifests.MANIFESTS, root / "manifests", dirs_exist_ok=True)
    for path, text in SHOWN[page, folder].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root / folder


@functools.cache
def rendered(recipe: str, directory: Path) -> tuple[Object, ...]:
    """What kubectl makes of a recipe."""
    if recipe in SHIPPED:
        return tuple(built(recipe))
    command = [manifests.kubectl(), "kustomize", str(written(recipe, directory))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest, directory: Path) -> Objects:
    return list(rendered(request.param, directory))


def flag(objects: Objects, name: str) -> list[str]:
    """The values of a flag of the controller."""
    return [arg.removeprefix(f"--{name}=") for arg in containers(objects)[0]["args"] if arg.startswith(f"--{name}=")]


def sources(objects: Objects) -> tuple[Source, ...]:
    """Whose policies the controller reads, as it understands its flags itself; it refuses to start where this raises."""
    said, (domain,) = flag(objects, "source") or [OWN, SEED], flag(objects, "label-domain")
    namespaces = tuple(flag(objects, "driver-namespaces")[0].split(","))
    return sources_of(tuple(said), seed_kind(), domain=domain, namespaces=namespaces)


def grants(of: tuple[Source, ...]) -> Iterator[tuple[str, str]]:
    """What the controller does with its sources."""
    for source in of:
        yield from ((verb, f"{source.plural}.{source.group}") for verb in ("list", "watch"))
        if source.ours:
            yield "patch", f"{source.plural}.{source.group}/status"


def test_the_pages_show_the_recipes_that_are_known_to_be_needed():
    assert {page for page, _ in SHOWN} == {"deploy.md", "metrics-access.md", "operators.md"}


def test_what_is_granted_is_what_the_sources_need_and_what_giving_back_needs(recipe: Objects):
    """An absent permission is no absent resource: a controller that may not list its sources leads nothing for ever."""
    used = sources(recipe)
    granted = [(verb, resource) for _, verb, resource, _ in rules([one(recipe, "ClusterRole", SOURCES)])]
    kept = () if all(source.ours for source in used) else sources_of((OWN, SEED), seed_kind(), domain="x", namespaces=())
    assert sorted(granted) == sorted([*grants(kept), *grants(used)])


def test_every_driver_namespace_has_its_role_and_no_other_has(recipe: Objects):
    (namespaces,) = flag(recipe, "driver-namespaces")
    role = one(built(), "Role", DRIVER)["rules"]
    found = [obj for obj in of_kinds(recipe, {"Role", "RoleBinding"}) if obj["metadata"]["name"] == DRIVER]
    placed = sorted((obj["metadata"]["namespace"], obj["kind"]) for obj in found)
    assert placed == sorted((name, kind) for name in namespaces.split(",") for kind in ("Role", "RoleBinding"))
    for obj in found:
        if obj["kind"] == "Role":
            assert obj["rules"] == role
        else:
            assert obj["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": DRIVER}
            assert obj["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": NAME}]


def test_flags_and_fence_say_the_same(recipe: Objects):
    """Label domain and driver namespaces stand in the settings once, and are carried to wherever they matter."""
    policies = of_kinds(recipe, FENCE)
    said = [(v["name"], v["expression"]) for policy in policies for v in policy["spec"].get("variables", ())]
    (domain,), (namespaces,) = flag(recipe, "label-domain"), flag(recipe, "driver-namespaces")
    assert [text for name, text in said if name == "domain"] == [f"'{domain}'"] * 2
    assert [text for name, text in said if name == "driverNamespaces"] == [f"'{namespaces}'.split(',')"]
    assert not of_kinds(recipe, {"ConfigMap"}), "the settings are not applied"


def test_the_controller_itself_is_left_alone_by_drains(recipe: Objects):
    """By the label of every driver that the manifests know of, in the domain that is set."""
    (domain,) = flag(recipe, "label-domain")
    labels = one(recipe, "Deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    drivers = {source.driver for source in sources(recipe) if source.driver}
    assert {keys_for(driver, domain).drain_skip for driver in drivers} <= {k for k, v in labels.items() if v == "true"}


def test_it_is_the_base_and_what_the_recipe_adds(recipe: Objects):
    """No overlay loses a part of the base, such as a policy of the fence, and none has an object twice."""

    def names(objects: Objects) -> list[tuple[str, str, str]]:
        return [(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects]

    made = names(recipe)
    assert len(made) == len(set(made))
    assert {(kind, name) for kind, _, name in names(built())} <= {(kind, name) for kind, _, name in made}


def test_tls_is_on_both_sides_and_takes_nothing_away(directory: Path):
    """A flag on one side alone, and Prometheus scrapes nothing; a list that is replaced, and the controller is lost."""
    objects = list(rendered("metrics-access.md:with-tls", directory))
    (container,), (before,) = containers(objects), containers(built())
    added = container["args"][len(before["args"]) :]
    assert container["args"][: len(before["args"])] == before["args"]
    assert added == ["--metrics-tls-cert-file=/tls/tls.crt", "--metrics-tls-private-key-file=/tls/tls.key"]
    (mount,) = [one for one in container["volumeMounts"] if one not in before["volumeMounts"]]
    assert (mount["mountPath"], mount["readOnly"]) == ("/tls", True)
    volumes = {v["name"]: v for v in one(objects, "Deployment", NAME)["spec"]["template"]["spec"]["volumes"]}
    secret = volumes[mount["name"]]["secret"]["secretName"]
    (endpoint,) = one(objects, "PodMonitor", NAME)["spec"]["podMetricsEndpoints"]
    (plain,) = one(built("monitoring"), "PodMonitor", NAME)["spec"]["podMetricsEndpoints"]
    certificate = one(objects, "Certificate", secret)["spec"]
    tls = {"ca": {"secret": {"name": secret, "key": "ca.crt"}}, "serverName": certificate["dnsNames"][0]}
    assert endpoint == {**plain, "scheme": "https", "tlsConfig": tls}
    assert certificate["secretName"] == secret


def test_the_component_for_tls_needs_no_monitoring(tmp_path: Path):
    shutil.copytree(manifests.MANIFESTS, tmp_path / "manifests")
    (tmp_path / "kustomization.yaml").write_text("resources: [manifests/base]\ncomponents: [manifests/metrics-tls]\n")
    done = subprocess.run([manifests.kubectl(), "kustomize", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--metrics-tls-cert-file" in done.stdout


def test_the_bindings_that_a_page_makes_are_not_those_of_the_manifests():
    text = (DOCS / "metrics-access.md").read_text()
    made = set(re.findall(r"create clusterrolebinding (\S+)", text))
    assert made
    assert not made & {obj["metadata"]["name"] for obj in of_kinds([*built(), *built("monitoring")], {"ClusterRoleBinding"})}


def test_what_the_page_removes_is_all_that_was_applied(directory: Path):
    """Definitions stay, for policies go with them; what is in the controller's namespace goes with it."""
    text = (DOCS / "deploy.md").read_text()
    kinds = re.search(r"kubectl get (\S+) \\\n\s+-o name \| grep '/driver-upgrade' \| xargs kubectl delete", text)
    assert kinds
    assert "kubectl delete namespace driver-upgrade\n" in text
    assert "delete rolebinding,role driver-upgrade-driver\n" in text
    for obj in [*built(), *rendered("deploy.md:two-namespaces", directory), *built("monitoring")]:
        kind, meta = obj["kind"], obj["metadata"]
        plural = f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}{'es' if kind.endswith('s') else 's'}"
        if "namespace" in meta:
            assert meta["namespace"] == NAME or (kind in {"Role", "RoleBinding"} and meta["name"] == DRIVER)
        elif kind not in {"CustomResourceDefinition", "Namespace"}:
            assert plural in kinds[1].split(",")
            assert meta["name"].startswith("driver-upgrade")
