// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

var figures = flag.Bool("figures", false, "measure at the size of large clusters, which takes some minutes")

// size is of a cluster: each Service has one EndpointSlice.
type size struct {
	services, endpoints int // endpoints of each
}

const (
	figuresSpace = "default"
	changeCount  = 200 // changes of one slice each, for the agent
	proxyChanges = 10  // and for kube-proxy, which makes at most one round a second

	proxyPatience = 15 * time.Minute
)

// TestFigures prints what Thruway's agent and kube-proxy (nftables mode) take at the size of a large cluster: the same
// objects from the same API server, one after the other.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("measures nothing without -figures")
	}
	for _, s := range []size{{10_000, 10}, {44_000, 2}} {
		t.Run(fmt.Sprintf("%d", s.services), func(t *testing.T) {
			c := makeCluster(t, 2, "thruway")
			c.installChart()
			c.lab.lab("agent start", "node1") // so that its programs are loaded
			c.lab.lab("agent stop", "node1")
			addresses := c.fill(s)
			t.Logf("%d Services, %d endpoints", s.services, s.services*s.endpoints)
			c.measureAgent(s, addresses)
			c.measureEvents(s)
			c.measureProxy(s)
		})
	}
}

// fill makes the objects, and says which address each Service has.
func (c *cluster) fill(s size) []string {
	addresses := make([]string, s.services)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 16 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for {
				number := int(next.Add(1)) - 1
				if number >= s.services {
					return
				}
				service, err := c.client.CoreV1().Services(figuresSpace).Create(background, plainService(number), meta.CreateOptions{})
				if err == nil {
					addresses[number] = service.Spec.ClusterIP
					_, err = c.client.DiscoveryV1().EndpointSlices(figuresSpace).
						Create(background, slice(number, s.endpoints), meta.CreateOptions{})
				}
				if err != nil {
					c.t.Errorf("Service %d: %v", number, err)
					return
				}
			}
		}()
	}
	workers.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
	return addresses
}

func numbered(number int) string { return fmt.Sprintf("s%d", number) }

// plainService has no selector, so that its endpoints are nobody's but ours.
func plainService(number int) *core.Service {
	return &core.Service{
		ObjectMeta: meta.ObjectMeta{Name: numbered(number)},
		Spec:       core.ServiceSpec{Ports: []core.ServicePort{{Name: "http", Port: 80}}},
	}
}

func slice(number, endpoints int) *discovery.EndpointSlice {
	name, protocol, port, ready := "http", core.ProtocolTCP, int32(8080), true
	made := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Name: numbered(number), Labels: map[string]string{discovery.LabelServiceName: numbered(number)}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
	for i := range endpoints {
		pod := number*endpoints + i
		node := fmt.Sprintf("node-%d", pod%500)
		made.Endpoints = append(made.Endpoints, discovery.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.%d.%d.%d", 10+pod/65536, pod/256%256, pod%256)},
			Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &ready},
			NodeName:   &node,
			TargetRef:  &core.ObjectReference{Kind: "Pod", Namespace: figuresSpace, Name: fmt.Sprintf("s%d-%d", number, i)},
		})
	}
	return made
}

// change gives the first endpoint of a slice another address.
func (c *cluster) change(number, round int) error {
	patch := fmt.Sprintf(`[{"op":"replace","path":"/endpoints/0/addresses","value":["10.200.%d.%d"]}]`, round/250, 1+round%250)
	_, err := c.client.DiscoveryV1().EndpointSlices(figuresSpace).
		Patch(background, numbered(number), types.JSONPatchType, []byte(patch), meta.PatchOptions{})
	return err
}

