// queue: who sends requests that are taken in as messages, who gets them, and who asks meanwhile.
//
// Ordinary Go, the standard library alone. What was answered 202 and what arrived is written down line by
// line, each with one write, so that it outlives this program.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
)

func main() {
	commands := map[string]func([]string) int{"produce": produce, "record": record, "ask": ask}
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		os.Exit(commands[os.Args[1]](os.Args[2:]))
	}
	fmt.Fprintln(os.Stderr, "usage: queue produce|record|ask …")
	os.Exit(2)
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "queue:", err)
	return 1
}

// appended opens a file whose lines stay, one write each.
func appended(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// write puts a result in its place whole.
func write(path string, result any) error {
	text, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	if err := os.WriteFile(path+".draft", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".draft", path)
}

// shares sorts figures and gives those at a share of them.
func shares(figures []float64) func(float64) float64 {
	sort.Float64s(figures)
	return func(share float64) float64 {
		if len(figures) == 0 {
			return 0
		}
		return figures[int(share*float64(len(figures)-1))]
	}
}
