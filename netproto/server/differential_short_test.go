//go:build !long

package server_test

const randomLines = 20_000
