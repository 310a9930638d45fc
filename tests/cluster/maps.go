// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// serviceMaps is what a node's programs read of Services (include/thruway/service.h), mapped: a change can be seen in
// the moment that packets see it.
type serviceMaps struct {
	t         *testing.T
	frontends int
	services  []byte
}

const (
	serviceRow  = 24        // size of struct tw_service, which begins with the range of its backends
	serviceBits = 1<<24 - 1 // of a frontend's value: the number of its service
	protocolTCP = 6
)

func (l *lab) serviceMaps(node string) *serviceMaps {
	m := &serviceMaps{t: l.t, frontends: l.openMap(node, "frontends")}
	services := l.openMap(node, "services")
	defer unix.Close(services)
	memory, err := unix.Mmap(services, 0, serviceRow*entries(l.t, services), unix.PROT_READ, unix.MAP_SHARED)
	must(l.t, err)
	m.services = memory
	l.t.Cleanup(func() {
		unix.Munmap(memory)
		unix.Close(m.frontends)
	})
	return m
}

// openMap opens a map by its pin, which is in the lab's mounts. (To read only it could not be mapped.)
func (l *lab) openMap(node, name string) int {
	path := append([]byte(filepath.Join(l.keeperRoot(), l.folder("nodes", node, "bpf", name))), 0)
	attributes := struct {
		path      uint64
		fd, flags uint32
	}{path: uint64(uintptr(unsafe.Pointer(&path[0])))}
	return bpf(l.t, unix.BPF_OBJ_GET, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
}

// entries is how many a map has room for.
func entries(t *testing.T, mapFd int) (number int) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", mapFd))
	must(t, err)
	_, after, _ := strings.Cut(string(info), "max_entries:")
	_, err = fmt.Sscan(after, &number)
	must(t, err)
	return number
}

func bpf(t *testing.T, command uintptr, attributes unsafe.Pointer, size uintptr) int {
	t.Helper()
	result, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attributes), size)
	if errno != 0 {
		t.Fatalf("bpf(%d): %v", command, errno)
	}
	return int(result)
}

// backends is the word that says which backends a Service's TCP port has: it changes with them, in one store.
func (m *serviceMaps) backends(address string, port uint16) *uint64 {
	m.t.Helper()
	key := make([]byte, 24)
	ip := netip.MustParseAddr(address).As16()
	copy(key, ip[:])
	binary.BigEndian.PutUint16(key[16:], port)
	key[18] = protocolTCP
	var value uint32
	attributes := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(m.frontends), key: uint64(uintptr(unsafe.Pointer(&key[0]))), value: uint64(uintptr(unsafe.Pointer(&value)))}
	bpf(m.t, unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&attributes), unsafe.Sizeof(attributes))
	return (*uint64)(unsafe.Pointer(&m.services[serviceRow*(value&serviceBits)]))
}

// waitChange waits until a word of the maps is another one. It looks ten thousand times a second: without a pause it
// would keep a CPU from those whose work it waits for.
func waitChange(word *uint64, before uint64) {
	for atomic.LoadUint64(word) == before {
		time.Sleep(100 * time.Microsecond)
	}
}
