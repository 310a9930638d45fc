// SPDX-License-Identifier: Apache-2.0
package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/contrib/seccomp"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	archive  = "../../build/image.tar"
	labTool  = "../../build/bin/thruway-lab"
	service  = "10.96.0.10:80"
	megabyte = 1 << 20
)

const manifest = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ipFamilies: [IPv4]
  ports: [{name: web, port: 80, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: web, port: 8080, protocol: TCP}]
endpoints: [{addresses: [%s], nodeName: node1}]
`

func run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	said, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(arguments, " "), err, said)
	}
	return string(said)
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// unpack makes the image's root file system, and returns how the image says that it starts.
func unpack(t *testing.T, root string) []string {
	t.Helper()
	folder := t.TempDir()
	run(t, "tar", "-xf", archive, "-C", folder)
	blob := func(digest string) string {
		return filepath.Join(folder, "blobs", strings.Replace(digest, ":", "/", 1))
	}
	var index struct{ Manifests []struct{ Digest string } }
	decode(t, filepath.Join(folder, "index.json"), &index)
	var image struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	decode(t, blob(index.Manifests[0].Digest), &image)
	for _, layer := range image.Layers {
		run(t, "tar", "-xzf", blob(layer.Digest), "-C", root)
	}
	var config struct{ Config struct{ Entrypoint []string } }
	decode(t, blob(image.Config.Digest), &config)
	return config.Config.Entrypoint
}

// node is a lab's node with the chart's pod on it. The lab has no kubelet, so this does what one would do, by
// containerd's own rules for the confinement of containers.
type node struct {
	lab      string
	host     string // root of the node's file system, as far as it is not the lab's
	root     string // of the image
	state    string // of runc
	set      appsv1.DaemonSet
	start    []string
	hostPath map[string]string // what the lab has in place of the node's folders
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, "findmnt", "-n", "-t", "cgroup2", "-o", "TARGET", "--first-only"))
}

func newNode(t *testing.T) *node {
	t.Helper()
	lab := fmt.Sprintf("chart-%d", os.Getpid())
	run(t, labTool, "up", "--name", lab, "--nodes", "1", "--pods", "0", "--no-agents")
	t.Cleanup(func() { run(t, labTool, "down", "--name", lab) })
	folder := filepath.Join("/run/thruway-lab", lab)
	host := t.TempDir()
	for _, plugins := range []string{"opt/cni/bin", "etc/cni/net.d"} { // which the kubelet would make
		if err := os.MkdirAll(filepath.Join(host, plugins), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{lab: lab, host: host, root: t.TempDir(), state: t.TempDir(), set: daemonSet(t, ""), hostPath: map[string]string{
		"/run/thruway":   filepath.Join(folder, "nodes/node1/run"),
		"/sys/fs/bpf":    filepath.Join(folder, "nodes/node1/bpf"),
		"/sys/fs/cgroup": filepath.Join(cgroupRoot(t), "thruway-lab-"+lab, "node1"),
		"/proc/sys/net":  "/proc/sys/net",
		"/opt/cni/bin":   filepath.Join(host, "opt/cni/bin"),
		"/etc/cni/net.d": filepath.Join(host, "etc/cni/net.d"),
	}}
	n.start = unpack(t, n.root)
	return n
}

// on runs a program in a place of the lab: a node or a pod.
func (n *node) on(place string, arguments ...string) *exec.Cmd {
	return exec.Command(labTool, append([]string{"exec", "--name", n.lab, place, "--"}, arguments...)...)
}

func (n *node) put(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join("/run/thruway-lab", n.lab, "manifests", "web.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// mounts of the chart's pod, with the lab's folders for the node's; a folder of manifests stands for the API server.
func (n *node) mounts(t *testing.T, wanted corev1.Container) []specs.Mount {
	t.Helper()
	pod := n.set.Spec.Template.Spec
	all := []specs.Mount{{Destination: "/manifests", Type: "bind", Options: []string{"rbind", "ro"},
		Source: filepath.Join("/run/thruway-lab", n.lab, "manifests")}}
	for _, mount := range wanted.VolumeMounts {
		at := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		source := ""
		if volume := pod.Volumes[at]; volume.ConfigMap != nil {
			source = t.TempDir()
			if err := os.WriteFile(filepath.Join(source, "config.yaml"), []byte("{}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			source = n.hostPath[volume.HostPath.Path]
		}
		options := []string{"rbind", "rprivate", "rw"}
		if mount.ReadOnly {
			options[2] = "ro"
		}
		all = append(all, specs.Mount{Source: source, Destination: mount.MountPath, Type: "bind", Options: options})
	}
	return all
}

// container is one of the chart's as the kubelet and containerd would have it started.
type container struct {
	node *node
	id   string
	log  bytes.Buffer
	done chan struct{} // closed when it has ended
}

func (n *node) agent(t *testing.T, id string, more ...string) *container {
	t.Helper()
	wanted := n.set.Spec.Template.Spec.Containers[0]
	args := append(slices.Clone(n.start), more...)
	for _, argument := range wanted.Args {
		argument = strings.ReplaceAll(argument, "$(NODE_NAME)", "node1")
		args = append(args, strings.ReplaceAll(argument, "--source=kube", "--source=file:/manifests"))
	}
	return n.begin(t, wanted, id, args)
}

func (n *node) begin(t *testing.T, wanted corev1.Container, id string, args []string) *container {
	t.Helper()
	rights := wanted.SecurityContext
	var capabilities []string
	for _, name := range rights.Capabilities.Add {
		capabilities = append(capabilities, "CAP_"+string(name))
	}
	options := []oci.SpecOpts{
		oci.WithRootFSPath(n.root),
		oci.WithProcessArgs(args...),
		oci.WithDefaultPathEnv,
		oci.WithHostNamespace(specs.NetworkNamespace),
		oci.WithCgroup(""), // one below ours, that goes with it
		oci.WithCapabilities(capabilities),
		oci.WithMounts(n.mounts(t, wanted)),
		seccomp.WithDefaultProfile(),
	}
	if *rights.ReadOnlyRootFilesystem {
		options = append(options, oci.WithRootFSReadonly())
	}
	if *rights.AllowPrivilegeEscalation {
		options = append(options, oci.WithNewPrivileges)
	}
	spec, err := oci.GenerateSpec(namespaces.WithNamespace(context.Background(), "thruway-test"), nil,
		&containers.Container{ID: n.lab + "-" + id}, options...)
	if err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	c := &container{node: n, id: n.lab + "-" + id, done: make(chan struct{})}
	command := n.runc("run", "--bundle", bundle, c.id)
	command.Stdout = &c.log
	command.Stderr = &c.log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		command.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		n.runc("delete", "--force", c.id).Run()
		if <-c.done; t.Failed() {
			t.Logf("%s said: %s", c.id, c.log.String())
		}
	})
	return c
}

// end waits for the container's end, and returns what it has said.
func (c *container) end(t *testing.T) string {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end", c.id)
	}
	return c.log.String()
}

func (n *node) runc(arguments ...string) *exec.Cmd {
	return n.on("node1", append([]string{"runc", "--root", n.state}, arguments...)...)
}

func (c *container) signal(t *testing.T, name string) {
	t.Helper()
	must(t, c.node.runc("kill", c.id, name))
}

// exec is `kubectl exec`.
func (c *container) exec(t *testing.T, arguments ...string) string {
	t.Helper()
	said, err := c.node.runc(append([]string{"exec", c.id}, arguments...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v: %s", arguments, err, said)
	}
	return string(said)
}

// ready waits until the pod's readiness probe is content.
func (c *container) ready(t *testing.T) {
	t.Helper()
	probe := c.node.set.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet
	url := fmt.Sprintf("http://127.0.0.1:%d%s", probe.Port.IntValue(), probe.Path)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c.node.on("node1", "curl", "-fs", url).Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready", c.id)
		}
	}
}

func (n *node) answers(t *testing.T, place string) {
	t.Helper()
	said := ""
	for range 100 { // the manifests were changed a moment ago
		answer, err := n.on(place, labTool, "ask", "tcp", service, "--count", "1").CombinedOutput()
		if said = string(answer); err == nil && strings.HasPrefix(said, "web ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%s asks %s: %s", place, service, said)
}

func TestTheImageIsSmall(t *testing.T) {
	info, err := os.Stat(archive)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 30*megabyte {
		t.Errorf("%s has %d MB", archive, info.Size()/megabyte)
	}
}

// The image's agent, under exactly the confinement that the chart asks for, is a node's agent from its start to cleanup.
func TestTheImageServesANodeWithTheChartsRights(t *testing.T) {
	n := newNode(t)
	first := n.agent(t, "first")
	first.ready(t)

	// The plugin talks to the agent, which sets sysctls of the pod's interface.
	address := strings.Fields(run(t, labTool, "pod", "add", "--name", n.lab, "node1", "web"))
	run(t, labTool, "pod", "add", "--name", n.lab, "node1", "guest")
	n.put(t, fmt.Sprintf(manifest, strings.Trim(address[0], ",")))
	n.answers(t, "guest")
	n.answers(t, "node1")

	if listed := first.exec(t, "thruway", "service", "list", "-o", "json"); !strings.Contains(listed, "10.96.0.10") {
		t.Errorf("thruway service list: %s", listed)
	}
	first.exec(t, "thruway", "status")
	if steps := first.exec(t, "thruway", "trace", "default/guest", "default/web"); !strings.Contains(steps, "default/web:8080") {
		t.Errorf("thruway trace: %s", steps)
	}

	first.signal(t, "KILL")
	log := first.end(t)
	second := n.agent(t, "second")
	second.ready(t)
	n.answers(t, "guest")
	second.signal(t, "TERM")
	log += second.end(t)
	if !strings.Contains(log, "programs loaded") || !strings.Contains(log, "programs taken over") {
		t.Error("the second agent has not taken over what the first one has made")
	}
	if strings.Contains(log, " warning ") || strings.Contains(log, " error ") {
		t.Error("something is amiss")
	}
	n.answers(t, "guest") // while no agent runs

	if said := n.agent(t, "third", "cleanup").end(t); said != "" {
		t.Errorf("cleanup: %s", said)
	}
	left := string(must(t, n.on("node1", "ls", n.hostPath["/sys/fs/bpf"], n.hostPath["/run/thruway"])))
	if strings.Contains(left, "thruway\n") || strings.Contains(left, "objects") {
		t.Errorf("cleanup leaves %s", left)
	}
}

// A node has none of the plugin's libraries, so it is tried where there is nothing else.
func TestThePluginThatIsInstalledNeedsNothingOfTheNode(t *testing.T) {
	n := newNode(t)
	wanted := n.set.Spec.Template.Spec.InitContainers[0]
	for _, id := range []string{"fresh", "again"} {
		if said := n.begin(t, wanted, id, wanted.Command).end(t); said != "" {
			t.Fatalf("%s: %s", id, said)
		}
		command := exec.Command("chroot", n.host, "/opt/cni/bin/thruway-cni")
		command.Env = []string{"CNI_COMMAND=VERSION"}
		command.Stdin = strings.NewReader(`{"cniVersion": "1.0.0"}`)
		if said := string(must(t, command)); !strings.Contains(said, "supportedVersions") {
			t.Errorf("%s: the plugin says %s", id, said)
		}
	}
	var list struct{ Plugins []struct{ Type string } }
	decode(t, filepath.Join(n.host, "etc/cni/net.d/05-thruway.conflist"), &list)
	if len(list.Plugins) != 1 || list.Plugins[0].Type != "thruway-cni" {
		t.Errorf("network configuration: %v", list)
	}
	if left := must(t, exec.Command("find", n.host, "-name", "*.new")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

func must(t *testing.T, command *exec.Cmd) []byte {
	t.Helper()
	said, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command.Args, err, said)
	}
	return said
}
