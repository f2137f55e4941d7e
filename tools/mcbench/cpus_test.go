package main

import (
	"reflect"
	"testing"
)

func TestReadsListsOfProcessorsAsTasksetDoes(t *testing.T) {
	got, err := parseCPUs("0-2,5")
	if want := (cpus{0, 1, 2, 5}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, list := range []string{"", "x", "1-", "2-1", "-1", "1,,2", "1024"} {
		if got, err := parseCPUs(list); err == nil {
			t.Errorf("%q: got %v, want an error", list, got)
		}
	}
}
