// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"math/rand"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	churnServices = 12
	churnPods     = 12
	churnApps     = 4
	churnNodes    = 8 // beyond those that the lab has
)

// churn is random changes of Services, Pods and Nodes that no traffic goes to. They are tried while nobody answers, too.
type churn struct {
	c      *cluster
	random *rand.Rand
	made   int // those that the API server has confirmed
}

func newChurn(c *cluster) *churn {
	seed := time.Now().UnixNano()
	c.t.Logf("the seed of the changes is %d", seed)
	for number := range churnPods {
		c.addPodObject(c.nodes[number%len(c.nodes)], fmt.Sprintf("churn-%d", number), app(number%churnApps),
			[]string{fmt.Sprintf("10.244.1.%d", 200+number), fmt.Sprintf("fd00:10:244:1::%d", 200+number)})
	}
	return &churn{c: c, random: rand.New(rand.NewSource(seed))}
}

func app(number int) string { return fmt.Sprintf("churn-%d", number) }

// during makes changes while something is done, and for some time longer.
func (h *churn) during(longer time.Duration, what func()) {
	done, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				if h.change() == nil {
					h.made++
				}
			}
		}
	}()
	what()
	time.Sleep(longer)
	close(stop)
	<-done
}

func (h *churn) change() error {
	ctx, cancel := context.WithTimeout(background, 2*time.Second)
	defer cancel()
	services := h.c.client.CoreV1().Services("default")
	name := fmt.Sprintf("churn-%d", h.random.Intn(churnServices))
	choice := app(h.random.Intn(churnApps))
	node := 100 + h.random.Intn(churnNodes)
	switch h.random.Intn(6) {
	case 0:
		_, err := services.Create(ctx, webService(name, choice, [2]int32{}), meta.CreateOptions{})
		return err
	case 1:
		return services.Delete(ctx, name, meta.DeleteOptions{})
	case 2:
		service, err := services.Get(ctx, name, meta.GetOptions{})
		if err != nil {
			return err
		}
		service.Spec.Selector["app"] = choice
		service.Spec.Ports = service.Spec.Ports[:1+h.random.Intn(len(service.Spec.Ports))]
		_, err = services.Update(ctx, service, meta.UpdateOptions{})
		return err
	case 3:
		return h.c.addNode(ctx, node)
	case 4:
		return h.c.client.CoreV1().Nodes().Delete(ctx, nodeName(node), meta.DeleteOptions{})
	default:
		return h.c.setReady(ctx, fmt.Sprintf("churn-%d", h.random.Intn(churnPods)), h.random.Intn(2) == 0)
	}
}
