"""The pages as a reader's browser shows them, opened as files."""

from urllib.parse import urlsplit

import pytest


def pages(site):
    """Every page of the site."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_ask_no_other_host_and_complain_of_nothing(site, browser, scheme):
    context = browser.new_context(color_scheme=scheme)
    for path in pages(site):
        page, requests, messages = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("requestfailed", lambda request: messages.append(f"failed: {request.url}"))
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        assert requests, path
        assert [url for url in requests if urlsplit(url).scheme not in ("file", "data", "blob")] == [], path
        assert messages == [], path
        page.close()
    context.close()
