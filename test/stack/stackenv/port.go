package stackenv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Port is an address for a server of a test's own, on BridgeIP. Unlike a port
// that the kernel picks, it stays free while the server is down.
type Port struct {
	// Address is host:port.
	Address string
	lock    *os.File
}

// held are the locks of ports that have not been released: a file that nobody
// refers to is closed, and with it its lock, whoever still uses the address.
var held sync.Map

// SparePort takes one of the stack's ports that no part of it has. It is the
// caller's until Release, or until the process ends.
func (s Stack) SparePort() (Port, error) {
	first := firstPort + s.Number*portRange
	for port := first + firstSpare; port < first+portRange; port++ {
		lock, err := os.OpenFile(filepath.Join(s.RunDir, fmt.Sprintf("port-%d.lock", port)), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return Port{}, fmt.Errorf("take a port: %w", err)
		}
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			held.Store(lock, true)
			return Port{Address: net.JoinHostPort(s.BridgeIP, strconv.Itoa(port)), lock: lock}, nil
		}
		lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return Port{}, fmt.Errorf("take port %d: %w", port, err)
		}
	}
	return Port{}, fmt.Errorf("all %d spare ports of stack %d are taken", portRange-firstSpare, s.Number)
}

// Release gives the port back.
func (p Port) Release() error {
	if p.lock == nil {
		return nil
	}
	held.Delete(p.lock)
	return p.lock.Close()
}
