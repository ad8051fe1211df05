"""The CRDs say what the types say: fields, defaults, bounds; the examples and docs/policy.md are current."""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from controller.api.policy import DRIVER_NAME, PERCENT, DriverSpec, UpgradePolicySpec
from tools import policy_docs

ROOT = policy_docs.ROOT
MANIFESTS = ROOT / "manifests"
CRDS = sorted((MANIFESTS / "crd").glob("*.nvidia.com.yaml"))
OURS = policy_docs.load()
SEEDS = policy_docs.load(MANIFESTS / "crd" / "customresources.nvidia.com.yaml")
SEED_EXAMPLE = ROOT / "tests" / "fixtures" / "seed-custom-resource.yaml"
OWNERS_FIELDS = {"repository", "image", "version"}
Json = Mapping[str, Any]


def driver(schema: Json) -> Json:
    found: Json = schema["properties"]["spec"]["properties"]["driver"]["properties"]
    return found


def go(pattern: str | None) -> str | None:
    """Python's end of text, as RE2 in the API server spells it."""
    return pattern.replace(r"\Z", "$") if pattern else None


def present(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def of_type(kind: inspect.Type) -> dict[str, Any]:
    """What a schema must say of a field of this type."""
    match kind:
        case inspect.Metadata(type=inner):
            return of_type(inner)
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType(ge=ge, le=le):
            return present(type="integer", minimum=ge, maximum=le)
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            return present(type="string", minLength=low, maxLength=high, pattern=go(pattern))
        case inspect.LiteralType(values=values):
            return {"type": "string", "enum": set(values)}
        case inspect.VarTupleType(item_type=item, max_length=high):
            return present(type="array", items=of_type(item), maxItems=high)
        case inspect.UnionType(types=types):
            return {**of_union(types), "nullable": True}
        case inspect.StructType(fields=fields):
            return {"type": "object", "properties": {f.encode_name: of_field(f) for f in fields}}
    raise AssertionError(f"no rule for {kind}")


def of_union(types: tuple[inspect.Type, ...]) -> dict[str, Any]:
    kinds = [kind for kind in types if not isinstance(kind, inspect.NoneType)]
    if len(kinds) == 1:
        return of_type(kinds[0])
    assert {type(kind) for kind in kinds} == {inspect.IntType, inspect.StrType}
    return {"x-kubernetes-int-or-string": True, "maxLength": len("100%")}


def of_field(field: inspect.Field) -> dict[str, Any]:
    facts = of_type(field.type)
    default = field.default
    if isinstance(default, msgspec.Struct):  # a step that is absent is off, and reads back as absent
        assert default == type(default)()
        return facts
    return facts if default is None else {**facts, "default": list(default) if default == () else default}


def of_schema(schema: Json) -> dict[str, Any]:
    """The same of a schema: without words, and without what the types cannot say."""
    silent = {"description", "x-kubernetes-list-type", "x-kubernetes-validations"}
    facts = {name: value for name, value in schema.items() if name not in silent}
    if "enum" in facts:
        facts["enum"] = set(facts["enum"])
    if "items" in facts:
        facts["items"] = of_schema(facts["items"])
    if "properties" in facts:
        facts["properties"] = {name: of_schema(child) for name, child in facts["properties"].items()}
    return facts


def walk(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from walk(schema[name], f"{path}[]")


NODES = [(crd.name.partition(".")[0] + path, node) for crd in CRDS for path, node in walk(policy_docs.load(crd))]
RULES = [(path, rule) for path, node in NODES for rule in node.get("x-kubernetes-validations", ())]


def test_both_crds_are_there_and_in_the_kustomization():
    kustomization = yaml.safe_load((MANIFESTS / "crd" / "kustomization.yaml").read_text())
    assert kustomization["resources"] == [crd.name for crd in CRDS]
    kinds = {yaml.safe_load(crd.read_text())["spec"]["names"]["kind"] for crd in CRDS}
    assert kinds == {"DriverUpgradePolicy", "CustomResource"}


def test_upgrade_policy_has_the_fields_defaults_and_bounds_of_the_types():
    expected = of_type(inspect.type_info(UpgradePolicySpec))
    assert of_schema(driver(OURS)["upgradePolicy"]) == {**expected, "default": {}}


def test_max_unavailable_is_bounded_by_the_types_pattern():
    (rule,) = driver(OURS)["upgradePolicy"]["properties"]["maxUnavailable"]["x-kubernetes-validations"]
    kinds = inspect.type_info(UpgradePolicySpec.__annotations__["max_unavailable"])
    assert isinstance(kinds, inspect.UnionType)
    (number,) = (kind for kind in kinds.types if isinstance(kind, inspect.IntType))
    assert number.le is None
    assert rule["rule"] == f"type(self) == int ? self >= {number.ge} : type(self) == string && self.matches('{go(PERCENT)}')"


def test_driver_has_the_types_fields_and_the_owners():
    fields = {f.encode_name: f for f in msgspec.structs.fields(DriverSpec)}
    assert set(driver(OURS)) == {*fields, *OWNERS_FIELDS, "upgradePolicy"}
    assert set(driver(SEEDS)) == {*OWNERS_FIELDS, "upgradePolicy"}
    assert of_schema(driver(OURS)["name"]) == of_type(inspect.type_info(fields["name"].type))
    assert f"self.metadata.name.matches('{go(DRIVER_NAME)}')" in OURS["x-kubernetes-validations"][0]["rule"]


def test_both_kinds_have_the_same_policy_and_status():
    assert driver(SEEDS)["upgradePolicy"] == driver(OURS)["upgradePolicy"]
    assert SEEDS["properties"]["status"] == OURS["properties"]["status"]


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_every_field_is_described_and_bounded(path: str, node: Json):
    if not re.search(r"\[\]$|\.(apiVersion|kind|metadata)$", path):
        assert node["description"].endswith((".", "`"))
    if path.endswith(".timeoutSeconds"):
        assert "seconds" in node["description"]
        assert "0 is for ever." in node["description"]
    if node.get("type") == "array":
        assert node["maxItems"]
        assert node["x-kubernetes-list-type"]
    if "additionalProperties" in node:
        assert node["maxProperties"]
    if node.get("type") == "string" and not path.endswith((".apiVersion", ".kind")):
        assert {"maxLength", "enum", "format"} & set(node)


@pytest.mark.parametrize(("path", "rule"), RULES, ids=[path for path, _ in RULES])
def test_every_rule_names_its_field(path: str, rule: Json):
    field = (path + rule.get("fieldPath", "")).rsplit(".", 1)[-1]
    assert field in rule["message"]


def test_the_fixture_is_the_seeds_example():
    digest = hashlib.sha256(SEED_EXAMPLE.read_bytes()).hexdigest()
    assert digest == "d6acaee0ef7798a34b771a74ba8dee3fbf8e2e4a6181ace624261e612547ed10"


def seed_blocks() -> Iterator[tuple[str, str]]:
    yield "manifests/examples", (MANIFESTS / "examples" / "customresource.yaml").read_text()
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]):
        for block in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            if "kind: CustomResource\n" in block:
                yield page.name, block


