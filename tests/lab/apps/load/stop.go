package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// How long the word to close takes to reach everybody: at least, and at most while connections
	// rest that nobody uses. Under load each is used within a few milliseconds.
	lameDuckMin = 100 * time.Millisecond
	lameDuckMax = 400 * time.Millisecond
	// How long whoever came last may take to say what it wants.
	settle = 50 * time.Millisecond
)

// A goodbye is how this server stops without a request lost. net/http's own way, Shutdown, closes
// resting connections whose next request may be there already, unread. Here each response first says
// that its connection ends with it (HTTP/2: GOAWAY), until no connection rests; meanwhile new ones are
// taken. Then the doors are shut on nobody, and what was begun is finished.
type goodbye struct {
	said  atomic.Bool
	lock  sync.Mutex
	conns map[net.Conn]http.ConnState
}

func newGoodbye() *goodbye {
	return &goodbye{conns: map[net.Conn]http.ConnState{}}
}

// say puts the word into a response that is about to be written.
func (g *goodbye) say(header http.Header) {
	if g.said.Load() {
		header.Set("Connection", "close")
	}
}

// follow is the server's ConnState.
func (g *goodbye) follow(conn net.Conn, state http.ConnState) {
	g.lock.Lock()
	defer g.lock.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(g.conns, conn)
	} else {
		g.conns[conn] = state
	}
}

func (g *goodbye) resting() int {
	g.lock.Lock()
	defer g.lock.Unlock()
	count := 0
	for _, state := range g.conns {
		if state == http.StateIdle {
			count++
		}
	}
	return count
}

// part tells everybody, shuts the doors, and gives how many connections rest all the same.
func (g *goodbye) part(doors ...*door) int {
	g.said.Store(true)
	began := time.Now()
	time.Sleep(lameDuckMin)
	for g.resting() > 0 && time.Since(began) < lameDuckMax {
		time.Sleep(time.Millisecond)
	}
	left := g.resting()
	for _, door := range doors {
		door.Close()
	}
	time.Sleep(settle)
	return left
}

// A door is a listener that lets in whoever has come before it closes. The kernel resets connections
// that are not accepted when their listener ends, with all that was sent on them and acknowledged.
type door struct {
	*net.TCPListener
	came    chan net.Conn
	closing sync.Once
	opened  sync.WaitGroup
}

func open(address string) (*door, error) {
	// The filter of `shut` is not for the Multipath TCP that Go listens with otherwise.
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	listener, err := plain.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	d := &door{TCPListener: listener.(*net.TCPListener), came: make(chan net.Conn)}
	d.opened.Go(func() {
		for {
			conn, err := d.TCPListener.Accept()
			if err != nil {
				return
			}
			d.came <- conn
		}
	})
	return d, nil
}

func (d *door) Accept() (net.Conn, error) {
	if conn, ok := <-d.came; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (d *door) Close() error {
	d.closing.Do(func() {
		last := d.shut()
		d.TCPListener.Close()
		d.opened.Wait()
		for _, conn := range last {
			d.came <- conn
		}
		close(d.came)
	})
	return nil
}

// shut stops new connections and takes those that wait. The filter drops every packet to the listener
// itself: a SYN is sent again a second later, and finds the port closed.
func (d *door) shut() []net.Conn {
	var last []net.Conn
	raw, err := d.SyscallConn()
	if err != nil {
		panic(err)
	}
	raw.Control(func(fd uintptr) {
		drop := []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}}
		if err := syscall.AttachLsf(int(fd), drop); err != nil {
			panic(err)
		}
		for {
			waiting, _, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err == syscall.EINTR || err == syscall.ECONNABORTED {
				continue
			}
			if err != nil {
				return
			}
			file := os.NewFile(uintptr(waiting), "accepted")
			if conn, err := net.FileConn(file); err == nil {
				last = append(last, conn)
			}
			file.Close()
		}
	})
	return last
}
