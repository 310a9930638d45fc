// SPDX-License-Identifier: Apache-2.0
package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const (
	folder = "../../charts/thruway"
	agent  = "../../build/bin/thruway-agent"
)

// rendered are the chart's objects by kind; there is one of each.
type rendered map[string][]byte

func (r rendered) into(t *testing.T, kind string, object any) {
	t.Helper()
	if r[kind] == nil {
		t.Fatalf("there is no %s", kind)
	}
	if err := yaml.UnmarshalStrict(r[kind], object); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
}

func values(t *testing.T, text string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func render(t *testing.T, text string) rendered {
	t.Helper()
	manifest, err := Render(Options{Folder: folder, Namespace: "kube-system", Values: values(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	objects := rendered{}
	for _, document := range strings.Split(manifest, "\n---\n") {
		var header struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &header); err != nil {
			t.Fatal(err)
		}
		if objects[header.Kind] != nil {
			t.Fatalf("there are two objects of kind %s", header.Kind)
		}
		objects[header.Kind] = []byte(document)
	}
	return objects
}

func kinds(objects rendered) []string {
	var all []string
	for kind := range objects {
		all = append(all, kind)
	}
	slices.Sort(all)
	return all
}

func daemonSet(t *testing.T, text string) appsv1.DaemonSet {
	t.Helper()
	var set appsv1.DaemonSet
	render(t, text).into(t, "DaemonSet", &set)
	return set
}

func TestLintHasNothingToWarnOf(t *testing.T) {
	linter := lint.All(folder, nil, "kube-system", false)
	if len(linter.Messages) == 0 {
		t.Error("the linter has not even missed an icon: has it looked?")
	}
	for _, message := range linter.Messages {
		if message.Severity >= support.WarningSev {
			t.Error(message)
		}
	}
}

func TestObjectsThatAreMade(t *testing.T) {
	base := []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"}
	if made := kinds(render(t, "")); !slices.Equal(made, base) {
		t.Errorf("without values: %v", made)
	}
	watched := `
config: {metrics-address: "0.0.0.0:10249"}
metrics: {service: {enabled: true}, podMonitor: {enabled: true, labels: {release: prometheus}}}
`
	objects := render(t, watched)
	if made := kinds(objects); !slices.Equal(made, []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet",
		"PodMonitor", "Service", "ServiceAccount"}) {
		t.Errorf("with metrics: %v", made)
	}
	var service corev1.Service
	objects.into(t, "Service", &service)
	var set appsv1.DaemonSet
	objects.into(t, "DaemonSet", &set)
	ports := set.Spec.Template.Spec.Containers[0].Ports
	if len(ports) != 1 || ports[0].ContainerPort != 10249 || service.Spec.Ports[0].TargetPort.StrVal != ports[0].Name {
		t.Errorf("the Service leads to %v, the container has %v", service.Spec.Ports, ports)
	}
	for selector, labels := range map[string]map[string]string{"Service": service.Spec.Selector,
		"DaemonSet": set.Spec.Selector.MatchLabels} {
		for label, value := range labels {
			if set.Spec.Template.Labels[label] != value {
				t.Errorf("%s selects %s=%s, which the pods do not have", selector, label, value)
			}
		}
	}
}

// What agent/kube asks for, and no more: kube-proxy's rights, less what it does not use, with Events as it writes them.
func TestTheAgentMayDoWhatItDoesAndNothingElse(t *testing.T) {
	objects := render(t, "")
	var role rbacv1.ClusterRole
	objects.into(t, "ClusterRole", &role)
	follow := []string{"list", "watch"}
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services", "nodes"}, Verbs: follow},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: follow},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: follow},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create"}},
	}
	if !reflect.DeepEqual(role.Rules, want) {
		t.Errorf("rules: %v", role.Rules)
	}
	var binding rbacv1.ClusterRoleBinding
	objects.into(t, "ClusterRoleBinding", &binding)
	var set appsv1.DaemonSet
	objects.into(t, "DaemonSet", &set)
	subject := rbacv1.Subject{Kind: "ServiceAccount", Name: set.Spec.Template.Spec.ServiceAccountName, Namespace: set.Namespace}
	if !slices.Contains(binding.Subjects, subject) || binding.RoleRef.Name != role.Name {
		t.Errorf("the agent's account %v is not bound to the role: %v", subject, binding)
	}
}

