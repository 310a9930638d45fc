// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lab is one of thruway-lab's: nodes, pods and a client outside, as network namespaces.
type lab struct {
	t      *testing.T
	name   string
	bin    string // where our programs are
	keeper int    // the process that the lab lives under
}

// newLab makes a lab whose agents, if its dataplane is Thruway's, are to follow an API server by the kubeconfig, once
// there is one. It goes down with the test, and also when the test is killed.
func newLab(t *testing.T, nodes int, dataplane string) *lab {
	bin, err := filepath.Abs("../../build/bin")
	must(t, err)
	l := &lab{t: t, name: fmt.Sprintf("cluster-%d", os.Getpid()), bin: bin}
	l.lab("up", "--no-agents", "--pods", "0", "--nodes", fmt.Sprint(nodes), "--dataplane", dataplane,
		"--source", "kube", "--bin-dir", bin, "--", "--kubeconfig", l.kubeconfig())
	l.endWithTest()
	l.keeper = l.status().KeeperPid
	return l
}

// endWithTest has the lab taken down by a process that waits for the end of a pipe, which comes with our own end,
// whatever that is.
func (l *lab) endWithTest() {
	reader, writer, err := os.Pipe()
	must(l.t, err)
	undertaker := exec.Command("sh", "-c", "read -r line; exec "+l.program("thruway-lab")+" down --name "+l.name)
	undertaker.Stdin, undertaker.Stderr = reader, os.Stderr
	undertaker.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(l.t, undertaker.Start())
	reader.Close()
	l.t.Cleanup(func() {
		writer.Close()
		must(l.t, undertaker.Wait())
	})
}

func (l *lab) program(name string) string { return filepath.Join(l.bin, name) }

// folder is where the lab has its files; they go with it.
func (l *lab) folder(parts ...string) string {
	return filepath.Join(append([]string{"/run/thruway-lab", l.name}, parts...)...)
}

func (l *lab) kubeconfig() string          { return l.folder("agents.kubeconfig") }
func (l *lab) agentLog(node string) string { return l.folder("nodes", node, "agent.log") }
func (l *lab) netns(place string) string {
	return l.keeperRoot() + "/run/netns/" + place
}

// keeperRoot is the root folder with the lab's mounts.
func (l *lab) keeperRoot() string           { return fmt.Sprintf("/proc/%d/root", l.keeper) }
func (l *lab) nodeAddress(node int) string  { return fmt.Sprintf("172.20.0.%d", 10+node) }
func (l *lab) nodeAddress6(node int) string { return fmt.Sprintf("fd20::%d", 10+node) }

// labStatus is of `thruway-lab status` what is used here.
type labStatus struct {
	KeeperPid int `json:"keeper_pid"`
	Nodes     []struct {
		Name  string
		Agent struct{ Pid int }
	}
}

func (l *lab) status() labStatus {
	var status labStatus
	must(l.t, json.Unmarshal([]byte(l.lab("status", "-o", "json")), &status))
	return status
}

// lab runs a command of thruway-lab that must succeed.
func (l *lab) lab(verb string, arguments ...string) string {
	l.t.Helper()
	out, err := l.tryLab(verb, arguments...)
	must(l.t, err)
	return out
}

func (l *lab) tryLab(verb string, arguments ...string) (string, error) {
	words := strings.Fields(verb)
	command := exec.Command(l.program("thruway-lab"), append(append(words, "--name", l.name), arguments...)...)
	return output(command)
}

// thruway runs the CLI as it would run on that node.
func (l *lab) thruway(node string, arguments ...string) string {
	l.t.Helper()
	return l.lab("exec", append([]string{node, "--", l.program("thruway"), "--run-dir", l.folder("nodes", node, "run"),
		"--bpffs", l.folder("nodes", node, "bpf")}, arguments...)...)
}

// answer is what an echo server has said, or why there is none.
type answer struct {
	Name          string
	ClientAddress string `json:"client_address"`
	Error         string
}

// ask sends requests, one after the other, from a place to an echo server or a frontend of one. Each is given a second.
func (l *lab) ask(place, transport, target string, count int) []answer {
	l.t.Helper()
	// It exits with 1 if a request has no answer; which one, and why, its output says.
	out, _ := l.tryLab("exec", place, "--", l.program("thruway-lab"), "ask", transport, target, "--count",
		fmt.Sprint(count), "--timeout", "1000", "-o", "json")
	var answers []answer
	must(l.t, json.Unmarshal([]byte(out), &answers))
	return answers
}

// dial opens a connection from a network namespace of the lab.
func (l *lab) dial(ctx context.Context, place, network, address string) (net.Conn, error) {
	var connection net.Conn
	err := l.within(place, func() (err error) {
		connection, err = (&net.Dialer{}).DialContext(ctx, network, address) // for a literal address, on this thread
		return err
	})
	return connection, err
}

// listen takes TCP connections in a network namespace of the lab.
func (l *lab) listen(place, address string) (net.Listener, error) {
	var listener net.Listener
	err := l.within(place, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	return listener, err
}

// within calls a function on a thread that is in a network namespace of the lab.
func (l *lab) within(place string, action func() error) error {
	target, err := os.Open(l.netns(place))
	if err != nil {
		return err
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	result := action()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return err // still locked, so that the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return result
}

// output is what a command writes; its error says what it complained of.
func output(command *exec.Cmd) (string, error) {
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	err := command.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), err
}

// logEnd is the last lines of a log file, for a test that has failed.
func logEnd(path string, lines int) string {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "(there is none)"
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
