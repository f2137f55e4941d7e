<?php
// The whole surface of PHP's Memcached, over libmemcached: text and binary protocol, serializers, compression, keys by server, sessions.
declare(strict_types=1);

$count = $failed = 0;

function ok(string $claim, bool $holds, mixed $got = null): void
{
    global $count, $failed;
    $count++;
    if ($holds) {
        echo "ok $claim\n";
        return;
    }
    $failed++;
    echo "FAILED $claim: ", substr(json_encode($got, JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE) ?: 'unprintable', 0, 400), "\n";
}

function is(string $claim, mixed $got, mixed $want): void
{
    ok($claim, $got === $want, ['got' => $got, 'want' => $want]);
}

/** Waits for an event that nothing announces. */
function until(string $claim, callable $holds): void
{
    for ($end = microtime(true) + 20; microtime(true) < $end; usleep(20000)) {
        if ($holds()) {
            ok($claim, true);
            return;
        }
    }
    ok($claim, false, 'not within 20 s');
}

/** Has the main server stopped or started. */
function ask(string $what): void
{
    echo "@$what\n";
    fgets(STDIN);
}

/** Notes which methods of a client are called. */
final class Watched
{
    public static array $called = [];

    public function __construct(public Memcached $client)
    {
        self::$called['__construct'] = true;
    }

    public function __call(string $name, array $arguments): mixed
    {
        self::$called[$name] = true;
        return $this->client->$name(...$arguments);
    }
}

/** @param list<string> $servers */
function client(array $servers, array $options = [], ?string $persistent = null): Watched
{
    $c = new Watched(new Memcached($persistent));
    foreach ($options as $option => $value) {
        is("setOption $option", $c->setOption($option, $value), true);
        ok("getOption $option", $c->getOption($option) == $value, $c->getOption($option)); // a truth comes back as 1
    }
    foreach ($servers as $i => $server) {
        if ($server[0] === '/') {
            $c->addServer($server, 0);
            continue;
        }
        [$host, $port] = explode(':', $server);
        is('addServer', $c->addServer($host, (int)$port, $i + 1), true);
    }
    return $c;
}

function result(Watched $c): string
{
    static $names = null;
    $names ??= array_flip(array_filter((new ReflectionClass(Memcached::class))->getConstants(), fn($v, $k) => str_starts_with($k, 'RES_'), ARRAY_FILTER_USE_BOTH));
    return $names[$c->getResultCode()] ?? $c->getResultMessage();
}

function values(string $name, Watched $c): void
{
    foreach (['text', '', "line\r\nEND\r\n\0", 'äöü 世界', 5, -7, PHP_INT_MAX, 1.5, true, false, null, [1, 'a' => [true, null]], str_repeat('v', 900 << 10)] as $value) {
        $what = substr(json_encode($value), 0, 30);
        is("$name: set of $what", $c->set('value', $value), true);
        is("$name: get of $what", $c->get('value'), $value);
        is("$name: with success", result($c), 'RES_SUCCESS');
    }
}

