"""`bearing report` and `bearing compare` on finished jobs of a tiny model."""

import html.parser
import json
import shutil
import sys

import pytest

import support

sys.path.insert(0, str(support.ROOT / "tests/jobs"))
import browser as chromium  # noqa: E402
import page_checks  # noqa: E402


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two jobs on one model that choose different layers."""
    folder = tmp_path_factory.mktemp("runs")
    prompts = support.write_prompts(folder / "prompts")
    found = {}
    for name, layers in (("first", [1]), ("second", [2])):
        job = support.write_job(folder / f"{name}.json", support.TINY / "qwen2-untied", prompts, select={"layers": layers}, name=name)
        done = support.run_job(job, folder / name, 1)
        assert done.code == 0, done.err
        found[name] = folder / name
    return found


@pytest.fixture
def run(runs, tmp_path):
    return shutil.copytree(runs["first"], tmp_path / "run")


def assert_manifest_holds(run):
    for file in support.read_json(run / "manifest.json")["files"]:
        assert support.sha256(run / file["name"]) == file["sha256"], file["name"]


def test_a_report_made_anew_is_the_same(run):
    before = {name: (run / name).read_bytes() for name in ("report.html", "report.json", "manifest.json")}
    done = support.bearing("report", run)
    assert done.code == 0, done.err
    assert done.out.strip() == str(run / "report.html")
    for name, content in before.items():
        assert (run / name).read_bytes() == content, name


def test_a_lost_report_comes_back(run):
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert support.bearing("report", run).code == 0
    assert (run / "report.html").read_bytes() == page
    assert_manifest_holds(run)


def test_what_the_manifest_does_not_vouch_for_is_refused(run):
    table = support.read_json(run / "candidates.json")
    table["candidates"][0]["bypass"] = -1.0
    (run / "candidates.json").write_text(json.dumps(table))
    page = (run / "report.html").read_bytes()
    done = support.bearing("report", run)
    assert done.code != 0
    assert "candidates.json" in done.err and "manifest" in done.err
    assert (run / "report.html").read_bytes() == page


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = support.bearing("report", tmp_path)
    assert done.code != 0 and "manifest.json" in done.err


def test_runs_side_by_side(runs, tmp_path):
    page = tmp_path / "compare.html"
    done = support.bearing("compare", runs["first"], runs["second"], "--html", page, "-o", "json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert [r["name"] for r in document["runs"]] == ["first", "second"]
    for name, row in zip(("first", "second"), document["runs"]):
        table = support.read_json(runs[name] / "candidates.json")
        chosen = table["candidates"][table["selected"]]
        assert {k: row["selected"][k] for k in ("layer", "position", "kl")} == {k: chosen[k] for k in ("layer", "position", "kl")}
    cosines = document["direction_cosines"]
    assert cosines[0][0] == pytest.approx(1) and cosines[1][1] == pytest.approx(1)
    assert cosines[0][1] == pytest.approx(cosines[1][0]) and abs(cosines[0][1]) < 0.9999

    class Page(html.parser.HTMLParser):
        headings, scripts = [], 0

        def handle_starttag(self, tag, attributes):
            Page.scripts += tag == "script"

        def handle_data(self, data):
            Page.headings.append(data)

    Page().feed(page.read_text())
    assert Page.scripts == 0 and {"first", "second"} <= set(Page.headings)
    table = support.bearing("compare", runs["first"], runs["second"])
    assert "first" in table.out.splitlines()[0] and "cosine to the direction of second" in table.out


def test_the_pages_of_real_runs_in_a_browser(runs, tmp_path):
    if chromium.PROGRAM is None:
        pytest.skip("no chromium")
    page = tmp_path / "compare.html"
    assert support.bearing("compare", runs["first"], runs["second"], "--html", page).code == 0
    with chromium.Browser() as browser:
        page_checks.check_page(browser, runs["first"] / "report.html", 3)
        page_checks.check_page(browser, page, 6)
