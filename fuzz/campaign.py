"""Runs inputs: for one target in this process; for a campaign in processes of their own, restarted after a crash."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzz.guard import MEMORY, Breach, Guard, limit_memory, scratch
from fuzz.mutation import mutate
from napari_ivos.errors import IvosError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuzz.targets import Target

HANG = 20
"""Seconds of a processor after which an input counts as a hang, whatever else the machine has to do."""
STUCK = 300
"""Seconds after which an input that waits for something counts as one."""
RESTARTS = 25
REGRESSIONS = Path(__file__).parent / "regressions"
"""Inputs that once found a defect."""
_TOLD_EVERY = 50


class Attack:
    """One target in this process.

    Parameters
    ----------
    target : Target
    findings : Path
        Folder for inputs that found a defect, with what happened.
    """

    def __init__(self, target: Target, findings: Path) -> None:
        self.target = target
        self.findings = findings
        self.counts = {"inputs": 0, "refused": 0, "read": 0}
        self.defects: dict[str, str] = {}
        findings.mkdir(parents=True, exist_ok=True)
        self._place = scratch()
        self._folder = self._place / "inside"
        self._guard = Guard(self._folder)
        self._now = findings / f"{target.name}.now"
        faulthandler.register(signal.SIGPROF, chain=True)  # tells where, then the process ends

    def warm_up(self) -> None:
        """Run the seeds once unwatched, so that everything is imported, and bound the memory from there.

        The limit of a target that came before in this process is lifted for it: imports may map gigabytes (torch does).
        """
        limit_memory(None)
        for seed in self.target.seeds():
            self._fresh()
            with contextlib.suppress(Exception):  # they run again, watched, as the first inputs
                self.target.run(seed, self._folder)
        limit_memory(MEMORY)

    def one(self, data: bytes) -> None:
        """Run an input; what is a defect is kept."""
        self._fresh()
        self._now.write_bytes(data)
        faulthandler.dump_traceback_later(STUCK, exit=True)
        signal.setitimer(signal.ITIMER_PROF, HANG)
        began = time.process_time()
        try:
            with self._guard.watching():
                self.target.run(data, self._folder)
            self.counts["read"] += 1
        except IvosError as error:
            self.counts["refused"] += 1
            if _short_of_memory(error):
                self._defect(data, error)
        except (Exception, Breach) as error:  # whatever it is, it is a defect and kept
            self._defect(data, error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        if time.process_time() - began > HANG / 2:
            self._keep(data, "slow", f"{time.process_time() - began:.1f} s")
        self.counts["inputs"] += 1
        if self.counts["inputs"] % _TOLD_EVERY == 0:
            self.tell()

    def tell(self) -> None:
        """Let a campaign see how far this is."""
        text = json.dumps({**self.counts, "defects": self.defects})
        (self.findings / f"{self.target.name}.json").write_text(text, encoding="utf-8")

    def end(self) -> None:
        """Take the scratch folder away."""
        self.tell()
        self._now.unlink(missing_ok=True)
        shutil.rmtree(self._place, ignore_errors=True)

    def _fresh(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

    def _defect(self, data: bytes, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        sign = f"{type(error).__name__} at {Path(where.filename).name}:{where.name}"
        own = [f for f in traceback.extract_tb(error.__traceback__) if "napari_ivos" in f.filename]
        if own:
            sign += f" from {Path(own[-1].filename).name}:{own[-1].name}"
        self._keep(data, sign, "".join(traceback.format_exception(error))[-6000:])

    def _keep(self, data: bytes, sign: str, story: str) -> None:
        if sign in self.defects:
            return
        name = f"{self.target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        self.defects[sign] = name
        (self.findings / f"{name}.bin").write_bytes(data)
        (self.findings / f"{name}.txt").write_text(f"{sign}\n\n{story}", encoding="utf-8")
        self.tell()


def _short_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes of memory that ran out: a bomb that was not seen before it went off."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def attack(target: Target, inputs: int | None, engine: str, seed: int, findings: Path, replay: Path | None) -> int:
    """Run a target's inputs in this process; 1 where one of them found a defect."""
    warnings.simplefilter("ignore")
    count = target.campaign if inputs is None else inputs or target.share
    running = Attack(target, findings)
    running.warm_up()
    if replay is not None:
        for data in _stored(target, replay):
            running.one(data)
    elif engine == "plain":
        for data in _stored(target, REGRESSIONS):
            running.one(data)
        seeds, chance = target.seeds(), random.Random(seed)
        for data in seeds[:count]:
            running.one(data)
        for _ in range(count - len(seeds)):
            running.one(mutate(chance, seeds, target.tokens, target.largest))
    else:
        _guided(running, count, seed)
    running.end()
    for sign, name in running.defects.items():
        print(f"{target.name}: {sign} ({name})")
    print(f"{target.name}: {running.counts['inputs']} inputs, {len(running.defects)} defects", flush=True)
    return 1 if running.defects else 0


