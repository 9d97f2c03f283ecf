# What the proofs of the rings share: building their programs, running them on
# all processors, and adding up what came of it.

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu17", "-g", "-D_GNU_SOURCE", "-I", ".", "-Wall", "-Wextra",
         "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wundef",
         "-Wvla", "-Wpointer-arith", "-Wcast-align", "-Wwrite-strings",
         "-Wimplicit-fallthrough"]
# Whether a keeper is dead is for the subject to say.
WRAPPED = ["-Wl,--wrap=petal_peer_identify"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)\.h"', re.MULTILINE)


def options(name, arguments=()):
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resume", action="store_true",
                        help="add to the totals of earlier runs")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build",
                        help="where programs and totals are kept")
    parser.add_argument("--petal", help="not needed here")
    parser.add_argument("--kind", help="one kind of ring only")
    for flag, settings in arguments:
        parser.add_argument(flag, **settings)
    return parser.parse_args()


def needed(program):
    """The sources of a program: those whose headers it includes, and on."""
    sources, waiting, seen = [], [f"tests/crash/{program}"], set()
    while waiting:
        stem = waiting.pop()
        if stem in seen:
            continue
        seen.add(stem)
        header, source = ROOT / f"{stem}.h", ROOT / f"{stem}.c"
        for path in (header, source):
            if path.exists():
                waiting += INCLUDE.findall(path.read_text())
        if source.exists():
            sources.append(f"{stem}.c")
        # A noun may have a second file: bcast_reader.c beside bcast.c.
        waiting += [str(part.relative_to(ROOT).with_suffix(""))
                    for part in header.parent.glob(f"{header.stem}_*.c")]
    return sorted(sources)


def compiled(build, program, cc, optimise):
    """Returns the program, built by one compiler in one way."""
    label = f"{cc}{optimise}"
    place = build / "proofs" / label
    objects = []

    def compile_one(source):
        target = place / (source.replace("/", "_") + ".o")
        subprocess.run([cc, optimise, *FLAGS, "-c", source, "-o", target],
                       cwd=ROOT, check=True)
        return target

    place.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(len(processors())) as pool:
        objects = list(pool.map(compile_one, needed(program)))
    # Bound at once, or stepping would lead through the dynamic linker.
    subprocess.run([cc, *objects, "-Wl,-z,now", *WRAPPED, "-o",
                    place / program], check=True)
    return place / program


def kinds(only):
    if only:
        return [only]
    text = (ROOT / "tests/crash/subjects.h").read_text()
    return re.findall(r"SUBJECT\((\w+)\)(?:\s*\\)?$", text, re.MULTILINE)


def processors():
    return sorted(os.sched_getaffinity(0))


def has(cc):
    return shutil.which(cc) is not None


def named(text, program):
    """Puts the function and the line beside each place in a program."""
    def name(match):
        if not has("addr2line"):
            return match[0]
        found = subprocess.run(
            ["addr2line", "-fpe", program, match[1]],
            capture_output=True, text=True, check=False).stdout.strip()
        return f"{match[0]} ({found.replace(str(ROOT) + '/', '')})"

    return re.sub(r"place (0x[0-9a-f]+)", name, text)


class Proof:
    """Totals of one proof, kept in a file between runs."""

    def __init__(self, name, chosen):
        self.name = name
        self.begin = time.monotonic()
        self.file = chosen.build / "proofs" / f"{name}.json"
        self.totals = {"proof": name, "tried": 0, "failed": 0, "seconds": 0}
        if chosen.resume and self.file.exists():
            self.totals = json.loads(self.file.read_text())
        self.earlier_seconds = self.totals["seconds"]

    def progress(self, text):
        if sys.stderr.isatty():
            seconds = int(time.monotonic() - self.begin)
            print(f"\r\033[K{self.name}, {seconds} s: {text}", end="",
                  file=sys.stderr, flush=True)

    def tell(self, text):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(text.strip(), file=sys.stderr, flush=True)

    def add(self, answer):
        for key, value in answer.items():
            if isinstance(value, (int, float)):
                self.totals[key] = self.totals.get(key, 0) + value

    def run(self, command, program):
        """Runs a program that prints a line of JSON; adds its numbers."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)
        if done.stderr.strip():
            self.tell(named(done.stderr, program))
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            self.tell(f"{self.name}: exit {done.returncode}: "
                      f"{' '.join(map(str, command))}")
            answer = {"tried": 0, "failed": 1}
        self.add(answer)
        return answer

    def keep(self):
        self.totals["seconds"] = round(
            self.earlier_seconds + time.monotonic() - self.begin, 1)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.totals) + "\n")
        part.replace(self.file)

    def end(self, without=()):
        self.keep()
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(json.dumps({key: value for key, value in self.totals.items()
                          if key not in without}))
        return 1 if self.totals["failed"] or not self.totals["tried"] else 0


def share_out(jobs, work):
    """Runs work(job, processor) for all jobs, one at a time on each."""
    waiting = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def lane(cpu):
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            work(job, cpu)

    with concurrent.futures.ThreadPoolExecutor(len(processors())) as pool:
        list(pool.map(lane, processors()))
