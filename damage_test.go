package hearth_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hearth"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

var damagedWanted = flag.Int("damaged", 0, "how many damaged files the tests of damage open, each; 0: its own number")

// A damaged or composed file is opened by another process, many by each: a crash is found whatever thread it is in, and does not take the test with it.

const (
	damageEnv  = "HEARTH_DAMAGE_CHILD"
	damageKeys = 600
	damageHang = 2 * time.Minute // for one file, on a machine that may stand still for a while
)

// damageClock is of boot 1 unless told otherwise.
func damageClock(boot byte) *fakeClock {
	c := newClock()
	c.id = boot
	return c
}

func damageOptions(path string, boot byte) hearth.Options {
	return hearth.Options{Path: path, MemoryLimit: 12 << 20, MaxItemSize: 256 << 10, ChunkMax: 16 << 10, SlabSizes: []int{512, 2048}, Clock: damageClock(boot), Verify: hearth.VerifyAlways}
}

func damageKey(n int) string { return fmt.Sprint("key-", n) }

// damageValue is what the set with number seq stores under a key: chained under every fortieth.
func damageValue(n, seq int) string {
	r := rand.New(rand.NewPCG(uint64(n), uint64(seq)))
	size := 10 + r.IntN(1800)
	if n%40 == 0 {
		size = 17_000 + r.IntN(20_000)
	}
	token := fmt.Sprintf("%s.%d|", damageKey(n), seq)
	return strings.Repeat(token, 1+size/len(token))
}

// extent is a stretch of a file that is not a hole.
type extent struct {
	off  int64
	data []byte
}

// snapshot is a file's contents.
type snapshot struct {
	size    int64
	extents []extent
}

func takeSnapshot(t testing.TB, path string) (s snapshot) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s.size = st.Size()
	const seekData, seekHole = 3, 4
	for at := int64(0); ; {
		from, err := f.Seek(at, seekData)
		if err != nil {
			return s
		}
		if at, err = f.Seek(from, seekHole); err != nil {
			t.Fatal(err)
		}
		e := extent{from, make([]byte, at-from)}
		if _, err := f.ReadAt(e.data, from); err != nil {
			t.Fatal(err)
		}
		s.extents = append(s.extents, e)
	}
}

func (s snapshot) clone() snapshot {
	s.extents = slices.Clone(s.extents)
	for i := range s.extents {
		s.extents[i].data = bytes.Clone(s.extents[i].data)
	}
	return s
}

// page returns the 4096 bytes at off, zeros where there is a hole.
func (s snapshot) page(off int64) []byte {
	for _, e := range s.extents {
		if off >= e.off && off < e.off+int64(len(e.data)) {
			return e.data[off-e.off:][:4096]
		}
	}
	return make([]byte, 4096)
}

// without is the snapshot with a hole of n bytes at off.
func (s snapshot) without(off, n int64) snapshot {
	var left []extent
	for _, e := range s.extents {
		end := e.off + int64(len(e.data))
		if before := min(end, off); e.off < before {
			left = append(left, extent{e.off, e.data[:before-e.off]})
		}
		if after := max(e.off, off+n); after < end {
			left = append(left, extent{after, e.data[after-e.off:]})
		}
	}
	s.extents = left
	return s
}

// hasMemory tells whether there is no hole in the n bytes at off.
func (s snapshot) hasMemory(off, n int64) bool {
	return slices.ContainsFunc(s.extents, func(e extent) bool { return e.off <= off && off+n <= e.off+int64(len(e.data)) })
}

// write makes the file hold the snapshot; it stays the same file.
func (s snapshot) write(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{0, s.size} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range s.extents {
		if _, err := f.WriteAt(e.data[:max(0, min(int64(len(e.data)), s.size-e.off))], e.off); err != nil && e.off < s.size {
			t.Fatal(err)
		}
	}
}

// pick returns a random place in what is there: half the time in the first extents, which are superblocks, page table, index and links.
func (s snapshot) pick(r *rand.Rand) []byte {
	i := 0
	if r.IntN(2) == 0 {
		i = r.IntN(len(s.extents))
	} else {
		n := r.Int64N(s.bytes())
		for n >= int64(len(s.extents[i].data)) {
			n -= int64(len(s.extents[i].data))
			i++
		}
	}
	data := s.extents[i].data
	return data[r.IntN(len(data)):]
}

func (s snapshot) bytes() (n int64) {
	for _, e := range s.extents {
		n += int64(len(e.data))
	}
	return n
}

