"""What is wrong, and with what: checks of an installation, logs, and reports of errors for those who can help.

The rule: nothing in here changes a session or a file of the user's, and nothing that it writes holds image data or
where on a machine files lie.
"""

from napari_ivos.diagnostics.checks import Check, doctor
from napari_ivos.diagnostics.logs import LEVELS, listening
from napari_ivos.diagnostics.report import error_report, write_report

__all__ = ["LEVELS", "Check", "doctor", "error_report", "listening", "write_report"]
