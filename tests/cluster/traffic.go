// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// traffic is clients that keep connections busy, and open and close others, all the time.
type traffic struct {
	lab     *lab
	process *exec.Cmd
	out     bytes.Buffer
}

// trafficReport is of what `thruway-lab hold` says in the end what is used here.
type trafficReport struct {
	Established int
	Lost        int
	ShortOk     int `json:"short_ok"`
	ShortFailed int `json:"short_failed"`
	Problems    []struct{ Connection, Reason string }
}

// startTraffic returns when the connections to hold are there.
func (l *lab) startTraffic(from, to string) *traffic {
	t := &traffic{lab: l}
	t.process = exec.Command(l.program("thruway-lab"), "exec", "--name", l.name, from, "--", l.program("thruway-lab"),
		"hold", to, "--connections", "4", "--rate", "20", "--seconds", "600", "-o", "json")
	t.process.Stdout = &t.out
	t.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	says, err := t.process.StderrPipe()
	must(l.t, err)
	must(l.t, t.process.Start())
	line, _ := bufio.NewReader(says).ReadString('\n')
	if !strings.HasPrefix(line, "holding 4") {
		l.t.Fatalf("from %s to %s: %s", from, to, line)
	}
	return t
}

// end ends it and says how it went.
func (t *traffic) end() trafficReport {
	must(t.lab.t, t.process.Process.Signal(os.Interrupt))
	t.process.Wait() // fails if a connection did, which the report tells better
	var report trafficReport
	must(t.lab.t, json.Unmarshal(t.out.Bytes(), &report))
	return report
}