// damage is one fault of a disk or of memory. It returns what it did.
func (s *snapshot) damage(r *rand.Rand) string {
	page := func() []byte {
		e := s.extents[r.IntN(len(s.extents))].data
		return e[r.IntN(len(e)/4096)*4096:][:4096]
	}
	switch p := r.IntN(100); {
	case p < 50:
		b := s.pick(r)
		b[0] ^= 1 << r.IntN(8)
		return "flip"
	case p < 70:
		b := s.pick(r)
		for range 2 + r.IntN(63) {
			b[r.IntN(min(len(b), 8))] ^= 1 << r.IntN(8)
		}
		return "burst"
	case p < 80:
		e := s.extents[r.IntN(len(s.extents))]
		at := r.IntN(len(e.data)/4096) * 4096
		clear(e.data[at:][:4096])
		return fmt.Sprintf("page zeroed at %#x", e.off+int64(at))
	case p < 85:
		a, b := page(), page()
		was := bytes.Clone(a)
		copy(a, b)
		copy(b, was)
		return "swapped pages"
	case p < 95:
		s.size = []int64{0, 1, 4095, 8192, s.size - 1, r.Int64N(s.size)}[r.IntN(6)]
		return "truncation"
	}
	s.size += r.Int64N(1 << 20)
	return "extension"
}

// damageJob is what the processes share: each does every file of its part.
type damageJob struct {
	t     *testing.T
	path  string
	found map[string]int // what was seen, summed up
	image snapshot       // what is looked at
}

// note says what the process is at, for whoever looks why it died.
func (j *damageJob) note(format string, args ...any) {
	os.WriteFile(j.path+".at", fmt.Appendf(nil, format, args...), 0o600)
}

// runDamage has processes call one for files 0..n-1 of a test, and returns what they saw.
func runDamage(t *testing.T, n int, one func(j *damageJob, i int)) {
	if fault.Enabled || raceEnabled {
		t.Skip("what is damaged is what ships")
	}
	start := int(max(*seedWanted, 1))
	if part := os.Getenv(damageEnv); part != "" {
		var from, to int
		var dir string
		fmt.Sscan(part, &from, &to, &dir)
		j := &damageJob{t: t, path: filepath.Join(dir, "slab"), found: map[string]int{}}
		for i := from; i < to && !t.Failed(); i++ {
			j.note("%d", i)
			one(j, i)
		}
		for what, n := range j.found {
			fmt.Printf("FOUND\t%s\t%d\n", what, n)
		}
		return
	}
	dir, err := os.MkdirTemp(shm(), "hearth-damage")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	}()
	sum := map[string]int{}
	const batch = 100
	began := time.Now()
	for from := start; from < start+n; from += batch {
		to := min(from+batch, start+n)
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.timeout="+(time.Duration(to-from)*damageHang).String())
		cmd.Env = append(os.Environ(), damageEnv+fmt.Sprintf("=%d %d %s", from, to, dir))
		out, err := cmd.CombinedOutput()
		if err != nil {
			at, _ := os.ReadFile(filepath.Join(dir, "slab.at"))
			// The seed of the keys' hash is a file's own, so the same draw damages another word: the file is kept.
			t.Fatalf("at file %s: %v\n%.6000s\nthe file before the start is %s.image; the like again with: go test -run '%s' -seed %s -damaged 1 .", at, err, out, filepath.Join(dir, "slab"), t.Name(), strings.Fields(string(at) + " ?")[0])
		}
		for line := range strings.Lines(string(out)) {
			if f := strings.Split(strings.TrimSpace(line), "\t"); f[0] == "FOUND" {
				var n int
				fmt.Sscan(f[2], &n)
				if strings.HasPrefix(f[1], "longest") {
					sum[f[1]] = max(sum[f[1]], n)
				} else {
					sum[f[1]] += n
				}
			}
		}
	}
	t.Logf("%d files in %v: %v", n, time.Since(began).Round(time.Millisecond), sum)
}

func damageTier(pr, long int) int {
	switch {
	case *damagedWanted > 0:
		return *damagedWanted
	case os.Getenv("HEARTH_LONG") != "":
		return long
	case testing.Short():
		return pr
	}
	return pr
}

