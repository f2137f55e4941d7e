"""What the Python scripts share; clients_test.go says what they must print."""
import os
import sys
import time

env = os.environ
_count = _failed = 0


def ok(claim, holds, got=None):
    global _count, _failed
    _count += 1
    if holds:
        print("ok", claim, flush=True)
    else:
        _failed += 1
        print("FAILED %s: %.400r" % (claim, got), flush=True)


def equal(claim, got, want):
    ok(claim, got == want and type(got) is type(want), {"got": got, "want": want})


def raises(claim, errors, f, *args, **options):
    """Checks that the call raises one of errors, and returns what it raised as text."""
    try:
        got = f(*args, **options)
    except errors as e:
        ok(claim, True)
        return str(e)
    except Exception as e:
        got = e
    ok(claim, False, got)
    return ""


def until(claim, holds):
    """Waits for an event that nothing announces."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if holds():
            return ok(claim, True)
        time.sleep(0.02)
    ok(claim, False, "not within 20 s")


def ask(what):
    """Has the main server stopped or started."""
    print("@" + what, flush=True)
    sys.stdin.readline()


def address(name):
    host, port = env[name].rsplit(":", 1)
    return host, int(port)


class Watched:
    """Passes everything on to a client and notes which of its methods are called."""

    called = {}

    def __init__(self, client):
        self.__dict__["client"] = client

    def __getattr__(self, name):
        value = getattr(self.client, name)
        if callable(value):
            Watched.called.setdefault(type(self.client), set()).add(name)
        return value


def all_called(kind, *rest):
    """Checks that every public method of a class was called on a Watched one, but for the rest."""
    public = {n for n in dir(kind) if not n.startswith("_") and callable(getattr(kind, n))}
    equal("every method of %s was called" % kind.__name__, sorted(public - Watched.called.get(kind, set()) - set(rest)), [])


def done():
    print("%d checks" % _count + (", %d failed" % _failed if _failed else ""), flush=True)
    sys.exit(1 if _failed else 0)
