"""The whole surface of pymemcache: text protocol; one connection, a pool, a hash ring, retries."""
import ssl
import threading
import time

from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import (
    MemcacheClientError, MemcacheError, MemcacheIllegalInputError, MemcacheServerError, MemcacheUnexpectedCloseError, MemcacheUnknownCommandError)

from check import Watched, address, all_called, ask, done, env, equal, ok, raises, until

MAIN, SECOND, THIRD = address("MAIN"), address("SECOND"), address("THIRD")


def common(name, c):
    """What all clients have. Their default is noreply, so everything is done both ways."""
    def claim(text):
        return "%s: %s" % (name, text)

    for what, value in (("text", b"value"), ("nothing", b""), ("line ends and protocol words", b"a\r\nEND\r\nb"), ("all bytes", bytes(range(256))), ("900 KiB", b"v" * (900 << 10))):
        equal(claim("set takes " + what), c.set("value", value, noreply=False), True)
        equal(claim("get gives %s back" % what), c.get("value"), value)
    equal(claim("get of a missing key"), c.get("missing"), None)
    equal(claim("get with a default"), c.get("missing", default=7), 7)
    for noreply in (False, True):
        def then(text):
            return claim(text + (", noreply" if noreply else ""))
        def result(r):
            return True if noreply else r
        c.delete("k", noreply=False)
        equal(then("replace of a missing key"), c.replace("k", "no", noreply=noreply), result(False))
        equal(then("append to a missing key"), c.append("k", "no", noreply=noreply), result(False))
        equal(then("prepend to a missing key"), c.prepend("k", "no", noreply=noreply), result(False))
        equal(then("none of these stored"), c.get("k"), None)
        equal(then("add of a new key"), c.add("k", "one", noreply=noreply), True)
        equal(then("add of an existing key"), c.add("k", "two", noreply=noreply), result(False))
        equal(then("the value of the first add"), c.get("k"), b"one")
        equal(then("replace"), c.replace("k", "three", noreply=noreply), True)
        equal(then("append"), c.append("k", "-end", noreply=noreply), True)
        equal(then("prepend"), c.prepend("k", "start-", noreply=noreply), True)
        equal(then("the value of all these"), c.get("k"), b"start-three-end")
        value, cas = c.gets("k")
        equal(then("gets"), value, b"start-three-end")
        ok(then("the CAS id is digits"), cas.isdigit(), cas)
        equal(then("cas with the current id"), c.cas("k", "four", cas, noreply=noreply), True)
        equal(then("cas with an old id"), c.cas("k", "five", cas, noreply=noreply), result(False))
        equal(then("cas of a missing key"), c.cas("none", "x", cas, noreply=noreply), True if noreply else None)
        equal(then("the value of the first cas"), c.get("k"), b"four")
        equal(then("touch"), c.touch("k", 600, noreply=noreply), True)
        equal(then("touch of a missing key"), c.touch("none", 600, noreply=noreply), result(False))
        equal(then("touch with a negative time"), c.touch("k", -1, noreply=noreply), True)
        equal(then("ends the item"), c.get("k"), None)
        equal(then("set of a counter"), c.set("n", "10", noreply=noreply), True)
        equal(then("incr"), c.incr("n", 5, noreply=noreply), None if noreply else 15)
        equal(then("decr"), c.decr("n", 3, noreply=noreply), None if noreply else 12)
        equal(then("the counter"), int(c.get("n")), 12)
        equal(then("incr of a missing key"), c.incr("none", 5, noreply=noreply), None)
        equal(then("decr of a missing key"), c.decr("none", 5, noreply=noreply), None)
        equal(then("decr below zero"), c.decr("n", 50, noreply=noreply), None if noreply else 0)
        many = {"many%d" % i: b"value %d" % i for i in range(100)}
        equal(then("set_many"), c.set_many(many, noreply=noreply), [])
        equal(then("get_many"), c.get_many(list(many) + ["missing"]), many)
        equal(then("delete_many"), c.delete_many(list(many)[:50], noreply=noreply), True)
        equal(then("get_multi"), c.get_multi(list(many)), {k: many[k] for k in list(many)[50:]})
        equal(then("set_multi"), c.set_multi(many, expire=600, noreply=noreply), [])
        equal(then("gets_many"), {k: v[0] for k, v in c.gets_many(many).items()}, many)
        equal(then("delete_multi"), c.delete_multi(list(many), noreply=noreply), True)
        equal(then("all are deleted"), c.get_many(many), {})
        equal(then("delete"), c.delete("n", noreply=noreply), True)
        equal(then("delete of a missing key"), c.delete("n", noreply=noreply), result(False))
        equal(then("set with a lifetime"), c.set("brief", "x", expire=1, noreply=noreply), True)
        until(then("it expires"), lambda: c.get("brief") is None)
        equal(then("set with a time gone by"), c.set("brief", "x", expire=int(time.time()) - 100, noreply=noreply), True)
        equal(then("is gone"), c.get("brief"), None)
        equal(then("set before flush"), c.set("k", "x", noreply=noreply), True)
        c.flush_all(noreply=noreply)
        equal(then("after flush_all nothing is there"), c.get("k"), None)
    c.set("word", "abc", noreply=False)
    for f in (c.incr, c.decr):
        equal(claim("%s of a word" % f.__name__), raises(claim("%s of a word is refused" % f.__name__), MemcacheClientError, f, "word", 1),
              "b'cannot increment or decrement non-numeric value'")
    long = "k" * 250
    equal(claim("set of a key of 250 bytes"), c.set(long, "x", noreply=False), True)
    equal(claim("get of a key of 250 bytes"), c.get(long), b"x")
    for bad in (long + "k", "a b", "a\r\nb", "ключ"):
        raises(claim("get of %.6r… is refused by the client" % bad), MemcacheIllegalInputError, c.get, bad)
    c.set("large", "old", noreply=False)
    equal(claim("set of 2 MiB"), raises(claim("set of 2 MiB is refused"), MemcacheServerError, c.set, "large", b"v" * (2 << 20), noreply=False), "b'object too large for cache'")
    until(claim("and takes the old value with it"), lambda: c.get("large") is None)
    c.quit()
    equal(claim("quit, and the next call connects again"), c.get(long), b"x")
    c.disconnect_all()
    equal(claim("disconnect_all, and the next call connects again"), c.get(long), b"x")


