// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net"
	"reflect"
	"slices"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// outcome is what a client sees of some requests: who answers, and as whom they see the client; or why nobody does.
type outcome struct {
	servers []string
	client  string
	failure string
}

// rule is what Services with some specification do, whoever serves them.
type rule struct {
	name    string
	app     string // whose pods serve: web's are on both nodes, lone's is on node2
	specify func(*core.ServiceSpec)
	asks    []ask
}

type ask struct {
	from, transport string
	to              func(*core.ServiceSpec) string
	want            outcome  // an empty client is anyone
	kubeProxy       *outcome // where docs/kube-proxy.md says that it differs
}

func clusterIP(family, port int) func(*core.ServiceSpec) string {
	return func(service *core.ServiceSpec) string {
		return net.JoinHostPort(service.ClusterIPs[family], fmt.Sprint(port))
	}
}

func nodePort(address string, index int) func(*core.ServiceSpec) string {
	return func(service *core.ServiceSpec) string {
		return net.JoinHostPort(address, fmt.Sprint(service.Ports[index].NodePort))
	}
}

const (
	node1IPv4  = "172.20.0.11"
	node2IPv4  = "172.20.0.12"
	node1IPv6  = "fd20::11"
	externalIP = "198.51.100.7"
)

var (
	both = outcome{servers: []string{"web-1", "web-2"}}
	lone = outcome{servers: []string{"lone"}}
)

func seenAs(client string) outcome { return outcome{servers: []string{"lone"}, client: client} }

var rules = []rule{
	{"a ClusterIP leads to all pods", "web", nil, []ask{
		{"pod-1", "tcp", clusterIP(0, 80), both, nil}, {"pod-1", "tcp", clusterIP(1, 80), both, nil},
		{"pod-1", "udp", clusterIP(0, 53), both, nil}, {"pod-1", "udp", clusterIP(1, 53), both, nil},
		{"node1", "tcp", clusterIP(0, 80), both, nil}, {"node1", "tcp", clusterIP(1, 80), both, nil},
		{"node1", "udp", clusterIP(0, 53), both, nil},
		{"web-1", "tcp", clusterIP(0, 80), both, nil}, // itself among them
	}},
	{"a pod sees by a ClusterIP who dials", "lone", nil, []ask{
		{"pod-1", "tcp", clusterIP(0, 80), seenAs("pod-1"), nil},
		{"pod-1", "udp", clusterIP(1, 53), seenAs("pod-1"), nil},
	}},
	{"a NodePort leads to all pods, at each node", "web", nil, []ask{
		{home, "tcp", nodePort(node1IPv4, 0), both, nil}, {home, "tcp", nodePort(node1IPv6, 0), both, nil},
		{home, "udp", nodePort(node2IPv4, 1), both, nil}, {"pod-1", "tcp", nodePort(node2IPv4, 0), both, nil},
		{"node1", "tcp", nodePort(node1IPv4, 0), both, nil},
	}},
	{"what comes from outside is masqueraded", "lone", nil, []ask{
		{home, "tcp", nodePort(node1IPv4, 0), seenAs("node1"), nil},
		{home, "tcp", nodePort(node1IPv6, 0), seenAs("node1"), nil},
		{"pod-1", "tcp", nodePort(node1IPv4, 0), seenAs("pod-1"), &outcome{servers: []string{"lone"}, client: "node1"}},
	}},
	{"an external IP leads to all pods", "web",
		func(service *core.ServiceSpec) { service.ExternalIPs = []string{externalIP} }, []ask{
			{"pod-1", "tcp", func(*core.ServiceSpec) string { return externalIP + ":80" }, both, nil},
			{"node1", "udp", func(*core.ServiceSpec) string { return externalIP + ":53" }, both, nil},
		}},
	{"without endpoints there is a refusal within a second", "nobody", nil, []ask{
		{"pod-1", "tcp", clusterIP(0, 80), outcome{failure: "refused"}, nil},
		{"pod-1", "udp", clusterIP(0, 53), outcome{failure: "refused"}, nil},
		{"pod-1", "udp", clusterIP(1, 53), outcome{failure: "refused"}, nil},
		{"node1", "tcp", clusterIP(0, 80), outcome{failure: "refused"}, nil},
		{home, "tcp", nodePort(node1IPv4, 0), outcome{failure: "refused"}, nil},
		{home, "udp", nodePort(node1IPv6, 1), outcome{failure: "refused"}, nil},
	}},
	{"external traffic that is to stay here does, and shows its source", "lone",
		func(service *core.ServiceSpec) {
			service.ExternalTrafficPolicy = core.ServiceExternalTrafficPolicyLocal
		}, []ask{
			{home, "tcp", nodePort(node2IPv4, 0), seenAs(home), nil},
			{home, "udp", nodePort(node2IPv4, 1), seenAs(home), nil},
			{home, "tcp", nodePort(node1IPv4, 0), outcome{failure: "timeout"}, nil},
			{"pod-1", "tcp", nodePort(node1IPv4, 0), lone, nil}, // is in the cluster
			{"pod-1", "tcp", clusterIP(0, 80), lone, nil},
		}},
	{"internal traffic that is to stay here does", "lone",
		func(service *core.ServiceSpec) {
			local := core.ServiceInternalTrafficPolicyLocal
			service.InternalTrafficPolicy = &local
		}, []ask{
			{"web-2", "tcp", clusterIP(0, 80), lone, nil},
			{"pod-1", "tcp", clusterIP(0, 80), outcome{failure: "timeout"}, nil},
			{home, "tcp", nodePort(node1IPv4, 0), lone, nil},
		}},
}

