"""Dialogs: where an export goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
)

from napari_ivos.export import FORMATS
from napari_ivos.plugin.telling import REPLACE

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

TRACKS = "tracks-layer"


class ExportDialog(QDialog):
    """Asks for a format and a place; `choice` has the answer."""

    def __init__(self, parent: QWidget, start: Path) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export")
        self._start = start
        self.format = QComboBox()
        self.format.setToolTip("What is written, and for which programs.")
        for name, known in FORMATS.items():
            self.format.addItem(f"{name}: {known.words}", name)
        self.format.addItem("Tracks layer: where each object was, with its lineage, in this window", TRACKS)
        self.path = QLineEdit()
        self.path.setMinimumWidth(360)
        self.path.setToolTip("The file or folder that is written.")
        self.overwrite = QCheckBox(REPLACE)
        self.overwrite.setToolTip("Without this, a file or folder of that name is left alone, and you are told.")
        browse = QPushButton("Browse …")
        browse.setToolTip("Choose another place.")
        browse.clicked.connect(self._browse)
        self._line = QHBoxLayout()
        self._line.addWidget(self.path)
        self._line.addWidget(browse)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        form = QFormLayout(self)
        form.addRow("Format", self.format)
        form.addRow("To", self._line)
        form.addRow("", self.overwrite)
        form.addRow(buttons)
        self.format.currentIndexChanged.connect(self._suggest)
        self._suggest()

    @property
    def chosen(self) -> str:
        """Name of the format."""
        return str(self.format.currentData())

    @property
    def choice(self) -> tuple[str, Path, bool]:
        """Format, path, and whether to replace what is there."""
        return self.chosen, Path(self.path.text()), self.overwrite.isChecked()

    def _suggest(self) -> None:
        elsewhere = self.chosen != TRACKS
        self.path.setEnabled(elsewhere)
        known = FORMATS.get(self.chosen)
        suffix = known.suffixes[0] if known is not None and known.suffixes else f"-{self.chosen}"
        self.path.setText(str(self._start) + suffix if elsewhere else "")

    def _browse(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export to", self.path.text())
        if path:
            self.path.setText(path)
