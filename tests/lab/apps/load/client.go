package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What one request came to. Kind is empty when it went well.
type outcome struct {
	kind, detail string
	// Whether the client's library asked again by itself; that would hide a fault of the mesh.
	again bool
}

// ask sends the request with this number; an order's id is empty when it is none.
type ask func(ctx context.Context, order string) outcome

const patience = 10 * time.Second

// client asks by the clock until SIGTERM or the end of its time, then writes what came of it.
func client(args []string) int {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	web := flags.String("http", "", "HOST:PORT of HTTP/1.1 and HTTP/2")
	rpc := flags.String("grpc", "", "HOST:PORT of gRPC")
	rate := flags.Float64("rate", 300, "requests per second, of all protocols together")
	last := flags.Duration("for", time.Hour, "how long, unless SIGTERM comes first")
	result := flags.String("result", "", "file that gets the result, JSON")
	acknowledged := flags.String("acknowledged", "/dev/null", "file that gets the ids of the orders answered well")
	flags.Parse(args)
	ids, err := os.Create(*acknowledged)
	if err != nil {
		return complain(err)
	}
	grpcAsk, err := overGrpc(*rpc)
	if err != nil {
		return complain(err)
	}
	ways := []*way{
		newWay("h1", overHTTP(*web, false), false),
		newWay("h2", overHTTP(*web, true), false),
		newWay("grpc", grpcAsk, true),
	}
	ctx, cancel := context.WithTimeout(context.Background(), *last)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	var all sync.WaitGroup
	for number, w := range ways {
		// The protocols take turns.
		first := began.Add(time.Duration(float64(number) / *rate * float64(time.Second)))
		all.Go(func() { w.run(ctx, first, *rate/float64(len(ways)), ids) })
	}
	go progress(ctx, ways)
	fmt.Println("ready")
	all.Wait()
	answer := map[string]any{"seconds": time.Since(began).Seconds()}
	for _, w := range ways {
		answer[w.name] = w.summary()
	}
	text, _ := json.MarshalIndent(answer, "", " ")
	fmt.Println(string(text))
	if *result != "" {
		if err := os.WriteFile(*result+".draft", text, 0o644); err != nil {
			return complain(err)
		}
		if err := os.Rename(*result+".draft", *result); err != nil {
			return complain(err)
		}
	}
	return 0
}

func progress(ctx context.Context, ways []*way) {
	tick := time.NewTicker(5 * time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			line := time.Now().UTC().Format(time.StampMicro)
			for _, w := range ways {
				line += fmt.Sprintf(" %s %d sent %d failed %d under way;", w.name, w.sent.Load(), w.failed.Load(), w.underWay.Load())
			}
			fmt.Println(line)
		}
	}
}

func overHTTP(address string, two bool) ask {
	var protocols http.Protocols
	protocols.SetHTTP1(!two)
	protocols.SetUnencryptedHTTP2(two)
	transport := &http.Transport{
		Protocols:           &protocols,
		MaxIdleConns:        1000,
		MaxIdleConnsPerHost: 1000,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	return func(ctx context.Context, order string) outcome {
		var connections atomic.Int32
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
		})
		verb, body := http.MethodGet, io.Reader(nil)
		if order != "" {
			verb, body = http.MethodPost, strings.NewReader("one of "+order)
		}
		request, err := http.NewRequestWithContext(ctx, verb, "http://"+address+"/orders", body)
		if err != nil {
			return outcome{kind: "request", detail: err.Error()}
		}
		if order != "" {
			request.Header.Set("x-order", order)
		}
		response, err := transport.RoundTrip(request)
		again := connections.Load() > 1
		if err != nil {
			return outcome{kind: broken(err, "broken"), detail: err.Error(), again: again}
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return outcome{kind: broken(err, "broken_body"), detail: err.Error(), again: again}
		}
		if response.StatusCode/100 != 2 {
			detail := fmt.Sprintf("proxy-status: %s; body: %.200q", response.Header.Get("proxy-status"), text)
			return outcome{kind: fmt.Sprint(response.StatusCode), detail: detail, again: again}
		}
		return outcome{again: again}
	}
}

func broken(err error, otherwise string) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return otherwise
}

type retries struct{}

type againKey struct{}

func (retries) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (retries) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (retries) HandleConn(context.Context, stats.ConnStats)                       {}
func (retries) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if begin, ok := event.(*stats.Begin); ok && begin.IsTransparentRetryAttempt {
		if again, ok := ctx.Value(againKey{}).(*atomic.Bool); ok {
			again.Store(true)
		}
	}
}

func overGrpc(address string) (ask, error) {
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithStatsHandler(retries{}))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, order string) outcome {
		var again atomic.Bool
		ctx = context.WithValue(ctx, againKey{}, &again)
		var trailer, header metadata.MD
		out := new(wrapperspb.StringValue)
		err := connection.Invoke(ctx, method, wrapperspb.String(order), out, grpc.Trailer(&trailer), grpc.Header(&header))
		if err != nil {
			detail := fmt.Sprint(err, " header ", header, " trailer ", trailer)
			return outcome{kind: status.Code(err).String(), detail: detail, again: again.Load()}
		}
		return outcome{again: again.Load()}
	}, nil
}
