"""What every page that Bearing writes must hold in a real browser. Each function raises AssertionError naming the element."""

PHONE, DESKTOP = 360, 1280
PAPER = 718  # Pixels across A4 between margins of 1 cm, at 96 a inch.

NAME = """const name = e => { const parts = []; for (let n = e; n && n.tagName !== 'BODY'; n = n.parentElement)
    parts.unshift(n.tagName.toLowerCase() + (n.id ? '#' + n.id : '')); return parts.slice(-4).join('>') + ' ' + (e.textContent || '').slice(0, 40); };"""


def failures(browser, body):
    """Runs JavaScript that pushes texts to `bad`."""
    return browser.evaluate("(() => { const bad = []; " + NAME + body + " return bad; })()")


def check_quiet(browser, path):
    """No message of console or log, no exception, no request but for the page."""
    noise = [e for e in browser.events if e.get("method") in (
        "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")]
    assert not noise, noise
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [path.absolute().as_uri()], asked


def check_drawn(browser, at_least):
    """Every figure has marks, and all of them have a size and lie inside their drawing."""
    bad = failures(browser, """
        for (const e of document.querySelectorAll('details')) e.open = true;
        const all = [...document.querySelectorAll('svg[role=img]')];
        if (all.length < %d) bad.push('only ' + all.length + ' drawings');
        for (const svg of all) {
          const frame = svg.getBoundingClientRect();
          const marks = [...svg.querySelectorAll('rect,circle,path,text')].filter(e => !e.closest('defs'));
          if (frame.width < 100 || frame.height < 60) bad.push('small: ' + name(svg));
          if (marks.filter(e => e.matches('.cell,.dot,.dot-pass,.line,.mark')).length < 1) bad.push('no marks: ' + name(svg));
          for (const e of marks) {
            const box = e.getBoundingClientRect();
            if (box.width + box.height < 1) bad.push('empty: ' + name(svg) + ' ' + e.outerHTML.slice(0, 80));
            if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2)
              bad.push('outside: ' + name(svg) + ' ' + e.outerHTML.slice(0, 120));
          }
        }""" % at_least)
    assert not bad, bad[:20]


def check_text_does_not_collide(browser):
    """No two labels of a drawing lie over each other."""
    bad = failures(browser, """
        for (const svg of document.querySelectorAll('svg[role=img]')) {
          const texts = [...svg.querySelectorAll('text')].map(e => [e, e.getBoundingClientRect()]).sort((a, b) => a[1].left - b[1].left);
          for (let i = 0; i < texts.length; ++i) for (let j = i + 1; j < texts.length && texts[j][1].left < texts[i][1].right; ++j) {
            const [a, b] = [texts[i][1], texts[j][1]];
            const x = Math.min(a.right, b.right) - Math.max(a.left, b.left), y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (x > 2 && y > 4) bad.push(name(svg) + ': "' + texts[i][0].textContent + '" and "' + texts[j][0].textContent + '"');
          }
        }""")
    assert not bad, bad[:20]


def check_width(browser, width):
    """The page does not scroll sideways: what is wider scrolls in a box of its own that the keyboard reaches."""
    bad = failures(browser, """
        for (const e of document.querySelectorAll('details')) e.open = true;
        const root = document.documentElement;
        if (root.scrollWidth > %d || innerWidth > %d) bad.push('page is ' + root.scrollWidth + ' wide');
        for (const e of document.querySelectorAll('body *')) {
          if (e.closest('svg') && e.tagName !== 'svg') continue;
          const box = e.getBoundingClientRect();
          if (box.width && box.right > root.clientWidth + 1 && !e.parentElement.closest('.scroll')) bad.push('sticks out: ' + name(e));
          if (e.matches('.scroll') && e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0) bad.push('not reached by keyboard: ' + name(e));
        }""" % (width, width))
    assert not bad, bad[:20]


