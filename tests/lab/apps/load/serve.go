package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type server struct {
	name     string
	work     time.Duration
	executed *os.File
	requests atomic.Int64
	goodbye  *goodbye
}

// serve answers on both ports until SIGTERM, says goodbye, finishes what it has begun, and ends.
func serve(args []string) int {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	web := flags.String("http", ":8080", "where HTTP/1.1 and HTTP/2 are spoken")
	rpc := flags.String("grpc", ":9090", "where gRPC is spoken")
	name := flags.String("name", "", "what every answer says")
	work := flags.Duration("work", 2*time.Millisecond, "how long a request takes")
	executed := flags.String("executed", "/dev/null", "file that gets the id of each order carried out")
	counts := flags.String("counts", "", "file that gets, at every change, connections and requests")
	flags.Parse(args)
	file, err := os.OpenFile(*executed, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return complain(err)
	}
	s := &server{name: *name, work: *work, executed: file, goodbye: newGoodbye()}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{Handler: s, Protocols: &protocols, ConnState: s.goodbye.follow}
	g := grpc.NewServer()
	g.RegisterService(&ordersDesc, s)
	webDoor, err := open(*web)
	if err != nil {
		return complain(err)
	}
	rpcDoor, err := open(*rpc)
	if err != nil {
		return complain(err)
	}
	var webSocket, rpcSocket net.Listener = webDoor, rpcDoor
	var connections atomic.Int64
	if *counts != "" {
		webSocket = counted{webSocket, &connections}
		rpcSocket = counted{rpcSocket, &connections}
		go s.report(*counts, &connections)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go h.Serve(webSocket)
	go g.Serve(rpcSocket)
	fmt.Println("ready")
	<-stop
	fmt.Println(time.Now().UTC().Format(time.StampMicro), "stopping")
	left := s.goodbye.part(webDoor, rpcDoor)
	fmt.Println(time.Now().UTC().Format(time.StampMicro), "doors shut,", left, "connections rest unused")
	var both sync.WaitGroup
	both.Go(func() { h.Shutdown(context.Background()) })
	both.Go(g.GracefulStop)
	both.Wait()
	fmt.Println(time.Now().UTC().Format(time.StampMicro), "stopped after", s.requests.Load(), "requests")
	return 0
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "load:", err)
	return 1
}

// execute is what must not happen twice.
func (s *server) execute(id string) {
	s.requests.Add(1)
	if id != "" {
		s.executed.WriteString(id + "\n")
	}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.execute(r.Header.Get("x-order"))
	work := s.work
	if asked, err := strconv.Atoi(r.URL.Query().Get("ms")); err == nil {
		work = time.Duration(asked) * time.Millisecond
	}
	time.Sleep(work)
	s.goodbye.say(w.Header())
	fmt.Fprintln(w, s.name)
}

func (s *server) Place(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	s.execute(in.Value)
	time.Sleep(s.work)
	return wrapperspb.String(s.name), nil
}

type counted struct {
	net.Listener
	connections *atomic.Int64
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.connections.Add(1)
	}
	return conn, err
}

func (s *server) report(path string, connections *atomic.Int64) {
	for range time.Tick(50 * time.Millisecond) {
		text := fmt.Sprintf("%d %d\n", connections.Load(), s.requests.Load())
		os.WriteFile(path+".draft", []byte(text), 0o644)
		os.Rename(path+".draft", path)
	}
}
