package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// An answer takes a flush of the disk; a sidecar that is killed answers with the end of the connection.
	answerPatience = 10 * time.Second
	// How long nobody listens is up to the test; so is what a full queue lets in.
	againAfter = 20 * time.Millisecond
)

type producer struct {
	url      string
	padding  string
	count    int64
	interval time.Duration
	client   *http.Client
	sent     *os.File
	accepted *os.File

	taken atomic.Int64
	lock  sync.Mutex
	said  map[string]int
}

// produce sends messages until SIGTERM or the end of its count: one worker per ordering key, which sends
// the next when it knows what became of the last, and some without a key. Of the keys every other asks
// again with the same Idempotency-Key when it cannot know; the others leave it at that.
func produce(args []string) int {
	flags := flag.NewFlagSet("produce", flag.ExitOnError)
	to := flags.String("to", "", "URL to POST to")
	keys := flags.Int("keys", 0, "how many ordering keys")
	loose := flags.Int("loose", 0, "how many workers without one")
	rate := flags.Float64("rate", 0, "messages per second, of all workers together; 0: as fast as they can")
	count := flags.Int64("count", math.MaxInt64, "how many to have accepted")
	bytes := flags.Int("bytes", 256, "size of a body")
	name := flags.String("name", "p", "what its keys begin with")
	sent := flags.String("sent", "/dev/null", "file that gets KEY SEQUENCE before it is sent")
	accepted := flags.String("accepted", "/dev/null", "file that gets TIME ID KEY SEQUENCE at each 202")
	result := flags.String("result", "/dev/null", "file that gets the counts, JSON")
	flags.Parse(args)
	workers := *keys + *loose
	p := &producer{
		url: *to, padding: strings.Repeat("x", *bytes), count: *count, said: map[string]int{},
		client: &http.Client{Transport: &http.Transport{
			MaxIdleConns: workers, MaxIdleConnsPerHost: workers,
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		}},
	}
	if *rate > 0 {
		p.interval = time.Duration(float64(workers) / *rate * float64(time.Second))
	}
	var err error
	if p.sent, err = appended(*sent); err != nil {
		return complain(err)
	}
	if p.accepted, err = appended(*accepted); err != nil {
		return complain(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, finish := context.WithCancel(ctx)
	defer finish()
	began := time.Now()
	var all sync.WaitGroup
	for number := range workers {
		// They take turns.
		first := began.Add(p.interval * time.Duration(number) / time.Duration(workers))
		if number < *keys {
			key := fmt.Sprintf("%s-k%d", *name, number)
			all.Go(func() { p.run(ctx, finish, first, key, key, number%2 == 0) })
		} else {
			all.Go(func() { p.run(ctx, finish, first, fmt.Sprintf("%s-l%d", *name, number), "", number%2 == 0) })
		}
	}
	fmt.Println("ready")
	all.Wait()
	seconds := time.Since(began).Seconds()
	figures := map[string]any{"accepted": p.taken.Load(), "seconds": seconds, "said": p.said}
	if err := write(*result, figures); err != nil {
		return complain(err)
	}
	return 0
}

// run is one worker. Its messages bear `name` and a number; `key` orders them, if there is one.
func (p *producer) run(ctx context.Context, finish func(), due time.Time, name, key string, again bool) {
	for sequence := 1; ; sequence++ {
		if wait := time.Until(due); wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
		if ctx.Err() != nil {
			return
		}
		if p.taken.Load() >= p.count {
			finish()
			return
		}
		fmt.Fprintf(p.sent, "%s %d\n", name, sequence)
		for !p.send(ctx, name, key, sequence, again) && ctx.Err() == nil {
			time.Sleep(againAfter)
		}
		// What was missed is not made up for: a storm after each crash would be another test.
		if due = due.Add(p.interval); time.Since(due) > p.interval {
			due = time.Now()
		}
	}
}

// send gives whether this message's time is over: it was taken in, or nobody can know and nobody asks.
func (p *producer) send(ctx context.Context, name, key string, sequence int, again bool) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerPatience)
	defer cancel()
	body := fmt.Sprintf("%s %d\n%s", name, sequence, p.padding)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Prefer", "respond-async")
	if key != "" {
		request.Header.Set("Tidegate-Key", key)
	}
	if again {
		request.Header.Set("Idempotency-Key", fmt.Sprintf("%s-%d", name, sequence))
	} else {
		// A library that sends it twice by itself would be our fault.
		request.GetBody = nil
	}
	response, err := p.client.Do(request)
	if err != nil {
		return p.failed(err, again)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusAccepted {
		p.say(fmt.Sprintf("status %d %s", response.StatusCode, problem(text)))
		return response.StatusCode != 429 && response.StatusCode != 503
	}
	id, found := strings.CutPrefix(response.Header.Get("Location"), "/.tidegate/requests/")
	if !found {
		p.say("202 without Location")
		return true
	}
	fmt.Fprintf(p.accepted, "%d %s %s %d\n", time.Now().UnixNano(), id, name, sequence)
	p.taken.Add(1)
	if response.Header.Get("Tidegate-Durability") != "local" {
		p.say("202 that is not durable")
	}
	if response.Header.Get("Tidegate-Duplicate") != "" {
		p.say("duplicate")
	}
	if err != nil {
		p.say("202 cut")
	}
	return true
}

func (p *producer) failed(err error, again bool) bool {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		p.say("not connected")
		return false
	}
	p.say("unknown")
	return !again
}

func (p *producer) say(what string) {
	p.lock.Lock()
	defer p.lock.Unlock()
	if _, known := p.said[what]; !known {
		fmt.Println(time.Now().UTC().Format(time.StampMicro), "first", what)
	}
	p.said[what]++
}

// problem gives the last part of a problem document's type.
func problem(text []byte) string {
	_, rest, _ := strings.Cut(string(text), "/problems/")
	name, _, _ := strings.Cut(rest, "\"")
	return name
}
