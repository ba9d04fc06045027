package podagent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CacheWorker does what orders ask for.
type CacheWorker interface {
	// Undo takes back what a session that was killed has left of a restore. It
	// is called once, before anything else.
	Undo(ctx context.Context, at CachePlace) (removed int, err error)
	// Do does one order. When it returns an error the project is as it was
	// before, also if ctx has ended.
	Do(ctx context.Context, at CachePlace, order CacheOrder, link CacheLink) (CacheDone, error)
}

// CachePlace says where a session works, and with what.
type CachePlace struct {
	CacheHeader
	// State is a folder of the worker's own that outlives sessions.
	State string
	// Memory is what the container may use, 0 if that is not limited.
	Memory Bytes
}

// CacheLink reaches the client while an order is being done. It is safe for
// concurrent use.
type CacheLink interface {
	// Ask returns the answer to an ask; its number is the link's business.
	Ask(ctx context.Context, ask CacheAsk) (CacheAnswer, error)
	// Progress says how far things are. It is cheap, but not free.
	Progress(p CacheProgress)
}

// CacheServer is podlane-helper's end of cache sessions.
type CacheServer struct {
	Layout Layout
	Worker CacheWorker

	silence time.Duration // SilenceLimit, but for tests
}

// takeOverLimit bounds the wait for the end of an earlier session, which is
// killed: the kernel needs milliseconds, a disk in trouble seconds.
const takeOverLimit = time.Minute

// Serve runs one session until the client has gone. Only a process that does
// nothing else may call it with a header that asks for the build user: it
// becomes that user for good.
func (s *CacheServer) Serve(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive := newWatchdog(cmp.Or(s.silence, SilenceLimit), cancel)
	defer alive.stop()
	touch(s.Layout.alive())
	defer touch(s.Layout.alive())

	session := &cacheSession{server: s, ctx: ctx, out: make(chan []byte), over: make(chan struct{}), pending: map[int64]chan CacheAnswer{}, ordered: func() {}}
	written := make(chan struct{})
	go func() {
		defer close(written)
		session.write(stdout)
	}()
	// A read that blocks can't be interrupted: it ends with the process.
	go func() {
		defer cancel()
		session.listen(heard{stdin, alive})
	}()
	go session.keepAlive(ctx)
	<-ctx.Done()
	err := session.end()
	// The last lines, unless nobody takes them.
	select {
	case <-written:
	case <-time.After(lastLinesLimit):
	}
	return err
}

// lastLinesLimit is how long a session's last lines may take on their way.
const lastLinesLimit = 5 * time.Second

// cacheSession is the state of one Serve.
type cacheSession struct {
	server *CacheServer
	ctx    context.Context //nolint:containedctx // the session is a context's life
	out    chan []byte
	over   chan struct{} // closed when nothing more will be sent
	work   sync.WaitGroup
	// ordered notes that the session was not killed.
	ordered func()

	mu      sync.Mutex
	ended   bool
	busy    bool
	lastAsk int64
	pending map[int64]chan CacheAnswer
	failed  error
}

// end waits for the order under way, which gives up because the context has
// ended.
func (s *cacheSession) end() error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.work.Wait()
	close(s.over)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ordered()
	return s.failed
}

// send queues a line. It blocks while the client takes none, but not after the
// session's end.
func (s *cacheSession) send(reply CacheReply) {
	line, err := json.Marshal(reply)
	if err != nil {
		return
	}
	select {
	case s.out <- append(line, '\n'):
	case <-s.ctx.Done():
	}
}

func (s *cacheSession) write(stdout io.Writer) {
	for {
		select {
		case line := <-s.out:
			if _, err := stdout.Write(line); err != nil {
				return
			}
		case <-s.over:
			return
		}
	}
}

func (s *cacheSession) keepAlive(ctx context.Context) {
	for pause(ctx, AliveInterval) == nil {
		touch(s.server.Layout.alive())
		s.send(CacheReply{})
	}
}

// fail tells the client why the session ends.
func (s *cacheSession) fail(err error) {
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	s.send(CacheReply{Error: err.Error()})
}

// listen reads the client's lines until there are no more.
func (s *cacheSession) listen(stdin io.Reader) {
	lines := bufio.NewScanner(stdin)
	lines.Buffer(make([]byte, 0, 64<<10), MaxCacheLine)
	if !lines.Scan() {
		return
	}
	header, err := DecodeCacheHeader(lines.Text())
	if err != nil {
		s.fail(err)
		return
	}
	at, unlock, err := s.begin(header)
	if err != nil {
		s.fail(err)
		return
	}
	// The lock is the process's: a later session kills whoever holds it.
	defer unlock()
	for lines.Scan() {
		var command CacheCommand
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			s.fail(fmt.Errorf("decode a cache command: %w", err))
			return
		}
		switch {
		case command.End:
			return
		case command.Answer != nil:
			s.answer(*command.Answer)
		case command.Order != nil:
			if err := s.start(at, *command.Order); err != nil {
				s.fail(err)
				return
			}
		}
	}
}

