// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const (
	home          = "client" // the namespace in which the control plane lives: the lab's client, outside of the cluster
	serverAddress = "172.21.0.2"
	serverURL     = "https://" + serverAddress + ":6443"
	etcdAddress   = "127.0.0.1:2379"
	serviceCIDRs  = "10.96.0.0/16,fd00:96::/112"
	apiServiceIP  = "10.96.0.1" // of the Service `kubernetes`
)

// controlPlane is etcd, an API server with RBAC, and controllers: the real ones, each a process of its own.
type controlPlane struct {
	lab         *lab
	authority   *authority
	etcd        *component
	apiServer   *component
	controllers *component
}

// The node controller is there for what it says of nodes, and must not wait for kubelets that do not exist.
var controllers = []string{
	"endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller", "namespace-controller",
	"node-lifecycle-controller", "serviceaccount-controller", "serviceaccount-token-controller",
}

func startControlPlane(l *lab) *controlPlane {
	c := &controlPlane{lab: l, authority: newAuthority(l.t)}
	must(l.t, os.Mkdir(l.folder("control-plane"), 0o700))
	c.write("ca.crt", c.authority.pem)
	c.renewServing()
	c.write("service-accounts.key", keyPEM(l.t, newKey(l.t)))
	c.writeKubeconfig(c.file("controllers.kubeconfig"), c.authority.user("system:kube-controller-manager"), "")

	c.etcd = c.component(home, "etcd", "--data-dir", c.file("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://"+etcdAddress, "--advertise-client-urls", "http://"+etcdAddress,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "warn")
	c.apiServer = c.component(home, "kube-apiserver", "--etcd-servers", "http://"+etcdAddress,
		"--bind-address", serverAddress, "--advertise-address", serverAddress,
		"--client-ca-file", c.file("ca.crt"),
		"--tls-cert-file", c.file("serving.crt"), "--tls-private-key-file", c.file("serving.key"),
		"--authorization-mode", "RBAC", "--service-cluster-ip-range", serviceCIDRs,
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.file("service-accounts.key"),
		"--service-account-signing-key-file", c.file("service-accounts.key"))
	c.controllers = c.component(home, "kube-controller-manager", "--kubeconfig", c.file("controllers.kubeconfig"),
		"--controllers", join(controllers), "--use-service-account-credentials", "--leader-elect=false",
		"--secure-port", "0", "--node-monitor-grace-period", "24h",
		"--root-ca-file", c.file("ca.crt"), "--service-account-private-key-file", c.file("service-accounts.key"))

	c.etcd.start()
	c.apiServer.start()
	c.waitReady()
	c.controllers.start()
	return c
}

func (c *controlPlane) file(name string) string { return c.lab.folder("control-plane", name) }

// write puts a file in the place of an older one in one step: the API server follows some of them.
func (c *controlPlane) write(name string, content []byte) {
	fresh := c.file("." + name)
	must(c.lab.t, os.WriteFile(fresh, content, 0o600))
	must(c.lab.t, os.Rename(fresh, c.file(name)))
}

// renewServing gives the API server another certificate of the same authority.
func (c *controlPlane) renewServing() keyPair {
	pair := c.authority.serving("kubernetes", serverAddress, apiServiceIP)
	c.write("serving.key", pair.key)
	c.write("serving.crt", pair.certificate)
	return pair
}

// writeKubeconfig makes one for whoever has the certificate, or the token.
func (c *controlPlane) writeKubeconfig(path string, who keyPair, token string) {
	config := api.NewConfig()
	config.Clusters["lab"] = &api.Cluster{Server: serverURL, CertificateAuthorityData: c.authority.pem}
	config.AuthInfos["user"] = &api.AuthInfo{
		ClientCertificateData: who.certificate, ClientKeyData: who.key, Token: token}
	config.Contexts["lab"] = &api.Context{Cluster: "lab", AuthInfo: "user"}
	config.CurrentContext = "lab"
	must(c.lab.t, clientcmd.WriteToFile(*config, path))
}

// config is what clients of the tests use: they may do everything.
func (c *controlPlane) config() *rest.Config {
	admin := c.authority.user("admin", "system:masters")
	return &rest.Config{
		Host: serverURL,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.authority.pem, CertData: admin.certificate, KeyData: admin.key},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.lab.dial(ctx, home, network, address)
		},
		QPS:     -1,
		Timeout: 10 * time.Second,
	}
}

func (c *controlPlane) waitReady() {
	c.lab.t.Helper()
	client, err := kubernetes.NewForConfig(c.config())
	must(c.lab.t, err)
	eventually(c.lab.t, 3*time.Minute, "the API server is ready", func() error {
		c.apiServer.check()
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
	})
}

// compact takes all history out of etcd: whoever has seen an older version has to list again.
func (c *controlPlane) compact() {
	t := c.lab.t
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"http://" + etcdAddress},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return c.lab.dial(ctx, home, "tcp", etcdAddress)
		})},
	})
	must(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	now, err := client.Get(ctx, "anything")
	must(t, err)
	_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	must(t, err)
}

// component is a process of the control plane, or a kube-proxy.
type component struct {
	lab     *lab
	name    string
	argv    []string
	log     string
	process *os.Process
	ended   chan struct{} // closed when the process has ended
}

func (c *controlPlane) component(place, name string, arguments ...string) *component {
	component := &component{lab: c.lab, name: name, log: c.file(name + "-" + place + ".log")}
	component.argv = append([]string{"--net=" + c.lab.netns(place), c.lab.program("control-plane"), name}, arguments...)
	return component
}

// start starts it in its network namespace. It ends with the test, and also when the test is killed.
func (c *component) start() {
	log, err := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(c.lab.t, err)
	defer log.Close()
	process := exec.Command("nsenter", c.argv...) // which becomes what it starts
	process.Dir = filepath.Dir(c.log)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(c.lab.t, process.Start())
	ended := make(chan struct{})
	c.process, c.ended = process.Process, ended
	go func() {
		process.Wait()
		close(ended)
	}()
	c.lab.t.Cleanup(func() {
		process.Process.Kill()
		<-ended
		if c.lab.t.Failed() {
			c.lab.t.Logf("the log of %s ends:\n%s", c.name, logEnd(c.log, 20))
		}
	})
}

func (c *component) kill() {
	c.signal(syscall.SIGKILL)
	<-c.ended
}

func (c *component) signal(signal syscall.Signal) { must(c.lab.t, c.process.Signal(signal)) }

// check fails if it has ended by itself.
func (c *component) check() {
	c.lab.t.Helper()
	select {
	case <-c.ended:
		c.lab.t.Fatalf("%s has ended: %s", c.name, logEnd(c.log, 1))
	default:
	}
}
