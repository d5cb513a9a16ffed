package main

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2/hpack"
)

// drainMax is how long calls under way may take at the end.
const drainMax = 30 * time.Second

// load is one run.
type load struct {
	*options
	header []hpack.HeaderField
	from   time.Time // what is counted
	until  time.Time

	taken   atomic.Int64 // bodies
	ended   atomic.Bool  // no more calls are begun
	pending atomic.Int64 // calls of the open loop that are due and not answered
	shed    atomic.Int64

	places   sync.Mutex
	slots    []*connection
	replaced int

	counts    sync.Mutex
	answered  int64
	last      time.Time
	outcomes  map[outcome]int64
	samples   map[outcome][]byte
	messages  map[outcome]string
	latencies []time.Duration
	lateness  []time.Duration
}

func (l *load) isOpen() bool { return l.rate > 0 }

// run makes all calls.
func run(o *options) (*report, error) {
	l := &load{options: o, outcomes: map[outcome]int64{}, samples: map[outcome][]byte{}, messages: map[outcome]string{}}
	l.header = []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: o.method},
		{Name: ":authority", Value: o.addresses[0]},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
		{Name: "user-agent", Value: "keysvc-load"},
	}
	if o.authorization != "" {
		l.header = append(l.header, hpack.HeaderField{Name: "authorization", Value: o.authorization})
	}
	for n := range o.connections {
		c, err := dial(l, o.addresses[n%len(o.addresses)])
		if err != nil {
			return nil, err
		}
		l.slots = append(l.slots, c)
	}
	began := time.Now()
	l.from = began.Add(o.warm)
	l.until = l.from.Add(o.duration)
	if o.requests > 0 {
		l.until = began.Add(24 * time.Hour)
	}
	for _, c := range slices.Clone(l.slots) {
		go c.read()
		if !l.isOpen() {
			c.mutex.Lock()
			c.pump()
			c.mutex.Unlock()
		}
	}
	enough := make(chan os.Signal, 1)
	signal.Notify(enough, syscall.SIGTERM)
	switch {
	case l.isOpen():
		l.pace(began, enough)
	case o.requests > 0:
		for !l.isDrained() {
			time.Sleep(time.Millisecond)
		}
	default:
		select {
		case <-enough:
			l.counts.Lock()
			l.until = time.Now()
			l.counts.Unlock()
		case <-time.After(time.Until(l.until)):
		}
	}
	l.ended.Store(true)
	for limit := time.Now().Add(drainMax); !l.isDrained() && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	if o.requests > 0 {
		l.until = l.last
	}
	return l.report(), nil
}

// pace offers calls at random times: the gaps are those of a Poisson process.
func (l *load) pace(began time.Time, enough <-chan os.Signal) {
	// A thread of its own, with sleeps that are exact to some microseconds: those of goroutines are not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1, 0)
	chance := rand.New(rand.NewPCG(l.seed, 0))
	due := began
	for number := 0; ; number++ {
		due = due.Add(time.Duration(chance.ExpFloat64() / l.rate * float64(time.Second)))
		if due.After(l.until) {
			return
		}
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			rest := syscall.NsecToTimespec(int64(wait))
			syscall.Nanosleep(&rest, nil)
		}
		select {
		case <-enough:
			l.counts.Lock()
			l.until = due
			l.counts.Unlock()
			return
		default:
		}
		if l.shedAbove > 0 && l.pending.Load() >= l.shedAbove {
			l.shed.Add(1)
			continue
		}
		l.pending.Add(1)
		l.places.Lock()
		c := l.slots[number%len(l.slots)]
		l.places.Unlock()
		c.offer(&call{body: l.nextBody(), due: due})
	}
}

// nextBody is what the next call sends; nil: there is no next call.
func (l *load) nextBody() []byte {
	if l.ended.Load() {
		return nil
	}
	number := l.taken.Add(1) - 1
	if l.requests > 0 && number >= l.requests {
		return nil
	}
	return l.bodies[number%int64(len(l.bodies))]
}

