package main

import (
	"bufio"
	"bytes"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	windowMax     = 1<<31 - 1
	windowDefault = 65535
	bufferBytes   = 64 << 10
)

// call that is to be made, or is under way.
type call struct {
	body   []byte
	due    time.Time
	late   time.Duration
	status int
	answer []byte

	message string // of the status
}

// connection carries calls. Its mutex protects everything but what only its reader uses.
type connection struct {
	load    *load
	address string
	tcp     net.Conn
	out     *bufio.Writer
	in      *bufio.Reader
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer

	mutex         sync.Mutex
	nextID        uint32
	underWay      map[uint32]*call
	waiting       []*call // open loop: due, but not sent
	streamsMax    uint32  // 0 until the server has told its settings
	window        int64
	initialWindow int64
	leaving       bool // the server wants no more calls here
	received      int64
}

// dial opens a connection, on which nothing is sent but the settings.
func dial(l *load, address string) (*connection, error) {
	tcp, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{
		load:          l,
		address:       address,
		tcp:           tcp,
		out:           bufio.NewWriterSize(tcp, bufferBytes),
		in:            bufio.NewReaderSize(tcp, bufferBytes),
		nextID:        1,
		underWay:      map[uint32]*call{},
		window:        windowDefault,
		initialWindow: windowDefault,
	}
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	c.out.WriteString(http2.ClientPreface)
	c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: windowMax},
	)
	c.framer.WriteWindowUpdate(0, windowMax-windowDefault)
	return c, c.out.Flush()
}

// offer adds a call of the open loop, and sends it if that is possible now.
func (c *connection) offer(next *call) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.waiting = append(c.waiting, next)
	c.pump()
}

// pump sends what can be sent. The mutex is held.
func (c *connection) pump() {
	for !c.leaving && uint32(len(c.underWay)) < c.streamsMax {
		next := c.next()
		if next == nil {
			break
		}
		if c.window < int64(len(next.body)) || c.initialWindow < int64(len(next.body)) {
			c.waiting = append([]*call{next}, c.waiting...)
			break
		}
		c.send(next)
	}
	c.out.Flush() // an error is one of reading too
}

// next is the call to be sent next; nil: none now. The mutex is held.
func (c *connection) next() *call {
	if len(c.waiting) > 0 {
		next := c.waiting[0]
		c.waiting = c.waiting[1:]
		return next
	}
	if c.load.isOpen() || len(c.underWay) >= c.load.streams {
		return nil
	}
	if body := c.load.nextBody(); body != nil {
		return &call{body: body, due: time.Now()}
	}
	return nil
}

func (c *connection) send(next *call) {
	c.block.Reset()
	for _, field := range c.load.header {
		c.encoder.WriteField(field)
	}
	id := c.nextID
	c.nextID += 2
	c.window -= int64(len(next.body))
	next.late = time.Since(next.due)
	next.status = statusNone
	c.underWay[id] = next
	c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true})
	c.framer.WriteData(id, true, next.body)
}

// read handles what the server sends until the connection ends.
func (c *connection) read() {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			break
		}
		c.mutex.Lock()
		c.handle(frame)
		if c.in.Buffered() == 0 {
			c.pump()
		}
		done := c.leaving && len(c.underWay) == 0
		c.mutex.Unlock()
		if done {
			break
		}
	}
	c.tcp.Close()
	c.mutex.Lock()
	c.leaving = true
	for id := range c.underWay {
		c.finish(id, statusLost)
	}
	c.mutex.Unlock()
	c.load.replace(c)
}

func (c *connection) handle(frame http2.Frame) {
	id := frame.Header().StreamID
	switch frame := frame.(type) {
	case *http2.MetaHeadersFrame:
		if one := c.underWay[id]; one != nil {
			for _, field := range frame.Fields {
				switch field.Name {
				case "grpc-status":
					if status, err := strconv.Atoi(field.Value); err == nil {
						one.status = status
					}
				case "grpc-message":
					one.message = field.Value
				}
			}
		}
		if frame.StreamEnded() {
			c.finish(id, statusNone)
		}
	case *http2.DataFrame:
		if one := c.underWay[id]; one != nil {
			one.answer = append(one.answer, frame.Data()...)
		}
		if c.received += int64(frame.Length); c.received > windowMax/4 {
			c.framer.WriteWindowUpdate(0, uint32(c.received))
			c.received = 0
		}
		if frame.StreamEnded() {
			c.finish(id, statusNone)
		}
	case *http2.RSTStreamFrame:
		if frame.ErrCode == http2.ErrCodeRefusedStream && c.underWay[id] != nil {
			// The server has not begun it, so it is made again, as every client of gRPC does, due as before.
			c.waiting = append([]*call{c.underWay[id]}, c.waiting...)
			delete(c.underWay, id)
			return
		}
		c.finish(id, statusReset)
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			if c.streamsMax == 0 {
				c.streamsMax = windowMax
			}
			frame.ForeachSetting(c.set)
			c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			c.framer.WritePing(true, frame.Data)
		}
	case *http2.WindowUpdateFrame:
		if id == 0 {
			c.window += int64(frame.Increment)
		}
	case *http2.GoAwayFrame:
		c.goAway(frame.LastStreamID)
	}
}

func (c *connection) set(setting http2.Setting) error {
	switch setting.ID {
	case http2.SettingMaxConcurrentStreams:
		c.streamsMax = setting.Val
	case http2.SettingInitialWindowSize:
		c.initialWindow = int64(setting.Val)
	}
	return nil
}

// goAway makes no more calls here; those that the server has not begun are made again elsewhere, due as before.
func (c *connection) goAway(last uint32) {
	for id, one := range c.underWay {
		if id > last {
			delete(c.underWay, id)
			c.waiting = append(c.waiting, one)
		}
	}
	if !c.leaving {
		c.leaving = true
		go c.load.replace(c)
	}
}

// finish counts a call. A status that the server has sent is kept, unless the call did not end well.
func (c *connection) finish(id uint32, status int) {
	one := c.underWay[id]
	if one == nil {
		return
	}
	delete(c.underWay, id)
	if status == statusNone {
		status = one.status
	}
	found := outcome{Status: status}
	if status == 0 {
		found = readAnswer(one.answer)
	}
	c.load.finished(one, found)
}