def test_the_seeds_example_is_shown_verbatim():
    blocks = list(seed_blocks())
    assert {"manifests/examples", "policy.md"} <= {where for where, _ in blocks}
    for where, block in blocks:
        assert block == SEED_EXAMPLE.read_text(), f"{where} changes the seed's example"


EXAMPLES = sorted(p for p in (MANIFESTS / "examples").glob("*.yaml") if p.name.startswith(("custom", "driverupgrade")))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_convert_to_the_types(path: Path):
    policy = yaml.safe_load(path.read_text())["spec"]["driver"]["upgradePolicy"]
    assert msgspec.convert(policy, UpgradePolicySpec).auto_upgrade


def test_the_full_example_has_every_field():
    def names(schema: Json, value: Json) -> None:
        properties = schema.get("properties", {})
        assert set(value) >= set(properties)
        for name, child in properties.items():
            if "properties" in child and name != "nodeSelector":
                names(child, value[name])

    example = yaml.safe_load((MANIFESTS / "examples" / "driverupgradepolicy-full.yaml").read_text())
    names(OURS["properties"]["spec"], example["spec"])


def test_the_policy_reference_is_current(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["policy_docs", "--check"])
    assert policy_docs.main() == 0


def test_the_check_notices_a_changed_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "policy.md"
    page.write_text(policy_docs.PAGE.read_text().replace("| `drain` |", "| `drains` |"))
    monkeypatch.setattr(policy_docs, "PAGE", page)
    monkeypatch.setattr(policy_docs, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["policy_docs", "--check"])
    assert policy_docs.main() == 1
    assert "run python -m tools.policy_docs" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["policy_docs"])
    assert policy_docs.main() == 0
    assert "| `drain` |" in page.read_text()


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="around its tables"):
        policy_docs.updated("# Page", "tables")
