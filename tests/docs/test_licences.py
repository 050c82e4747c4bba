"""The licences of the Rust crates that the programs link are those that docs/third_party.md names."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def permitted(expression, licences):
    """Can the SPDX expression (or the older `A/B`) be met with these licences alone?"""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        good = both()
        while words and words[0] == "OR":
            words.pop(0)
            good = both() or good
        return good

    def both():
        good = one()
        while words and words[0] == "AND":
            words.pop(0)
            good = one() and good
        return good

    def one():
        word = words.pop(0)
        if word != "(":
            return word in licences
        good = either()
        assert words.pop(0) == ")", expression
        return good

    good = either()
    assert not words, expression
    return good


@pytest.mark.parametrize("expression, licences, good", [
    ("MIT", {"MIT"}, True), ("MIT", {"ISC"}, False), ("MIT/Apache-2.0", {"Apache-2.0"}, True), ("A AND B", {"A"}, False),
    ("A AND (B OR C)", {"A", "C"}, True), ("(A OR B) AND C", {"B"}, False), ("A OR B AND C", {"A"}, True),
])
def test_expressions(expression, licences, good):
    assert permitted(expression, licences) == good


def linked_crates():
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    ran = subprocess.run(["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform",
                          "x86_64-unknown-linux-gnu"], cwd=ROOT / "bridge", capture_output=True, text=True)
    if ran.returncode != 0:
        pytest.skip("the crates are not here: " + ran.stderr.strip().splitlines()[-1])
    return [package for package in json.loads(ran.stdout)["packages"] if package["name"] != "bearing_bridge"]


def test_crates_are_under_the_licences_that_the_notices_name():
    notices = (ROOT / "docs/third_party.md").read_text(encoding="utf-8")
    named = re.search(r"Each is under ([^:]*?):", notices)[1]
    licences = set(re.split(r",\s+|\s+and\s+", " ".join(named.split())))
    crates = linked_crates()
    assert len(crates) > 50
    wrong = [f"{c['name']} {c['version']}: {c['license']}" for c in crates if not permitted(c["license"] or "none", licences)]
    assert not wrong, wrong
    # None is named that no crate needs.
    for licence in licences:
        needed = [c["name"] for c in crates if not permitted(c["license"], licences - {licence})]
        assert needed, f"docs/third_party.md names {licence}, which no crate needs"


def test_crates_in_the_table_have_these_versions_and_licences():
    table = re.search(r"## The Rust bridge(.*?)The other crates", (ROOT / "docs/third_party.md").read_text(encoding="utf-8"), re.S)[1]
    crates = {c["name"]: c for c in linked_crates()}
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 5
    for names, versions, licence in rows:
        for name in re.split(r", (?:with .*)?", names):
            if not name:
                continue
            assert name in crates, name
            if "Cargo.lock" not in versions:
                assert any(crates[name]["version"].startswith(v) for v in versions.split(", ")), (name, crates[name]["version"])
            offered = crates[name]["license"].replace("/", " OR ").split(" OR ")
            assert any(o.strip() in licence for o in offered), (name, crates[name]["license"], licence)
