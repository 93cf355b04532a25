"""MkDocs hook: links from the pages to files outside `docs/` become the files' names, as the site has pages only."""

import posixpath
import re

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page, **_) -> str:
    """Replace `[text](../ssvos/files.py)` by `text (ssvos/files.py)`."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def named(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        return match[0] if path.startswith("docs/") else f"{match[1]} (`{path}`)"

    return _LINK.sub(named, markdown)
