"""What in the documentation is made, not written: tutorials that run, and references read from the code.

The rule: a page says where something is filled in (``<!-- fill: NAME -->``) and, right below, what to look
at in the sources meanwhile; `fill` knows what, puts it in the place of both, and nothing made here is kept in the
repository.
"""