func (c *cluster) measureAgent(s size, addresses []string) {
	floor, size := c.readAllObjects("application/json")
	protobufTime, protobufBytes := c.readAllObjects("application/vnd.kubernetes.protobuf")
	start := time.Now()
	c.lab.lab("agent start", "node1")
	ready := time.Since(start)
	pid := c.status().Nodes[0].Agent.Pid
	c.t.Logf("  the server sends all objects in       %6.2f s, %.1f MB", floor.Seconds(), float64(size)/1e6)
	c.t.Logf("  and as protobuf in                    %6.2f s, %.1f MB", protobufTime.Seconds(), float64(protobufBytes)/1e6)
	c.t.Logf("  agent: start to all in the maps       %6.2f s, %.2f s beyond that", ready.Seconds(), (ready - floor).Seconds())
	c.t.Logf("  agent: received                       %6.1f MB", float64(c.received("node1"))/1e6)
	c.t.Logf("  agent: memory without mapped maps     %6.1f MB", memoryOf(c.t, pid))
	c.t.Logf("  agent: CPU                            %6.2f s", cpuOf(c.t, pid).Seconds())

	maps := c.serviceMaps("node1")
	arrivals := c.watchSlices()
	random := rand.New(rand.NewSource(1))
	var whole, beyond []time.Duration
	for round := range changeCount {
		number := random.Intn(s.services)
		word := maps.backends(addresses[number], 80)
		before := atomic.LoadUint64(word)
		seen := make(chan time.Time, 1)
		go func() {
			waitChange(word, before)
			seen <- time.Now()
		}()
		sent := time.Now()
		must(c.t, c.change(number, round))
		flipped := <-seen
		whole = append(whole, flipped.Sub(sent))
		beyond = append(beyond, flipped.Sub(<-arrivals))
	}
	c.t.Logf("  agent: change sent to map written     p50 %.2f ms, p99 %.2f ms", at(whole, 50), at(whole, 99))
	c.t.Logf("  agent: later than another watcher has the event, p50 %.2f ms, p99 %.2f ms", at(beyond, 50), at(beyond, 99))
	c.t.Logf("  agent: CPU of %d changes             %6.2f s in all", changeCount, cpuOf(c.t, pid).Seconds())
	c.lab.lab("agent stop", "node1")
}

func (c *cluster) received(node string) (bytes int64) {
	var status struct {
		Agent struct{ Watches []struct{ Bytes int64 } }
	}
	must(c.t, json.Unmarshal([]byte(c.thruway(node, "status", "-o", "json")), &status))
	for _, watch := range status.Agent.Watches {
		bytes += watch.Bytes
	}
	return bytes
}

// streamed asks the API server for a stream, as the agent does.
func (c *cluster) streamed(query, accept string) io.ReadCloser {
	config := c.config()
	config.Timeout = 0
	transport, err := rest.TransportFor(config)
	must(c.t, err)
	request, err := http.NewRequest(http.MethodGet, serverURL+query, nil)
	must(c.t, err)
	request.Header.Set("Accept", accept)
	response, err := (&http.Client{Transport: transport}).Do(request)
	must(c.t, err)
	if response.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s", query, response.Status)
	}
	return response.Body
}

const initial = "?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion="

// readAllObjects is how long the server takes to send what an agent asks for to somebody who only reads it, and how much
// that is.
func (c *cluster) readAllObjects(accept string) (time.Duration, int64) {
	start := time.Now()
	var received atomic.Int64
	var readers sync.WaitGroup
	for _, path := range []string{"/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"} {
		readers.Add(1)
		go func() {
			defer readers.Done()
			stream := c.streamed(path+initial, accept)
			defer stream.Close()
			count, err := readUntil(stream, "k8s.io/initial-events-end")
			received.Add(count)
			if err != nil {
				c.t.Errorf("%s: %v", path, err)
			}
		}()
	}
	readers.Wait()
	return time.Since(start), received.Load()
}

// readUntil reads up to a text, and not much further. It says how many bytes that were.
func readUntil(stream io.Reader, text string) (count int64, err error) {
	buffer := make([]byte, 1<<20)
	kept := 0 // of what came before: the text may begin in it
	for {
		n, err := stream.Read(buffer[kept:])
		count += int64(n)
		if bytes.Contains(buffer[:kept+n], []byte(text)) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		tail := min(kept+n, len(text))
		copy(buffer, buffer[kept+n-tail:kept+n])
		kept = tail
	}
}

// watchSlices tells when a watcher that does nothing else has each change of an EndpointSlice.
func (c *cluster) watchSlices() <-chan time.Time {
	all, err := c.client.DiscoveryV1().EndpointSlices(figuresSpace).List(background, meta.ListOptions{Limit: 1})
	must(c.t, err)
	stream := c.streamed("/apis/discovery.k8s.io/v1/endpointslices?watch=1&resourceVersion="+all.ResourceVersion,
		"application/json")
	c.t.Cleanup(func() { stream.Close() })
	arrivals := make(chan time.Time, 16)
	go func() {
		lines := bufio.NewScanner(stream)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			arrivals <- time.Now()
		}
	}()
	return arrivals
}

