// load: producers for the brokers the queue is measured against, by each broker's own client.
//
//	load jetstream|rabbitmq|redis ADDRESS PRODUCERS SECONDS
//
// Each producer has a connection of its own, sends 1 KiB and waits for the broker's acknowledgement.
// When all are connected it prints "ready" and waits for a line; then it runs and prints one line of
// JSON, as the example "producers" does. See tests/bench/queue.py.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// The longest that connecting all of them, or one acknowledgement, may take.
const patience = 30 * time.Second

var body = bytes.Repeat([]byte("b"), 1024)

// send returns when the broker has acknowledged one message.
type send func(context.Context) error

// connect makes one producer; what must be there on the broker is made by the first.
type connect func(ctx context.Context, address string, first bool) (send, error)

type told struct {
	Accepted int     `json:"accepted"`
	Seconds  float64 `json:"seconds"`
	P50      int64   `json:"p50_us"`
	P99      int64   `json:"p99_us"`
	P999     int64   `json:"p999_us"`
	Max      int64   `json:"max_us"`
	CPU      float64 `json:"client_cpu_seconds"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("usage: load jetstream|rabbitmq|redis ADDRESS PRODUCERS SECONDS")
	}
	connect, known := map[string]connect{"jetstream": jetStream, "rabbitmq": rabbitMQ, "redis": redisStream}[args[0]]
	if !known {
		return fmt.Errorf("no broker is called %q", args[0])
	}
	count, err := strconv.Atoi(args[2])
	if err != nil || count < 1 {
		return fmt.Errorf("%q is not a number of producers", args[2])
	}
	seconds, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	producers, err := all(connect, args[1], count)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	told, err := measure(producers, time.Duration(seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

func all(connect connect, address string, count int) ([]send, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	producers := make([]send, count)
	for i := range producers {
		producer, err := connect(ctx, address, i == 0)
		if err != nil {
			return nil, err
		}
		producers[i] = producer
	}
	return producers, nil
}

func measure(producers []send, lasts time.Duration) (told, error) {
	took := make([][]int64, len(producers))
	failed := make([]error, len(producers))
	cpu, begun := processor(), time.Now()
	// One deadline for the whole run: one for each message would cost more than the message.
	ctx, cancel := context.WithTimeout(context.Background(), lasts+patience)
	defer cancel()
	var group sync.WaitGroup
	for i, send := range producers {
		group.Go(func() {
			for {
				sent := time.Now()
				if sent.Sub(begun) >= lasts {
					return
				}
				if failed[i] = send(ctx); failed[i] != nil {
					return
				}
				took[i] = append(took[i], time.Since(sent).Microseconds())
			}
		})
	}
	group.Wait()
	seconds, cpu := time.Since(begun).Seconds(), processor()-cpu
	for _, err := range failed {
		if err != nil {
			return told{}, err
		}
	}
	every := slices.Concat(took...)
	slices.Sort(every)
	at := func(permille int) int64 {
		if len(every) == 0 {
			return 0
		}
		return every[(len(every)-1)*permille/1000]
	}
	return told{len(every), seconds, at(500), at(990), at(999), at(1000), cpu}, nil
}

// processor is the time in seconds this process has had.
func processor() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