def mapping(name, c):
    c["item"] = "x"
    equal("%s: c[k] = v" % name, c["item"], b"x")
    del c["item"]
    raises("%s: del c[k]" % name, KeyError, lambda: c["item"])


def administration(name, c):
    ok("%s: version" % name, len(c.version().split(b".")) == 3, c.version())
    stats = c.stats()
    ok("%s: stats are of the right types" % name, stats[b"cmd_set"] > 100 and stats[b"rusage_user"] >= 0.0 and isinstance(stats[b"version"], bytes), stats)
    settings = c.stats("settings")
    equal("%s: stats settings" % name, (settings[b"maxbytes"], settings[b"cas_enabled"], settings[b"inter"], settings[b"growth_factor"]), (64 << 20, b"yes", b"127.0.0.1", 1.25))
    c.set("k", "x", noreply=False)
    ok("%s: stats items" % name, any(k.endswith(b":number") for k in c.stats("items")))
    ok("%s: stats slabs" % name, any(k.endswith(b":chunk_size") for k in c.stats("slabs")))
    equal("%s: stats cachedump of an empty class" % name, c.stats("cachedump", "30", "5"), {})
    equal("%s: stats sizes" % name, c.stats("sizes"), {b"sizes_status": b"disabled"})
    equal("%s: stats detail on" % name, c.stats("detail", "on"), {})
    equal("%s: stats detail off" % name, c.stats("detail", "off"), {})
    ok("%s: stats conns" % name, any(v == b"conn_listening" for v in c.stats("conns").values()), c.stats("conns"))
    raises("%s: stats of an unknown name" % name, (MemcacheError, ValueError), c.stats, "nonsense")


def delayed_flush():
    c.set("k", "x")
    equal("flush_all with a delay", c.flush_all(delay=3), True)
    equal("does nothing yet", c.get("k"), b"x")
    until("but when the time comes", lambda: c.get("k") is None)
    c.flush_all()  # memcached's delayed flush goes on hiding what is stored in its second


