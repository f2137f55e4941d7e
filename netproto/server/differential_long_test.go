//go:build long

package server_test

const randomLines = 200_000
