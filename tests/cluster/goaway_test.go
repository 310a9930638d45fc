// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

// TestAGoAwayCostsNeitherAChangeNorAList is about connections that the API server (--goaway-chance), or a load balancer
// before it, wants to be rid of.
func TestAGoAwayCostsNeitherAChangeNorAList(t *testing.T) {
	c := makeCluster(t, 1, "thruway")
	c.installChart()
	p := c.startProxy()
	c.leadAgentsTo(p.url)
	c.startAgents()
	changes := newChurn(c)

	want := seen{Connections: 1, Lists: map[string]int{}, Watches: map[string]int{}}
	for _, plural := range watched {
		want.Lists[plural] = 1
	}
	for _, step := range []struct {
		name        string
		make        func()
		connections int
		watches     map[string]int // that are asked for once more
	}{
		{"all is well", func() {}, 0, nil},
		{"other watches go on where they are, and what is asked next goes by another connection", func() {
			p.sayGoAway("services")
			p.endWatches(nil, "nodes")
		}, 1, map[string]int{"services": 1, "nodes": 1}},
		{"all watches end one after the other, on two such connections", func() {
			p.sayGoAway("services")
			p.endWatches(nil, watched...)
		}, 1, map[string]int{"services": 2, "endpointslices": 1, "nodes": 1, "servicecidrs": 1}},
		{"watches are cut", func() {
			p.sayGoAway("services")
			p.endWatches(errors.New("cut"), watched...)
		}, 1, map[string]int{"services": 2, "endpointslices": 1, "nodes": 1, "servicecidrs": 1}},
	} {
		changes.during(time.Second, step.make)
		c.waitEqual()
		want.Connections += step.connections
		for plural, more := range step.watches {
			want.Watches[plural] += more
		}
		eventually(t, patience, step.name, func() error {
			if difference := cmp.Diff(want, p.seen()); difference != "" {
				return errors.New("- wanted, + the proxy has seen\n" + difference)
			}
			return nil
		})
	}
	eventually(t, patience, "no connection is kept that has nothing to do any more", func() error {
		if p.open() != 1 {
			return errors.New("some are")
		}
		return nil
	})
}

// leadAgentsTo has agents that start from now on follow another server.
func (c *cluster) leadAgentsTo(url string) {
	config, err := clientcmd.LoadFromFile(c.kubeconfig())
	must(c.t, err)
	config.Clusters["lab"].Server = url
	must(c.t, clientcmd.WriteToFile(*config, c.kubeconfig()))
}