def serialization():
    for protocol in range(0, 5):
        c = Client(MAIN, serde=serde.PickleSerde(pickle_version=protocol), default_noreply=False)
        for value in (b"bytes", "text äöü 世界", 5, 1 << 100, {"a": [1, None, (2, 3)]}, None, 1.5, True):
            c.set("object", value)
            # None is what a miss is, too
            equal("pickle %d: %r" % (protocol, value), c.get("object", default="missing"), value)
        c.close()
    c = Client(MAIN, serializer=lambda key, value: (repr(value), 0xFFFFFFFF), deserializer=lambda key, value, flags: (value, flags))
    c.set("flags", [1, 2])
    equal("flags of 32 bits", c.get("flags"), (b"[1, 2]", 0xFFFFFFFF))
    c.set("flags", [1, 2], flags=17)
    equal("flags of the caller", c.get("flags"), (b"[1, 2]", 17))
    c.close()


def options():
    c = Client(MAIN, key_prefix=b"prefix:", default_noreply=False, no_delay=True, timeout=10, connect_timeout=10)
    c.set("k", "x")
    equal("get_many with a prefix gives names without it", c.get_many(["k", "none"]), {"k": b"x"})
    c.close()
    c = Client(MAIN, allow_unicode_keys=True, encoding="utf8", default_noreply=False)
    equal("the prefix is part of the key", c.get("prefix:k"), b"x")
    c.set("ключ", "значение")
    equal("keys and values of several bytes a character", c.get("ключ").decode(), "значение")
    equal("bytes as a key", c.get("ключ".encode()).decode(), "значение")
    c.close()
    for name in (env["UNIX"], "unix:" + env["UNIX"]):
        c = Client(name, default_noreply=False)
        c.set("k", name)
        equal("a unix socket", c.get("k"), name.encode())
        c.close()


