package web

import (
	"embed"
	"encoding/json"
	"net/http"
	"strings"
)

// lists are the rows of stats that are shown, at one moment; those of items, slabs, workers and latency by what stands before their last colon.
type lists struct {
	Stats    rows            `json:"stats"`
	Settings rows            `json:"settings"`
	Items    map[string]rows `json:"items"`
	Slabs    map[string]rows `json:"slabs"`
	Workers  map[string]rows `json:"workers"`
	Latency  map[string]rows `json:"latency"`
}

// rows are one list, or of one the rows of a class or a worker.
type rows map[string]value

// value is a row's text.
type value string

// MarshalJSON makes numbers of values that look like one.
func (v value) MarshalJSON() ([]byte, error) {
	if v != "" && (v[0] == '-' || v[0] >= '0' && v[0] <= '9') && json.Valid([]byte(v)) {
		return []byte(v), nil
	}
	return json.Marshal(string(v))
}

// lists reads those of the names; false: they are not to be had.
func (s *Site) lists(names ...string) (l lists, ok bool) {
	ok = s.read(func() bool {
		for _, name := range names {
			flat := rows{}
			if !s.src.Rows(name, func(name, v string) { flat[name] = value(strings.ToValidUTF8(v, "?")) }) {
				return false
			}
			switch name {
			case "":
				l.Stats = flat
			case "settings":
				l.Settings = flat
			case "items":
				l.Items = flat.byGroup()
			case "slabs":
				l.Slabs = flat.byGroup()
			case "workers":
				l.Workers = flat.byGroup()
			case "latency":
				l.Latency = flat.byGroup()
			}
		}
		return true
	})
	return l, ok
}

// all are the names of the lists.
var all = []string{"", "settings", "items", "slabs", "workers", "latency"}

// byGroup takes items:5:number and 5:chunk_size apart. Rows of no group are left out: what they tell is in plain stats too.
func (flat rows) byGroup() map[string]rows {
	groups := map[string]rows{}
	for name, v := range flat {
		group, key, ok := strings.Cut(strings.TrimPrefix(name, "items:"), ":")
		if !ok {
			continue
		}
		if groups[group] == nil {
			groups[group] = rows{}
		}
		groups[group][key] = v
	}
	return groups
}

// json answers with all lists.
func (s *Site) json(w http.ResponseWriter, _ *http.Request) {
	l, ok := s.lists(all...)
	if !ok {
		http.Error(w, "no figures", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(l)
}

//go:embed page
var files embed.FS

func page(name, kind string) http.HandlerFunc {
	text, err := files.ReadFile("page/" + name)
	if err != nil {
		panic(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Write(text)
	}
}
