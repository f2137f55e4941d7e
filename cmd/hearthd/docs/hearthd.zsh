#compdef hearthd
# zsh completion for hearthd; made from its flags
_hearthd_protocol() { compadd -S '' -- ascii auto binary }
_hearthd_extended() { compset -P '*,'; compadd -S '' -- maxconns_fast no_maxconns_fast hashpower= slab_sizes= slab_chunk_max= no_chunked_items modern hot_lru_pct= warm_lru_pct= hot_max_factor= warm_max_factor= temporary_ttl= lru_maintainer no_lru_maintainer lru_crawler no_lru_crawler lru_crawler_sleep= lru_crawler_tocrawl= track_sizes no_modern idle_timeout= slab_reassign no_slab_reassign slab_automove no_slab_automove slab_automove_ratio= slab_automove_window= warm_max_down= warm_after_power_loss= verify= scrub_rate= watcher_logbuf_size= worker_logbuf_size= sock_cookie_id= http_listen= http_host= http_pprof log_format= ssl_chain_cert= ssl_key= ssl_keyformat= ssl_verify_mode= ssl_ciphers= ssl_ca_cert= ssl_session_cache ssl_min_version= ssl_wbuf_size= ssl_kernel_tls no_hashexpand tail_repair_time= hash_algorithm= read_buf_mem_limit= inline_ascii_resp no_inline_ascii_resp resp_obj_mem_limit drop_privileges no_drop_privileges relaxed_privileges }
_hearthd() {
	_arguments \
		'--unix-mask=[access mask for UNIX socket, in octal]:value:_files' \
		'-a[access mask for UNIX socket, in octal]:value:_files' \
		'--enable-shutdown[enable ascii shutdown command]' \
		'-A[enable ascii shutdown command]' \
		'--enable-ssl[enable TLS/SSL]' \
		'-Z[enable TLS/SSL]' \
		'--port=[TCP port to listen on, -1 for any free one, 0 for none]:value:_files' \
		'-p[TCP port to listen on, -1 for any free one, 0 for none]:value:_files' \
		'--unix-socket=[UNIX socket to listen on (disables network support)]:value:_files' \
		'-s[UNIX socket to listen on (disables network support)]:value:_files' \
		'--udp-port=[UDP port to listen on, -1 for any free one]:value:_files' \
		'-U[UDP port to listen on, -1 for any free one]:value:_files' \
		'--memory-limit=[item memory in megabytes]:value:_files' \
		'-m[item memory in megabytes]:value:_files' \
		'--disable-evictions[return error on memory exhausted instead of evicting]' \
		'-M[return error on memory exhausted instead of evicting]' \
		'--conn-limit=[max simultaneous client connections]:value:_files' \
		'-c[max simultaneous client connections]:value:_files' \
		'--lock-memory[lock down all paged memory]' \
		'-k[lock down all paged memory]' \
		'--help[print this help and exit]' \
		'-h[print this help and exit]' \
		'--license[print the licenses of what is in this program and exit]' \
		'-i[print the licenses of what is in this program and exit]' \
		'--version[print version and exit]' \
		'-V[print version and exit]' \
		'--enable-coredumps[maximize core file limit]' \
		'-r[maximize core file limit]' \
		'--verbose[verbose (also log clients that are turned away)]' \
		'-v[verbose (also log clients that are turned away)]' \
		'--daemon[run as a daemon]' \
		'-d[run as a daemon]' \
		'--listen=[interface to listen on, host or host,port, several with commas;]:value:_files' \
		'-l[interface to listen on, host or host,port, several with commas;]:value:_files' \
		'--user=[assume identity of <user> (only when run as root)]:value:_files' \
		'-u[assume identity of <user> (only when run as root)]:value:_files' \
		'--pidfile=[save PID in <file>; removed at exit with -d]:value:_files' \
		'-P[save PID in <file>; removed at exit with -d]:value:_files' \
		'--slab-growth-factor=[chunk size growth factor]:value:_files' \
		'-f[chunk size growth factor]:value:_files' \
		'--slab-min-size=[min space used for key+value+flags]:value:_files' \
		'-n[min space used for key+value+flags]:value:_files' \
		'--threads=[number of threads to use]:value:_files' \
		'-t[number of threads to use]:value:_files' \
		'-D[delimiter between key prefixes and IDs, for the per-prefix]:value:_files' \
		'--enable-largepages[try to use large memory pages; a file of -e has them on a]' \
		'-L[try to use large memory pages; a file of -e has them on a]' \
		'--max-reqs-per-event=[maximum number of requests per event, limits the requests]:value:_files' \
		'-R[maximum number of requests per event, limits the requests]:value:_files' \
		'--disable-cas[disable use of CAS]' \
		'-C[disable use of CAS]' \
		'--listen-backlog=[set the backlog queue limit]:value:_files' \
		'-b[set the backlog queue limit]:value:_files' \
		'--protocol=[protocol - one of ascii, binary, or auto]:value:_hearthd_protocol' \
		'-B[protocol - one of ascii, binary, or auto]:value:_hearthd_protocol' \
		'--max-item-size=[adjusts max item size, with k or m]:value:_files' \
		'-I[adjusts max item size, with k or m]:value:_files' \
		'--enable-sasl[turn on Sasl authentication, PLAIN, with the users of the]' \
		'-S[turn on Sasl authentication, PLAIN, with the users of the]' \
		'--disable-flush-all[disable flush_all command]' \
		'-F[disable flush_all command]' \
		'--disable-dumping[disable stats cachedump and stats detail]' \
		'-X[disable stats cachedump and stats detail]' \
		'--disable-watch[disable watch commands]' \
		'-W[disable watch commands]' \
		'--auth-file=[enable ASCII protocol authentication with the users in <file>,]:value:_files' \
		'-Y[enable ASCII protocol authentication with the users in <file>,]:value:_files' \
		'--memory-file=[keep the cache in a file, it is still there after a restart,]:value:_files' \
		'-e[keep the cache in a file, it is still there after a restart,]:value:_files' \
		'--extended=[comma separated list of extended options, see below]:value:_hearthd_extended' \
		'-o[comma separated list of extended options, see below]:value:_hearthd_extended' \
		'--napi-ids=[number of queues of the network card, connections that came in]:value:_files' \
		'-N[number of queues of the network card, connections that came in]:value:_files' \
		'*:file:_files'
}
_hearthd "$@"
