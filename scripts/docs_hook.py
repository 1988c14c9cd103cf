"""What MkDocs calls: tutorials run and become pages, and marked places are filled from the code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from pages import fill, tutorials

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page in the place of each tutorial's script."""
    for script in [file for file in files if file.src_uri.startswith("tutorials/") and file.src_uri.endswith(".py")]:
        if script.abs_src_path is None:
            continue
        files.remove(script)
        try:
            made = tutorials.page(Path(script.abs_src_path))
        except (RuntimeError, ValueError) as error:
            raise PluginError(str(error)) from error
        files.append(File.generated(config, script.src_uri.removesuffix(".py") + ".md", content=made.markdown))
        for name, picture in made.pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the marked places of a page."""
    try:
        return fill.filled(markdown)
    except KeyError as error:
        raise PluginError(f"{page.file.src_uri}: {error.args[0]}") from error
