// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// servicePort is an element of `thruway service list -o json`: a port of a Service with all that the maps say of it.
type servicePort struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	PortName  string     `json:"port_name"`
	Protocol  string     `json:"protocol"`
	Type      string     `json:"type"`
	Frontends []frontend `json:"frontends"`
	Backends  []backend  `json:"backends"`
}

type frontend struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
	Port    int32  `json:"port"`
}

type backend struct {
	Address     string `json:"address"`
	Port        int32  `json:"port"`
	Node        string `json:"node"`
	Pod         string `json:"pod"`
	Ready       bool   `json:"ready"`
	Serving     bool   `json:"serving"`
	Terminating bool   `json:"terminating"`
}

// nodeWay is of an element of `thruway node list -o json` what an API server knows, too: how pods of a node are reached.
type nodeWay struct {
	Name     string    `json:"name"`
	Local    bool      `json:"local"`
	PodCIDRs []podCIDR `json:"pod_cidrs"`
}

type podCIDR struct {
	CIDR    string `json:"cidr"`
	Gateway string `json:"gateway"`
}

// contents is what maps have, or should have.
type contents struct {
	Services []servicePort
	Nodes    []nodeWay
}

// waitEqual waits until what each node has in its maps is what a fresh list of the API server's objects asks for. An
// agent that has met trouble may leave the API server alone for half a minute.
func (c *cluster) waitEqual() {
	c.t.Helper()
	for _, node := range c.nodes {
		eventually(c.t, time.Minute, node+" has what the API server has", func() error {
			listed, err := c.listed(node)
			if err != nil {
				return err
			}
			programmed, err := c.programmed(node)
			if err != nil {
				return err
			}
			if difference := cmp.Diff(listed, programmed); difference != "" {
				return errors.New("- API server, + node\n" + difference)
			}
			return nil
		})
	}
}

// programmed is what a node's maps have. It fails on what the CLI marks as not yet as it should be.
func (c *cluster) programmed(node string) (contents, error) {
	c.t.Helper()
	var all contents
	decoder := json.NewDecoder(strings.NewReader(c.thruway(node, "service", "list", "-o", "json")))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all.Services); err != nil {
		return all, err
	}
	err := json.Unmarshal([]byte(c.thruway(node, "node", "list", "-o", "json")), &all.Nodes)
	return sorted(all), err
}

// listed is what a node's maps should have for the objects that the API server has now.
func (c *cluster) listed(node string) (contents, error) {
	var all contents
	services, err := c.client.CoreV1().Services("").List(background, meta.ListOptions{})
	if err != nil {
		return all, err
	}
	slices, err := c.client.DiscoveryV1().EndpointSlices("").List(background, meta.ListOptions{})
	if err != nil {
		return all, err
	}
	nodes, err := c.client.CoreV1().Nodes().List(background, meta.ListOptions{})
	if err != nil {
		return all, err
	}
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			all.Services = append(all.Services, servicePort{
				Namespace: service.Namespace,
				Name:      service.Name,
				PortName:  port.Name,
				Protocol:  string(port.Protocol),
				Type:      string(service.Spec.Type),
				Frontends: frontendsOf(service.Spec, port),
				Backends:  backendsOf(service.ObjectMeta, port, slices.Items),
			})
		}
	}
	for _, other := range nodes.Items {
		all.Nodes = append(all.Nodes, wayTo(other, other.Name == node))
	}
	return sorted(all), nil
}

// wayTo is by the address of the same family; our Nodes have one of each, in the order of their CIDRs.
func wayTo(node core.Node, local bool) nodeWay {
	way := nodeWay{Name: node.Name, Local: local}
	for i, cidr := range node.Spec.PodCIDRs {
		to := podCIDR{CIDR: cidr}
		if !local {
			to.Gateway = node.Status.Addresses[i].Address
		}
		way.PodCIDRs = append(way.PodCIDRs, to)
	}
	return way
}

func frontendsOf(service core.ServiceSpec, port core.ServicePort) []frontend {
	frontends := []frontend{}
	for _, address := range service.ClusterIPs {
		frontends = append(frontends, frontend{"ClusterIP", address, port.Port})
	}
	if port.NodePort != 0 {
		frontends = append(frontends, frontend{Kind: "NodePort", Port: port.NodePort})
	}
	return frontends
}

// backendsOf are the ready endpoints: the tests let none terminate.
func backendsOf(service meta.ObjectMeta, port core.ServicePort, all []discovery.EndpointSlice) []backend {
	backends := []backend{}
	for _, slice := range all {
		if slice.Namespace != service.Namespace || slice.Labels[discovery.LabelServiceName] != service.Name {
			continue
		}
		at := slices.IndexFunc(slice.Ports, func(p discovery.EndpointPort) bool {
			return *p.Name == port.Name && *p.Protocol == port.Protocol
		})
		for _, endpoint := range slice.Endpoints {
			if at >= 0 && *endpoint.Conditions.Ready {
				backends = append(backends, backendOf(endpoint, *slice.Ports[at].Port))
			}
		}
	}
	return backends
}

func backendOf(endpoint discovery.Endpoint, port int32) backend {
	made := backend{Address: endpoint.Addresses[0], Port: port, Ready: true, Serving: true}
	if endpoint.NodeName != nil {
		made.Node = *endpoint.NodeName
	}
	if endpoint.TargetRef != nil {
		made.Pod = endpoint.TargetRef.Name
	}
	return made
}

// sorted puts everything in one order.
func sorted(all contents) contents {
	for _, port := range all.Services {
		sortByText(port.Frontends)
		sortByText(port.Backends)
	}
	for _, node := range all.Nodes {
		sortByText(node.PodCIDRs)
	}
	sortByText(all.Services)
	sortByText(all.Nodes)
	return all
}

func sortByText[T any](items []T) {
	text := func(item T) string {
		all, _ := json.Marshal(item) // plain structs always can be
		return string(all)
	}
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(text(a), text(b)) })
}