// fillDamage stores and deletes until there is something of everything. It returns the number of the set that each key holds, 0 for none.
func fillDamage(t testing.TB, c *hearth.Cache, r *rand.Rand, seqs []int, changes int, stored func(n, seq int)) {
	t.Helper()
	s := c.NewSession()
	defer s.Close()
	for range changes {
		n := r.IntN(damageKeys)
		in(s, func() {
			if r.IntN(5) == 0 {
				s.Delete([]byte(damageKey(n)))
				seqs[n] = -seqs[n]
				if seqs[n] > 0 {
					seqs[n] = -seqs[n]
				}
				return
			}
			seq := max(seqs[n], -seqs[n]) + 1
			if stored != nil {
				stored(n, seq)
			}
			if _, st := store(s, hearth.Set, damageKey(n), damageValue(n, seq), 0, 0); st != hearth.OK {
				t.Fatalf("set: %d", st)
			}
			seqs[n] = seq
		})
	}
}

// TestADamagedFileServesNothingWrong flips bits of files, zeroes and swaps their pages, cuts them off and makes them longer: each start serves, and nothing but what was
// stored last, or a miss.
func TestADamagedFileServesNothingWrong(t *testing.T) {
	var bases []snapshot
	var seqs [][]int
	runDamage(t, damageTier(500, 10_000), func(j *damageJob, i int) {
		t := j.t
		if bases == nil {
			for base := range 4 { // two clean ones, two of a kill
				was := make([]int, damageKeys)
				if err := os.Truncate(j.path, 0); err != nil && !errors.Is(err, os.ErrNotExist) { // it stays the same file
					t.Fatal(err)
				}
				c, err := hearth.Open(damageOptions(j.path, 1))
				if err != nil {
					t.Fatal(err)
				}
				fillDamage(t, c, rand.New(rand.NewPCG(uint64(base), 1)), was, 1500, nil)
				if base%2 == 0 {
					closeCache(t, c)
				} else if err := c.Abandon(); err != nil {
					t.Fatal(err)
				}
				bases, seqs = append(bases, takeSnapshot(t, j.path)), append(seqs, was)
			}
		}
		r := rand.New(rand.NewPCG(uint64(i), 2))
		base := r.IntN(len(bases))
		image := bases[base].clone()
		what := image.damage(r)
		j.note("%d, a %s in base %d", i, what, base)
		j.image = image
		image.write(t, j.path)
		kindOf, _, _ := strings.Cut(what, " at ")
		j.found[kindOf]++
		began := time.Now()
		c, err := hearth.Open(damageOptions(j.path, 1))
		if err != nil {
			t.Fatalf("file %d, a %s: %v", i, what, err)
		}
		j.found["longest start in ms"] = max(j.found["longest start in ms"], int(time.Since(began).Milliseconds()))
		c.WaitSwept()
		kind := c.Stats().RestartKind
		j.found[kind]++
		if st := c.Stats(); st.RestartKind == "cold" && st.RestartReason == "" {
			t.Errorf("file %d, a %s: a cold start without reason", i, what)
		}
		j.read(c, i, what, func(n int, value string) bool { return seqs[base][n] > 0 && value == damageValue(n, seqs[base][n]) })
		j.work(c, i, what)
	})
}

// read gets every key, and wants right to say that what it gets is right.
func (j *damageJob) read(c *hearth.Cache, i int, what string, right func(n int, value string) bool) {
	do(c, func(s *hearth.Session) {
		for n := range damageKeys {
			value, ok := get(s, damageKey(n))
			switch {
			case !ok:
				j.found["misses"]++
			case right(n, value):
				j.found["hits"]++
			default:
				j.t.Errorf("file %d, %s, start %s: %s holds %d bytes %.40q", i, what, c.Stats().RestartReason, damageKey(n), len(value), value)
			}
		}
	})
}

// work goes on with a cache: it stores until memory is full, and closes it.
func (j *damageJob) work(c *hearth.Cache, i int, what string) {
	do(c, func(s *hearth.Session) {
		for n := range 300 {
			value := strings.Repeat("w", 100+n*4)
			if _, st := store(s, hearth.Set, fmt.Sprint("work", n), value, 0, 0); st == hearth.NoMemory {
				j.found["no memory"]++
			} else if got, ok := get(s, fmt.Sprint("work", n)); st != hearth.OK || ok && got != value {
				j.t.Errorf("file %d, %s: stored with status %d, found %t %.20q", i, what, st, ok, got)
			}
			s.Delete(fmt.Appendf(nil, "work%d", n/2))
		}
	})
	if err := c.Close(); err != nil {
		j.t.Errorf("file %d, %s: close: %v", i, what, err)
	}
	if j.t.Failed() {
		j.image.write(j.t, j.path+".image")
	}
}