function whole(string $name, Watched $c, bool $binary): void
{
    values($name, $c);
    $c->deleteMulti(['k', 'i', 'd', 'is', 'ds', 'filled']);
    is("$name: get of a missing key", [$c->get('missing'), result($c), $c->getResultMessage()], [false, 'RES_NOTFOUND', 'NOT FOUND']);
    is("$name: get with a callback that fills", $c->get('filled', function ($m, $key, &$value) {
        $value = "for $key";
        return true;
    }), 'for filled');
    is("$name: is stored", $c->get('filled'), 'for filled');

    $c->setOption(Memcached::OPT_COMPRESSION, false); // it excludes append
    is("$name: replace of a missing key", [$c->replace('k', 'no'), result($c)], [false, $binary ? 'RES_NOTFOUND' : 'RES_NOTSTORED']);
    is("$name: append to a missing key", [$c->append('k', 'no'), result($c)], [false, 'RES_NOTSTORED']);
    is("$name: prepend to a missing key", [$c->prepend('k', 'no'), result($c)], [false, 'RES_NOTSTORED']);
    is("$name: add of a new key", $c->add('k', 'one'), true);
    is("$name: add of an existing key", [$c->add('k', 'two'), result($c)], [false, $binary ? 'RES_DATA_EXISTS' : 'RES_NOTSTORED']);
    is("$name: replace", $c->replace('k', 'three'), true);
    is("$name: append", $c->append('k', '-end'), true);
    is("$name: prepend", $c->prepend('k', 'start-'), true);
    $got = $c->get('k', null, Memcached::GET_EXTENDED);
    is("$name: the value of all these", $got['value'], 'start-three-end');
    is("$name: cas with the current id", $c->cas($got['cas'], 'k', 'four'), true);
    is("$name: cas with an old id", [$c->cas($got['cas'], 'k', 'five'), result($c)], [false, 'RES_DATA_EXISTS']);
    is("$name: cas of a missing key", [$c->cas($got['cas'], 'none', 'x'), result($c)], [false, 'RES_NOTFOUND']);
    is("$name: the value of the first cas", $c->get('k'), 'four');
    is("$name: touch", $c->touch('k', 600), true);
    is("$name: touch of a missing key", [$c->touch('missing', 600), result($c)], [false, 'RES_NOTFOUND']);
    is("$name: delete", $c->delete('k'), true);
    is("$name: delete of a missing key", [$c->delete('k'), result($c)], [false, 'RES_NOTFOUND']);
    $c->setOption(Memcached::OPT_COMPRESSION, true);

    $c->set('n', 10);
    is("$name: increment", $c->increment('n', 5), 15);
    is("$name: decrement", $c->decrement('n', 3), 12);
    is("$name: increment by one", $c->increment('n'), 13);
    is("$name: decrement below zero", $c->decrement('n', 100), 0);
    if ($binary) {
        is("$name: increment with an initial value", [$c->increment('i', 5, 100, 600), $c->increment('i', 5, 100, 600)], [100, 105]);
        is("$name: decrement with an initial value", [$c->decrement('d', 5, 100, 600), $c->decrement('d', 5, 100, 600)], [100, 95]);
        is("$name: increment by server with an initial value", $c->incrementByKey('server', 'is', 1, 7), 7);
        is("$name: decrement by server with an initial value", $c->decrementByKey('server', 'ds', 1, 7), 7);
    }
    is("$name: increment of a missing key", [@$c->increment('missing'), result($c)], [false, 'RES_NOTFOUND']);
    $c->set('word', 'abc');
    is("$name: increment of a word", $c->increment('word'), false);

    $many = [];
    for ($i = 0; $i < 100; $i++) {
        $many["many$i"] = ['i' => $i];
    }
    is("$name: setMulti", $c->setMulti($many, 600), true);
    is("$name: getMulti", $c->getMulti([...array_keys($many), 'missing'], Memcached::GET_PRESERVE_ORDER), $many + ['missing' => null]);
    $extended = $c->getMulti(['many1', 'many2'], Memcached::GET_EXTENDED);
    is("$name: getMulti extended", [$extended['many1']['value'], $extended['many2']['cas'] > 0], [['i' => 1], true]);
    is("$name: getDelayed", $c->getDelayed(['many1', 'many2', 'missing'], true), true);
    $first = $c->fetch();
    ok("$name: fetch", in_array($first['key'], ['many1', 'many2']) && $first['value'] === $many[$first['key']] && $first['cas'] > 0, $first);
    is("$name: fetchAll gives the rest", count($c->fetchAll()), 1);
    is("$name: fetch at the end", $c->fetch(), false);
    $seen = [];
    is("$name: getDelayed with a callback", $c->getDelayed(['many3', 'many4'], false, function ($m, $item) use (&$seen) {
        $seen[$item['key']] = $item['value'];
    }), true);
    ksort($seen);
    is("$name: has called it", $seen, ['many3' => ['i' => 3], 'many4' => ['i' => 4]]);
    is("$name: deleteMulti", $c->deleteMulti(['many1', 'many2', 'missing']), ['many1' => true, 'many2' => true, 'missing' => Memcached::RES_NOTFOUND]);
    is("$name: they are gone", $c->getMulti(['many1', 'many2', 'many3']), ['many3' => ['i' => 3]]);

    // The same, each by a key that names the server.
    is("$name: setByKey", $c->setByKey('server', 'k', 'one', 600), true);
    is("$name: getByKey", $c->getByKey('server', 'k'), 'one');
    is("$name: addByKey", $c->addByKey('server', 'k', 'two'), false);
    is("$name: replaceByKey", $c->replaceByKey('server', 'k', 'three'), true);
    $c->setOption(Memcached::OPT_COMPRESSION, false);
    is("$name: appendByKey", $c->appendByKey('server', 'k', '-end'), true);
    is("$name: prependByKey", $c->prependByKey('server', 'k', 'start-'), true);
    $c->setOption(Memcached::OPT_COMPRESSION, true);
    $got = $c->getByKey('server', 'k', null, Memcached::GET_EXTENDED);
    is("$name: casByKey", [$got['value'], $c->casByKey($got['cas'], 'server', 'k', 4), $c->casByKey($got['cas'], 'server', 'k', 5)], ['start-three-end', true, false]);
    is("$name: incrementByKey and decrementByKey", [$c->incrementByKey('server', 'k', 5), $c->decrementByKey('server', 'k', 2)], [9, 7]);
    is("$name: touchByKey", $c->touchByKey('server', 'k', 600), true);
    is("$name: setMultiByKey", $c->setMultiByKey('server', ['a' => 1, 'b' => 2], 600), true);
    is("$name: getMultiByKey", $c->getMultiByKey('server', ['a', 'b', 'missing']), ['a' => 1, 'b' => 2]);
    is("$name: getDelayedByKey", [$c->getDelayedByKey('server', ['a', 'b']), count($c->fetchAll())], [true, 2]);
    is("$name: deleteByKey", $c->deleteByKey('server', 'k'), true);
    is("$name: deleteMultiByKey", $c->deleteMultiByKey('server', ['a', 'b']), ['a' => true, 'b' => true]);

    is("$name: set with a lifetime", $c->set('brief', 'x', 1), true);
    until("$name: it expires", fn() => $c->get('brief') === false);
    is("$name: set with a time gone by", $c->set('brief', 'x', time() - 100), true);
    is("$name: is gone", $c->get('brief'), false);

    $long = str_repeat('k', 200);
    is("$name: a long key", [$c->set($long, 'x'), $c->get($long)], [true, 'x']);
    is("$name: a key that is too long is refused by the client", [$c->set(str_repeat('k', 260), 'x'), result($c)], [false, 'RES_BAD_KEY_PROVIDED']);
    is("$name: checkKey", [$c->checkKey('fine'), $c->checkKey(str_repeat('k', 260))], [true, false]);
    $c->set('large', 'old');
    is("$name: 2 MiB of noise are refused", [$c->set('large', random_bytes(2 << 20)), result($c)], [false, 'RES_E2BIG']);
    until("$name: and take the old value with them", fn() => $c->get('large') === false);
    is("$name: flags of the user", [$c->setOption(Memcached::OPT_USER_FLAGS, 0xBEEF), $c->set('flagged', 'x'),
        $c->get('flagged', null, Memcached::GET_EXTENDED)['flags'] & 0xFFFF, $c->setOption(Memcached::OPT_USER_FLAGS, -1)], [true, true, 0xBEEF, true]);

    ok("$name: getVersion", preg_match('/^\d+\.\d+\.\d+$/', (string)current($c->getVersion())) === 1, $c->getVersion());
    $stats = current($c->getStats());
    ok("$name: getStats", (int)$stats['cmd_set'] > 0 && (int)$stats['pid'] > 0, $stats);
    $settings = current($c->getStats('settings'));
    ok("$name: getStats of settings", (int)($settings['maxbytes'] ?? 0) >= 64 << 20, $settings);
    is("$name: getServerByKey", array_keys($c->getServerByKey('k')), ['host', 'port', 'weight']);
    is("$name: flush", $c->flush(), true);
    is("$name: after flush nothing is there", $c->getMulti(['many3', 'n', 'word']), []);
    is("$name: a flush in the future", [$c->flush(600), $c->set('k', 'x'), $c->get('k'), $c->flush()], [true, true, 'x', true]);
    is("$name: quit, and the next call connects again", [$c->quit(), $c->set('k', 'x'), $c->get('k')], [true, true, 'x']);
}