def check_contrast(browser, least=4.5):
    """Of every text against what lies behind it, from computed colours; WCAG 2.1's formula."""
    bad = failures(browser, """
        for (const e of document.querySelectorAll('details')) e.open = true;
        const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
        const light = c => { const f = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
        let seen = 0;
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
          const e = walker.currentNode.parentElement;
          if (!walker.currentNode.textContent.trim() || e.closest('title,desc,style,.hidden')) continue;
          const style = getComputedStyle(e), drawn = e.closest('svg') !== null;
          const ink = parse(drawn ? style.fill : style.color);
          let opacity = ink[3], back = null;
          for (let n = e; n; n = n.parentElement) {
            opacity *= Number(getComputedStyle(n).opacity);
            const c = parse(getComputedStyle(n).backgroundColor);
            if (back === null && c[3] === 1) back = c;
          }
          if (back === null || opacity < 0.999) { bad.push('cannot tell: ' + name(e)); continue; }
          const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
          const contrast = (a + 0.05) / (b + 0.05);
          ++seen;
          if (contrast < %f) bad.push(contrast.toFixed(2) + ': ' + name(e));
        }
        if (seen < 50) bad.push('only ' + seen + ' texts');""" % least)
    assert not bad, bad[:20]


def check_dark(browser):
    """The page really is dark, so that the contrast was measured there."""
    back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, back[4:-1].split(","))) < 3 * 64, back


def check_keyboard(browser):
    """Tab reaches every link, foldable and scrolling box, each with a visible ring; Enter opens a foldable and follows a link."""
    wanted = browser.evaluate("""(() => { for (const e of document.querySelectorAll('details')) e.open = false;
        const all = [...document.querySelectorAll('a[href],summary,[tabindex="0"]')].filter(e => e.checkVisibility());
        all.forEach((e, i) => { e.dataset.stop = i; }); scrollTo(0, 0); document.activeElement.blur(); return all.length; })()""")
    seen, bare = set(), []
    for _ in range(wanted):
        browser.press("Tab")
        stop = browser.evaluate("""(() => { const e = document.activeElement, s = getComputedStyle(e);
            return [e.dataset.stop, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2, e.outerHTML.slice(0, 80)]; })()""")
        seen.add(stop[0])
        if not stop[1]:
            bare.append(stop[2])
    assert not bare, ("no visible focus", bare[:10])
    assert seen == {str(i) for i in range(wanted)}, (len(seen), wanted)
    for state in (True, False):
        if browser.evaluate("(() => { const e = document.querySelector('summary'); if (e) e.focus(); return e !== null; })()"):
            browser.press("Enter")
            assert browser.evaluate("document.activeElement.parentElement.open") is state
    if browser.evaluate("(() => { const e = document.querySelector('a[href]'); if (e) e.focus(); return e !== null; })()"):
        target = browser.evaluate("document.activeElement.getAttribute('href')")
        browser.press("Enter")
        assert browser.evaluate("location.hash") == target
        assert browser.evaluate("document.querySelector(location.hash) !== null")


def check_print(browser):
    """On paper no drawing or table is wider than the sheet, or cut off by a box that scrolls on a screen."""
    bad = failures(browser, """
        for (const e of document.querySelectorAll('svg[role=img],table,.scroll')) {
          const box = e.getBoundingClientRect();
          if (box.width && box.right > %d) bad.push('wider than paper: ' + name(e));
          if (e.matches('.scroll') && e.scrollWidth > e.clientWidth + 1) bad.push('cut off: ' + name(e) + e.scrollWidth);
        }
        if (getComputedStyle(document.body).backgroundColor !== 'rgb(255, 255, 255)') bad.push('paper is not white');""" % (PAPER + 1))
    assert not bad, bad[:20]


def check_page(browser, path, drawings):
    browser.show(DESKTOP)
    browser.open(path)
    check_quiet(browser, path)
    check_keyboard(browser)
    for width in (DESKTOP, PHONE):
        for dark in (False, True):
            browser.show(width, dark=dark)
            check_width(browser, width)
            check_contrast(browser)
            if dark:
                check_dark(browser)
        check_drawn(browser, drawings)
        check_text_does_not_collide(browser)
    browser.show(PAPER, dark=True, media="print")
    check_print(browser)
    browser.show(DESKTOP)
    check_quiet(browser, path)
