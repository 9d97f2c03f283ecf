# What the proofs of the rings share: building their programs, running them on
# all processors, and adding up what came of it.

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
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


class Interrupted(Exception):
    """Somebody wants an end; what was not finished counts for nothing."""


class Proof:
    """Totals of one proof, kept in a file between runs.

    Work is done in parts with names, and a part counts when it is finished. An
    interrupted proof goes on with the parts that are not, by --resume.
    """

    def __init__(self, name, chosen):
        self.name = name
        self.begin = time.monotonic()
        self.file = chosen.build / "proofs" / f"{name}.json"
        self.totals = {"proof": name, "tried": 0, "failed": 0, "seconds": 0}
        if chosen.resume and self.file.exists():
            self.totals = json.loads(self.file.read_text())
        self.earlier_seconds = self.totals["seconds"]
        self.lock = threading.Lock()
        self.children = set()
        self.stopping = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)

    def of(self, programs, what):
        """Begins anew if what is kept is of other programs, or other work."""
        mark = hashlib.sha256(what.encode())
        for program in programs:
            mark.update(program.read_bytes())
        if self.totals.setdefault("of", mark.hexdigest()) != mark.hexdigest():
            self.tell(f"{self.name}: the earlier totals are of other sources "
                      "or other work, so this begins anew")
            self.totals = {"proof": self.name, "tried": 0, "failed": 0,
                           "seconds": 0, "of": mark.hexdigest()}
            self.earlier_seconds = 0

    def goal(self, amount, done):
        """What was to be done and is not yet; or so much more, if all is."""
        if self.totals.get("goal", 0) <= done:
            self.totals["goal"] = done + amount
        return self.totals["goal"] - done

    def done(self):
        return self.totals.setdefault("done", [])

    def stop(self, _number, _frame):
        self.stopping = True
        for child in list(self.children):
            child.kill()

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

    def output(self, command):
        # Of a session of its own: an interrupt from the terminal is for us.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True,
                                 start_new_session=True)
        self.children.add(child)
        if self.stopping:
            child.kill()
        out, err = child.communicate()
        self.children.discard(child)
        if self.stopping:
            raise Interrupted
        return child.returncode, out, err

    def run(self, command, program, part=None):
        """Runs a program that prints a line of JSON; adds its numbers."""
        status, out, err = self.output(command)
        if err.strip():
            self.tell(named(err, program))
        try:
            answer = json.loads(out)
        except ValueError:
            self.tell(f"{self.name}: exit {status}: "
                      f"{' '.join(map(str, command))}")
            answer = {"tried": 0, "failed": 1}
        with self.lock:
            self.add(answer)
            if part is not None:
                self.done().append(part)
                self.keep()
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
        if self.stopping:
            self.tell(f"{self.name}: interrupted; --resume goes on")
            return 130
        without = (*without, "of", "goal", "done")
        print(json.dumps({key: value for key, value in self.totals.items()
                          if key not in without}))
        return 1 if self.totals["failed"] or not self.totals["tried"] else 0


def share_out(jobs, work, enough=lambda: False):
    """Runs work(job, processor) for all jobs, one at a time on each."""
    waiting = iter(jobs)
    lock = threading.Lock()

    def lane(cpu):
        while not enough():
            try:
                with lock:
                    job = next(waiting)
                work(job, cpu)
            except (StopIteration, Interrupted):
                return

    with concurrent.futures.ThreadPoolExecutor(len(processors())) as pool:
        list(pool.map(lane, processors()))