// TestPartsDamagedTogetherCostNoMoreThanTheyHold damages a superblock, a page's descriptor and index words at once, of files of a clean stop and of a kill: the start is warm, and what
// is lost was in that page or under these words. Without either superblock it is cold.
func TestPartsDamagedTogetherCostNoMoreThanTheyHold(t *testing.T) {
	const n, words, pageTable = 3000, 20, 1 << 20
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 8 << 20, MaxItemSize: 256 << 10, ChunkMax: 16 << 10, SlabSizes: []int{256, 1024}, Clock: newClock()}
	value := func(i int) string { return strings.Repeat(fmt.Sprint(i, " "), 1+i%180) }
	for round := range 12 {
		r := rand.New(rand.NewPCG(max(*seedWanted, 1), uint64(round)))
		if err := os.Truncate(o.Path, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		pageOf, pages := make([]int64, n), map[int64]int{}
		var super [216]byte
		do(c, func(s *hearth.Session) {
			for i := range n {
				if _, st := store(s, hearth.Set, fmt.Sprint("key", i), value(i), 0, 0); st != hearth.OK {
					t.Fatal(i, st)
				}
			}
		})
		copy(super[:], c.Arena().Bytes(0, len(super)))
		first := int64(binary.LittleEndian.Uint64(super[120:]))
		for i := range n {
			item, _ := c.Offset(fmt.Sprint("key", i))
			pageOf[i] = (item-first)>>20 + 1
			pages[pageOf[i]]++
		}
		if len(pages) < 3 {
			t.Fatalf("%d pages", len(pages))
		}
		if round%2 == 0 {
			closeCache(t, c)
		} else if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}

		image := takeSnapshot(t, o.Path)
		flip := func(off int64) { image.page(off &^ 4095)[off&4095] ^= 1 << r.IntN(8) }
		both := round%6 >= 4
		flip(int64(round%4/2)*4096 + r.Int64N(212))
		if both {
			flip(r.Int64N(212))
			flip(4096 + r.Int64N(212))
		}
		lost := 1 + r.Int64N(int64(len(pages)))
		flip(pageTable + lost*64 + r.Int64N(8))
		var at []int64 // the index words
		from, to := int64(binary.LittleEndian.Uint64(super[88:])), int64(binary.LittleEndian.Uint64(super[112:]))
		for off := from; off < to; off += 4096 {
			page := image.page(off)
			for i := 0; i < 4096; i += 8 {
				if binary.NativeEndian.Uint64(page[i:]) != 0 {
					at = append(at, off+int64(i))
				}
			}
		}
		for range words {
			flip(at[r.IntN(len(at))] + r.Int64N(8))
		}
		image.write(t, o.Path)

		hits := 0
		for start := range 2 { // the second one finds what the first made of it
			if c, err = hearth.Open(o); err != nil {
				t.Fatal(err)
			}
			c.WaitSwept()
			st := c.Stats()
			if (st.RestartKind == "cold") != (both && start == 0) {
				t.Fatalf("round %d, start %d: %s: %s", round, start, st.RestartKind, st.RestartReason)
			}
			check(t, c)
			found := 0
			do(c, func(s *hearth.Session) {
				for i := range n {
					got, ok := get(s, fmt.Sprint("key", i))
					if ok && got != value(i) || ok && pageOf[i] == lost {
						t.Errorf("round %d: key%d, of page %d, is %.30q", round, i, pageOf[i], got)
					}
					if ok {
						found++
					}
				}
			})
			if least := n - pages[lost] - words; !both && found < least || start == 1 && found != hits {
				t.Errorf("round %d, start %d: %d found, want at least %d; %d at the start before", round, start, found, least, hits)
			}
			hits = found
			closeCache(t, c)
		}
	}
}

// composer makes files as a power loss might leave them.
type composer struct {
	snapshots []snapshot // the first is of the clean stop before
	ever      []map[string]bool
	seqs      []int // what each key held at the clean stop
}

