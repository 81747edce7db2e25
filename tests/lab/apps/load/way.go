package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Beyond this the client is the one that is too slow, and a request counts as failed unsent.
	underWayMax = 10_000
	failuresMax = 500
)

// A way is one protocol: its schedule and what came of it.
type way struct {
	name      string
	ask       ask
	allOrders bool
	sent      atomic.Int64
	failed    atomic.Int64
	underWay  atomic.Int64

	lock      sync.Mutex
	kinds     map[string]int
	failures  []map[string]string
	latencies []float64
	lates     []float64
	again     int
	orders    int
	began     time.Time
	ended     time.Time
}

func newWay(name string, ask ask, allOrders bool) *way {
	return &way{name: name, ask: ask, allOrders: allOrders, kinds: map[string]int{}}
}

// run starts request n at first + n/rate, no matter what became of those before.
func (w *way) run(ctx context.Context, first time.Time, rate float64, ids *os.File) {
	var all sync.WaitGroup
	w.began = first
	for n := 0; ; n++ {
		due := first.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
		if ctx.Err() != nil {
			break
		}
		order := ""
		if w.allOrders || n%2 == 1 {
			order = fmt.Sprintf("%s-%d", w.name, n)
		}
		w.sent.Add(1)
		if w.underWay.Load() >= underWayMax {
			w.note(due, due, order, outcome{kind: "unsent"}, ids)
			continue
		}
		w.underWay.Add(1)
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			started := time.Now()
			w.note(due, started, order, w.ask(ctx, order), ids)
			w.underWay.Add(-1)
		})
	}
	w.ended = time.Now()
	all.Wait()
}

func (w *way) note(due, started time.Time, order string, got outcome, ids *os.File) {
	now := time.Now()
	if got.kind == "" && order != "" {
		ids.WriteString(order + "\n")
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	// From when it was due: a client that falls behind must not make the mesh look fast.
	w.latencies = append(w.latencies, now.Sub(due).Seconds()*1000)
	w.lates = append(w.lates, started.Sub(due).Seconds()*1000)
	if order != "" {
		w.orders++
	}
	if got.again {
		w.again++
	}
	if got.kind == "" {
		return
	}
	w.failed.Add(1)
	w.kinds[got.kind]++
	failure := map[string]string{
		"at": now.UTC().Format("15:04:05.000000"), "after": now.Sub(started).String(),
		"order": order, "kind": got.kind, "detail": got.detail,
	}
	fmt.Println("failure", w.name, failure)
	if len(w.failures) < failuresMax {
		w.failures = append(w.failures, failure)
	}
}

func (w *way) summary() map[string]any {
	sort.Float64s(w.latencies)
	sort.Float64s(w.lates)
	at, late := shareOf(w.latencies), shareOf(w.lates)
	return map[string]any{
		"sent": w.sent.Load(), "orders": w.orders, "failed": w.failed.Load(), "kinds": w.kinds,
		"failures": w.failures, "asked_again": w.again,
		"rate":        float64(w.sent.Load()) / w.ended.Sub(w.began).Seconds(),
		"late_p99_ms": late(0.99), "late_max_ms": late(1),
		"p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1),
	}
}

func shareOf(sorted []float64) func(float64) float64 {
	return func(share float64) float64 {
		if len(sorted) == 0 {
			return 0
		}
		return sorted[int(share*float64(len(sorted)-1))]
	}
}