function serializers(string $main): void
{
    $object = ['list' => [1, 2.5, null], 'text' => "ä\0"];
    foreach ([Memcached::SERIALIZER_PHP, Memcached::SERIALIZER_IGBINARY, Memcached::SERIALIZER_MSGPACK, Memcached::SERIALIZER_JSON_ARRAY, Memcached::SERIALIZER_JSON] as $s) {
        $c = client([$main], [Memcached::OPT_SERIALIZER => $s]);
        $want = $s === Memcached::SERIALIZER_JSON ? (object)['a' => 1] : ($s === Memcached::SERIALIZER_JSON_ARRAY ? ['a' => 1] : $object);
        $c->set('object', $want);
        ok("serializer $s", $c->get('object') == $want, $c->get('object'));
    }
    foreach ([Memcached::COMPRESSION_FASTLZ, Memcached::COMPRESSION_ZLIB] as $type) {
        $c = client([$main], [Memcached::OPT_COMPRESSION => true, Memcached::OPT_COMPRESSION_TYPE => $type]);
        $text = str_repeat('compress me ', 200000);
        is("compression $type of more than fits without", [$c->set('packed', $text), $c->get('packed') === $text], [true, true]);
    }
    $c = client([$main]);
    is('setEncodingKey', $c->setEncodingKey('a secret of sorts'), true);
    is('an encoded value', [$c->set('encoded', 'plain'), $c->get('encoded')], [true, 'plain']);
    ok('is not plain to others', client([$main])->get('encoded') !== 'plain');
}

