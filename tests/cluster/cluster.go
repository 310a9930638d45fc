// SPDX-License-Identifier: Apache-2.0

// Package cluster tests Thruway's agents in a lab against a real API server and real controllers.
package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	agentSpace   = "kube-system"
	agentAccount = "thruway"
	podCIDRs     = "10.244.0.0/16,fd00:10:244::/48" // all of the lab's
)

// cluster is a lab with a control plane and with a proxy on each node that follows it.
type cluster struct {
	*lab
	*controlPlane
	t      *testing.T
	client *kubernetes.Clientset
	nodes  []string
}

// newCluster makes one, with Thruway installed, whose agents are ready.
func newCluster(t *testing.T, nodes int) *cluster {
	c := makeCluster(t, nodes, "thruway")
	c.installChart()
	c.startAgents()
	return c
}

// newKubeProxyCluster makes one whose nodes have kube-proxy, and kernel routes to their pods.
func newKubeProxyCluster(t *testing.T, nodes int) *cluster {
	c := makeCluster(t, nodes, "none")
	for _, node := range c.nodes {
		c.kubeProxy(node).start()
	}
	return c
}

// kubeProxy is that of a node.
func (c *cluster) kubeProxy(node string) *component {
	kubeconfig := c.file("kube-proxy.kubeconfig")
	c.writeKubeconfig(kubeconfig, c.authority.user("system:kube-proxy"), "")
	// The limits of conntrack are the machine's.
	return c.component(node, "kube-proxy", "--kubeconfig", kubeconfig, "--hostname-override", node,
		"--proxy-mode", "nftables", "--cluster-cidr", podCIDRs, "--conntrack-max-per-core", "0")
}

func makeCluster(t *testing.T, nodes int, dataplane string) *cluster {
	l := newLab(t, nodes, dataplane)
	c := &cluster{lab: l, controlPlane: startControlPlane(l), t: t}
	client, err := kubernetes.NewForConfig(c.config())
	must(t, err)
	c.client = client
	for number := 1; number <= nodes; number++ {
		must(t, c.addNode(background, number))
		c.nodes = append(c.nodes, nodeName(number))
	}
	eventually(t, time.Minute, "there are service accounts", func() error {
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(background, "default", meta.GetOptions{})
		return err
	})
	return c
}

var background = context.Background()

// installChart makes what the chart makes, but that the lab starts the agents, and gives these the chart's service account.
func (c *cluster) installChart() {
	eventually(c.t, time.Minute, "the API server has made its own namespaces", func() error {
		_, err := c.client.CoreV1().Namespaces().Get(background, agentSpace, meta.GetOptions{})
		return err
	})
	c.apply(chart(c.t))
	accounts := c.client.CoreV1().ServiceAccounts(agentSpace)
	token, err := accounts.CreateToken(background, agentAccount, &authentication.TokenRequest{}, meta.CreateOptions{})
	must(c.t, err)
	c.writeKubeconfig(c.kubeconfig(), keyPair{}, token.Status.Token)
}

// startAgents returns when they are ready.
func (c *cluster) startAgents() {
	c.t.Cleanup(c.tellOfAgents)
	for _, node := range c.nodes {
		c.lab.lab("agent start", node)
	}
}

// tellOfAgents shows what the agents last said, if the test has failed.
func (c *cluster) tellOfAgents() {
	if !c.t.Failed() {
		return
	}
	for _, node := range c.nodes {
		c.t.Logf("the log of %s's agent ends:\n%s", node, logEnd(c.agentLog(node), 20))
	}
}

// eventually tries until it works.
func eventually(t *testing.T, timeout time.Duration, what string, try func() error) {
	t.Helper()
	end := time.Now().Add(timeout)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s: %v", timeout, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func join(words []string) string { return strings.Join(words, ",") }
