#!/usr/bin/env python3
"""Writes the list of an image's parts as SPDX 2.3 in JSON: the Debian packages, the Rust crates that the programs link, the wheels
that libtorch comes from, and the sha256 of Bearing's own files. Reads lists that the build has anyway; needs no network.

  sbom.py --dpkg /var/lib/dpkg/status --cargo bridge/Cargo.lock --programs /opt/bearing --out sbom.spdx.json
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import tomllib
import uuid
from pathlib import Path
from urllib.parse import quote


def package(kind, name, version, purl, **more):
    identifier = re.sub(r"[^A-Za-z0-9.-]", "-", f"SPDXRef-{kind}-{name}-{version}")
    return {"SPDXID": identifier, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}], **more}


def debian_packages(status):
    """Of dpkg's own list, those that are installed."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][A-Za-z-]*): (.*)$", paragraph, re.M))
        if fields.get("Status") != "install ok installed":
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        yield package("deb", f"{name}-{architecture}", version,
                      f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro=debian-12") | {"name": name}


def crates(lock):
    for crate in tomllib.loads(lock)["package"]:
        if "source" not in crate:  # Our own.
            continue
        checksum = {"checksums": [{"algorithm": "SHA256", "checksumValue": crate["checksum"]}]} if "checksum" in crate else {}
        yield package("crate", crate["name"], crate["version"], f"pkg:cargo/{crate['name']}@{crate['version']}", **checksum)


def wheels(text):
    for line in text.splitlines():
        name, version = line.split()
        yield package("wheel", name, version, f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dpkg", type=Path, required=True, help="dpkg's status file")
    parser.add_argument("--cargo", type=Path, required=True, help="Cargo.lock")
    parser.add_argument("--programs", type=Path, required=True, help="what collect has gathered")
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parts = [*debian_packages(options.dpkg.read_text(encoding="utf-8")), *crates(options.cargo.read_text(encoding="utf-8")),
             *wheels((options.programs / "share/wheels.txt").read_text())]
    own = package("app", "bearing", options.version, f"pkg:generic/bearing@{options.version}", filesAnalyzed=False,
                  licenseConcluded="Apache-2.0", licenseDeclared="Apache-2.0")
    files = [{"SPDXID": f"SPDXRef-file-{i}", "fileName": f"./opt/bearing/{path.relative_to(options.programs)}",
              "checksums": [{"algorithm": "SHA256", "checksumValue": sha256(path)}], "licenseConcluded": "NOASSERTION",
              "copyrightText": "NOASSERTION"}
             for i, path in enumerate(sorted(p for p in options.programs.rglob("*") if p.is_file() and p.parent.name != "share"))]
    # Builds of the same commit say the same when SOURCE_DATE_EPOCH is set.
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.datetime.now(datetime.timezone.utc).timestamp())
    content = json.dumps([parts, files], sort_keys=True)
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"bearing-{options.version}",
        "documentNamespace": f"https://bearing.invalid/sbom/{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "creationInfo": {"created": datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                         "creators": ["Tool: bearing-sbom"]},
        "packages": [own, *parts], "files": files,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": own["SPDXID"]},
            *({"spdxElementId": own["SPDXID"], "relationshipType": "DEPENDS_ON", "relatedSpdxElement": part["SPDXID"]} for part in parts),
            *({"spdxElementId": own["SPDXID"], "relationshipType": "CONTAINS", "relatedSpdxElement": file["SPDXID"]} for file in files)]}
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{options.out}: {len(parts)} packages, {len(files)} files")


if __name__ == "__main__":
    main()
