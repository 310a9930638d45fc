// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const patience = 20 * time.Second

// path is one way to a Service.
type path struct {
	from, transport, to string
}

func (c *cluster) pathsTo(clusterIPs []string) []path {
	var paths []path
	for _, address := range clusterIPs {
		for _, from := range []string{"pod-1", "pod-2", "node1", "node3"} {
			paths = append(paths,
				path{from, "tcp", net.JoinHostPort(address, "80")}, path{from, "udp", net.JoinHostPort(address, "53")})
		}
	}
	for node := 1; node <= len(c.nodes); node++ {
		for _, address := range []string{c.nodeAddress(node), c.nodeAddress6(node)} {
			paths = append(paths, path{home, "tcp", net.JoinHostPort(address, "30080")},
				path{home, "udp", net.JoinHostPort(address, "30081")})
		}
	}
	return paths
}

// answeredBy fails unless each of some requests is answered by one of these pods, and each of them answers some.
func (c *cluster) answeredBy(p path, pods ...string) error {
	seen := map[string]bool{}
	for _, answer := range c.ask(p.from, p.transport, p.to, 16) {
		if answer.Error != "" {
			return fmt.Errorf("%v: %s", p, answer.Error)
		}
		if !slices.Contains(pods, answer.Name) {
			return fmt.Errorf("%v: %s has answered", p, answer.Name)
		}
		seen[answer.Name] = true
	}
	if len(seen) != len(pods) {
		return fmt.Errorf("%v: only %v have answered", p, seen)
	}
	return nil
}

func (c *cluster) refused(p path) error {
	for _, answer := range c.ask(p.from, p.transport, p.to, 1) {
		if answer.Error == "" {
			return fmt.Errorf("%v: %s has answered", p, answer.Name)
		}
	}
	return nil
}

func TestServicesOfRealControllersLeadTraffic(t *testing.T) {
	c := newCluster(t, 3)
	c.addPod("node1", "pod-1", "client")
	c.addPod("node2", "pod-2", "web")
	c.addPod("node3", "pod-3", "web")
	service := c.addService(webService("web", "web", [2]int32{30080, 30081}))
	paths := c.pathsTo(service.Spec.ClusterIPs)

	for _, p := range paths {
		eventually(t, patience, "both pods serve", func() error { return c.answeredBy(p, "pod-2", "pod-3") })
	}

	must(t, c.setReady(background, "pod-2", false))
	for _, p := range paths {
		eventually(t, patience, "who is not ready does not serve", func() error { return c.answeredBy(p, "pod-3") })
	}
	must(t, c.setReady(background, "pod-2", true))
	for _, p := range paths {
		eventually(t, patience, "both serve again", func() error { return c.answeredBy(p, "pod-2", "pod-3") })
	}

	c.deleteService("web")
	for _, p := range paths {
		eventually(t, patience, "a Service that is deleted leads nowhere", func() error { return c.refused(p) })
	}
}

func TestPodsReachTheAPIServerByItsService(t *testing.T) {
	c := newCluster(t, 1)
	c.addPod("node1", "pod-1", "client")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.authority.pem)
	connection, err := c.dial(background, "default_pod-1", "tcp", net.JoinHostPort(apiServiceIP, "443"))
	must(t, err)
	defer connection.Close()
	secured := tls.Client(connection, &tls.Config{ServerName: "kubernetes", RootCAs: roots})
	must(t, secured.Handshake())
}

func TestAgentsSayInEventsThatTheyHaveStarted(t *testing.T) {
	c := newCluster(t, 2)
	eventually(t, patience, "each node has an Event", func() error {
		events, err := c.client.EventsV1().Events("default").List(background, meta.ListOptions{})
		if err != nil {
			return err
		}
		started := map[string]bool{}
		for _, event := range events.Items {
			if event.ReportingController == "thruway" && event.Reason == "Starting" {
				started[event.Regarding.Name] = true
			}
		}
		if len(started) != len(c.nodes) {
			return fmt.Errorf("only for %v", started)
		}
		return nil
	})
}
