# bash completion for hearthd; made from its flags
_hearthd() {
	local cur=${COMP_WORDS[COMP_CWORD]} words= i command=
	for ((i = COMP_CWORD; i > 1; i--)); do
		[[ ${COMP_WORDS[i]} == = || ${COMP_WORDS[i - 1]} == = ]] || break
	done
	[[ $cur == -* ]] || case " ${COMP_WORDS[i - 1]} ${COMP_WORDS[i]} " in
	*" --protocol "*|*" -B "*)
		[[ $cur != = ]] || cur=
		COMPREPLY=($(compgen -W 'ascii auto binary' -- "${cur##*,}"))
		return ;;
	esac
	[[ $cur == -* ]] || case " ${COMP_WORDS[i - 1]} ${COMP_WORDS[i]} " in
	*" --extended "*|*" -o "*)
		[[ $cur != = ]] || cur=
		COMPREPLY=($(compgen -W 'maxconns_fast no_maxconns_fast hashpower= slab_sizes= slab_chunk_max= no_chunked_items modern hot_lru_pct= warm_lru_pct= hot_max_factor= warm_max_factor= temporary_ttl= lru_maintainer no_lru_maintainer lru_crawler no_lru_crawler lru_crawler_sleep= lru_crawler_tocrawl= track_sizes no_modern idle_timeout= slab_reassign no_slab_reassign slab_automove no_slab_automove slab_automove_ratio= slab_automove_window= warm_max_down= warm_after_power_loss= verify= scrub_rate= watcher_logbuf_size= worker_logbuf_size= sock_cookie_id= http_listen= http_host= http_pprof log_format= ssl_chain_cert= ssl_key= ssl_keyformat= ssl_verify_mode= ssl_ciphers= ssl_ca_cert= ssl_session_cache ssl_min_version= ssl_wbuf_size= ssl_kernel_tls no_hashexpand tail_repair_time= hash_algorithm= read_buf_mem_limit= inline_ascii_resp no_inline_ascii_resp resp_obj_mem_limit drop_privileges no_drop_privileges relaxed_privileges' -- "${cur##*,}"))
		[[ $cur != *,* ]] || COMPREPLY=("${COMPREPLY[@]/#/${cur%,*},}")
		compopt -o nospace 2>/dev/null
		return ;;
	esac
	words='--unix-mask -a --enable-shutdown -A --enable-ssl -Z --port -p --unix-socket -s --udp-port -U --memory-limit -m --disable-evictions -M --conn-limit -c --lock-memory -k --help -h --license -i --version -V --enable-coredumps -r --verbose -v --daemon -d --listen -l --user -u --pidfile -P --slab-growth-factor -f --slab-min-size -n --threads -t -D --enable-largepages -L --max-reqs-per-event -R --disable-cas -C --listen-backlog -b --protocol -B --max-item-size -I --enable-sasl -S --disable-flush-all -F --disable-dumping -X --disable-watch -W --auth-file -Y --memory-file -e --extended -o --napi-ids -N'
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$words" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _hearthd hearthd
