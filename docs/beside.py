"""A hook of mkdocs: what of the site lies beside docs, so that findings, CONTRIBUTING.md and README stay in place.

On the site those pages stand where a page of docs/ would, so a link from docs/ that begins with `../` loses it, and a
link into `docs/` loses that. A link `[README: Title](...)`, alone in its paragraph, becomes that section of the README.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "findings/*.md", "findings/*/*.md", "findings/*/*.png", "findings/*/*.csv")


def on_files(files: Files, config: Any) -> Files:
    """Add what lies beside docs/."""
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links between docs/ and what lies beside it hold on the site."""
    if Path(page.file.src_dir or "") == ROOT:
        return into_docs(markdown)
    with_sections = re.sub(r"^\[README: (.+?)\]\(.*\)$", section_of_readme, markdown, flags=re.MULTILINE)
    return with_sections.replace("](../", "](")


def section_of_readme(title: re.Match[str]) -> str:
    """What stands below a title of the README."""
    _, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {title[1]}\n")
    if not rest:
        raise ValueError(f"README.md has no section {title[1]}")
    return into_docs(rest.split("\n## ")[0])


def into_docs(markdown: str) -> str:
    """Links into docs/ as that folder's own pages write them."""
    return re.sub(r"(\]\((?:\.\./)*)docs/", r"\1", markdown)