// begin makes this session the only one and undoes what an earlier one has
// left.
func (s *cacheSession) begin(h CacheHeader) (at CachePlace, unlock func(), err error) {
	at = CachePlace{CacheHeader: h, State: s.server.Layout.cache()}
	at.Memory, _ = memoryUse(cgroups)
	if err := os.MkdirAll(at.State, 0o711); err != nil {
		return at, nil, fmt.Errorf("make a folder for caches: %w", err)
	}
	uid, gid := -1, -1
	if h.AsBuildUser && os.Geteuid() == 0 {
		if uid, gid, err = readBuildUser(s.server.Layout); err != nil {
			return at, nil, fmt.Errorf("find the build container's user: %w", err)
		}
		if err := os.Lchown(at.State, uid, gid); err != nil {
			return at, nil, err
		}
	}
	lock, err := takeOver(s.ctx, s.server.Layout.cacheSession())
	if err != nil {
		return at, nil, err
	}
	if uid > 0 {
		if err := become(uid, gid); err != nil {
			return at, nil, err
		}
	}
	removed, err := s.server.Worker.Undo(s.ctx, at)
	if err != nil {
		return at, nil, fmt.Errorf("take back what an earlier restore has left: %w", err)
	}
	ready := CacheReady{Removed: removed}
	if s.noteKills(at) {
		ready.OutOfMemory = "the node's memory"
		if at.Memory > 0 {
			ready.OutOfMemory = fmt.Sprintf("the helper container's %s of memory", at.Memory)
		}
	}
	s.send(CacheReply{Ready: &ready})
	return at, func() { lock.Close() }, nil
}

// kills holds how many processes of the container had been killed for lack of
// memory when a session began, for as long as it lasts.
func kills(at CachePlace) string { return filepath.Join(at.State, "kills") }

// noteKills reports whether the session before this one was killed, or another
// process under it.
func (s *cacheSession) noteKills(at CachePlace) bool {
	now := killedForMemory()
	before, err := os.ReadFile(kills(at))
	_ = os.WriteFile(kills(at), []byte(strconv.Itoa(now)), 0o600)
	count, err2 := strconv.Atoi(string(before))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ordered = func() { _ = os.Remove(kills(at)) }
	return err == nil && err2 == nil && now > count
}

// become gives this process another user for good.
func become(uid, gid int) error {
	err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid))
	if err == nil {
		err = syscall.Setuid(uid)
	}
	if err != nil {
		return fmt.Errorf("become the build container's user %d:%d: %w", uid, gid, err)
	}
	return nil
}

// takeOver locks a file, killing the process that holds the lock: a session
// whose stream broke may not have noticed yet.
func takeOver(ctx context.Context, file string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOverLimit)
	defer cancel()
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cache session: %w", err)
	}
	for {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
		if err == nil {
			return f, nil
		}
		// Unlike flock, this kind of lock tells who holds it.
		if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK && lock.Pid > 1 {
			_ = unix.Kill(int(lock.Pid), unix.SIGKILL)
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			f.Close()
			return nil, fmt.Errorf("lock the cache session: %w: an earlier session, process %d, does not end", err, lock.Pid)
		}
	}
}

// start begins an order. There is one at a time.
func (s *cacheSession) start(at CachePlace, order CacheOrder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil
	case s.busy:
		return fmt.Errorf("cache order %d came before the one before it was done", order.ID)
	}
	s.busy = true
	s.work.Go(func() {
		done, err := s.server.Worker.Do(s.ctx, at, order, s)
		done.ID = order.ID
		if err != nil {
			done = CacheDone{ID: order.ID, Error: err.Error(), Code: codeOf(err)}
			if s.ctx.Err() != nil {
				done.Code = CacheInterrupted
			}
		}
		s.mu.Lock()
		s.busy = false
		s.mu.Unlock()
		s.send(CacheReply{Done: &done})
	})
	return nil
}

func codeOf(err error) CacheCode {
	var coded *CacheError
	if errors.As(err, &coded) {
		return coded.Code
	}
	return CacheFailed
}

// Ask implements CacheLink.
func (s *cacheSession) Ask(ctx context.Context, ask CacheAsk) (CacheAnswer, error) {
	answer := make(chan CacheAnswer, 1)
	s.mu.Lock()
	s.lastAsk++
	ask.N = s.lastAsk
	s.pending[ask.N] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pending, ask.N)
		s.mu.Unlock()
	}()
	s.send(CacheReply{Ask: &ask})
	select {
	case a := <-answer:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-ctx.Done():
		return CacheAnswer{}, context.Cause(ctx)
	case <-s.ctx.Done():
		return CacheAnswer{}, errors.New("the cache session has ended")
	}
}

func (s *cacheSession) answer(a CacheAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waiting, ok := s.pending[a.N]; ok {
		delete(s.pending, a.N)
		waiting <- a
	}
}

// Progress implements CacheLink.
func (s *cacheSession) Progress(p CacheProgress) { s.send(CacheReply{Progress: &p}) }