func TestTheAgentRunsWithTheLeastPrivilege(t *testing.T) {
	pod := daemonSet(t, "").Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.InitContainers) != 1 || len(pod.Containers) != 1 {
		t.Errorf("pod: %+v", pod)
	}
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		rights := container.SecurityContext
		want := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
		if container.Name == "agent" {
			want.Add = []corev1.Capability{"BPF", "NET_ADMIN", "PERFMON"}
		}
		if !reflect.DeepEqual(rights.Capabilities, want) {
			t.Errorf("%s: capabilities: %v", container.Name, rights.Capabilities)
		}
		if *rights.Privileged || *rights.AllowPrivilegeEscalation || !*rights.ReadOnlyRootFilesystem ||
			rights.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: security context: %v", container.Name, rights)
		}
	}
}

func TestTheAgentRunsOnEveryNodeAndFirst(t *testing.T) {
	pod := daemonSet(t, "nodeSelector: {thruway: \"yes\"}").Spec.Template.Spec
	if pod.PriorityClassName != "system-node-critical" {
		t.Errorf("priority class: %s", pod.PriorityClassName)
	}
	if len(pod.Tolerations) != 1 || pod.Tolerations[0] != (corev1.Toleration{Operator: corev1.TolerationOpExists}) {
		t.Errorf("tolerations: %v", pod.Tolerations)
	}
	if want := map[string]string{"kubernetes.io/os": "linux", "thruway": "yes"}; !reflect.DeepEqual(pod.NodeSelector, want) {
		t.Errorf("node selector: %v", pod.NodeSelector)
	}
}

func TestProbesFollowTheHealthAddress(t *testing.T) {
	for address, want := range map[string]struct {
		host string
		port int
	}{
		"0.0.0.0:10256":    {"", 10256},
		"[::]:10257":       {"", 10257},
		"127.0.0.1:20256":  {"127.0.0.1", 20256},
		"[fd00::1]:10256":  {"fd00::1", 10256},
		"192.0.2.10:10256": {"192.0.2.10", 10256},
	} {
		agent := daemonSet(t, `config: {health-address: "`+address+`"}`).Spec.Template.Spec.Containers[0]
		for path, probe := range map[string]*corev1.Probe{"/livez": agent.LivenessProbe, "/healthz": agent.ReadinessProbe} {
			if get := probe.HTTPGet; get.Path != path || get.Host != want.host || get.Port.IntValue() != want.port {
				t.Errorf("%s: %v", address, get)
			}
		}
	}
}

func TestOtherSettingsMakeOtherPods(t *testing.T) {
	const annotation = "checksum/config"
	before := daemonSet(t, "").Spec.Template.Annotations[annotation]
	for _, text := range []string{"config: {sock: all}", "apiServer: [https://10.0.0.1:6443]"} {
		if after := daemonSet(t, text).Spec.Template.Annotations[annotation]; after == before || after == "" {
			t.Errorf("%s: the checksum is %q, as before", text, after)
		}
	}
	if same := daemonSet(t, "image: {tag: other}").Spec.Template.Annotations[annotation]; same != before {
		t.Errorf("the image's tag is no setting of the agent, but changes their checksum")
	}
}

// asGiven is how the kubelet would start the agent, with its configuration file at `path`.
func asGiven(set appsv1.DaemonSet, path string) []string {
	var given []string
	for _, argument := range set.Spec.Template.Spec.Containers[0].Args {
		argument = strings.ReplaceAll(argument, "$(NODE_NAME)", "worker-1")
		given = append(given, strings.ReplaceAll(argument, "/etc/thruway/config.yaml", path))
	}
	return given
}

