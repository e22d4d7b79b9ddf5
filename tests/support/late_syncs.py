"""Shows what a simulated power cut (FS_IOC_SHUTDOWN) does to syncs that are under way: some return success and their file
is gone. Needs root; makes and removes `late.img` and `late/` in the working directory.

    python3 tests/support/late_syncs.py [CUTS]
"""

import fcntl
import os
import random
import struct
import subprocess
import sys
import threading
import time

IMAGE, MOUNT, THREADS, CONTENT = "late.img", "late", 16, b"x" * 1200


def run(*command):
    subprocess.run(command, check=True)


def write(folder, thread, stop, done):
    """Writes and syncs files until told to stop or refused."""
    number = 0
    while not stop.is_set():
        name, descriptor = f"{folder}/{thread}-{number}", -1
        try:
            descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(descriptor, CONTENT)
            begun = time.monotonic()
            os.fsync(descriptor)
            done.append((name, begun, time.monotonic()))
        except OSError:
            return
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        number += 1


def is_there(name):
    try:
        with open(name, "rb") as file:
            return file.read() == CONTENT
    except OSError:
        return False


def cut(figures):
    run("mount", "-o", "loop", IMAGE, MOUNT)
    folder = f"{MOUNT}/files"
    os.mkdir(folder)
    mount = os.open(MOUNT, os.O_RDONLY)
    os.fsync(mount)
    stop, done = threading.Event(), []
    threads = [threading.Thread(target=write, args=(folder, n, stop, done)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(0.3 + random.random() * 0.4)
    before = time.monotonic()
    fcntl.ioctl(mount, 0x8004587D, struct.pack("I", 2))
    after = time.monotonic()
    time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    os.close(mount)
    run("umount", MOUNT)
    run("mount", "-o", "loop", IMAGE, MOUNT)
    for name, begun, ended in done:
        kind = "ended before the cut" if ended < before else "under way at the cut" if begun < after else "begun after the cut"
        figures[kind][0] += 1
        figures[kind][1] += not is_there(name)
    run("rm", "-rf", folder)
    run("umount", MOUNT)


def main():
    figures = {kind: [0, 0] for kind in ("ended before the cut", "under way at the cut", "begun after the cut")}
    os.mkdir(MOUNT)
    run("truncate", "-s", "256M", IMAGE)
    run("mkfs.ext4", "-q", "-F", IMAGE)
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    for _ in range(cuts):
        cut(figures)
    os.rmdir(MOUNT)
    os.remove(IMAGE)
    for kind, (count, gone) in figures.items():
        print(f"{cuts} cuts, syncs that returned success, {kind}: {count}, file gone: {gone}")


main()
