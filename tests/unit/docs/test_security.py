"""The table of permissions in docs/security.md is that of the manifests."""

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
ROLES = [*(ROOT / "manifests/base/rbac").glob("*.yaml"), ROOT / "manifests/driver-namespace/role.yaml"]
WHERE = {"driver-upgrade": "own namespace", "nvidia-operator": "driver namespace", "": "cluster"}
Grant = tuple[str, str, str, str]


def told() -> Iterator[Grant]:
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("## Permissions")[2].partition("## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    for where, group, resources, verbs, why in rows[2:]:
        assert why
        for resource in resources.split(", "):
            for verb in verbs.split(", "):
                yield where, group, resource, verb


def granted() -> Iterator[Grant]:
    documents = [
        one for path in ROLES for one in yaml.safe_load_all(path.read_text()) if one.get("kind", "").endswith("Role")
    ]
    for role in documents:
        for rule in role["rules"]:
            for group in rule.get("apiGroups", ()):
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield WHERE[role["metadata"].get("namespace", "")], group or "core", resource, verb


def test_the_documented_permissions_are_the_granted_ones():
    assert sorted(told()) == sorted(granted())


def test_nothing_is_granted_by_a_wildcard():
    assert not [grant for grant in granted() if "*" in "".join(grant)]


def test_the_fences_policies_are_all_told():
    names = {
        one["metadata"]["name"]
        for path in (ROOT / "manifests/admission").glob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
        if one["kind"] == "ValidatingAdmissionPolicy"
    }
    text = (ROOT / "docs/security.md").read_text()
    assert names == {name for name in names if f"| `{name}` |" in text}
    assert len(names) == 7