function options(string $main, string $udp): void
{
    $c = client([$main], [Memcached::OPT_PREFIX_KEY => 'prefix:', Memcached::OPT_TCP_NODELAY => true, Memcached::OPT_NO_BLOCK => true]);
    $c->set('k', 'x');
    is('a prefix', [$c->get('k'), client([$main])->get('prefix:k')], ['x', 'x']);
    $c = client([$main], [Memcached::OPT_BUFFER_WRITES => true]);
    $c->set('buffered', 'x');
    is('flushBuffers', $c->flushBuffers(), true);
    until('sends what was buffered', fn() => client([$main])->get('buffered') === 'x');
    $c = client([$main]);
    is('setOptions', [$c->setOptions([Memcached::OPT_NOREPLY => true, Memcached::OPT_VERIFY_KEY => true]), (bool)$c->getOption(Memcached::OPT_NOREPLY)], [true, true]);
    for ($i = 0; $i < 50; $i++) {
        $c->set("quiet$i", $i);
    }
    $c->delete('quiet5');
    $reader = client([$main]);
    until('noreply: all has been done', fn() => $reader->get('quiet49') === 49 && $reader->get('quiet5') === false);

    $c = client([], [Memcached::OPT_USE_UDP => true]);
    [$host, $port] = explode(':', $udp);
    $c->addServer($host, (int)$port);
    $reader = client([$udp]);
    until('UDP: a set arrives', function () use ($c, $reader) {
        $c->set('udp', 'x');
        return $reader->get('udp') === 'x';
    });

    $c = client([$main], [], 'kept');
    is('isPersistent and isPristine', [$c->isPersistent(), $c->isPristine()], [true, true]);
    $c = new Watched(new Memcached('kept'));
    is('a persistent client keeps its servers', [$c->isPristine(), count($c->getServerList())], [false, 1]);
    is('resetServerList', [$c->resetServerList(), $c->getServerList()], [true, []]);

    // memdump: it lists what stats cachedump shows, which is a part.
    $c = client([$main]);
    $c->set('listed', 'x');
    until('getAllKeys', fn() => is_array($c->getAllKeys()));
}

function ring(array $servers): void
{
    foreach ([[Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_MODULA], [Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_CONSISTENT],
        [Memcached::OPT_LIBKETAMA_COMPATIBLE => true, Memcached::OPT_BINARY_PROTOCOL => true]] as $i => $options) {
        $c = client([], $options);
        is("ring $i: addServers", $c->addServers(array_map(fn($s) => [explode(':', $s)[0], (int)explode(':', $s)[1]], $servers)), true);
        $c->flush();
        $want = [];
        for ($k = 0; $k < 90; $k++) {
            $want["ring$i-$k"] = $k;
        }
        $c->setMulti($want);
        $got = $c->getMulti(array_keys($want), Memcached::GET_PRESERVE_ORDER);
        is("ring $i: getMulti collects from all", $got, $want);
        $shares = array_map(fn($s) => count(client([$s])->getMulti(array_keys($want))), $servers);
        ok("ring $i: each server has a share, together all", min($shares) > 0 && array_sum($shares) === 90, $shares);
        is("ring $i: stats and versions of all", [count($c->getStats()), count($c->getVersion())], [3, 3]);
    }
    $c = client($servers, [Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_VIRTUAL_BUCKET]);
    is('setBucket', $c->setBucket([0, 1, 2], null, 1), true);
    $c->set('bucket', 'x');
    is('virtual buckets', $c->get('bucket'), 'x');
    $c = client($servers, [Memcached::OPT_BINARY_PROTOCOL => true, Memcached::OPT_NUMBER_OF_REPLICAS => 2]);
    $c->set('replicated', 'x');
    is('replicas', $c->get('replicated'), 'x');
}

