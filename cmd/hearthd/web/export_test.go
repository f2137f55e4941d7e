package web

// MaxConns is the limit of connections.
const MaxConns = maxConns
