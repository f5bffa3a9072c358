"""Pages of the site that lie outside `docs`, and links that leave it.

Pages are written for a code host, where `docs/litert.md` links to
`../examples/browser/README.md`. MkDocs knows the folder `docs` alone.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
# Pages of the site that lie elsewhere, by their place on it.
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples/browser.md": "examples/browser/README.md",
}
PLACES = {source: place for place, source in ELSEWHERE.items()}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    for place, source in ELSEWHERE.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    place = page.file.src_uri
    source = ELSEWHERE.get(place, f"docs/{place}")
    return relinked(markdown, source, place)


def relinked(markdown, source, place):
    """Returns a page whose links are those of the site.

    Args:
        markdown: Its text, in which links start from `source`.
        source: Where it is in the repository.
        place: Where it is on the site.
    """

    def link(match):
        target, anchor = match[1], match[2] or ""
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(source), target)
        )
        if not (ROOT / path).exists():
            return match[0]  # MkDocs says what is wrong with it
        found = PLACES.get(path)
        if found is None and path.startswith("docs/"):
            found = path.removeprefix("docs/")
        if found is None:  # a program: the site has no copy of it
            return f"](source:{path})"
        found = os.path.relpath(found, posixpath.dirname(place) or ".")
        return f"]({found}{anchor})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.S | re.M)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    text = "".join(parts)
    # `[words](program.py)` becomes words and a path.
    return re.sub(r"\[([^]]*)\]\(source:([^)]*)\)", r"\1 (`\2`)", text)
