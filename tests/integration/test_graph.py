"""jail graph and jail why: every entry is there, and every reason can be asked for."""

import json
import re
import subprocess
import xml.etree.ElementTree

import pytest

from jailtest import Instance

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def it():
    with Instance() as instance:
        evil = instance.home / "<b>&\"'"
        evil.write_text("x")
        quoted = str(evil).replace('"', '\\"')
        instance.drop_in("named", f'[tree]\nfiles = [{{ from = "{quoted}", to = "/etc/<b>&\\"\'" }}]')
        instance.run("build", "named")
        yield instance


def entries(it):
    return it.json("files", "named")["files"]


def test_the_picture_is_well_formed_has_every_entry_and_needs_nothing_else(it):
    svg = it.run("graph", "named", "--format", "svg").stdout
    root = xml.etree.ElementTree.fromstring(svg)
    titles = [title.text.split("\n")[0] for title in root.iter(SVG + "title")]
    for entry in entries(it):
        shown = entry["path"] + (" -> " + entry["target"] if entry["type"] == "symlink" else "")
        assert titles.count(shown) == 1, shown
    assert not re.search(r"href|url\((?!#)|<script|<image|@import", svg)
    # Nothing outside of the picture, and no box upon another.
    width, height = float(root.get("width")), float(root.get("height"))
    boxes = [tuple(float(box.get(key)) for key in ("x", "y", "width", "height")) for box in root.iter(SVG + "rect") if box.get("class") == "b"]
    assert len(boxes) > 30
    for number, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height
        for x2, y2, w2, h2 in boxes[number + 1:]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    arrows = [title.text for path in root.iter(SVG + "path") for title in path.iter(SVG + "title")]
    assert any(text.startswith("bind9 → libssl3\n/usr/sbin/named needs ") for text in arrows)
    assert it.run("graph", "named", "--format", "svg").stdout == svg


def test_graphviz_takes_it_with_a_node_for_each_entry(it):
    dot = it.run("graph", "named", "--format", "dot").stdout
    done = subprocess.run(["dot", "-Tjson0"], input=dot, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    names = {node["name"] for node in json.loads(done.stdout)["objects"]}
    assert {entry["path"] for entry in entries(it)} <= names


def test_as_text_every_file_stands_once(it):
    text = it.run("graph", "named").stdout
    for entry in entries(it):
        if entry["type"] == "file":
            assert text.count(f" {entry['path']}  ") == 1, entry["path"]
    first = text.splitlines()[0]
    files = [entry for entry in entries(it) if entry["type"] == "file"]
    assert first.startswith(f"named  {len(files)} files from ")
    it.run("graph", "named", "--format", "png", status=64)
    it.run("graph", "nothing", status=66)


def needers(it, soname):
    tree, found = it.tree("named"), set()
    for entry in entries(it):
        if entry["type"] == "file":
            said = subprocess.run(["readelf", "-dW", str(tree) + entry["path"]], capture_output=True, text=True).stdout
            if f"Shared library: [{soname}]" in said:
                found.add(entry["path"])
    return found


def test_why_all_has_everyone_who_needs_it(it):
    answer = it.json("why", "named", "libz.so.1.2.13", "--all")
    assert answer["chain"] == answer["chains"][0] and answer["complete"]
    assert {chain[0]["by"] for chain in answer["chains"]} == needers(it, "libz.so.1") != set()
    lengths = [len(chain) for chain in answer["chains"]]
    assert lengths == sorted(lengths) and len(lengths) > 2
    for chain in answer["chains"]:
        assert chain[-1]["by"] == "" and len({step["path"] for step in chain}) == len(chain)
    text = it.run("why", "named", "libz.so.1.2.13", "--all").stdout
    assert text.count("\nor\n") == len(lengths) - 1
    libc = it.json("why", "named", "/usr/lib/x86_64-linux-gnu/libc.so.6", "--all")
    assert not libc["complete"] and len(libc["chains"]) == 200
    assert "and more: these are the first 200" in it.run("why", "named", "libc.so.6", "--all").stdout
    assert "chains" not in it.json("why", "named", "libc.so.6")


def test_why_takes_a_package(it):
    text = it.run("why", "named", "libssl3").stdout
    assert text.count("\n/usr/lib/x86_64-linux-gnu/libssl.so.3\n  needed ") == 1 and text.count("libcrypto.so.3\n") >= 1
    assert {file["path"].split("/")[-1] for file in it.json("why", "named", "libssl3")["files"]} == {"libssl.so.3", "libcrypto.so.3"}
    assert it.run("why", "named", "named-checkconf").stdout.startswith("/usr/bin/named-checkconf\n  binary tree.binaries[1]\n")
    it.run("why", "named", "no-such-thing", status=1)


def test_why_all_of_a_jail_that_is_not_built(it):
    with Instance() as other:
        answer = other.json("why", "named", "libz.so.1.2.13", "--all")
        assert {chain[0]["by"] for chain in answer["chains"]} == needers(it, "libz.so.1")
