package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strconv"
)

// colours are told apart by those who see few colours, too: Okabe and Ito's.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}

// plot draws latencies by percentile, all rounds together, and the medians of throughput and processor time, as one SVG that needs nothing else.
func plot(all *comparison) []byte {
	const width, left, top, chartW, chartH = 920, 80, 90, 560, 330
	const barLeft, barW = 720, 170
	var b bytes.Buffer
	height := top + chartH + 70 + 22*len(all.Servers)
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, html.EscapeString(s))
	}
	rule := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", x1, y1, x2, y2)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n", width, height, width, height)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n")
	l := &all.Load
	text(left, 30, "start", fmt.Sprintf("%s protocol, %d connections, %d at once on each, %d keys a get, values %s B, %v %% sets, %d keys, %d rounds of %v",
		l.Protocol, l.Conns, l.Pipeline, l.Multiget, l.Size, l.Sets, l.Keys, len(all.Servers[0].Rounds), l.Duration))
	text(left, top-22, "start", "latency in µs, by percentile (both scales logarithmic)")

	// The x axis counts nines: 90 % is 1, 99 % is 2. The y axis spans whole powers of ten.
	percentiles := []float64{0, 90, 99, 99.9, 99.99}
	low, high := math.Inf(1), 0.0
	curves := make([][]float64, len(all.Servers))
	const steps = 200
	maxNines := 4.0
	for i, s := range all.Servers {
		h := newLatency()
		for _, r := range s.Rounds {
			h.Merge(r.histogram)
		}
		for n := range steps + 1 {
			nines := maxNines * float64(n) / steps
			us := float64(h.ValueAtQuantile(100*(1-math.Pow(10, -nines)))) / 1e3
			curves[i] = append(curves[i], us)
			low, high = min(low, us), max(high, us)
		}
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	to = max(to, from+1)
	x := func(nines float64) float64 { return left + chartW*nines/maxNines }
	y := func(us float64) float64 { return top + chartH*(1-(math.Log10(us)-from)/(to-from)) }
	for _, p := range percentiles {
		nines := -math.Log10(1 - p/100)
		rule(x(nines), top, x(nines), top+chartH)
		text(x(nines), top+chartH+20, "middle", fmt.Sprintf("%v %%", p))
	}
	for e := from; e <= to; e++ {
		us := math.Pow(10, e)
		rule(left, y(us), left+chartW, y(us))
		text(left-8, y(us)+4, "end", strconv.FormatFloat(us, 'f', -1, 64))
	}
	for i, curve := range curves {
		fmt.Fprintf(&b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colours[i%len(colours)])
		for n, us := range curve {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(maxNines*float64(n)/steps), y(us))
		}
		fmt.Fprint(&b, "\"/>\n")
	}

	// Bars begin at 0, so that their lengths compare.
	at := float64(top)
	for _, name := range []string{"requests/s", "CPU us/request", "VmRSS MB"} {
		text(barLeft, at-22, "start", name)
		most := 0.0
		for _, s := range all.Servers {
			most = max(most, s.Figures[name].High)
		}
		for i, s := range all.Servers {
			st := s.Figures[name]
			scale := func(v float64) float64 { return barLeft + barW*v/max(most, math.SmallestNonzeroFloat64) }
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"16\" fill=\"%s\" fill-opacity=\"0.75\"/>\n", barLeft, at-14, scale(st.Median)-barLeft, colours[i%len(colours)])
			fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#222\"/>\n", scale(st.Low), at-6, scale(st.High), at-6)
			text(barLeft, at+16, "start", short(st.Median))
			at += 38
		}
		at += 36
	}

	for i, s := range all.Servers {
		ly := float64(top + chartH + 52 + 22*i)
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%.1f\" width=\"14\" height=\"14\" fill=\"%s\"/>\n", left, ly-12, colours[i%len(colours)])
		text(left+22, ly, "start", s.Line)
	}
	fmt.Fprint(&b, "</svg>\n")
	return b.Bytes()
}