func TestServicesFollowTheRules(t *testing.T) {
	checkRules(t, newCluster(t, 2), func(a ask) outcome { return a.want })
}

// So the rules are not what we take them for, but what kube-proxy does.
func TestServicesFollowTheRulesWithKubeProxy(t *testing.T) {
	checkRules(t, newKubeProxyCluster(t, 2), func(a ask) outcome {
		if a.kubeProxy != nil {
			return *a.kubeProxy
		}
		return a.want
	})
}

func checkRules(t *testing.T, c *cluster, wanted func(ask) outcome) {
	c.addPod("node1", "pod-1", "client")
	c.addPod("node1", "web-1", "web")
	c.addPod("node2", "web-2", "web")
	c.addPod("node2", "lone", "lone")
	names := c.names()
	for _, rule := range rules {
		service := webService("rule", rule.app, [2]int32{})
		if rule.specify != nil {
			rule.specify(&service.Spec)
		}
		service = c.addService(service)
		for _, ask := range rule.asks {
			to := ask.to(&service.Spec)
			what := fmt.Sprintf("%s: from %s by %s to %s", rule.name, ask.from, ask.transport, to)
			want := wanted(ask)
			eventually(t, patience, what, func() error {
				got := c.outcome(ask.from, ask.transport, to, names)
				if want.client == "" {
					got.client = ""
				}
				if !reflect.DeepEqual(got, want) {
					return fmt.Errorf("%+v instead of %+v", got, want)
				}
				return nil
			})
		}
		c.deleteService("rule")
	}
	c.checkAffinity()
}

// checkAffinity is for the one rule whose outcome nobody can tell before.
func (c *cluster) checkAffinity() {
	service := webService("rule", "web", [2]int32{})
	service.Spec.SessionAffinity = core.ServiceAffinityClientIP
	service = c.addService(service)
	to := clusterIP(0, 80)(&service.Spec)
	eventually(c.t, patience, "a client stays at one pod", func() error {
		if got := c.outcome("pod-1", "tcp", to, nil); len(got.servers) != 1 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

// outcome asks until one fails, or often enough to hear of two servers.
func (c *cluster) outcome(from, transport, to string, names map[string]string) outcome {
	if first := c.ask(from, transport, to, 1)[0]; first.Error != "" {
		return outcome{failure: first.Error}
	}
	var result outcome
	for _, answer := range c.ask(from, transport, to, 16) {
		if answer.Error != "" {
			return outcome{failure: answer.Error}
		}
		result.servers = append(result.servers, answer.Name)
		result.client = names[answer.ClientAddress]
	}
	slices.Sort(result.servers)
	result.servers = slices.Compact(result.servers)
	return result
}

// names says whose an address is.
func (c *cluster) names() map[string]string {
	names := map[string]string{serverAddress: home}
	nodes, err := c.client.CoreV1().Nodes().List(background, meta.ListOptions{})
	must(c.t, err)
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			names[address.Address] = node.Name
		}
	}
	pods, err := c.client.CoreV1().Pods("default").List(background, meta.ListOptions{})
	must(c.t, err)
	for _, pod := range pods.Items {
		for _, address := range pod.Status.PodIPs {
			names[address.IP] = pod.Name
		}
	}
	return names
}
