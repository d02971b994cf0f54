"""The pages of the committed results, built by today's templates, in a real browser."""

import re
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from study import ROOT
from tests.support.browser import chromium, needed, open_page
from tools import site

pytestmark = needed

RESULTS = ROOT / "results"
NOTEBOOKS = [path for profile in site.PROFILES for path in site.executed(RESULTS / profile)]
NAMES = [path.relative_to(RESULTS).with_suffix(".html").as_posix() for path in NOTEBOOKS]
DESK, PHONE, PAPER = 1280, 390, 680  # width in pixels; of paper what a narrow sheet has inside
ALL_BUT_CONTRAST = {
    "resultTypes": ["violations"],
    "rules": {"color-contrast": {"enabled": False}},  # slow: on two pages, and `faint` on all
}
CONTRAST = {"runOnly": ["color-contrast"]}
# Visible text with less contrast to its ground than WCAG's 4.5 to 1. Grounds are opaque here.
FAINT = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = element => {
    const text = numbers(getComputedStyle(element).color);
    const [dark, light] = [luminance(text), luminance(ground(element))].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const speaks = element => [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(element => speaks(element) && element.checkVisibility() && contrast(element) < 4.5)
    .map(element => `${contrast(element).toFixed(2)}: ${element.textContent.trim().slice(0, 40)}`);
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the committed results with all pages anew."""
    folder = tmp_path_factory.mktemp("site") / "results"
    shutil.copytree(RESULTS, folder, ignore=shutil.ignore_patterns("local"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "COMMITTED", folder)  # so that the index is the committed one
        site.build(folder)
    return folder


@pytest.fixture(scope="module", params=["index.html", "faq.html", *NAMES])
def shown(request, browser, built):
    """One page after the other on a phone, everything unfolded."""
    opened = open_page(browser, (built / request.param).as_uri(), PHONE)
    opened.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    yield opened
    opened.page.close()


def sideways(page):
    """How many pixels of the page lie outside its window, so that it scrolls sideways."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def undescribed(page):
    """How many images have no words for those who can't see them, or show nothing."""
    return page.locator("img").evaluate_all(
        "images => images.filter(each => !each.alt.trim() || !each.naturalWidth).length"
    )


@cache
def targets(path):
    """What a link into a page may name."""
    return set(re.findall(r'\bid="([^"]+)"', path.read_text("utf-8")))


def dead_links(page):
    """Links to files or places that aren't there; those to the web are not followed."""
    links = page.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
    return [link for link in links if not leads(urlsplit(link))]


def leads(link):
    path = Path(unquote(link.path))
    if link.scheme != "file":
        return link.scheme == "https"
    return path.is_file() and (not link.fragment or unquote(link.fragment) in targets(path))


def serious(page, options):
    """What axe-core finds that keeps people from reading: rule and first place."""
    found = Axe().run(page, options=options).response["violations"]
    return [
        (rule["id"], rule["nodes"][0]["html"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def brightness(page):
    """Of the page's ground, 0 to 255."""
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(map(int, re.findall(r"\d+", ground)))


def test_a_page_loads_itself_alone_and_complains_of_nothing(shown):
    assert [url for url in shown.requests if not url.startswith("data:")] == [shown.page.url]
    assert shown.errors == []


def test_links_lead_somewhere(shown):
    assert dead_links(shown.page) == []


def test_previous_and_next_are_the_neighbours_at_their_most_faithful(shown, built):
    name = Path(urlsplit(shown.page.url).path).relative_to(built).as_posix()
    best = [path.with_suffix(".html") for path in site.most_faithful(built)]
    order = [path.name for path in best]
    for relation, step in (("prev", -1), ("next", 1)):
        links = shown.page.locator(f"a[rel={relation}]")
        place = order.index(Path(name).name) + step if name in NAMES else -1
        expected = [best[place].as_uri()] * 2 if 0 <= place < len(best) else []  # head and foot
        assert links.evaluate_all("all => all.map(a => a.href)") == expected


def test_images_are_described(shown):
    pictured = "faq.html" not in shown.page.url
    assert bool(shown.page.locator("img").count()) == pictured and undescribed(shown.page) == 0


def test_a_page_fits_a_phone(shown):
    assert sideways(shown.page) == 0


def test_axe_finds_nothing_serious(shown):
    assert serious(shown.page, ALL_BUT_CONTRAST) == []


def test_text_stands_out_by_day_and_by_night(shown):
    assert shown.page.evaluate(FAINT) == []
    day = brightness(shown.page)
    shown.page.emulate_media(color_scheme="dark")
    assert shown.page.evaluate(FAINT) == []
    assert day > 230 and brightness(shown.page) < 40
    shown.page.emulate_media(color_scheme="light")


def test_a_page_fits_on_paper_and_is_printed_by_day(shown):
    shown.page.set_viewport_size({"width": PAPER, "height": 900})
    shown.page.emulate_media(media="print", color_scheme="dark")
    assert sideways(shown.page) == 0
    assert brightness(shown.page) > 230
    shown.page.emulate_media(media="screen", color_scheme="light")
    shown.page.set_viewport_size({"width": PHONE, "height": 900})


@pytest.mark.parametrize(
    ("name", "scheme"), [("index.html", "dark"), (NAMES[0], "light")], ids=["index", "page"]
)
def test_axe_agrees_that_text_stands_out(browser, built, name, scheme):
    page = open_page(browser, (built / name).as_uri(), DESK).page
    page.emulate_media(color_scheme=scheme)
    assert serious(page, CONTRAST) == []
    page.close()


def test_contents_jump_to_their_headings(browser, built):
    page = open_page(browser, (built / NAMES[0]).as_uri(), DESK).page
    contents = page.locator("aside a")
    assert contents.count() > 3
    for link in contents.all():
        link.click()
        heading = page.locator(f'[id="{link.get_attribute("href")[1:]}"]')
        expect(heading).to_be_in_viewport()
        expect(heading).to_have_text(link.inner_text())
    page.close()


def test_on_a_phone_contents_unfold_and_next_leads_on(browser, built):
    first, second = [name for name in NAMES if name.startswith("quick/")][:2]
    page = open_page(browser, (built / first).as_uri(), PHONE).page
    link = page.locator("details.contents a").last
    expect(link).to_be_hidden()
    page.locator("details.contents summary").click()
    link.click()
    expect(page.locator(f'[id="{link.get_attribute("href")[1:]}"]')).to_be_in_viewport()
    page.locator("footer a[rel=next]").click()
    expect(page).to_have_url((built / second).as_uri())
    page.close()


def test_what_is_wrong_is_noticed(browser, tmp_path):
    """A page with every fault: the checks above can fail."""
    (tmp_path / "wrong.html").write_text(
        """<title>wrong</title><style>@media (prefers-color-scheme: dark) {p {color: #eee}}</style>
        <body style="background: #fff"><script>console.error("no")</script>
        <img src="https://example.invalid/a.png"><a href="#nowhere">a</a><a href="b.html">b</a>
        <p style="width: 900px">wide</p><div style="color: #999">faint</div>"""
    )
    shown = open_page(browser, (tmp_path / "wrong.html").as_uri(), PHONE)
    page = shown.page
    assert "https://example.invalid/a.png" in shown.requests
    assert any("no" in error for error in shown.errors)
    assert sideways(page) > 0 and undescribed(page) == 1 and len(dead_links(page)) == 2
    assert [line.split(": ")[1] for line in page.evaluate(FAINT)] == ["faint"]
    assert {"image-alt", "html-has-lang"} <= {rule for rule, _ in serious(page, ALL_BUT_CONTRAST)}
    assert "color-contrast" in {rule for rule, _ in serious(page, CONTRAST)}
    page.emulate_media(color_scheme="dark")
    assert [line.split(": ")[1] for line in page.evaluate(FAINT)] == ["wide", "faint"]
    page.close()


def test_claims_are_filtered_by_what_the_address_says(browser, built):
    opened = open_page(browser, (built / "index.html").as_uri(), DESK)
    page, shown_rows = opened.page, ".claims tr[data-kind]:not([hidden])"
    every = page.locator(".claims tr[data-kind]").count()
    page.get_by_label("kind").select_option("speed")
    assert urlsplit(page.url).fragment == "kind=speed"
    kinds = page.locator(shown_rows).evaluate_all("rows => rows.map(row => row.dataset.kind)")
    assert set(kinds) == {"speed"} and 0 < len(kinds) < every
    expect(page.locator(".filter output")).to_have_text(f"{len(kinds)} of {every} claims")
    opened.page.close()
    address = (built / "index.html").as_uri() + "#kind=speed&notebook=09_kernels"
    again = open_page(browser, address, DESK)
    books = again.page.locator(shown_rows).evaluate_all("all => all.map(r => r.dataset.notebook)")
    assert set(books) == {"09_kernels"} and len(books) <= len(kinds)
    assert again.errors == []
    again.page.close()


def test_without_scripts_all_claims_are_shown(browser, built):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((built / "index.html").as_uri() + "#kind=speed")
    assert page.locator(".claims tr[data-kind]:visible").count() > 60
    assert page.locator(".filter").is_hidden()
    context.close()