func check(t *testing.T, text string) (string, error) {
	t.Helper()
	objects := render(t, text)
	var config corev1.ConfigMap
	objects.into(t, "ConfigMap", &config)
	var set appsv1.DaemonSet
	objects.into(t, "DaemonSet", &set)
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(config.Data["config.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(agent, append(asGiven(set, path), "--check")...).CombinedOutput()
	return string(said), err
}

const everything = `
apiServer: ["https://10.0.0.1:6443", "https://[fd00::1]:6443"]
config:
  uplink: [eth0, eth1]
  sock: all
  xdp: native
  node-port-addresses: [primary]
  localhost-node-ports: true
  metrics-address: 0.0.0.0:10249
  health-address: "[::]:10256"
  log-level: debug
  sizes: {services: 1000, frontends: 1000, backends: 1000, slots: 1000, endpoints: 100, nexthops: 1000, nodes: 1000,
    node-addresses: 100, flows: 65536}
  timeouts: {tcp-established: 3600, tcp-half-open: 30, tcp-closing: 10, udp-one-way: 10, udp-two-way: 60, icmp: 10,
    adopt: 0}
`

func TestTheAgentTakesTheConfigurationAndTheArguments(t *testing.T) {
	for _, text := range []string{"", "config: {sock: \"off\"}", everything} {
		if said, err := check(t, text); err != nil {
			t.Errorf("%s: %v: %s", text, err, said)
		}
	}
	said, err := check(t, "config: {sizes: {flows: 1000}}")
	if err == nil || !strings.Contains(said, "sizes.flows: must be a power of two") {
		t.Errorf("1000 flows: %v: %s", err, said)
	}
}

func TestWrongValuesAreRefusedByName(t *testing.T) {
	for text, want := range map[string]string{
		"imge: {tag: x}":                       "'imge' not allowed",
		"image: {tags: x}":                     "'tags' not allowed",
		"image: {pullPolicy: Sometimes}":       "'/image/pullPolicy'",
		"apiServer: 10.0.0.1":                  "'/apiServer'",
		"apiServer: [10.0.0.1:6443]":           "'/apiServer/0'",
		"config: {sock: pods}":                 "'/config/sock'",
		"config: {sockk: all}":                 "'sockk' not allowed",
		"config: {run-dir: /tmp}":              "'run-dir' not allowed",
		"config: {sizes: {flows: many}}":       "'/config/sizes/flows'",
		"config: {health-address: 10.0.0.1}":   "'/config/health-address'",
		"maxUnavailable: none":                 "'/maxUnavailable'",
		"maxUnavailable: 0":                    "'/maxUnavailable'",
		"resources: {memory: 1Gi}":             "'memory' not allowed",
		"nodeSelector: {thruway: true}":        "'/nodeSelector/thruway'",
		"metrics: {service: {enabled: maybe}}": "'/metrics/service/enabled'",
		"metrics: {service: {enabled: true}}":  "set it to 0.0.0.0:10249",
		`{config: {metrics-address: "[::1]:1"}, metrics: {podMonitor: {enabled: true}}}`: "which nobody but the node itself reaches",
	} {
		_, err := Render(Options{Folder: folder, Namespace: "kube-system", Values: values(t, text)})
		if err == nil {
			t.Errorf("%s: is taken", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: is refused without %q: %v", text, want, err)
		}
	}
}

// Every key of values.yaml has a comment, right before it or before the key that it is in, and a place in the schema.
func TestEveryValueIsDocumentedAndInTheSchema(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(folder, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	schema := schemaOf(t)
	var path []string // of keys, by indentation
	documented := map[int]bool{}
	commented := false
	key := regexp.MustCompile(`^( *)([A-Za-z]+):(.*)$`)
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			commented = true
			continue
		}
		found := key.FindStringSubmatch(line)
		if found == nil {
			commented = false
			continue
		}
		depth := len(found[1]) / 2
		path = append(path[:depth], found[2])
		documented[depth] = commented || depth > 0 && documented[depth-1]
		if found[3] != "" && !documented[depth] {
			t.Errorf("%s: is not documented", strings.Join(path, "."))
		}
		if !inSchema(schema, path) {
			t.Errorf("%s: is not in the schema", strings.Join(path, "."))
		}
		commented = false
	}
}

type properties struct {
	Properties           map[string]properties `json:"properties"`
	AdditionalProperties any                   `json:"additionalProperties"`
}

func schemaOf(t *testing.T) properties {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema properties
	if err := yaml.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func inSchema(schema properties, path []string) bool {
	for _, key := range path {
		below, named := schema.Properties[key]
		if !named {
			return schema.AdditionalProperties != false
		}
		schema = below
	}
	return true
}

// The agent's settings change; the schema is to follow.
func TestTheSchemaKnowsEverySettingOfTheAgent(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	ofTheChart := []string{"node", "source", "kubeconfig", "api-server", "run-dir", "bpffs", "cgroup"}
	settings, _, _ := strings.Cut(string(text), "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `([a-z.-]+)` \\|").FindAllStringSubmatch(settings, -1)
	if len(rows) < 30 {
		t.Fatalf("docs/configuration.md has %d settings only: is it read right?", len(rows))
	}
	config := schemaOf(t).Properties["config"]
	for _, row := range rows {
		if slices.Contains(ofTheChart, row[1]) == inSchema(config, strings.Split(row[1], ".")) {
			t.Errorf("%s: must be in the schema, or be set by the chart itself", row[1])
		}
	}
}
