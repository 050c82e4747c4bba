"""The schema that `bearing schema job` prints, by an independent validator: it takes the job files that are there, and refuses broken ones."""

import copy
import json
import os
import pathlib
import subprocess

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BEARING_BIN", ROOT / "build/bin"))
MODEL = ROOT / "tests/golden/tiny/llama-tied"


@pytest.fixture(scope="module")
def validator():
    printed = subprocess.run([BIN / "bearing", "schema", "job"], capture_output=True, text=True, check=True).stdout
    schema = json.loads(printed)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def example():
    return yaml.safe_load((ROOT / "examples/refusal.yaml").read_text())


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_takes_the_examples(validator, path):
    assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []


def test_takes_what_init_writes(validator, tmp_path):
    subprocess.run([BIN / "bearing", "init", "job.yaml", "--model", MODEL, "--costs", "--form", "lora"], cwd=tmp_path, check=True,
                   capture_output=True)
    assert list(validator.iter_errors(yaml.safe_load((tmp_path / "job.yaml").read_text()))) == []


def test_takes_a_printed_job_with_every_default(validator):
    printed = subprocess.run([BIN / "bearing", "validate", "-f", ROOT / "examples/refusal.yaml", "-o", "json", "--set", f"model.path={MODEL}",
                              "--set", "output=/tmp/none"], capture_output=True, text=True, check=True).stdout
    job = {"apiVersion": "bearing/v1", "kind": "Job", **json.loads(printed)}
    # Unset text prints as "", which the checks take for unset; the words of a schema are those that mean something.
    errors = [error for error in validator.iter_errors(job) if error.instance != ""]
    assert errors == []


# What is changed, and the part of the path at which the schema objects. The program refuses each of them too.
BROKEN = {
    "unknown key": (lambda job: job["select"].update(kl_maximum=1), "select"),
    "unknown key at the top": (lambda job: job.update(modell={}), ""),
    "no version": (lambda job: job.pop("apiVersion"), ""),
    "another version": (lambda job: job.update(apiVersion="bearing/v2"), "apiVersion"),
    "another kind": (lambda job: job.update(kind="Config"), "kind"),
    "no model": (lambda job: job.pop("model"), ""),
    "no path of the model": (lambda job: job["model"].pop("path"), "model"),
    "no concept": (lambda job: job.pop("concept"), ""),
    "no training prompts": (lambda job: job["prompts"]["positive"].pop("train"), "prompts"),
    "no output": (lambda job: job.pop("output"), ""),
    "text for a number": (lambda job: job["select"].update(kl_max="much"), "select"),
    "number for a truth value": (lambda job: job["collect"].update(filter=3), "collect"),
    "fraction for a count": (lambda job: job.update(ranks=1.5), "ranks"),
    "a word that is none": (lambda job: job["model"].update(dtype="float8"), "model"),
    "a form that is none": (lambda job: job["edit"].update(form=["gguf"]), "edit"),
    "text for a list": (lambda job: job["select"].update(layers="all"), "select"),
    "text for a group": (lambda job: job.update(evaluate="none"), "evaluate"),
    "a group for text": (lambda job: job["model"].update(path={"folder": "x"}), "model"),
    "a label that is a list": (lambda job: job.update(labels={"team": ["red"]}), "labels"),
    "an unknown key of a judge": (lambda job: job.update(judges=[{"marker": ["x"]}]), "judges"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_refuses_what_the_program_refuses(validator, tmp_path, what):
    change, where = BROKEN[what]
    job = example()
    change(job)
    errors = list(validator.iter_errors(job))
    assert errors, what
    assert any(where == (str(error.absolute_path[0]) if error.absolute_path else "") for error in errors), [str(e) for e in errors]
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    done = subprocess.run([BIN / "bearing", "validate", "-f", file], capture_output=True, text=True)
    assert done.returncode == 2, f"the program takes it: {done.stdout}{done.stderr}"


# Freedoms of job files, which the schema must not take away.
TAKEN = {
    "keys in lowerCamel": lambda job: job["select"].update(klMax=0.2),
    "the name of the field in the API": lambda job: job.update(conceptSpec=job.pop("concept")),
    "null for an unset field": lambda job: job["select"].update(layers=None, kl_max=None),
    "null for a group": lambda job: job.update(collect=None),
    "a number where text is wanted": lambda job: job["concept"].update(name=7),
    "a whole number where a fraction may be": lambda job: job["select"].update(kl_max=1),
}


@pytest.mark.parametrize("what", TAKEN)
def test_takes_what_the_program_takes(validator, tmp_path, what):
    job = copy.deepcopy(example())
    TAKEN[what](job)
    assert list(validator.iter_errors(job)) == []
    for side in job["prompts"].values():
        for source in side.values():
            source["file"] = str(ROOT / "examples" / source["file"])
    job["model"]["path"] = str(MODEL)
    job["output"] = str(tmp_path / "out")
    if "concept" in job:
        job["concept"]["markers"] = ["I cannot"]
    job["select"].pop("kl_max", None) if "klMax" in job["select"] else None
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    done = subprocess.run([BIN / "bearing", "validate", "-f", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
