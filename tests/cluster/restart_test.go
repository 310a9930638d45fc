// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestTroubleWithTheAPIServer is about what an agent lives through without one connection failing; and after each, its
// maps have what the API server has.
func TestTroubleWithTheAPIServer(t *testing.T) {
	c := newCluster(t, 2)
	c.addPod("node1", "pod-1", "client")
	c.addPod("node1", "web-1", "web")
	c.addPod("node2", "web-2", "web")
	service := c.addService(webService("web", "web", [2]int32{30080, 30081}))
	clusterIP, nodePort := net.JoinHostPort(service.Spec.ClusterIPs[0], "80"), net.JoinHostPort(c.nodeAddress(1), "30080")
	for _, p := range []path{{"pod-1", "tcp", clusterIP}, {home, "tcp", nodePort}} {
		eventually(t, patience, "both pods serve", func() error { return c.answeredBy(p, "web-1", "web-2") })
	}
	clients := []*traffic{c.startTraffic("pod-1", clusterIP), c.startTraffic(home, nodePort)}
	changes := newChurn(c)

	for _, trouble := range []struct {
		name string
		make func()
	}{
		{"the API server is killed", func() {
			c.apiServer.kill()
			time.Sleep(2 * time.Second)
			c.apiServer.start()
			c.waitReady()
		}},
		{"all that was missed is compacted away", func() {
			c.signalAgents(syscall.SIGSTOP)
			time.Sleep(2 * time.Second) // of changes that they do not get to know
			c.apiServer.kill()
			c.compact()
			c.apiServer.start() // whose cache of events begins now
			c.waitReady()
			c.signalAgents(syscall.SIGCONT)
		}},
		{"etcd stops", func() {
			c.etcd.signal(syscall.SIGSTOP)
			time.Sleep(15 * time.Second)
			c.etcd.signal(syscall.SIGCONT)
			c.waitReady()
		}},
		{"the API server's certificate is another one", func() {
			c.waitServing(c.renewServing())
			c.cutConnections()
		}},
	} {
		before := changes.made
		changes.during(2*time.Second, trouble.make)
		t.Logf("%s: %d changes", trouble.name, changes.made-before)
		if changes.made == before {
			t.Errorf("%s: nothing has changed meanwhile", trouble.name)
		}
		c.waitEqual()
	}

	for _, client := range clients {
		report := client.end()
		t.Logf("%+v", report)
		if report.Established != 4 || report.Lost > 0 || report.ShortFailed > 0 || report.ShortOk < 100 {
			t.Errorf("connections failed: %+v", report)
		}
	}
}

func (c *cluster) signalAgents(signal syscall.Signal) {
	for _, node := range c.status().Nodes {
		must(c.t, syscall.Kill(node.Agent.Pid, signal))
	}
}

// waitServing waits until the API server shows new clients this certificate.
func (c *cluster) waitServing(pair keyPair) {
	own, err := tls.X509KeyPair(pair.certificate, pair.key)
	must(c.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.authority.pem)
	eventually(c.t, 2*time.Minute, "the new certificate is served", func() error {
		connection, err := c.dial(background, home, "tcp", serverAddress+":6443")
		if err != nil {
			return err
		}
		defer connection.Close()
		secured := tls.Client(connection, &tls.Config{ServerName: "kubernetes", RootCAs: roots})
		if err := secured.Handshake(); err != nil {
			return err
		}
		if !own.Leaf.Equal(secured.ConnectionState().PeerCertificates[0]) {
			return errors.New("it is the old one")
		}
		return nil
	})
}

// cutConnections resets all connections to the API server.
func (c *cluster) cutConnections() {
	_, err := output(exec.Command("nsenter", "--net="+c.netns(home), "ss", "--kill", "state", "established", "sport", "=", ":6443"))
	must(c.t, err)
}