// measureEvents tells what one change in a large Service costs the API server for each node: the slice of a hundred
// endpoints that the change is in comes whole.
func (c *cluster) measureEvents(s size) {
	const rounds = 20
	number := s.services // one more
	_, err := c.client.DiscoveryV1().EndpointSlices(figuresSpace).Create(background, slice(number, 100), meta.CreateOptions{})
	must(c.t, err)
	all, err := c.client.DiscoveryV1().EndpointSlices(figuresSpace).List(background, meta.ListOptions{Limit: 1})
	must(c.t, err)
	query := "/apis/discovery.k8s.io/v1/endpointslices?watch=1&timeoutSeconds=5&resourceVersion=" + all.ResourceVersion
	streams := map[string]io.ReadCloser{}
	for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		streams[accept] = c.streamed(query, accept)
	}
	for round := range rounds {
		must(c.t, c.change(number, 2000+round))
	}
	for accept, stream := range streams {
		count, err := io.Copy(io.Discard, stream) // the server ends it
		must(c.t, err)
		c.t.Logf("  one change among 100 endpoints: %6.1f KB of %s", float64(count)/rounds/1000, accept)
	}
}

func (c *cluster) measureProxy(s size) {
	proxy := c.kubeProxy("node2")
	start := time.Now()
	proxy.start()
	for c.lastRound("node2") == 0 {
		proxy.check()
		if time.Since(start) > proxyPatience {
			c.t.Logf("  kube-proxy: start to all in nftables  not within %v", proxyPatience)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	pid := proxy.process.Pid
	c.t.Logf("  kube-proxy: start to all in nftables  %6.2f s", time.Since(start).Seconds())
	c.t.Logf("  kube-proxy: memory                    %6.1f MB", memoryOf(c.t, pid))
	c.t.Logf("  kube-proxy: CPU                       %6.2f s", cpuOf(c.t, pid).Seconds())
	random := rand.New(rand.NewSource(2))
	var whole []time.Duration
	for round := range proxyChanges {
		before := c.lastRound("node2")
		sent := time.Now()
		must(c.t, c.change(random.Intn(s.services), 1000+round))
		eventually(c.t, time.Minute, "kube-proxy has programmed a change", func() error {
			if c.lastRound("node2") == before {
				return errors.New("not yet")
			}
			return nil
		})
		whole = append(whole, time.Since(sent))
	}
	c.t.Logf("  kube-proxy: change sent to programmed p50 %.0f ms, most %.0f ms", at(whole, 50), at(whole, 100))
	c.t.Logf("  kube-proxy: CPU with %d changes       %6.2f s in all", proxyChanges, cpuOf(c.t, pid).Seconds())
	proxy.kill()
}

// lastRound is when kube-proxy has last ended a round, in seconds since 1970; 0 before the first one.
func (c *cluster) lastRound(node string) float64 {
	connection, err := c.dial(background, node, "tcp", "127.0.0.1:10249")
	if err != nil {
		return 0 // it does not listen yet
	}
	defer connection.Close()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return connection, nil },
	}}
	response, err := client.Get("http://127.0.0.1/metrics")
	must(c.t, err)
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		value, is := strings.CutPrefix(lines.Text(), `kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} `)
		if is {
			seconds, err := strconv.ParseFloat(value, 64)
			must(c.t, err)
			return seconds
		}
	}
	return 0
}

// memoryOf is what a process holds, in MB, but for BPF maps that it has mapped: those are the kernel's.
func memoryOf(t *testing.T, pid int) float64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps"))
	must(t, err)
	kilobytes, ofMap := 0, false
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case !strings.HasSuffix(words[0], ":"):
			ofMap = strings.Contains(line, "bpf-map")
		case words[0] == "Rss:" && !ofMap:
			amount, err := strconv.Atoi(words[1])
			must(t, err)
			kilobytes += amount
		}
	}
	return float64(kilobytes) / 1024
}

func cpuOf(t *testing.T, pid int) time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	must(t, err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, field := range fields[11:15] { // its own and that of children that have ended, proc_pid_stat(5)
		amount, err := strconv.Atoi(field)
		must(t, err)
		ticks += amount
	}
	return time.Duration(ticks) * time.Second / 100
}

// at is a percentile, in milliseconds.
func at(samples []time.Duration, percent int) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	index := min(len(sorted)*percent/100, len(sorted)-1)
	return float64(sorted[index].Microseconds()) / 1000
}
