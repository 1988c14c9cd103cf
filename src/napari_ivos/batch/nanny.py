"""Who starts a worker of this machine, and ends it without waiting for long.

What a worker was reported to have done is in a project by then, so that one that does not answer has nothing to lose.
"""

from __future__ import annotations

import logging
from typing import Any

from distributed import Nanny, Status

GRACE = 1.0
"""Seconds that a worker gets to end by itself, and again as many to be gone once it was killed; dask's own are five."""

_log = logging.getLogger(__name__)


class BriefNanny(Nanny):  # type: ignore[misc]  # dask ships no types
    """A nanny with little patience for a worker that is to end."""

    async def close(self, timeout: float = GRACE, reason: str = "nanny-close") -> Any:
        """End the worker: it is asked to, and soon killed."""
        try:
            return await super().close(timeout=min(timeout, GRACE), reason=reason)
        except TimeoutError:  # killed, and waiting for the machine's disk: it goes when that answers
            _log.info("The worker at %s was killed and is not gone yet.", self.worker_address)
            return "OK"

    async def _on_worker_exit(self, exitcode: int) -> None:
        """Start another one, but not where the first never came up: dask of 2024 and 2025 tries that without end."""
        if self.status not in {Status.init, Status.starting}:
            await super()._on_worker_exit(exitcode)