// onDisk tells whether the directory of the damaged files is on a disk, or may be as far as this build knows.
func onDisk(t *testing.T) bool {
	path := filepath.Join(shm(), fmt.Sprint("hearth-where-", os.Getpid()))
	file, err := mmapslab.OpenFile(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	file.Close()
	return file.OnDisk
}

// TestAFileThatIsOldInPartsIsNotTrusted composes files out of the pages that a file had at different times, as a power loss may leave it. On another boot they start cold, a file that is
// all of one clean stop apart; on the same, where there was none, they are a defence in depth: no crash, and nothing that was never stored under its key.
func TestAFileThatIsOldInPartsIsNotTrusted(t *testing.T) {
	var all []*composer
	runDamage(t, damageTier(200, 10_000), func(j *damageJob, i int) {
		t := j.t
		if all == nil {
			for load := range 3 {
				all = append(all, j.compose(load))
			}
		}
		r := rand.New(rand.NewPCG(uint64(i), 3))
		c := all[r.IntN(len(all))]
		last := len(c.snapshots) - 1
		mode := []string{"random", "random", "random", "recent", "recent", "old index", "new index", "superblock of the clean stop with all of it"}[r.IntN(8)]
		if mode == "superblock of the clean stop with all of it" && onDisk(t) {
			return // there it says that the disk has confirmed all the rest
		}
		j.note("%d, %s", i, mode)
		image := c.snapshots[last].clone()
		clean := mode == "superblock of the clean stop with all of it"
		indexEnd := c.indexEnd(image)
		for _, e := range image.extents {
			for at := 0; at < len(e.data); at += 4096 {
				off := e.off + int64(at)
				from := r.IntN(last + 1)
				switch {
				case clean:
					from = 0
				case off < 8192: // the mark that it runs was confirmed by the disk before the first change
					from = 1 + r.IntN(last)
				case mode == "recent":
					from = last - r.IntN(min(2, last))
				case mode == "old index":
					from = last
					if off < indexEnd {
						from = r.IntN(last)
					}
				case mode == "new index":
					from = r.IntN(last)
					if off < indexEnd {
						from = last
					}
				}
				page := c.snapshots[from].page(off)
				if !clean && off >= 8192 && r.IntN(20) == 0 {
					page = make([]byte, 4096) // never written
				}
				if sector := 512; r.IntN(10) == 0 && !clean && off >= 8192 {
					other := c.snapshots[r.IntN(last+1)].page(off)
					n := sector * r.IntN(8)
					page = append(bytes.Clone(page[:n]), other[n:]...)
				}
				copy(e.data[at:], page)
			}
		}
		boot := byte(1 + r.IntN(2))
		j.image = image
		image.write(t, j.path)
		cache, err := hearth.Open(damageOptions(j.path, boot))
		if err != nil {
			t.Fatalf("file %d, %s: %v", i, mode, err)
		}
		cache.WaitSwept()
		st := cache.Stats()
		what := fmt.Sprintf("%s, boot %d", mode, boot)
		switch {
		case boot == 2 && st.RestartKind != "cold": // in memory there is nothing durable
			t.Errorf("file %d, %s: start %s: %s", i, what, st.RestartKind, st.RestartReason)
		case boot == 1 && clean && st.RestartKind != "clean":
			t.Errorf("file %d, %s: start %s: %s", i, what, st.RestartKind, st.RestartReason)
		}
		j.found[fmt.Sprintf("boot %d %s", boot, st.RestartKind)]++
		j.read(cache, i, what, func(n int, value string) bool {
			if clean {
				return c.seqs[n] > 0 && value == damageValue(n, c.seqs[n])
			}
			return c.ever[n][value]
		})
		j.work(cache, i, what)
	})
}

// indexEnd is where the links begin, as the superblock tells.
func (c *composer) indexEnd(s snapshot) int64 {
	return int64(binary.LittleEndian.Uint64(s.page(0)[112:]))
}

// compose makes a load and takes snapshots of it, some of them while it runs.
func (j *damageJob) compose(load int) *composer {
	t := j.t
	c := &composer{seqs: make([]int, damageKeys)}
	for range damageKeys {
		c.ever = append(c.ever, map[string]bool{})
	}
	ever := func(n, seq int) { c.ever[n][damageValue(n, seq)] = true }
	os.Remove(j.path)
	r := rand.New(rand.NewPCG(uint64(load), 4))
	cache, err := hearth.Open(damageOptions(j.path, 1))
	if err != nil {
		t.Fatal(err)
	}
	seqs := make([]int, damageKeys)
	fillDamage(t, cache, r, seqs, 1200, ever)
	closeCache(t, cache)
	copy(c.seqs, seqs)
	c.snapshots = append(c.snapshots, takeSnapshot(t, j.path))
	if cache, err = hearth.Open(damageOptions(j.path, 1)); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			fillDamage(t, cache, r, seqs, 150, ever)
		}()
		if load%2 == 0 {
			<-done
		}
		c.snapshots = append(c.snapshots, takeSnapshot(t, j.path))
		<-done
	}
	if err := cache.Abandon(); err != nil {
		t.Fatal(err)
	}
	c.snapshots = append(c.snapshots, takeSnapshot(t, j.path))
	return c
}
