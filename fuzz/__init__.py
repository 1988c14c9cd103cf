"""Hostile input for everything that reads a file: targets, a guard, and a campaign.

The rule: a target hands bytes to one reader as a stranger's file would. It may end well or with an `IvosError`;
anything else is a defect: another exception, more time or memory than the guard allows, a file touched outside the
folder at hand, code, a process or the network. Nothing in here is part of the package.
"""

from __future__ import annotations
