// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"strings"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func nodeName(number int) string { return fmt.Sprintf("node%d", number) }

// addNode makes the Node object of a node of the lab, or of one that the lab could have.
func (c *cluster) addNode(ctx context.Context, number int) error {
	cidrs := []string{fmt.Sprintf("10.244.%d.0/24", number), fmt.Sprintf("fd00:10:244:%d::/64", number)}
	node := &core.Node{
		ObjectMeta: meta.ObjectMeta{Name: nodeName(number)},
		Spec:       core.NodeSpec{PodCIDR: cidrs[0], PodCIDRs: cidrs},
		Status: core.NodeStatus{
			Addresses: []core.NodeAddress{
				{Type: core.NodeInternalIP, Address: c.nodeAddress(number)},
				{Type: core.NodeInternalIP, Address: c.nodeAddress6(number)},
			},
			Conditions: []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue}},
		},
	}
	_, err := c.client.CoreV1().Nodes().Create(ctx, node, meta.CreateOptions{})
	return err
}

// addPod makes a pod in the lab, and the Pod object of it, as scheduler and kubelet would: ready, with the label app.
func (c *cluster) addPod(node, name, app string) {
	addresses := strings.Fields(c.lab.lab("pod add", node, name))
	c.addPodObject(node, name, app, addresses)
}

func (c *cluster) addPodObject(node, name, app string, addresses []string) {
	pod := &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec: core.PodSpec{
			NodeName:   node,
			Containers: []core.Container{{Name: "echo", Image: "echo"}},
		},
	}
	pods := c.client.CoreV1().Pods("default")
	pod, err := pods.Create(background, pod, meta.CreateOptions{})
	must(c.t, err)
	pod.Status = core.PodStatus{Phase: core.PodRunning, PodIP: addresses[0], Conditions: readiness(true)}
	for _, address := range addresses {
		pod.Status.PodIPs = append(pod.Status.PodIPs, core.PodIP{IP: address})
	}
	_, err = pods.UpdateStatus(background, pod, meta.UpdateOptions{})
	must(c.t, err)
}

// setReady is what the kubelet does when a readiness probe changes its mind.
func (c *cluster) setReady(ctx context.Context, name string, ready bool) error {
	pods := c.client.CoreV1().Pods("default")
	pod, err := pods.Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return err
	}
	pod.Status.Conditions = readiness(ready)
	_, err = pods.UpdateStatus(ctx, pod, meta.UpdateOptions{})
	return err
}

func readiness(ready bool) []core.PodCondition {
	status := core.ConditionFalse
	if ready {
		status = core.ConditionTrue
	}
	return []core.PodCondition{{Type: core.PodReady, Status: status}}
}

// webService is a dual-stack Service of all pods with the label app: 80 by TCP and 53 by UDP lead to their 8080, and so
// do two node ports. The API server chooses those that are 0.
func webService(name, app string, nodePorts [2]int32) *core.Service {
	families := core.IPFamilyPolicyRequireDualStack
	port := func(name string, protocol core.Protocol, port, nodePort int32) core.ServicePort {
		return core.ServicePort{
			Name: name, Protocol: protocol, Port: port, TargetPort: intstr.FromInt32(8080), NodePort: nodePort}
	}
	return &core.Service{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: core.ServiceSpec{
			Type:           core.ServiceTypeNodePort,
			Selector:       map[string]string{"app": app},
			IPFamilyPolicy: &families,
			Ports: []core.ServicePort{
				port("tcp", core.ProtocolTCP, 80, nodePorts[0]), port("udp", core.ProtocolUDP, 53, nodePorts[1])},
		},
	}
}

func (c *cluster) addService(service *core.Service) *core.Service {
	service, err := c.client.CoreV1().Services("default").Create(background, service, meta.CreateOptions{})
	must(c.t, err)
	return service
}

func (c *cluster) deleteService(name string) {
	must(c.t, c.client.CoreV1().Services("default").Delete(background, name, meta.DeleteOptions{}))
}