// isDrained tells whether nothing is under way, and nothing more will be of a counted number of requests.
func (l *load) isDrained() bool {
	if l.requests > 0 && l.taken.Load() < l.requests && !l.ended.Load() {
		return false
	}
	l.places.Lock()
	defer l.places.Unlock()
	for _, c := range l.slots {
		c.mutex.Lock()
		busy := len(c.underWay) + len(c.waiting)
		c.mutex.Unlock()
		if busy > 0 {
			return false
		}
	}
	if l.requests > 0 {
		l.counts.Lock()
		defer l.counts.Unlock()
		return l.answered >= l.requests || l.ended.Load()
	}
	return true
}

// replace puts a new connection in the place of one that takes no more calls, with the calls that wait for it.
func (l *load) replace(old *connection) {
	l.places.Lock()
	defer l.places.Unlock()
	place := slices.Index(l.slots, old)
	if place < 0 || l.ended.Load() {
		return
	}
	c, err := dial(l, old.address)
	if err != nil {
		time.AfterFunc(100*time.Millisecond, func() { l.replace(old) })
		return
	}
	l.slots[place] = c
	l.replaced++
	old.mutex.Lock()
	c.waiting, old.waiting = old.waiting, nil
	old.mutex.Unlock()
	go c.read()
	c.mutex.Lock()
	c.pump()
	c.mutex.Unlock()
}

// finished counts a call that has got its answer, or will never get one.
func (l *load) finished(one *call, found outcome) {
	now := time.Now()
	l.counts.Lock()
	defer l.counts.Unlock()
	l.answered++
	l.last = now
	l.outcomes[found]++
	if l.samples[found] == nil {
		l.samples[found] = append([]byte{}, one.answer...)
		l.messages[found] = one.message
	}
	at := now
	if l.isOpen() {
		l.pending.Add(-1)
		at = one.due
	}
	if at.Before(l.from) || !at.Before(l.until) {
		return
	}
	l.latencies = append(l.latencies, now.Sub(one.due))
	l.lateness = append(l.lateness, one.late)
}

// counted is an outcome, how often it came, the first answer that was it, and what its status said.
type counted struct {
	outcome
	Count   int64  `json:"count"`
	Sample  string `json:"sample"`
	Message string `json:"message"`
}

// report is what was found; latencies of counted calls alone.
type report struct {
	Answered         int64              `json:"answered"`
	Unanswered       int64              `json:"unanswered"`
	Counted          int                `json:"counted"`
	Seconds          float64            `json:"seconds"`
	PerSecond        float64            `json:"per_second"`
	Outcomes         []counted          `json:"outcomes"`
	LatencyMs        map[string]float64 `json:"latency_ms"`
	LateMs           map[string]float64 `json:"late_ms"`
	Shed             int64              `json:"shed"`
	Replaced         int                `json:"replaced"`
	ProcessorSeconds float64            `json:"processor_seconds"`
}

func (l *load) report() *report {
	l.places.Lock()
	defer l.places.Unlock()
	l.counts.Lock()
	defer l.counts.Unlock()
	seconds := l.until.Sub(l.from).Seconds()
	made := l.taken.Load()
	if l.requests > 0 {
		made = l.requests
	}
	found := &report{
		Answered:         l.answered,
		Unanswered:       made - l.answered,
		Counted:          len(l.latencies),
		Seconds:          seconds,
		PerSecond:        float64(len(l.latencies)) / seconds,
		LatencyMs:        quantiles(l.latencies),
		LateMs:           quantiles(l.lateness),
		Shed:             l.shed.Load(),
		Replaced:         l.replaced,
		ProcessorSeconds: processorSeconds(),
	}
	for each, count := range l.outcomes {
		sample := l.samples[each]
		if len(sample) > prefixBytes {
			sample = sample[prefixBytes:]
		}
		found.Outcomes = append(found.Outcomes, counted{each, count, hex.EncodeToString(sample), l.messages[each]})
	}
	return found
}

func quantiles(durations []time.Duration) map[string]float64 {
	if len(durations) == 0 {
		return nil
	}
	slices.Sort(durations)
	found := map[string]float64{}
	for name, part := range map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1} {
		place := min(int(part*float64(len(durations))), len(durations)-1)
		found[name] = float64(durations[place].Nanoseconds()) / 1e6
	}
	return found
}
