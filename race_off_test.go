//go:build !race

package hearth_test

const raceEnabled = false
