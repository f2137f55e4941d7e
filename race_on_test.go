//go:build race

package hearth_test

const raceEnabled = true
