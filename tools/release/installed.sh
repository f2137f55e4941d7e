#!/bin/bash
# What release_test.go has a freshly installed Debian do, as a service under its own systemd: install the package, and restart the server in every way. It
# prints "ok" at the end and nothing else, or what it did last.
set -euo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND"; systemctl --no-pager status hearthd; journalctl --no-pager -u hearthd -n 30' ERR

# ask sends lines and prints the reply, to the line that ends it.
ask() {
	exec 3<>/dev/tcp/127.0.0.1/11211
	printf '%s\r\n' "$@" quit >&3
	tr -d '\r' <&3
	exec 3>&-
}
stat() { ask stats | sed -n "s/^STAT $1 //p"; }
equal() { [ "$1" = "$2" ] || { echo "got $1, want $2"; return 1; }; }

# warm checks that the hundred keys are there, but for the deleted one, after a start of that kind.
warm() {
	equal "$(stat restart_kind)" "$1"
	local keys=()
	for i in {1..100}; do keys+=("key-$i"); done
	equal "$(ask "get ${keys[*]}" | grep -c '^value-')" 99
	equal "$(ask 'get key-7 key-8')" $'VALUE key-8 0 7\nvalue-8\nEND'
}

dpkg -i /shared/hearth.deb >/dev/null
systemctl --quiet is-enabled hearthd
systemd-analyze verify /lib/systemd/system/hearthd.service /lib/systemd/system/hearthd.socket
pid=$(systemctl show -P MainPID hearthd)
equal "$(ps -o user= -p "$pid")" hearthd
equal "$(command stat -c '%U %a' /run/hearthd/slab /run/hearthd | tr '\n' ' ')" "hearthd 600 hearthd 700 "
hearthd -V | grep -q ^memcached
slabctl info /run/hearthd/slab >/dev/null
for file in man/man1/{hearthd,slabctl}.1.gz bash-completion/completions/{hearthd,slabctl} zsh/vendor-completions/_{hearthd,slabctl} fish/vendor_completions.d/{hearthd,slabctl}.fish; do
	[ -s "/usr/share/$file" ]
done
bash -n /usr/share/bash-completion/completions/{hearthd,slabctl}
equal "$(stat restart_kind)" cold
for i in {1..100}; do printf 'set key-%d 0 0 %d\r\nvalue-%d\r\n' "$i" $((6 + ${#i})) "$i"; done >/tmp/sets
exec 3<>/dev/tcp/127.0.0.1/11211
{ cat /tmp/sets; printf 'delete key-7\r\nquit\r\n'; } >&3
equal "$(grep -c STORED <&3)" 100
exec 3>&-

systemctl restart hearthd
warm clean
systemctl stop hearthd
systemctl start hearthd
warm clean
equal "$(systemctl show -P Result hearthd)" success

# Killed from outside: systemd starts it again by itself.
pid=$(systemctl show -P MainPID hearthd)
kill -9 "$pid"
for _ in {1..600}; do
	now=$(systemctl show -P MainPID hearthd)
	[ "$now" = 0 ] || [ "$now" = "$pid" ] || ! systemctl --quiet is-active hearthd || break
	sleep 0.1
done
warm unclean

# An upgrade is the same with another binary.
pid=$(systemctl show -P MainPID hearthd)
dpkg -i /shared/hearth.deb >/dev/null
[ "$(systemctl show -P MainPID hearthd)" != "$pid" ]
warm clean

# With the socket unit, who connects while nobody runs is served.
systemctl stop hearthd
systemctl start hearthd.socket
warm clean
systemctl --quiet is-active hearthd

# The unit in /etc/default's terms.
sed -i 's/^CACHESIZE=.*/CACHESIZE=128/' /etc/default/hearthd
systemctl stop hearthd.socket
systemctl restart hearthd
warm clean
equal "$(stat limit_maxbytes)" $((128 << 20))

dpkg -r hearth >/dev/null 2>&1
equal "$(systemctl is-active hearthd)" inactive
equal "$(ls -d /run/hearthd/slab /etc/default/hearthd /usr/bin/hearthd 2>/dev/null | tr '\n' ' ')" "/etc/default/hearthd /run/hearthd/slab "
dpkg -P hearth >/dev/null 2>&1
equal "$(ls -d /run/hearthd /etc/default/hearthd 2>/dev/null)" ""
echo ok
