// Command load calls Verify over gRPC and looks at every answer.
//
// In a closed loop so many calls are always under way, which finds out how many are answered per second. In an open
// loop (-rate) calls are due at random times, as from many independent callers, and the latency of a call is counted
// from when it was due, whether or not the server, or this program, was late by then.
//
// SIGTERM ends a run early; what was found until then is told.
//
// It speaks HTTP/2 by itself, on prepared bytes, so that it takes a small part of the processors that it shares with
// the server. What it found is one JSON object on standard output.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// options of a run; the flags explain them.
type options struct {
	addresses     []string
	method        string
	authorization string
	bodies        [][]byte
	connections   int
	streams       int
	requests      int64
	rate          float64
	shedAbove     int64
	warm          time.Duration
	duration      time.Duration
	seed          uint64
}

func main() {
	debug.SetGCPercent(800)
	chosen, err := readOptions()
	if err == nil {
		var result *report
		if result, err = run(chosen); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(result)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func readOptions() (*options, error) {
	o := options{authorization: os.Getenv("LOAD_AUTHORIZATION")}
	addresses := flag.String("addresses", "", "host:port, several with commas: connections are spread over them")
	bodies := flag.String("bodies", "", "file of gRPC messages with their prefixes, sent in turn")
	seconds := flag.Float64("seconds", 0, "for how long")
	warm := flag.Float64("warm", 0, "seconds before that, which are not counted")
	flag.StringVar(&o.method, "method", "/keysvc.v1.KeyService/Verify", "path of the method")
	flag.IntVar(&o.connections, "connections", 8, "how many connections")
	flag.IntVar(&o.streams, "streams", 8, "closed loop: how many calls are under way on each connection")
	flag.Int64Var(&o.requests, "requests", 0, "closed loop: how many calls, instead of -seconds")
	flag.Float64Var(&o.rate, "rate", 0, "open loop: how many calls are due per second")
	flag.Int64Var(&o.shedAbove, "shed-above", 0, "open loop: make no call while so many are under way; 0: make all")
	flag.Uint64Var(&o.seed, "seed", 1, "open loop: of chance")
	flag.Parse()
	if *addresses == "" || (*seconds <= 0) == (o.requests <= 0) || (o.rate > 0 && o.requests > 0) {
		return nil, fmt.Errorf("needs -addresses, and either -seconds or (in a closed loop) -requests")
	}
	o.addresses = strings.Split(*addresses, ",")
	o.connections = max(o.connections, len(o.addresses))
	o.duration = time.Duration(*seconds * float64(time.Second))
	o.warm = time.Duration(*warm * float64(time.Second))
	data, err := os.ReadFile(*bodies)
	if err != nil {
		return nil, err
	}
	o.bodies, err = split(data)
	return &o, err
}

// processorSeconds is how long processors have worked for this program.
func processorSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
