"""The report, the comparison of runs, a probe and a search in Chromium: made by the code of the product from fixtures of realistic size."""

import os
import subprocess
from pathlib import Path

import pytest

import browser as chromium
import page_checks

BIN = Path(os.environ.get("BEARING_BIN", Path(__file__).resolve().parents[2] / "build/bin"))
pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no chromium")
# Page -> drawings it has at the least: three heat maps, trade-off, norms; separation, projections, components.
PAGES = {"example": 8, "large": 10, "none": 5, "compare": 15, "probe": 6, "search": 1}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = Path(os.environ.get("BEARING_KEEP_PAGES", tmp_path_factory.mktemp("pages")))
    subprocess.run([BIN / "write_report_pages", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def browser():
    with chromium.Browser() as started:
        yield started


@pytest.mark.parametrize("name", PAGES)
def test_page(browser, pages, name):
    page_checks.check_page(browser, pages / f"{name}.html", PAGES[name])


def test_hostile_completions_are_text(browser, pages):
    browser.show(page_checks.DESKTOP)
    browser.open(pages / "large.html")
    assert browser.evaluate("document.scripts.length + document.images.length + document.querySelectorAll('iframe,object').length") == 0
    assert browser.evaluate("[...document.querySelectorAll('.response .text')].some(e => e.textContent.includes('</script><img src=x onerror'))")


def test_columns_stack_on_phones(browser, pages):
    browser.open(pages / "example.html")
    places = {}
    for width in (page_checks.DESKTOP, page_checks.PHONE):
        browser.show(width)
        places[width] = browser.evaluate("""(() => { const e = document.querySelector('.pair'); e.closest('details').open = true;
            return [...e.children].map(c => { const b = c.getBoundingClientRect(); return [b.left, b.top]; }); })()""")
    (a, b), (c, d) = places[page_checks.DESKTOP][:2], places[page_checks.PHONE][:2]
    assert a[1] == b[1] and a[0] < b[0]
    assert c[0] == d[0] and c[1] < d[1]


@pytest.mark.parametrize("check, damage", [
    (lambda b: page_checks.check_width(b, page_checks.DESKTOP), "document.querySelector('main p').style.width = '2000px'; document.querySelector('main p').style.maxWidth = 'none'"),
    (page_checks.check_contrast, "document.querySelector('main p').style.color = '#999'"),
    (lambda b: page_checks.check_drawn(b, 8), "document.querySelectorAll('svg .cell').forEach(e => e.remove())"),
    (page_checks.check_keyboard, "document.querySelector('summary').style.outline = 'none'"),
    (lambda b: page_checks.check_quiet(b, Path("/")), "console.warn('x')"),
])
def test_the_checks_find_mistakes(browser, pages, check, damage):
    browser.show(page_checks.DESKTOP)
    browser.open(pages / "example.html")
    browser.evaluate(damage + "; 0")
    with pytest.raises(AssertionError):
        check(browser)
