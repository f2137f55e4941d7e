package restore

import "testing"

// SetBucketsAStep has scans go over the index in smaller steps, until the test ends.
func SetBucketsAStep(t testing.TB, n uint32) {
	was := bucketsAStep
	bucketsAStep = n
	t.Cleanup(func() { bucketsAStep = was })
}