def _stored(target: Target, place: Path) -> Iterable[bytes]:
    files = [place] if place.is_file() else sorted(place.glob(f"{target.name}-*.bin"))
    return (file.read_bytes() for file in files)


def _guided(running: Attack, count: int, seed: int) -> None:
    """Let libFuzzer choose the inputs by the branches that they reach."""
    import atheris

    target = running.target
    corpus = running.findings / f"{target.name}.corpus"
    corpus.mkdir(exist_ok=True)
    for data in target.seeds():
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data[: target.largest])
    words = running.findings / f"{target.name}.words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.tokens), encoding="ascii")
    arguments = [
        f"-runs={count}",
        f"-seed={seed}",
        f"-timeout={2 * STUCK}",
        f"-max_len={target.largest}",
        "-rss_limit_mb=0",
    ]
    arguments += [
        f"-artifact_prefix={running.findings}/{target.name}-native-",
        "-print_final_stats=1",
    ]

    if target.tokens:  # libFuzzer takes no empty dictionary
        arguments.append(f"-dict={words}")

    def one(data: bytes) -> None:
        running.one(bytes(data))
        if running.counts["inputs"] >= count:
            running.tell()

    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\x{b:02x}" for b in word)


def campaign(names: list[str], inputs: int | None, engine: str, seed: int, findings: Path, replay: Path | None) -> int:
    """Attack targets one after the other, each in a process of its own; print and keep the report."""
    from fuzz.targets import TARGETS

    findings.mkdir(parents=True, exist_ok=True)
    report = {}
    for name in names:
        report[name] = _besiege(TARGETS[name], inputs, engine, seed, findings, replay)
        told = report[name]
        print(
            f"{name:15} {told['inputs']:>8,} inputs, {told['read']:>7,} read, {told['refused']:>7,} refused, "
            f"{len(told['defects'])} defects, {told['seconds']:.0f} s",
            flush=True,
        )
        for sign, file in told["defects"].items():
            print(f"    {sign} ({file})", flush=True)
    (findings / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    total = sum(told["inputs"] for told in report.values())
    defects = sum(len(told["defects"]) for told in report.values())
    print(f"{total:,} inputs, {defects} defects", flush=True)
    return 1 if defects else 0


def _besiege(
    target: Target, inputs: int | None, engine: str, seed: int, findings: Path, replay: Path | None
) -> dict[str, Any]:
    """Attack one target until its inputs are used up, whatever dies on the way."""
    wanted = target.campaign if inputs is None else inputs or target.share
    told: dict[str, Any] = {"inputs": 0, "read": 0, "refused": 0, "defects": {}, "seconds": 0.0}
    began = time.monotonic()
    for attempt in range(RESTARTS):
        left = wanted - int(told["inputs"])
        if left <= 0:
            break
        before = told["inputs"]
        (findings / f"{target.name}.json").unlink(missing_ok=True)
        code = _child(target, left, engine, seed + attempt, findings, replay)
        _add(told, findings / f"{target.name}.json")
        if code in (0, 1) and (engine == "plain" or told["inputs"] == before):
            break
        if code not in (0, 1):
            _blame(told, target, code, findings)
    told["seconds"] = time.monotonic() - began
    return told


def _child(target: Target, count: int, engine: str, seed: int, findings: Path, replay: Path | None) -> int:
    command = [sys.executable, "-m", "fuzz", target.name, "--inside", f"--inputs={count}", f"--engine={engine}"]
    command += [f"--seed={seed}", f"--findings={findings}", *([] if replay is None else [f"--replay={replay}"])]
    command += ["--deep"] if "--deep" in sys.argv else []
    few = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "0"}
    root = Path(__file__).parent.parent
    with (findings / f"{target.name}.log").open("ab") as log:
        return subprocess.run(
            command, env={**os.environ, **few}, stdout=log, stderr=log, cwd=root, check=False
        ).returncode


def _add(told: dict[str, Any], file: Path) -> None:
    if not file.exists():
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    for key in ("inputs", "read", "refused"):
        told[key] = int(told[key]) + found[key]
    told["defects"] = {**told["defects"], **found["defects"]}


def _blame(told: dict[str, Any], target: Target, code: int, findings: Path) -> None:
    """Keep the input on which a process died or hung."""
    natives = sorted(findings.glob(f"{target.name}-native-*"), key=lambda file: file.stat().st_mtime)
    now = findings / f"{target.name}.now"
    source = natives[-1] if natives else now
    what = f"the process ended with {code}" + (
        f" ({source.name.split('-native-')[1].split('-')[0]})" if natives else ""
    )
    if source.exists():
        kept = findings / f"{target.name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.bin"
        source.replace(kept)
        what += f" on {kept.name}"
        told["defects"] = {**told["defects"], what: kept.name}
    else:
        told["defects"] = {**told["defects"], what: f"{target.name}.log"}
