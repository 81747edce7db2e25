package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// record answers everything well after its time of work, and writes down each message when it has arrived:
// TIME ID ATTEMPT KEY SEQUENCE.
func record(args []string) int {
	flags := flag.NewFlagSet("record", flag.ExitOnError)
	listen := flags.String("listen", ":8080", "where HTTP is spoken")
	file := flags.String("file", "/dev/null", "file that gets a line for each message")
	work := flags.Duration("work", 0, "how long a message takes")
	deadly := flags.String("deadly", "", "key of messages at whose sight a process is killed")
	victim := flags.String("victim", "", "file with the number of that process")
	flags.Parse(args)
	lines, err := appended(*file)
	if err != nil {
		return complain(err)
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.Method != http.MethodPost {
			fmt.Fprintln(w, "here")
			return
		}
		first, _, _ := strings.Cut(string(body), "\n")
		id, attempt := r.Header.Get("Tidegate-Request-Id"), r.Header.Get("Tidegate-Attempt")
		if id == "" || attempt == "" {
			id, attempt = "none", "0"
		}
		fmt.Fprintf(lines, "%d %s %s %s\n", time.Now().UnixNano(), id, attempt, first)
		if *deadly != "" && strings.HasPrefix(first, *deadly+" ") {
			kill(*victim)
			// Nobody is there to hear an answer.
			time.Sleep(time.Minute)
		}
		time.Sleep(*work)
		fmt.Fprintln(w, "done")
	}
	server := &http.Server{Addr: *listen, Handler: http.HandlerFunc(handler)}
	fmt.Println("ready")
	return complain(server.ListenAndServe())
}

func kill(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		panic(fmt.Sprintf("%q is no process", text))
	}
	fmt.Println("killing", pid, syscall.Kill(pid, syscall.SIGKILL))
}
