package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// ask sends GET by the clock, whatever became of those before, and measures from when each was due.
func ask(args []string) int {
	flags := flag.NewFlagSet("ask", flag.ExitOnError)
	to := flags.String("to", "", "URL")
	rate := flags.Float64("rate", 500, "requests per second")
	last := flags.Duration("for", time.Hour, "how long, unless SIGTERM comes first")
	warm := flags.Duration("warm", 0, "how much of that does not count")
	fresh := flags.Bool("fresh", false, "each on a connection of its own")
	result := flags.String("result", "/dev/null", "file that gets the figures, JSON")
	flags.Parse(args)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		MaxIdleConns: 1000, MaxIdleConnsPerHost: 1000, DisableKeepAlives: *fresh,
	}}
	ctx, cancel := context.WithTimeout(context.Background(), *last)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	var all sync.WaitGroup
	var lock sync.Mutex
	var latencies, lates []float64
	var failures []string
	sent, failed := 0, 0
	fmt.Println("ready")
	began := time.Now()
	for n := 0; ; n++ {
		due := began.Add(time.Duration(float64(n) / *rate * float64(time.Second)))
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
		if ctx.Err() != nil {
			break
		}
		sent++
		all.Go(func() {
			started := time.Now()
			err := get(client, *to)
			now := time.Now()
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				if failed++; len(failures) < 20 {
					failures = append(failures, now.UTC().Format("15:04:05.000000 ")+err.Error())
				}
			}
			if due.Sub(began) >= *warm {
				latencies = append(latencies, now.Sub(due).Seconds()*1000)
				lates = append(lates, started.Sub(due).Seconds()*1000)
			}
		})
	}
	all.Wait()
	at, late := shares(latencies), shares(lates)
	figures := map[string]any{
		"sent": sent, "failed": failed, "failures": failures, "seconds": time.Since(began).Seconds(),
		"p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1), "late_p99_ms": late(0.99),
	}
	if err := write(*result, figures); err != nil {
		return complain(err)
	}
	return 0
}

func get(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s", response.StatusCode, response.Header.Get("Proxy-Status"))
	}
	return nil
}
