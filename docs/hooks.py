"""Hooks of mkdocs: pages outside `docs`, notebooks and the generated reference.

The site has the layout of the repository, with `docs` at its root. Links in the files work in a checkout; they are
rewritten to the page of the same file on the site.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import reference

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "experiments/**/*.*", "findings/*.*")
GENERATED = {"reference/configs.md": reference.configs_page, "reference/commands.md": reference.commands_page}
# Targets of links and of pictures, in Markdown and in HTML.
LINK = re.compile(r"""(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^)\s"#][^)\s"#]*)""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures of experiments, the changelog, and a page for each notebook."""
    for path in sorted(path for pattern in OUTSIDE for path in ROOT.glob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        content = notebook_page(notebook)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append generated parts, and rewrite links for the site."""
    source = page.file.src_uri
    if source in GENERATED:
        markdown = f"{markdown}\n\n{GENERATED[source]()}"
    inside = files.get_file_from_path(source)
    outside = inside is not None and inside.src_dir == str(ROOT)
    if outside:
        # Tables of results have adjacent notes, `[I] [c]`, which Markdown treats as a link.
        markdown = markdown.replace("] [", "] \\[")
    here = source if outside else f"docs/{source}"
    return LINK.sub(lambda found: found["before"] + site_link(found["target"], here), markdown)


def site_link(target: str, here: str) -> str:
    """A link in a file of the repository, rewritten for the site; other links are unchanged.

    >>> site_link("../../experiments/photos/README.md", "docs/tutorials/train.md")
    '../experiments/photos/README.md'
    >>> site_link("docs/extending.md", "CONTRIBUTING.md")
    'extending.md'
    """
    if "://" in target or target.startswith(("/", "mailto:")):
        return target
    found = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    start = posixpath.dirname(here.removeprefix("docs/"))
    return posixpath.relpath(found.removeprefix("docs/"), start or ".")


def notebook_page(notebook: Path) -> str:
    """A notebook as Markdown: its text, and its code in fences."""
    cells = json.loads(notebook.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    parts = [t if c["cell_type"] == "markdown" else f"```python\n{t}\n```" for c, t in zip(cells, texts, strict=True)]
    return "\n\n".join([*parts, f"[This page as a notebook]({notebook.name})"])
