"""What MkDocs calls: tutorials run and become pages, marked places are filled from the code, and addresses put in.

The addresses of repository and site are not written down in the sources: the workflow that publishes knows its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from pages import fill, tutorials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def addresses(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Where the repository is, and where its workflow publishes these pages; None for what is not known."""
    name, server = environment.get("GITHUB_REPOSITORY"), environment.get("GITHUB_SERVER_URL", "https://github.com")
    if not name:
        return None, None
    owner, project = name.split("/")
    site = f"https://{owner.lower()}.github.io/{project}/" if server == "https://github.com" else None
    return f"{server}/{name}", site


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Say where repository and pages are, where that is known; a copy for reading on this machine needs neither."""
    repository, site = addresses(os.environ)
    if repository:
        config.repo_url, config.repo_name = repository, repository.rsplit("/", 1)[1]
    config.site_url = site or config.site_url
    return config


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Leave the link to the repository, but not the mark by which a script asks its server for stars and forks."""
    return output.replace(' data-md-component="source"', "")


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of what is not found."""
    return output_content.replace(' data-md-component="source"', "")


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
