package podagent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// CacheSession is the client's end of a cache session. Only the host side uses
// it, one order at a time.
type CacheSession struct {
	// Removed is how many paths an earlier session had left in the project.
	Removed int
	// OutOfMemory says what was not enough, if that session ended for lack of
	// memory.
	OutOfMemory string

	stdin *io.PipeWriter
	ctx   context.Context //nolint:containedctx // the session is a context's life
	stop  context.CancelFunc
	ended chan struct{} // closed when the stream has ended
	alive *watchdog
	ids   int

	mu     sync.Mutex // one line at a time
	reply  chan CacheReply
	result error // how the stream ended; read after ended
}

// OpenCache starts a session and waits until it takes orders. Connect runs
// `podlane-helper cache`. An error that is no ErrCacheBroken comes from the
// pod: it would come again.
//
// The session lives until Close, or until ctx ends.
func OpenCache(ctx context.Context, connect Session, header CacheHeader) (*CacheSession, error) {
	line, err := EncodeCacheHeader(header)
	if err != nil {
		return nil, err
	}
	stdin, stdinIn := io.Pipe()
	stdout, stdoutIn := io.Pipe()
	s := &CacheSession{stdin: stdinIn, ended: make(chan struct{}), reply: make(chan CacheReply)}
	// The stream outlives ctx for a moment: see Close.
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.alive = newWatchdog(SilenceLimit, s.stop)
	go s.read(stdout)
	go func() {
		defer close(s.ended)
		stderr := &head{limit: 1024}
		err := connect(s.ctx, stdin, stdoutIn, stderr)
		if err != nil && len(stderr.text) > 0 {
			err = fmt.Errorf("%w: %s", err, stderr.text)
		}
		s.result = err
		s.stop()
		stdin.Close()
		stdoutIn.Close()
	}()
	go s.ping()
	if err := s.send(line); err != nil {
		return nil, errors.Join(s.broken(), s.Close())
	}
	select {
	case r := <-s.reply:
		if r.Ready == nil {
			return nil, errors.Join(&CacheError{Reason: r.Error}, s.Close())
		}
		s.Removed, s.OutOfMemory = r.Ready.Removed, r.Ready.OutOfMemory
		return s, nil
	case <-s.ended:
		return nil, s.broken()
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), s.Close())
	}
}

// head keeps the start of what is written to it.
type head struct {
	limit int
	text  []byte
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), h.limit-len(h.text))]...)
	return len(p), nil
}

// broken is the error of a session whose stream has ended.
func (s *CacheSession) broken() error {
	s.stop()
	<-s.ended
	if s.result != nil {
		return fmt.Errorf("%w: %w", ErrCacheBroken, s.result)
	}
	return ErrCacheBroken
}

// read hands on all lines that are replies to something.
func (s *CacheSession) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(make([]byte, 0, 64<<10), MaxCacheLine)
	for lines.Scan() {
		var r CacheReply
		s.alive.reset()
		if json.Unmarshal(lines.Bytes(), &r) != nil || r == (CacheReply{}) {
			continue
		}
		select {
		case s.reply <- r:
		case <-s.ctx.Done():
		}
	}
	s.stop()
	// Whatever else comes must not block the stream.
	_, _ = io.Copy(io.Discard, stdout)
}

func (s *CacheSession) ping() {
	for pause(s.ctx, AliveInterval) == nil {
		_ = s.sendCommand(CacheCommand{})
	}
}

func (s *CacheSession) send(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.stdin.Write(line)
	return err
}

func (s *CacheSession) sendCommand(c CacheCommand) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.send(append(line, '\n'))
}

// Do gives an order and waits for its end. sign answers asks, several at once;
// progress may be nil. A *CacheError is the pod's answer, ErrCacheBroken means
// that there is none. After any other error than a *CacheError the session is
// of no more use: Close it.
func (s *CacheSession) Do(ctx context.Context, order CacheOrder, sign func(context.Context, CacheAsk) CacheAnswer, progress func(CacheProgress)) (CacheDone, error) {
	s.ids++
	order.ID = s.ids
	if err := s.sendCommand(CacheCommand{Order: &order}); err != nil {
		return CacheDone{}, s.broken()
	}
	signing, cancel := context.WithCancel(ctx)
	var signers sync.WaitGroup
	defer signers.Wait()
	defer cancel()
	for {
		select {
		case r := <-s.reply:
			switch {
			case r.Error != "":
				return CacheDone{}, &CacheError{Reason: r.Error}
			case r.Ask != nil:
				ask := *r.Ask
				signers.Go(func() {
					answer := sign(signing, ask)
					answer.N = ask.N
					_ = s.sendCommand(CacheCommand{Answer: &answer})
				})
			case r.Progress != nil:
				if progress != nil {
					progress(*r.Progress)
				}
			case r.Done != nil && r.Done.ID == order.ID:
				if r.Done.Error != "" {
					return *r.Done, &CacheError{Code: r.Done.Code, Reason: r.Done.Error}
				}
				return *r.Done, nil
			}
		case <-s.ended:
			return CacheDone{}, s.broken()
		case <-ctx.Done():
			return CacheDone{}, context.Cause(ctx)
		}
	}
}

// undoLimit is how long the pod may take to end a session in order: to take
// back a restore that was under way.
const undoLimit = 30 * time.Second

// Close ends the session and waits until the pod has done so, which takes back
// an order that is under way. An error means that this is not known.
func (s *CacheSession) Close() error {
	defer s.alive.stop()
	defer s.stop()
	go func() { // it blocks where the stream does
		_ = s.sendCommand(CacheCommand{End: true})
		s.stdin.Close()
	}()
	timer := time.NewTimer(undoLimit)
	defer timer.Stop()
	for {
		select {
		case <-s.ended:
			return s.result
		case <-s.reply: // nobody waits for it any more
		case <-timer.C:
			s.stop()
			<-s.ended
			return fmt.Errorf("the cache session did not end within %s", undoLimit)
		}
	}
}
