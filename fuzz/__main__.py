"""``python -m fuzz``: hostile inputs for one target or all, with a report; see CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

INSTRUMENTED = {"images": "PIL", "painted": "PIL", "tiff": "tifffile", "zarr": "zarr"}
"""Package whose branches guide the search beside our own, with --deep; to instrument one takes a minute and more."""


def main() -> int:
    """Run what the arguments say; 1 where a defect was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all by default")
    inputs = "inputs for each target; 0: the few of the tests; by default what each is worth in a campaign"
    parser.add_argument("--inputs", type=int, help=inputs)
    parser.add_argument("--engine", choices=("atheris", "plain"), default="atheris", help="guided by coverage, or not")
    parser.add_argument("--deep", action="store_true", help="guided by the branches of the libraries that parse, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("out/fuzz"), help="where inputs that found a defect go")
    parser.add_argument("--inside", action="store_true", help="in this very process: libFuzzer takes one target")
    parser.add_argument("--replay", type=Path, help="run the inputs in this folder, or this one, and nothing else")
    options = parser.parse_args()
    with _instrumenting(options.targets if options.inside and options.engine == "atheris" else [], options.deep):
        from fuzz.campaign import attack, campaign
        from fuzz.targets import TARGETS
    names = options.targets or list(TARGETS)
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        parser.error(f"no target is called {unknown[0]}; there are {', '.join(TARGETS)}")
    rest = (options.inputs, options.engine, options.seed, options.findings.absolute(), options.replay)
    return max(attack(TARGETS[name], *rest) for name in names) if options.inside else campaign(names, *rest)


def _instrumenting(targets: list[str], deep: bool) -> contextlib.AbstractContextManager[object]:
    """The context in which imports are instrumented; they stay so for imports inside functions."""
    if not targets:
        return contextlib.nullcontext()
    import atheris

    hook = contextlib.ExitStack()
    hook.enter_context(
        atheris.instrument_imports(
            include=["napari_ivos", *(INSTRUMENTED[t] for t in targets if deep and t in INSTRUMENTED)]
        )
    )
    hook.pop_all()  # the import hook stays: much is imported at first use only
    return contextlib.nullcontext()


if __name__ == "__main__":
    sys.exit(main())
