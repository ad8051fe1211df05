"""The bill of materials and the licences, of the environment that the lock makes."""

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from controller import __version__
from tools.supplychain import licences, lock, sbom
from tools.supplychain.licences import LicenceError
from tools.supplychain.sbom import Bom, SbomError


@pytest.fixture(scope="module")
def bom() -> Bom:
    return sbom.make()


def test_the_bill_names_every_package_of_the_lock_and_no_other(bom: Bom):
    here = {pin.name: pin.version for pin in lock.read().values() if not pin.marker or Marker(pin.marker).evaluate()}
    assert {canonicalize_name(one["name"]): one["version"] for one in bom["components"]} == here


def test_each_package_has_its_address_its_licence_and_the_hashes_that_are_let_in(bom: Bom):
    pins = lock.read()
    for one in bom["components"]:
        pin = pins[canonicalize_name(one["name"])]
        assert one["purl"].startswith(f"pkg:pypi/{pin.name}@{pin.version}")
        assert one["licenses"]
        hashes = [each["content"] for reference in one["externalReferences"] for each in reference.get("hashes", ())]
        assert set(hashes) >= set(pin.hashes)


def test_the_bill_is_about_this_version_and_tells_who_needs_whom(bom: Bom):
    root = bom["metadata"]["component"]
    assert (root["name"], root["version"]) == ("driver-upgrade-controller", __version__)
    names = {one["bom-ref"]: canonicalize_name(one["name"]) for one in bom["components"]}
    needs = {entry["ref"]: [names[ref] for ref in entry.get("dependsOn", ())] for entry in bom["dependencies"]}
    assert set(needs[root["bom-ref"]]) == set(lock.direct())
    assert set(needs) == {root["bom-ref"], *names}
    assert "multidict" in needs[next(ref for ref, name in names.items() if name == "aiohttp")]


def test_the_bill_is_of_its_schema_and_one_that_is_not_is_refused(bom: Bom):
    sbom.validate(bom)
    nameless = [{**bom["components"][0], "name": None}, *bom["components"][1:]]
    with pytest.raises(SbomError, match="name"):
        sbom.validate({**bom, "components": nameless})


def test_the_page_of_licences_is_current(bom: Bom):
    listed = licences.listed()
    assert {name: version for name, (version, _) in listed.items()} == {
        pin.name: pin.version for pin in lock.read().values()
    }, "run `make licences`"
    assert {
        name: (version, licence) for name, version, licence in licences.rows(sbom.licences(bom))
    }.items() <= listed.items()


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        ("GPL-3.0-only", "GPL-3.0-only"),
        ("MIT AND LGPL-2.1-only", "LGPL-2.1-only"),
        ("MPL-2.0", "MPL-2.0"),
        ("", "no licence"),
    ],
)
def test_a_licence_that_was_not_agreed_to_is_refused_by_name(licence: str, says: str):
    with pytest.raises(LicenceError, match=f"newcomer .*{says}"):
        licences.rows([("newcomer", "1.0", licence)])


def test_weak_copyleft_is_agreed_to_by_package():
    assert licences.rows([("certifi", "1", "MPL-2.0")]) == [("certifi", "1", "MPL-2.0")]
    with pytest.raises(LicenceError):
        licences.rows([("certifi", "1", "GPL-2.0-only")])
