package main

import (
	"encoding/binary"
	"errors"
)

const prefixBytes = 5

// statuses that gRPC does not know: what became of calls without an answer.
const (
	statusNone  = -1 // the stream ended without grpc-status
	statusReset = -2 // the server reset the stream
	statusLost  = -3 // the connection ended
)

// outcome of a call.
type outcome struct {
	Status  int    `json:"status"`
	Verdict uint64 `json:"verdict"`
	Basis   uint64 `json:"basis"`
}

var errBodies = errors.New("the bodies are no gRPC messages")

// split finds the messages, prefixes included, of which a file is made.
func split(data []byte) ([][]byte, error) {
	var bodies [][]byte
	for len(data) > 0 {
		if len(data) < prefixBytes {
			return nil, errBodies
		}
		size := prefixBytes + int(binary.BigEndian.Uint32(data[1:]))
		if len(data) < size {
			return nil, errBodies
		}
		bodies = append(bodies, data[:size:size])
		data = data[size:]
	}
	if len(bodies) == 0 {
		return nil, errBodies
	}
	return bodies, nil
}

// fields of VerifyResponse.
const (
	fieldVerdict = 1
	fieldBasis   = 14
)

// readAnswer finds verdict and basis in a VerifyResponse with its prefix; zero is what is not there. The last of several
// counts, as in any protobuf message. Status statusNone: these bytes are no message.
func readAnswer(data []byte) outcome {
	broken := outcome{Status: statusNone}
	if len(data) < prefixBytes || data[0] != 0 || int(binary.BigEndian.Uint32(data[1:])) != len(data)-prefixBytes {
		return broken
	}
	var found outcome
	for data = data[prefixBytes:]; len(data) > 0; {
		tag, n := binary.Uvarint(data)
		if n <= 0 {
			return broken
		}
		data = data[n:]
		value, n := uint64(0), 0
		switch tag & 7 {
		case 0:
			value, n = binary.Uvarint(data)
		case 1:
			n = 8
		case 2:
			var size uint64
			if size, n = binary.Uvarint(data); n > 0 {
				if size > uint64(len(data)) {
					return broken
				}
				n += int(size)
			}
		case 5:
			n = 4
		}
		if n <= 0 || n > len(data) {
			return broken
		}
		data = data[n:]
		switch tag >> 3 {
		case fieldVerdict:
			found.Verdict = value
		case fieldBasis:
			found.Basis = value
		}
	}
	return found
}
