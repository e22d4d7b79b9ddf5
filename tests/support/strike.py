"""Counts the system calls of a process that touch files below a folder, over all its threads, in the order in which
they begin, and strikes at one of them: the process is killed there, or that one call fails with an error that the
kernel could have given.

strace counts for each thread by itself, so with a pool of threads its n-th call is another one in every run and comes
several times. Here "the n-th call" is one place. Linux on x86-64, Python's standard library, ptrace(2).

    strike.py --log FILE --below FOLDER [--sockets] [--changes] [--at N (--kill | --errno E)] [--statfs MAGIC] (--pid PID | -- PROGRAM ...)

The log holds `ready`, then a line for each call that counts, `N KIND PATH`, then `struck`.
"""

import argparse, ctypes, os, signal, struct, sys

SEIZE, INTERRUPT, LISTEN, SYSCALL, CONT = 0x4206, 0x4207, 0x4208, 24, 7
GETREGS, SETREGS, SYSCALL_INFO = 12, 13, 0x420E
# TRACESYSGOOD, FORK, VFORK, CLONE, EXEC
OPTIONS = 1 | 2 | 4 | 8 | 16
EVENT_STOP, WALL, ENTRY, EXIT = 128, 0x40000000, 1, 2
RAX, ORIG_RAX = 10, 15

# Number: kind, and where the file stands: ("fd", argument) or ("path", argument of its folder or None, argument).
CALLS = {
    2: ("open", ("path", None, 0)), 257: ("open", ("path", 0, 1)), 85: ("open", ("path", None, 0)),
    1: ("write", ("fd", 0)), 18: ("write", ("fd", 0)), 20: ("write", ("fd", 0)), 296: ("write", ("fd", 0)),
    44: ("send", ("fd", 0)), 46: ("send", ("fd", 0)),
    76: ("truncate", ("path", None, 0)), 86: ("link", ("path", None, 1)), 265: ("link", ("path", 2, 3)),
    74: ("fsync", ("fd", 0)), 75: ("fdatasync", ("fd", 0)), 277: ("sync_file_range", ("fd", 0)),
    82: ("rename", ("path", None, 1)), 264: ("rename", ("path", 2, 3)), 316: ("rename", ("path", 2, 3)),
    87: ("unlink", ("path", None, 0)), 263: ("unlink", ("path", 0, 1)), 84: ("unlink", ("path", None, 0)),
    83: ("mkdir", ("path", None, 0)), 258: ("mkdir", ("path", 0, 1)),
    77: ("truncate", ("fd", 0)), 285: ("allocate", ("fd", 0)),
}
STATFS = {137, 138}
# Which argument of a call holds the flags, and what makes of opening a change: WRONLY, RDWR, CREAT, TRUNC.
FLAGS, CHANGING = {2: 1, 257: 2}, 1 | 2 | 0o100 | 0o1000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread, address=0, data=0):
    if libc.ptrace(request, thread, address, data) < 0:
        error = ctypes.get_errno()
        # A thread that has just ended is nobody's fault.
        if error != 3:
            raise OSError(error, os.strerror(error))
        return False
    return True


def text(thread, address):
    """The string at an address of the traced process."""
    out = b""
    with open(f"/proc/{thread}/mem", "rb", 0) as memory:
        while b"\0" not in out and len(out) < 8192:
            memory.seek(address + len(out))
            out += memory.read(4096 - ((address + len(out)) & 4095))
    return out.split(b"\0")[0].decode(errors="replace")


def signed(value):
    return value - (1 << 64) if value >> 63 else value


