package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// The rules of what the program prints:
//
//   - results go to standard output, everything else to standard error;
//   - an error is `tunnel: error: what is wrong`, lower case, no full stop,
//     followed by `hint: what to do` lines;
//   - progress is a stage with its duration, on a terminal with a live line;
//   - nothing is coloured unless standard error is a terminal and NO_COLOR is
//     not set.

// program is what every command is given.
type program struct {
	in     io.Reader
	out    io.Writer
	errOut io.Writer
	ui     *ui
	json   *jsonEvents // set by commands that run with -o json
	flags  globalFlags
}

// finish prints err, if it is one, and turns it into the exit code.
func (p *program) finish(err error) int {
	p.ui.endLive()
	code := exitOK
	var command commandExit
	switch {
	case err == nil:
	case errors.As(err, &command):
		code = int(command)
	default:
		f := explain(err)
		code = f.code
		p.ui.fail(f)
		if p.json != nil {
			p.json.failed(f)
		}
	}
	if p.json != nil {
		p.json.exit(code)
	}
	return code
}

// ui writes to standard error.
type ui struct {
	mu    sync.Mutex
	w     io.Writer
	tty   bool
	color bool
	quiet bool
	live  string // the line that is being rewritten, on a terminal
	began time.Time
	stop  chan struct{}
	done  chan struct{}
}

func newUI(w io.Writer) *ui {
	u := &ui{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		u.tty = os.Getenv("TERM") != "dumb"
		u.color = u.tty && os.Getenv("NO_COLOR") == ""
	}
	return u
}

const (
	styleDim   = "2"
	styleRed   = "31"
	styleGreen = "32"
	styleAmber = "33"
	styleBold  = "1"
)

func (u *ui) style(code, s string) string {
	if !u.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// line prints one line above the live one.
func (u *ui) line(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintf(u.w, format+"\n", args...)
	u.draw()
}

// info prints a line of progress unless quiet.
func (u *ui) info(format string, args ...any) {
	if u.quiet {
		return
	}
	if u.tty {
		u.line("  "+format, args...)
		return
	}
	u.line("tunnel: "+format, args...)
}

// done prints a finished stage with its duration.
func (u *ui) doneStage(what string, took time.Duration) {
	if u.quiet {
		return
	}
	if u.tty {
		u.line("%s %s %s", u.style(styleGreen, "✓"), what, u.style(styleDim, roundDuration(took)))
		return
	}
	u.line("tunnel: %s (%s)", what, roundDuration(took))
}

// warn prints what a user should know and need not act on.
func (u *ui) warn(format string, args ...any) {
	u.line("tunnel: %s: %s", u.style(styleAmber, "warning"), fmt.Sprintf(format, args...))
}

func (u *ui) fail(f *failure) {
	u.line("tunnel: %s: %s", u.style(styleRed, "error"), oneLine(f.err.Error()))
	for _, h := range f.hints {
		u.line("%s: %s", u.style(styleBold, "hint"), oneLine(h))
	}
}

// log prints a line of somebody's log.
func (u *ui) log(source, text string) {
	if u.quiet {
		return
	}
	u.line("%s %s", u.style(styleDim, source+" |"), printable(text))
}

// begin shows what is going on: a live line on a terminal, else a plain one.
func (u *ui) begin(doing string) {
	if u.quiet {
		return
	}
	if !u.tty {
		u.line("tunnel: %s", doing)
		return
	}
	u.endLive()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.live, u.began = doing, time.Now()
	u.stop, u.done = make(chan struct{}), make(chan struct{})
	u.draw()
	go u.spin(u.stop, u.done)
}

// endLive takes the live line away.
func (u *ui) endLive() {
	u.mu.Lock()
	stop, done := u.stop, u.done
	u.stop = nil
	u.mu.Unlock()
	if stop == nil {
		return
	}
	close(stop)
	<-done
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	u.live = ""
}

func (u *ui) spin(stop, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			u.mu.Lock()
			u.clear()
			u.draw()
			u.mu.Unlock()
		}
	}
}

func (u *ui) clear() {
	if u.live != "" {
		fmt.Fprint(u.w, "\r\x1b[K")
	}
}

func (u *ui) draw() {
	if u.live == "" {
		return
	}
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	took := time.Since(u.began)
	frame := string(frames[int(took/(100*time.Millisecond))%len(frames)])
	text := u.live
	if took >= time.Second {
		text += " " + u.style(styleDim, took.Truncate(time.Second).String())
	}
	fmt.Fprintf(u.w, "%s %s", u.style(styleDim, frame), text)
}

func roundDuration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Millisecond).String()
	}
}

// printable keeps a remote log line from driving the terminal: control
// characters, escape sequences among them, are shown and not obeyed.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// oneLine keeps a message from spanning lines.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
