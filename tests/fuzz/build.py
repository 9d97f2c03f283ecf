# Builds programs from the sources of the rings, in ways that the build of the
# project has not: again only what has changed since.

import concurrent.futures
import os
import subprocess

FLAGS = ["-std=gnu17", "-g", "-D_GNU_SOURCE", "-I", ".", "-Wall", "-Wextra",
         "-Wshadow", "-Wundef", "-Wvla", "-Wno-unused-function"]
HOSTILE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
           '-DPETAL_ATOMIC_HOOKS="tests/fuzz/hook.h"']
HOSTILE_LINK = ["-fsanitize=address,undefined"]
DISK = ("disk", "corrupt")
# All that reaches the file, or takes memory for it, goes through platter.c.
DISK_LINK = ["-Wl,--wrap=pread,--wrap=pwrite,--wrap=fsync",
             "-Wl,--wrap=mmap,--wrap=munmap,--wrap=renameat", "-lsodium"]


def library(root):
    """All that lies below the actors, but what needs more than libc."""
    paths = [*root.glob("shm/*.c"), *root.glob("rings/*.c")]
    return sorted(str(path.relative_to(root)) for path in paths
                  if path.name != "arena.c")


def hostile(root):
    fuzz = sorted(root.glob("tests/fuzz/*.c"))
    return library(root) + [str(path.relative_to(root)) for path in fuzz]


def journal(root):
    """The journal without an engine."""
    engines = ("journal_posix.c", "journal_uring.c")
    return sorted(str(path.relative_to(root))
                  for path in root.glob("fabric/journal*.c")
                  if path.name not in engines)


def journal_posix(root):
    return [*journal(root), "fabric/journal_posix.c"]


def dependencies(target):
    """What an object was made of; nothing if it is not there."""
    try:
        text = target.with_suffix(".d").read_text()
    except OSError:
        return []
    return text.replace("\\\n", " ").split()[1:]


def is_new(root, target):
    made_of = dependencies(target)
    if not made_of or not target.exists():
        return False
    made = target.stat().st_mtime
    paths = [root / path for path in made_of]
    return all(path.exists() and path.stat().st_mtime < made
               for path in paths)


def objects(root, place, cc, flags, sources):
    """Compiles what is not new. The objects, in the order of the sources."""
    place.mkdir(parents=True, exist_ok=True)

    def one(source):
        target = place / (source.replace("/", "_")[:-2] + ".o")
        if not is_new(root, target):
            subprocess.run([cc, *FLAGS, *flags, "-MD", "-c", source,
                            "-o", target], cwd=root, check=True)
        return target

    lanes = len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
        return list(pool.map(one, sources))


def program(place, name, cc, made, link=()):
    subprocess.run([cc, *made, *link, "-o", place / name], check=True)
    return place / name


def disk(root, name):
    """A program of tests/disk: the journal, and a disk of its own."""
    own = sorted(str(path.relative_to(root))
                 for path in root.glob("tests/disk/*.c")
                 if path.stem == name or path.stem not in DISK)
    return [*journal(root), "fabric/seal.c", "shm/crc32c.c", "shm/error.c",
            *own]


def replica(root):
    """The protocol without its wire, disk and registry, and the actors."""
    parts = ("backup", "failover", "log", "primary*", "recovery", "runs", "seal",
             "sessions", "txn")
    paths = list(root.glob("actors/*.c"))
    for part in parts:
        paths += root.glob(f"fabric/{part}.c")
    return library(root) + sorted(str(path.relative_to(root))
                                  for path in paths)


def sim(root):
    histories = root.glob("tests/sim/*.c")
    return replica(root) + sorted(str(path.relative_to(root))
                                  for path in histories)


def memory():
    """Where small files live best; None is the usual place."""
    place = "/dev/shm"
    return place if os.access(place, os.W_OK) else None
