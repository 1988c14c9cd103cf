"""What in the documentation is made, not written: tutorials that run, and references read from the code.

The rule: a page says where something is filled in (``<!-- fill: NAME -->``), `fill` knows what, and nothing made here
is kept in the repository.
"""