def pool():
    c = Watched(PooledClient(MAIN, max_pool_size=8, default_noreply=False, timeout=20))
    common("pool", c)
    mapping("pool", c.client)
    administration("pool", c)
    wrong = []

    def worker(w):
        for i in range(200):
            key, value = "thread%d-%d" % (w, i), "value %d %d" % (w, i)
            c.set(key, value)
            if c.get(key) != value.encode():
                wrong.append(key)
            c.incr("sum", 1)
    c.set("sum", "0")
    threads = [threading.Thread(target=worker, args=(w,)) for w in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal("eight threads read what they wrote", wrong, [])
    equal("and their sums add up", int(c.get("sum")), 1600)
    c.close()
    return c


def ring():
    servers = [MAIN, SECOND, THIRD]
    for pooling in (False, True):
        name = "ring of pools" if pooling else "ring"
        c = Watched(HashClient(servers, use_pooling=pooling, default_noreply=False, timeout=20))
        common(name, c)
        want = {"ring%d" % i: b"%d" % i for i in range(90)}
        c.set_many(want)
        equal(name + ": get_many", c.get_many(want), want)
        equal(name + ": gets_multi", {k: v[0] for k, v in c.gets_multi(list(want)).items()}, want)
        shares = [len(Client(s).get_many(want)) for s in servers]
        ok(name + ": each server has a share, together all", all(shares) and sum(shares) == 90, shares)
        c.client._failed_clients[THIRD] = {}  # this version removes servers that have failed, and stumbles over others
        c.remove_server(*THIRD)
        equal(name + ": what was not on a removed server is found", len(c.get_many(want)), shares[0] + shares[1])
        c.add_server(*THIRD)
        equal(name + ": and with the server back everything", c.get_many(want), want)
        c.close()
    all_called(HashClient, "client_class")


def warm_restart(end):
    name = "restart by " + end.__name__
    c = Client(MAIN, default_noreply=False, timeout=20)
    retrying = RetryingClient(Client(MAIN, default_noreply=False, timeout=20), attempts=1000, retry_delay=0.02, retry_for=[ConnectionError, MemcacheUnexpectedCloseError])
    want = {"warm%d" % i: b"%d" % i * (i + 1) for i in range(100)}
    c.set_many(want, expire=600, flags=3)
    cas = c.gets("warm5")[1]
    equal(name + ": delete before", c.delete("warm0"), True)
    equal(name + ": through retries before", retrying.get("warm7"), b"7" * 8)
    end()

    def refused():
        try:
            c.get("warm1")
        except (ConnectionError, MemcacheUnexpectedCloseError):
            return True
    until(name + ": get from a stopped server is an error", refused)
    equal(name + ": with ignore_exc that is a miss", Client(MAIN, ignore_exc=True).get("warm1", default="miss"), "miss")
    later = []
    thread = threading.Thread(target=lambda: later.append(retrying.get("warm8")))
    thread.start()
    ask("start")
    thread.join(20)
    equal(name + ": one that retries has been answered", later, [b"8" * 9])
    del want["warm0"]
    equal(name + ": the cache is warm", c.get_many(["warm%d" % i for i in range(100)]), want)
    equal(name + ": a CAS id from before fits", c.cas("warm5", "new", cas), True)
    equal(name + ": once", c.cas("warm5", "newer", cas), False)
    c.close()


def tls():
    """The same over TLS; the server's certificate is verified."""
    context = ssl.create_default_context(cafile=env["TLS_CA"])
    for name, kind in (("client over TLS", Client), ("pool over TLS", PooledClient)):
        c = kind(address("TLS"), default_noreply=False, timeout=20, tls_context=context)
        common(name, c)
        mapping(name, c)
        c.close()
    c = Client(address("TLS"), default_noreply=False, timeout=20, tls_context=context)
    c.get("k")
    equal("TLS: the newest version is spoken", c.sock.version(), "TLSv1.3")
    equal("TLS: ssl_enabled", c.stats("settings")[b"ssl_enabled"], b"yes")
    c.close()
    old = ssl.create_default_context(cafile=env["TLS_CA"])
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    c = Client(address("TLS"), default_noreply=False, timeout=20, tls_context=old)
    equal("TLS 1.2: set", c.set("old", "x"), True)
    equal("TLS 1.2: get", c.get("old"), b"x")
    equal("TLS 1.2 it is", c.sock.version(), "TLSv1.2")
    c.close()
    raises("TLS: a client that does not know the authority", ssl.SSLCertVerificationError, Client(address("TLS"), timeout=20, tls_context=ssl.create_default_context()).get, "k")
    raises("TLS: a plain client", (MemcacheError, OSError), Client(address("TLS"), timeout=20).get, "k")
    raises("TLS: to a plain server", OSError, Client(SECOND, timeout=20, tls_context=context).get, "k")
    raises("MTLS: a client without a certificate", (MemcacheError, OSError), Client(address("MTLS"), timeout=20, tls_context=context).get, "k")
    context.load_cert_chain(env["TLS_CERT"], env["TLS_KEY"])
    c = Client(address("MTLS"), default_noreply=False, timeout=20, tls_context=context)
    equal("MTLS: with a certificate", c.set("k", b"v" * (900 << 10)), True)
    equal("MTLS: a large value", c.get("k"), b"v" * (900 << 10))
    c.close()
    c = HashClient([address("TLS")], default_noreply=False, timeout=20, tls_context=context)
    equal("ring over TLS: set", c.set("ring", "x"), True)
    equal("ring over TLS: get", c.get("ring"), b"x")
    c.close()


def kill():
    ask("stop")


def failover():
    c = HashClient([MAIN, SECOND], retry_attempts=0, retry_timeout=0.05, dead_timeout=600, default_noreply=False, ignore_exc=False, timeout=20)
    keys = ["over%d" % i for i in range(20)]
    ask("stop")

    def stored():
        try:
            return all(c.set(k, "x") for k in keys)
        except (ConnectionError, MemcacheUnexpectedCloseError):
            return False
    until("failover: a dead server leaves the ring", stored)
    equal("failover: the other has all", sorted(Client(SECOND).get_many(keys)), sorted(keys))
    ask("start")


c = Watched(Client(MAIN, default_noreply=False, timeout=20))
common("client", c)
mapping("client", c.client)
administration("client", c)
_, cas = c.gets("missing", cas_default="none")
equal("gets of a missing key with a default", cas, "none")
c.check_key("k")
c.disconnect_all()
raises("cache_memlimit of nothing is refused", MemcacheError, c.cache_memlimit, 0)
equal("cache_memlimit", Client(SECOND).cache_memlimit(128), True)
equal("stats settings has it", Client(SECOND).stats("settings")[b"maxbytes"], 128 << 20)
delayed_flush()
serialization()
options()
p = pool()
p.check_key("k")
ring()
tls()
warm_restart(kill)


def shutdown():
    c.close()  # what it has is a connection to a server that is no more, and shutdown is content with that
    c.shutdown(graceful=True)


def shutdown_of_a_pool():
    p.close()
    p.shutdown(graceful=True)


warm_restart(shutdown)
warm_restart(shutdown_of_a_pool)
failover()
c.close()
all_called(Client)
all_called(PooledClient, "client_class")
done()
