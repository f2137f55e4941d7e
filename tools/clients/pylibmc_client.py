"""The whole surface of pylibmc, libmemcached from Python: text and binary protocol, pools, consistent hashing."""
import threading

import pylibmc

from check import Watched, all_called, ask, done, env, equal, ok, raises, until

MAIN, SECOND, THIRD = env["MAIN"], env["SECOND"], env["THIRD"]


def declined(f, *args):
    """Calls f, which over the binary protocol raises what over text it returns as False."""
    try:
        return f(*args)
    except (pylibmc.NotFound, pylibmc.DataExists):
        return False


def whole(name, binary, behaviors, servers=(MAIN,), **options):
    def claim(text):
        return "%s: %s" % (name, text)

    c = Watched(pylibmc.Client(list(servers), binary=binary, behaviors=dict(behaviors, cas=True), **options))
    for value in (b"bytes \0\r\n", "text äöü 世界", "", b"", 5, -5, 1 << 40, 1.5, None, {"a": [1, None, (2, 3)]}, "v" * (900 << 10)):
        what = repr(value)[:40]
        equal(claim("set of " + what), c.set("value", value), True)
        equal(claim("get of " + what), c.get("value", "missing"), value)
    equal(claim("True is stored as a number"), (c.set("value", True), c.get("value")), (True, 1))
    equal(claim("get of a missing key"), c.get("missing"), None)
    equal(claim("get with a default"), c.get("missing", 7), 7)
    text = "compress me " * 10000
    equal(claim("set compressed"), c.set("packed", text, min_compress_len=100, compress_level=9), True)
    equal(claim("get compressed"), c.get("packed"), text)

    c.delete("k")
    equal(claim("replace of a missing key"), declined(c.replace, "k", "no"), False)
    equal(claim("append to a missing key"), declined(c.append, "k", "no"), False)
    equal(claim("prepend to a missing key"), declined(c.prepend, "k", "no"), False)
    equal(claim("add of a new key"), c.add("k", "one"), True)
    equal(claim("add of an existing key"), declined(c.add, "k", "two"), False)
    equal(claim("replace"), c.replace("k", "three"), True)
    equal(claim("append"), c.append("k", "-end"), True)
    equal(claim("prepend"), c.prepend("k", "start-"), True)
    value, cas = c.gets("k")
    equal(claim("gets"), value, "start-three-end")
    ok(claim("a CAS id"), cas > 0, cas)
    equal(claim("cas with the current id"), c.cas("k", "four", cas), True)
    equal(claim("cas with an old id"), declined(c.cas, "k", "five", cas), False)
    raises(claim("cas of a missing key"), pylibmc.NotFound, c.cas, "none", "x", cas)
    equal(claim("gets of a missing key"), c.gets("missing"), (None, None))
    equal(claim("the value of the first cas"), c.get("k"), "four")
    equal(claim("touch"), c.touch("k", 600), True)
    equal(claim("touch of a missing key"), declined(c.touch, "missing", 600), False)
    equal(claim("delete"), c.delete("k"), True)
    equal(claim("delete of a missing key"), c.delete("k"), False)

    equal(claim("set of a counter"), c.set("n", 10), True)
    equal(claim("incr"), c.incr("n", 5), 15)
    equal(claim("decr"), c.decr("n", 3), 12)
    equal(claim("incr by one"), c.incr("n"), 13)
    equal(claim("decr below zero"), c.decr("n", 100), 0)
    equal(claim("incr beyond 63 bits"), (c.set("n", (1 << 63) - 1), c.incr("n", 2)), (True, (1 << 63) + 1))
    raises(claim("incr of a missing key"), pylibmc.NotFound, c.incr, "missing")
    raises(claim("decr of a missing key"), pylibmc.NotFound, c.decr, "missing")
    c.set("word", "abc")
    raises(claim("incr of a word"), pylibmc.Error, c.incr, "word")
    c.set_multi({"c%d" % i: i for i in range(3)})
    c.incr_multi(["c%d" % i for i in range(3)], delta=10)
    equal(claim("incr_multi"), c.get_multi(["c0", "c1", "c2"]), {"c0": 10, "c1": 11, "c2": 12})
    raises(claim("incr_multi with a missing key"), pylibmc.NotFound, c.incr_multi, ["c0", "missing"])

    many = {"many%d" % i: "value %d" % i for i in range(200)}
    equal(claim("set_multi"), c.set_multi(many, key_prefix="p:", time=600), [])
    equal(claim("get_multi"), c.get_multi(list(many) + ["missing"], key_prefix="p:"), many)
    equal(claim("the prefix is part of the key"), c.get("p:many7"), "value 7")
    equal(claim("add_multi of existing and new keys"), (c.delete("p:many3"), sorted(set(c.add_multi(many, key_prefix="p:")) & {"p:many3", "many3"})), (True, []))
    equal(claim("delete_multi"), c.delete_multi(list(many), key_prefix="p:"), True)
    equal(claim("delete_multi of missing keys"), c.delete_multi(list(many), key_prefix="p:"), False)
    equal(claim("get_multi of none"), c.get_multi(list(many), key_prefix="p:"), {})

    equal(claim("set with a lifetime"), c.set("brief", "x", time=1), True)
    until(claim("it expires"), lambda: c.get("brief") is None)

    c.client["item"] = "x"
    equal(claim("c[k] = v"), (c.client["item"], "item" in c.client), ("x", True))
    del c.client["item"]
    raises(claim("del c[k]"), KeyError, lambda: c.client["item"])

    long = "k" * 250
    equal(claim("set of a key of 250 bytes"), c.set(long, "x"), True)
    equal(claim("get of a key of 250 bytes"), c.get(long), "x")
    raises(claim("a longer key is refused by the client"), (ValueError, pylibmc.Error), c.set, long + "k", "x")
    c.set("large", "old")
    # libmemcached's word for what the server refuses differs with the protocol.
    raises(claim("2 MiB of noise are refused"), (pylibmc.Error,), c.set, "large", b"\xff\x00" * (1 << 20))
    until(claim("and take the old value with them"), lambda: c.get("large") is None)

    stats = c.get_stats()
    equal(claim("stats of every server"), len(stats), len(servers))
    got = {k: v for k, v in stats[0][1].items()}
    ok(claim("stats has the counters"), int(got[b"cmd_set" if b"cmd_set" in got else "cmd_set"]) > 0, got)
    # The library puts what it gets into a fixed form, in which the settings have no place.
    equal(claim("stats settings of every server"), len(c.get_stats("settings")), len(servers))

    equal(claim("hash is a server's number"), 0 <= c.hash("k") < 1 << 32, True)
    other = c.clone()
    equal(claim("a clone reads the same"), other.get(long), "x")
    equal(claim("behaviors"), (c.get_behaviors()["cas"], c.behaviors["cas"]), (1, 1))
    c.set_behaviors({"tcp_nodelay": True})
    equal(claim("set_behaviors"), c.get_behaviors()["tcp_nodelay"], 1)
    equal(claim("flush_all"), c.flush_all(), True)
    equal(claim("after flush_all nothing is there"), c.get(long), None)
    c.disconnect_all()
    equal(claim("disconnect_all, and the next call connects again"), (c.set("k", "x"), c.get("k")), (True, "x"))

    class Own(pylibmc.Client):
        """serialize and deserialize are there to be overridden."""

        def serialize(self, value):
            return repr(value).encode(), 1 << 20

        def deserialize(self, value, flags):
            return value, flags

    own = Own(list(servers), binary=binary, behaviors=behaviors, **options)
    own.set("own", [1])
    equal(claim("flags of a serializer"), own.get("own"), (b"[1]", 1 << 20))


