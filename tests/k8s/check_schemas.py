"""Reads objects (YAML documents) from standard input and checks each against the schemas of the named versions of Kubernetes,
unknown fields included. Prints a line of JSON for each object and version: {"kind", "name", "version", "error"}, error null when
all is well, "no schema" for kinds that are not Kubernetes' own.

Run by the environment of scripts/get_k8s_tools:  python check_schemas.py 1.33 1.37 <objects.yaml
"""

import json
import sys

import kubernetes_validate
import yaml


def error_of(document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return "no schema"
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None


for document in yaml.safe_load_all(sys.stdin):
    for version in sys.argv[1:]:
        print(json.dumps({"kind": document["kind"], "name": document["metadata"].get("name"), "version": version,
                          "error": error_of(document, version)}))
