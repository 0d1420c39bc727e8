"""jail sbom: valid by the schemas, complete, its purls what dpkg itself says, and the same wherever it is made."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import uuid

import jsonschema
import pytest

from jailtest import REPO, Instance

SCHEMAS = REPO / "tests/schemas"


def cyclonedx_validator():
    schema = json.loads((SCHEMAS / "bom-1.5.schema.json").read_text())
    return jsonschema.Draft7Validator(schema, resolver=jsonschema.RefResolver(schema["$id"], schema, store=registry_of_schemas()))


def spdx_validator():
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / "spdx-2.3.schema.json").read_text()))


def faults(validator, document):
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(document)]


@pytest.fixture(scope="module")
def it():
    with Instance() as instance:
        (instance.home / "key").write_text("a key")
        instance.drop_in("named", '[tree]\nfiles = [{ to = "/etc/motd", text = "hello" }, { from = "%s", to = "/etc/key", secret = true }]' % (instance.home / "key"))
        instance.run("build", "named")
        yield instance


def files_of(it, name="named"):
    return {entry["path"]: entry for entry in it.json("files", name)["files"] if entry["type"] == "file"}


def dpkg_purls(paths):
    """By dpkg-query, for each of `paths` that a package has: in either spelling of a merged /usr."""
    spellings = {spelling: path for path in paths for spelling in (path, path.removeprefix("/usr"))}
    found = subprocess.run(["dpkg-query", "-S", *spellings], capture_output=True, text=True).stdout
    owners = {spellings[line.split(": ")[1]]: line.split(": ")[0] for line in found.splitlines() if line.split(": ")[1] in spellings}
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${binary:Package} ${Package} ${Version} ${Architecture}\n", *set(owners.values())],
                           capture_output=True, text=True, check=True).stdout
    packages = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    release = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    distribution = release["ID"] + "-" + release["VERSION_ID"].strip('"')
    encoded = lambda text: text.replace("+", "%2B")
    purls = {}
    for path, owner in owners.items():
        name, version, architecture = packages[owner]
        purls[path] = f"pkg:deb/{release['ID']}/{encoded(name)}@{encoded(version)}?arch={architecture}&distro={distribution}"
    return purls


def registry_of_schemas():
    store = {}
    for file, names in (("spdx", ["spdx.SNAPSHOT.schema.json"]), ("jsf-0.82", ["jsf-0.82.SNAPSHOT.schema.json"])):
        schema = json.loads((SCHEMAS / f"{file}.schema.json").read_text())
        for name in names:
            store[f"http://cyclonedx.org/schema/{name}"] = schema
    return store


def test_cyclonedx_is_valid_and_complete(it):
    document = it.json("sbom", "named", "--format", "cyclonedx")
    assert document["specVersion"] == "1.5" and not faults(cyclonedx_validator(), document)
    document["components"][0]["type"] = "no type"
    assert faults(cyclonedx_validator(), document)  # the schema is one that says no

    document = it.json("sbom", "named")
    refs, hashes, purls = set(), {}, {}

    def walk(components, purl):
        for component in components:
            assert component["bom-ref"] not in refs
            refs.add(component["bom-ref"])
            if component["type"] == "file":
                hashes[component["name"]] = component["hashes"][0]["content"]
                purls[component["name"]] = purl
            else:
                assert {place["location"] for place in component["evidence"]["occurrences"]} == {file["name"] for file in component["components"]}
                assert component["bom-ref"] == component["purl"]
            walk(component.get("components", []), component.get("purl"))

    walk(document["components"], None)
    files = files_of(it)
    del files["/etc/key"]  # a secret is not told
    assert hashes == {path: entry["sha256"] for path, entry in files.items()}
    owned = 0
    by_dpkg = dpkg_purls([path for path in purls if files[path]["package"]])
    for path, purl in purls.items():
        assert purl == by_dpkg.get(path), path
        owned += purl is not None
    assert owned > 30 and purls["/etc/motd"] is None
    assert "%2B" in purls["/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30"]
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert {ref for on in edges.values() for ref in on} | set(edges) <= refs | {"jail:named"}
    assert "file:/usr/lib/x86_64-linux-gnu/libc.so.6" in edges["file:/usr/sbin/named"]
    assert any("/libssl3@" in purl for purl in edges[purls["/usr/sbin/named"]])
    assert "file:/etc/motd" in edges["jail:named"]


def needed(path):
    return set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.*)\]", subprocess.run(["readelf", "-dW", path], capture_output=True, text=True).stdout))


def test_every_dt_needed_of_the_tree_is_an_edge(it):
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in it.json("sbom", "named")["dependencies"]}
    tree, count = it.tree("named"), 0
    for path in files_of(it):
        names = needed(str(tree) + path)
        found = {pathlib.PurePath(ref).name for ref in edges.get("file:" + path, [])}
        for name in names:
            count += 1
            target = os.path.realpath(f"{tree}/usr/lib/x86_64-linux-gnu/{name}")
            assert os.path.basename(target) in found, (path, name)
    assert count > 100


def test_spdx_is_valid_and_says_the_same(it):
    document = it.json("sbom", "named", "--format", "spdx")
    assert not faults(spdx_validator(), document)
    ids = [element["SPDXID"] for kind in ("packages", "files") for element in document[kind]]
    assert len(ids) == len(set(ids))
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= set(ids) | {"SPDXRef-DOCUMENT"}
    files = files_of(it)
    del files["/etc/key"]
    sums = []
    for file in document["files"]:
        path = file["fileName"].removeprefix(".")
        algorithms = {checksum["algorithm"]: checksum["checksumValue"] for checksum in file["checksums"]}
        content = (pathlib.Path(str(it.tree("named")) + path)).read_bytes()
        assert algorithms == {"SHA1": hashlib.sha1(content).hexdigest(), "SHA256": files.pop(path)["sha256"]}
        sums.append(algorithms["SHA1"])
    assert not files
    jail = document["packages"][0]
    assert jail["packageVerificationCode"]["packageVerificationCodeValue"] == hashlib.sha1("".join(sorted(sums)).encode()).hexdigest()
    purls = {reference["referenceLocator"] for package in document["packages"][1:] for reference in package["externalRefs"]}
    assert purls == {component["purl"] for component in it.json("sbom", "named")["components"] if "purl" in component}
    by_id = {element["SPDXID"]: element.get("fileName", element.get("name")) for kind in ("packages", "files") for element in document[kind]}
    links = {(by_id[r["spdxElementId"]], by_id[r["relatedSpdxElement"]]) for r in document["relationships"] if r["relationshipType"] == "DYNAMIC_LINK"}
    assert ("./usr/sbin/named", "./usr/lib/x86_64-linux-gnu/libc.so.6") in links


@pytest.mark.parametrize("name", ["imapd", "smtpd"])
def test_larger_jails_are_valid_by_both_schemas(it, name):
    it.run("init", name)
    try:
        it.run("build", name)
        spdx, cyclonedx = (it.json("sbom", name, "--format", form) for form in ("spdx", "cyclonedx"))
        assert len(spdx["files"]) > 45 and not faults(spdx_validator(), spdx)
        assert not faults(cyclonedx_validator(), cyclonedx)
    finally:
        it.run("init", "--undo", name)


SPDX_FAULTS = {
    "an unknown field": lambda d: d.update(licenses=[]),
    "no namespace": lambda d: d.pop("documentNamespace"),
    "nothing described": lambda d: d.update(documentDescribes=[]),
    "another version": lambda d: d.update(spdxVersion="SPDX-3.0"),
    "a local time": lambda d: d["creationInfo"].update(created="2026-11-25T17:30:00+01:00"),
    "nobody made it": lambda d: d["creationInfo"].update(creators=[]),
    "an identifier with a slash": lambda d: d["files"][0].update(SPDXID="SPDXRef-usr/sbin"),
    "an absolute file name": lambda d: d["files"][0].update(fileName="/usr/sbin/named"),
    "a file without SHA-1": lambda d: d["files"][0]["checksums"].pop(0),
    "a short SHA-1": lambda d: d["files"][0]["checksums"][0].update(checksumValue="ab" * 19),
    "a digest in capitals": lambda d: d["files"][0]["checksums"][1].update(checksumValue="AB" * 32),
    "an algorithm that SPDX has not": lambda d: d["files"][0]["checksums"][1].update(algorithm="SHA-256"),
    "a purpose by another name": lambda d: d["packages"][0].update(primaryPackagePurpose="OPERATING-SYSTEM"),
    "files that nobody analyzed": lambda d: d["packages"][0].update(filesAnalyzed=False),
    "a package without a name": lambda d: d["packages"][1].pop("name"),
    "no place to get it from": lambda d: d["packages"][1].pop("downloadLocation"),
    "a package that nothing identifies": lambda d: d["packages"][1].pop("externalRefs"),
    "an unknown category": lambda d: d["packages"][1]["externalRefs"][0].update(referenceCategory="PACKAGE_MANAGER"),
    "a locator with a space": lambda d: d["packages"][1]["externalRefs"][0].update(referenceLocator="pkg:deb/debian/a b"),
    "an unknown relation": lambda d: d["relationships"][0].update(relationshipType="NEEDS"),
    "half a relation": lambda d: d["relationships"][0].pop("relatedSpdxElement"),
}


def test_the_schema_of_spdx_says_no(it):
    """It is ours, and stricter than the official one: some of these that one admits."""
    text = it.run("sbom", "named", "--format", "spdx").stdout
    for fault, make in SPDX_FAULTS.items():
        document = json.loads(text)
        make(document)
        assert faults(spdx_validator(), document), fault


@pytest.mark.parametrize("form", ["cyclonedx", "spdx"])
def test_the_same_tree_gives_the_same_bytes_elsewhere(it, form):
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    try:
        first = it.run("sbom", "named", "--format", form).stdout
        assert "2023-11-14T22:13:20Z" in first
        with Instance() as other:
            (other.home / "key").write_text("a key")
            drop_in = (it.home / "manifests/named.toml.d/50-test.toml").read_text()
            other.drop_in("named", drop_in)
            other.run("build", "named")
            assert other.run("sbom", "named", "--format", form).stdout == first
            other.drop_in("named", drop_in.replace("hello", "other"))
            other.run("build", "named")
            changed = other.run("sbom", "named", "--format", form).stdout
            pattern = r"urn:uuid:([0-9a-f-]{36})"
            assert re.search(pattern, changed)[1] != re.search(pattern, first)[1]
            assert uuid.UUID(re.search(pattern, first)[1]).version == 8
        os.environ["SOURCE_DATE_EPOCH"] = "yesterday"
        assert "SOURCE_DATE_EPOCH" in it.run("sbom", "named", status=64).stderr
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]


def test_what_is_not_as_locked_is_not_told_as_if_it_were(it):
    path = pathlib.Path(str(it.tree("named")) + "/etc/motd")
    path.write_text("HELLO")
    try:
        done = it.run("sbom", "named", "--format", "spdx", status=1)
        assert "'/etc/motd': its content is not as locked" in done.stderr and done.stdout == ""
    finally:
        path.write_text("hello")
    it.run("sbom", "named", "--format", "swid", status=64)
    it.run("sbom", "nothing", status=66)
