# bash completion for hearthd; made from its flags
_hearthd() {
	local cur=${COMP_WORDS[COMP_CWORD]} words= i command=
	words='--unix-mask -a --enable-shutdown -A --enable-ssl -Z --port -p --unix-socket -s --udp-port -U --memory-limit -m --disable-evictions -M --conn-limit -c --lock-memory -k --help -h --license -i --version -V --enable-coredumps -r --verbose -v --daemon -d --listen -l --user -u --pidfile -P --slab-growth-factor -f --slab-min-size -n --threads -t -D --enable-largepages -L --max-reqs-per-event -R --disable-cas -C --listen-backlog -b --protocol -B --max-item-size -I --enable-sasl -S --disable-flush-all -F --disable-dumping -X --disable-watch -W --auth-file -Y --memory-file -e --extended -o --napi-ids -N'
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$words" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _hearthd hearthd