function sasl(): void
{
    if (!getenv('SASL')) {
        return;
    }
    $c = client([getenv('SASL')], [Memcached::OPT_BINARY_PROTOCOL => true]);
    is('setSaslAuthData', $c->setSaslAuthData(getenv('SASL_USER'), getenv('SASL_PASSWORD')), true);
    whole('sasl', $c, true);
    $c = client([getenv('SASL')], [Memcached::OPT_BINARY_PROTOCOL => true]);
    $c->setSaslAuthData(getenv('SASL_USER'), 'wrong');
    is('a wrong password', [$c->set('k', 'x'), result($c)], [false, 'RES_AUTH_FAILURE']);
    is('is the last error', [$c->getLastErrorCode(), $c->getLastErrorMessage() !== ''], [Memcached::RES_AUTH_FAILURE, true]);
}

function session(string $main): void
{
    foreach (['on', 'off'] as $binary) {
        ini_set('session.save_handler', 'memcached');
        ini_set('session.save_path', $main);
        ini_set('session.use_cookies', '0');
        ini_set('memcached.sess_binary_protocol', $binary);
        session_id("session$binary");
        ok("session, binary $binary: start", session_start(['cache_limiter' => '']));
        $_SESSION['cart'] = [1, 2, 3];
        ok("session, binary $binary: write", session_write_close());
        $_SESSION = [];
        session_id("session$binary");
        session_start(['cache_limiter' => '']);
        is("session, binary $binary: is kept", $_SESSION['cart'] ?? null, [1, 2, 3]);
        ok("session, binary $binary: the lock is an item", client([$main])->get("memc.sess.key.lock.session$binary") !== false);
        ok("session, binary $binary: destroy", session_destroy());
        is("session, binary $binary: is gone", client([$main])->get("memc.sess.key.session$binary"), false);
    }
}

function restart(string $main, bool $binary): void
{
    $name = $binary ? 'restart, binary' : 'restart, text';
    $c = client([$main], [Memcached::OPT_BINARY_PROTOCOL => $binary, Memcached::OPT_RETRY_TIMEOUT => 1]);
    $want = [];
    for ($i = 0; $i < 100; $i++) {
        $want["warm$i"] = str_repeat("$i", $i);
    }
    $c->setMulti($want, 600);
    is("$name: delete before", $c->delete('warm0'), true);
    unset($want['warm0']);
    $cas = $c->get('warm5', null, Memcached::GET_EXTENDED)['cas'];
    ask('stop');
    is("$name: get from a stopped server", $c->get('warm1'), false);
    ok("$name: is not a miss", result($c) !== 'RES_NOTFOUND', result($c));
    $server = $c->getLastDisconnectedServer();
    ok("$name: the error", is_int($c->getLastErrorErrno()) && ($server === false || $server['host'] === '127.0.0.1'), $server);
    ask('start');
    until("$name: the client reconnects by itself", fn() => $c->get('warm1') === '1');
    is("$name: the cache is warm", $c->getMulti(array_map(fn($i) => "warm$i", range(0, 99)), Memcached::GET_PRESERVE_ORDER), ['warm0' => null] + $want);
    is("$name: a CAS id from before fits, once", [$c->cas($cas, 'warm5', 'new'), $c->cas($cas, 'warm5', 'newer')], [true, false]);
}

function failover(array $servers): void
{
    $c = client(array_slice($servers, 0, 2), [Memcached::OPT_LIBKETAMA_COMPATIBLE => true, Memcached::OPT_REMOVE_FAILED_SERVERS => true, Memcached::OPT_SERVER_FAILURE_LIMIT => 1]);
    ask('stop');
    until('failover: a dead server leaves the ring', function () use ($c) {
        for ($i = 0; $i < 20; $i++) {
            if (!$c->set("over$i", $i)) {
                return false;
            }
        }
        return true;
    });
    is('failover: the other has all', count(client([$servers[1]])->getMulti(array_map(fn($i) => "over$i", range(0, 19)))), 20);
    ask('start');
}

ob_implicit_flush();
ini_set('memcached.compression_threshold', '100');
$main = getenv('MAIN');
$servers = [$main, getenv('SECOND'), getenv('THIRD')];
// Sessions come first: PHP wants them before any output.
ob_start();
session($main);
ob_end_flush();
whole('text', client([$main]), false);
whole('binary', client([$main], [Memcached::OPT_BINARY_PROTOCOL => true]), true);
whole('unix', client([getenv('UNIX')]), false);
serializers($main);
options($main, getenv('UDP'));
ring($servers);
sasl();
restart($main, false);
restart($main, true);
failover($servers);
if (getenv('SASL')) {
    is('every method was called', array_values(array_filter(get_class_methods(Memcached::class), fn($m) => !isset(Watched::$called[$m]))), []);
}
echo "$count checks", $failed ? ", $failed failed" : '', "\n";
exit($failed ? 1 : 0);