class Tracer:
    def __init__(self, options, pid):
        self.options, self.pid = options, pid
        self.log = open(options.log, "w", buffering=1)
        self.count, self.resume, self.failing, self.statfs = 0, SYSCALL, None, {}

    def seize(self):
        """Every thread, also those that begin meanwhile."""
        known = set()
        while True:
            tasks = {int(task) for task in os.listdir(f"/proc/{self.pid}/task")} - known
            if not tasks:
                return
            for task in tasks:
                try:
                    if ptrace(SEIZE, task, 0, OPTIONS):
                        ptrace(INTERRUPT, task)
                except PermissionError:
                    # Already ours: begun by a thread that is traced.
                    if "TracerPid:\t%d\n" % os.getpid() not in open(f"/proc/{task}/status").read():
                        raise
            known |= tasks

    def what(self, thread, place, arguments):
        try:
            if place[0] == "fd":
                return os.readlink(f"/proc/{thread}/fd/{arguments[place[1]] & 0xFFFFFFFF}")
            path = text(thread, arguments[place[2]])
            if path.startswith("/"):
                return path
            folder = -100 if place[1] is None else signed(arguments[place[1]] & 0xFFFFFFFFFFFFFFFF)
            at = "cwd" if folder in (-100, 0xFFFFFF9C) else f"fd/{folder}"
            return os.path.join(os.readlink(f"/proc/{thread}/{at}"), path)
        except OSError:
            return ""

    def counts(self, what):
        return what.startswith(self.options.below) or (self.options.sockets and what.startswith("socket:"))

    def syscall(self, thread):
        info = ctypes.create_string_buffer(88)
        if not ptrace(SYSCALL_INFO, thread, 88, ctypes.addressof(info)):
            return
        if info.raw[0] == EXIT:
            return self.leave(thread)
        if info.raw[0] != ENTRY:
            return
        number, *arguments = struct.unpack_from("7Q", info.raw, 24)
        if self.options.statfs and number in STATFS:
            self.statfs[thread] = arguments[1]
        if number not in CALLS:
            return
        if self.options.changes and number in FLAGS and not arguments[FLAGS[number]] & CHANGING:
            return
        kind, place = CALLS[number]
        what = self.what(thread, place, arguments)
        if not self.counts(what):
            return
        self.count += 1
        kind = "send" if what.startswith("socket:") else kind
        self.log.write(f"{self.count} {kind} {what}\n")
        if self.count == self.options.at:
            self.strike(thread)

    def registers(self, thread, index, value):
        held = (ctypes.c_ulonglong * 27)()
        ptrace(GETREGS, thread, 0, ctypes.addressof(held))
        held[index] = value & 0xFFFFFFFFFFFFFFFF
        ptrace(SETREGS, thread, 0, ctypes.addressof(held))

    def strike(self, thread):
        if self.options.kill:
            os.kill(self.pid, signal.SIGKILL)
            self.struck()
        else:
            # No such call: the kernel does nothing, and what it says is replaced on the way out.
            self.registers(thread, ORIG_RAX, -1)
            self.failing = thread

    def struck(self):
        self.log.write("struck\n")
        # From here on nothing is looked at any more.
        self.resume = CONT

    def leave(self, thread):
        if thread == self.failing:
            self.registers(thread, RAX, -self.options.errno)
            self.failing = None
            self.struck()
        if thread in self.statfs:
            with open(f"/proc/{thread}/mem", "r+b", 0) as memory:
                memory.seek(self.statfs.pop(thread))
                memory.write(struct.pack("q", self.options.statfs))

    def run(self):
        """Until the process ends; its exit code."""
        while True:
            try:
                thread, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return 0
            if not os.WIFSTOPPED(status):
                if thread == self.pid:
                    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                continue
            stop, event, deliver = os.WSTOPSIG(status), status >> 16, 0
            if stop == signal.SIGTRAP | 0x80:
                self.syscall(thread)
            elif event == EVENT_STOP and stop in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                ptrace(LISTEN, thread)
                continue
            elif not event:
                deliver = stop
            ptrace(self.resume, thread, 0, deliver)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--below", required=True)
    parser.add_argument("--sockets", action="store_true")
    parser.add_argument("--changes", action="store_true")
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--errno", type=int)
    parser.add_argument("--statfs", type=lambda magic: int(magic, 0))
    parser.add_argument("--pid", type=int)
    parser.add_argument("program", nargs="*")
    options = parser.parse_args()
    if os.uname().machine != "x86_64":
        sys.exit("this tracer knows x86-64 only")
    if options.pid:
        tracer = Tracer(options, options.pid)
        tracer.seize()
    else:
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)
            os.execvp(options.program[0], options.program)
        tracer = Tracer(options, child)
        tracer.seize()
        os.close(go)
    tracer.log.write("ready\n")
    # Nothing of the tracer's may stay in the traced program's pipes.
    code = tracer.run()
    sys.exit(code)


main()
