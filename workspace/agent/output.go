package agent

import (
	"errors"
	"os"
	"time"
)

// outputGrace is how long the last output of a process is waited for where a
// pipe cannot be asked whether it is empty.
const outputGrace = 200 * time.Millisecond

// output reads what a process writes into its pipe, and what others write that
// it leaves behind: those hold the pipe for as long as they like.
type output struct {
	r       *os.File
	lines   *lineSplitter
	settled chan struct{}
	ended   chan struct{}
}

// capture reads from r, which it closes in the end.
func capture(r *os.File, lines *lineSplitter) *output {
	o := &output{r: r, lines: lines, settled: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	return o
}

func (o *output) run() {
	defer close(o.ended)
	defer o.r.Close()
	defer o.lines.flush()
	buf := make([]byte, maxLine)
	for {
		n, err := o.r.Read(buf)
		o.lines.write(buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = o.r.SetReadDeadline(time.Time{})
			for n := readNow(o.r, buf); n > 0; n = readNow(o.r, buf) {
				o.lines.write(buf[:n])
			}
			o.lines.flush()
			o.settled <- struct{}{}
		default:
			return
		}
	}
}

// settle returns when everything that was written so far is a log line. It is
// called once, after the process itself has ended.
func (o *output) settle() {
	var limit <-chan time.Time
	if o.r.SetReadDeadline(time.Unix(1, 0)) != nil {
		limit = time.After(outputGrace)
	}
	select {
	case <-o.settled:
	case <-o.ended:
	case <-limit:
	}
}

// close gives up what whoever still holds the pipe may write.
func (o *output) close() {
	_ = o.r.Close()
	<-o.ended
}
