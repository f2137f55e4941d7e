package mmapslab_test

import (
	"os"
	"testing"

	"hearth/mmapslab"
)

// A store that is inspected names the same chunks as the one that wrote the file, whose bytes stay.
func TestInspectSeesWhatTheServerWrote(t *testing.T) {
	path := t.TempDir() + "/slab"
	file, err := mmapslab.OpenFile(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := mmapslab.Create(file, mmapslab.Config{Pages: 4, ChunkSizes: []int{96, 304, 4096}}, mmapslab.Identity{}, 5, 1)
	if err != nil {
		t.Fatal(err)
	}
	var refs []mmapslab.Ref
	for class := 1; class <= 3; class++ {
		s.AddPage(class)
		for range 3 {
			ref, _, ok := s.Alloc(class)
			if !ok {
				t.Fatal("no chunk")
			}
			refs = append(refs, ref)
		}
	}
	if err := s.WriteCheckpoint(&mmapslab.Checkpoint{}); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkClean(mmapslab.Identity{}); err != nil {
		t.Fatal(err)
	}
	if pid := file.Server(); pid == "" {
		t.Error("the kernel knows of no lock on the file")
	}
	look := func() {
		t.Helper()
		f, err := mmapslab.OpenReadOnly(path)
		if err != nil {
			t.Fatal(err)
		}
		in, found, err := mmapslab.Inspect(f)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if len(found.Damaged)+len(found.Cut)+len(found.Stray) != 0 || found.Table != mmapslab.TableSaved || found.CheckpointErr != nil {
			t.Errorf("found %+v", found)
		}
		for _, ref := range refs {
			if in.ChunkSize(ref) == 0 || in.ChunkSize(ref) != s.ChunkSize(ref) || in.ID(ref) != s.ID(ref) || in.Class(ref) != s.Class(ref) || in.RefOf(in.ID(ref)) != ref {
				t.Errorf("%#x: chunk of %d bytes, id %#x, class %d, want %d, %#x, %d", ref.Offset(), in.ChunkSize(ref), in.ID(ref), in.Class(ref), s.ChunkSize(ref), s.ID(ref), s.Class(ref))
			}
		}
		for class := 1; class <= 3; class++ {
			got, _ := in.ClassInfo(class)
			if want, _ := s.ClassInfo(class); got != want {
				t.Errorf("class %d: %+v, want %+v", class, got, want)
			}
		}
	}
	look() // beside the one that has it open and locked
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	look()
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file's bytes have changed (%v)", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look()
}