def noreply():
    c = pylibmc.Client([MAIN], behaviors={"_noreply": True})
    reader = pylibmc.Client([MAIN])
    for i in range(100):
        c.set("quiet%d" % i, i)
    c.delete("quiet5")
    c.incr("quiet6", 1)
    until("noreply: all has been done", lambda: reader.get("quiet99") == 99 and reader.get("quiet5") is None)
    buffered = pylibmc.Client([MAIN], behaviors={"buffer_requests": True})
    raises("buffer_requests: a set says that it is buffered", pylibmc.Error, buffered.set, "buffered", 42)
    equal("buffer_requests: a get sends it", (buffered.get("none"), reader.get("buffered")), (None, 42))


def pools():
    for pool in (pylibmc.ClientPool(pylibmc.Client([MAIN], binary=True), 8), pylibmc.ThreadMappedPool(pylibmc.Client([MAIN]))):
        name = type(pool).__name__
        wrong = []
        with pool.reserve() as c:
            c.set("sum", 0)

        def worker(w):
            for i in range(100):
                with pool.reserve() as c:
                    key = "%s%d-%d" % (name, w, i)
                    if not c.set(key, i) or c.get(key) != i:
                        wrong.append(key)
                    c.incr("sum")
            if isinstance(pool, pylibmc.ThreadMappedPool):
                pool.relinquish()
        threads = [threading.Thread(target=worker, args=(w,)) for w in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        with pool.reserve() as c:
            equal("%s: eight threads read what they wrote, and their sums add up" % name, (wrong, c.get("sum")), ([], 800))


def ring():
    servers = [MAIN, SECOND, THIRD]
    want = {"ring%d" % i: i for i in range(90)}
    for name, behaviors in (("ketama", {"ketama": True}), ("modula", {"distribution": "modula", "hash": "fnv1a_32"}), ("consistent", {"distribution": "consistent", "hash": "md5"})):
        for binary in (False, True):
            c = pylibmc.Client(servers, binary=binary, behaviors=behaviors)
            c.flush_all()
            # flush_all kills what was stored before it, in memcached also within the second
            equal("%s, binary %s: set_multi and get_multi" % (name, binary), (c.set_multi(want), c.get_multi(list(want))), ([], want))
            shares = [len(pylibmc.Client([s], binary=binary).get_multi(list(want))) for s in servers]
            ok("%s, binary %s: each server has a share, together all" % (name, binary), all(shares) and sum(shares) == 90, shares)


def sasl():
    if "SASL" not in env:
        return
    whole("sasl", True, {}, [env["SASL"]], username=env["SASL_USER"], password=env["SASL_PASSWORD"])
    wrong = pylibmc.Client([env["SASL"]], binary=True, username=env["SASL_USER"], password="wrong")
    raises("a wrong password", pylibmc.Error, wrong.set, "k", "x")


def restart(binary):
    name = "binary %s: " % binary
    c = pylibmc.Client([MAIN], binary=binary, behaviors={"cas": True, "retry_timeout": 1, "tcp_nodelay": True})
    want = {"warm%d" % i: {"i": i, "v": "v" * i * 50} for i in range(100)}
    equal(name + "set_multi before the restart", c.set_multi(want, time=600), [])
    equal(name + "delete before the restart", c.delete("warm0"), True)
    del want["warm0"]
    cas = c.gets("warm5")[1]
    ask("stop")
    raises(name + "get from a stopped server", pylibmc.Error, c.get, "warm1")
    ask("start")

    def served():
        try:
            return c.get("warm1") == want["warm1"]
        except pylibmc.Error:
            return False
    until(name + "the client reconnects by itself", served)
    equal(name + "the cache is warm", c.get_multi(["warm%d" % i for i in range(100)]), want)
    equal(name + "a CAS id from before fits", c.cas("warm5", "new", cas), True)
    equal(name + "once", declined(c.cas, "warm5", "newer", cas), False)


def failover():
    c = pylibmc.Client([MAIN, SECOND], behaviors={"ketama": True, "remove_failed": 1, "retry_timeout": 1, "dead_timeout": 600})
    keys = ["over%d" % i for i in range(20)]
    ask("stop")

    def stored():
        try:
            return all(c.set(k, "x") for k in keys)
        except pylibmc.Error:
            return False
    until("failover: a dead server leaves the ring", stored)
    equal("failover: the other has all", len(pylibmc.Client([SECOND]).get_multi(keys)), 20)
    ask("start")


whole("text", False, {})
whole("binary", True, {})
whole("binary, no_block", True, {"no_block": True, "tcp_nodelay": True})
whole("ring", False, {"ketama": True}, [MAIN, SECOND, THIRD])
whole("unix", False, {}, [env["UNIX"]])
noreply()
pools()
ring()
sasl()
restart(False)
restart(True)
failover()
all_called(pylibmc.Client, "serialize", "deserialize", "behaviours")  # by the library itself
done()
